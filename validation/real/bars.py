"""What the reports must say of the sources, and whether they do: the table at the end.

A bar is the set of words that are right for a source at a level, from how it was made or, where log q is known, from
its exact numbers by the definitions (`lengths.allowed`). `missed`: another word. `wrong`: another word that claims
something; `undetermined` claims nothing.
"""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from analyzer.records import LEVELS
from analyzer.runs.disk import write_atomically
from validation import lengths
from validation.real.sources import MISLABELLED, PAIR, Size

EXACT = "by its exact numbers"
NOT_OUTSIDE = frozenset(("inside", "undetermined"))
METHOD = ("skeleton", "steps", "kinds")
OWN = {"sequence": frozenset(("inside",)), **dict.fromkeys(LEVELS[1:], NOT_OUTSIDE)}
# source -> level -> the words that are right there
BARS: dict[str, dict[str, Any]] = {
    "base-again": OWN,
    PAIR[1]: OWN,
    "cool": {"sequence": frozenset(("sharpened", "inside"))},
    "rlvr": {"sequence": EXACT},
    "restyle": {"sequence": EXACT, **dict.fromkeys(METHOD, NOT_OUTSIDE)},
    "distill": {"sequence": frozenset(("outside",))},
    "noise": {"sequence": frozenset(("outside",))},
    "language": {"sequence": frozenset(("outside", "undetermined")), **dict.fromkeys(LEVELS[1:], NOT_OUTSIDE)},
    MISLABELLED: dict.fromkeys(LEVELS, frozenset(("undetermined",))),
}
REFUSED = "no verdict: a check before the tests failed"
ROWS = 150  # a table of more is no summary, and is not published
SHOWN = 240  # characters of a reason


class Line(NamedTuple):
    """One bar: its source and level, the word that came out, those that are right, and the first reason."""

    source: str
    level: str
    word: str
    right: frozenset[str]
    why: str

    @property
    def passed(self) -> bool:
        return self.word in self.right and (self.source != MISLABELLED or self.why.startswith(REFUSED))

    @property
    def wrong(self) -> bool:
        return self.word != "undetermined" and self.word not in self.right


def lines(main: dict[str, Any], pair: dict[str, Any]) -> list[Line]:
    """The bars of two results.json."""
    found = []
    for data in (main, pair):
        table = data["analyses"]["support"]["tables"]["evidence"]
        rows = [dict(zip(table["columns"], row)) for row in table["rows"]]
        numbers = {row["source"]: {k: math.nan if v is None else v for k, v in row.items()} for row in rows}
        for verdict in data["verdicts"]:
            source, level = verdict["source"], verdict["level"]
            right = BARS.get(source, {}).get(level)
            if right is not None:
                right = frozenset(lengths.allowed(numbers[source])) if right == EXACT else right
                found.append(Line(source, level, verdict["verdict"], right, verdict["why"][0]))
    order = list(BARS)
    return sorted(found, key=lambda line: (order.index(line.source), LEVELS.index(line.level)))


def page(found: list[Line], size: Size, times: list[str]) -> str:
    """The table in Markdown."""
    missed, wrong = sum(not line.passed for line in found), sum(line.wrong for line in found)
    missing = sorted(set(BARS) - {line.source for line in found})
    text = ["# SmolLM2-135M-Instruct", ""]
    text += [f"{len(found)} bars, {missed} missed; {wrong} wrong words" + "".join(f"; {s} is missing" for s in missing)]
    text += ["", f"`python -m validation.real`: {', '.join(f'{k} {v}' for k, v in size._asdict().items())}.", ""]
    text += ["| source | level | word | right | bar | first reason |", "|---|---|---|---|---|---|"]
    for line in found:
        bar = "pass" if line.passed else "wrong" if line.wrong else "missed"
        why = re.sub(r"([|*\\])", r"\\\1", " ".join(line.why[:SHOWN].split())) + "…" * (len(line.why) > SHOWN)
        cells = (line.source, line.level, line.word, " or ".join(sorted(line.right)), bar, why)
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join([*text, "", "Wall time: " + "; ".join(times) + ".", ""])


def publish(folder: Path, out: Path, size: Size, times: list[str]) -> list[Line]:
    """Write into `out` what is committed of a run: bars.md, report.md, results.json without its long tables, and the
    figure over prefixes. Returns the bars."""
    main, pair = (orjson.loads((folder / name / "results.json").read_bytes()) for name in ("report", "pair"))
    found = lines(main, pair)
    out.mkdir(parents=True, exist_ok=True)
    for analysis in main["analyses"].values():
        analysis["tables"] = {k: t for k, t in analysis["tables"].items() if len(t["rows"]) <= ROWS}
    write_atomically(out / "results.json", orjson.dumps(main))
    kept = ["support-prefix.svg", "support-prefix.csv"]
    (out / "figures").mkdir(exist_ok=True)
    for name in kept:
        if (folder / "report" / "figures" / name).is_file():  # a run may have nothing to draw there
            shutil.copy(folder / "report" / "figures" / name, out / "figures" / name)
    text = without_links((folder / "report" / "report.md").read_text(encoding="utf-8"), kept)
    write_atomically(out / "report.md", text.encode())
    write_atomically(out / "bars.md", page(found, size, times).encode())
    return found


def without_links(text: str, kept: list[str]) -> str:
    """A report's Markdown without pictures of, and with plain names instead of links to, files that are not kept."""

    def plain(link: re.Match) -> str:
        return link[0] if Path(link[3]).name in kept else "" if link[1] else link[2]

    return re.sub(r"(!?)\[((?:[^\]\\]|\\.)*)\]\(((?:figures|tables)/[^)]+|index\.html[^)]*)\)", plain, text)
