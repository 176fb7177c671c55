"""One question per file: `run(tables, *, budget, seed) -> Result`, `draw(result, ax)`, `FIGURES`.

ANALYSES is in the order of the report. Adding an analysis is one file and one line here.
"""

from __future__ import annotations

from types import ModuleType

from analyzer.analyses import boundary, clusters, contained, perplexity, preflight, strategy, support, tokens

ANALYSES: dict[str, ModuleType] = {
    "preflight": preflight,
    "perplexity": perplexity,
    "support": support,
    "contained": contained,
    "strategy": strategy,
    "boundary": boundary,
    "clusters": clusters,
    "tokens": tokens,
}
