"""index.html: one file that opens from disk with the network off, drawn from a document by the templates.

The policy of the page allows one script, by its hash; only a report too large for one file may also load its own packs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from analyzer.pages import parts, render
from analyzer.pages.document import shortened
from analyzer.pages.embed import Embedded

ASSETS = ("core.js", "data.js", "plot.js", "views.js", "tree.js", "viewer.js")
DOUBTS = {True: "⚠", False: "✓", None: "–"}  # None: not all of it could be checked
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'{}; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


def page(document: Mapping[str, Any], *, embedded: Embedded | None = None, beside: bool = False) -> str:
    """The whole file. embedded: the traces of the viewer, or None; `beside` says that their packs are files in the
    folder data."""
    packs = {} if embedded is None else {"index": embedded.index}
    if embedded is not None and not beside:
        packs |= {f"t{i}": text for i, text in enumerate(embedded.packs)}
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    values = {"d": document, "title": document["title"], "packs": packs.items(), "code": script(), "DOUBTS": DOUBTS}
    values |= {"svg": parts.svg, "packed": parts.packed, "shortened": shortened}
    values |= {"ROWS": parts.ROWS, "INLINE": parts.INLINE, "SORT": parts.SORT}
    return render.page("page.html", POLICY.format(digest, " 'self'" if beside else ""), values)


@cache
def script() -> str:
    """The one script of the page: the files of assets/ inside one function, without comments and indents."""
    return '"use strict";(() => {\n' + "".join(map(render.plain, ASSETS)) + "})();\n"
