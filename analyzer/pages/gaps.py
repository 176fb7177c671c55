"""Where pass@k or the scored numbers of the key tables rest on fewer problems than are compared, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analyzer.analysis.basis import COMMON, OWN, PAIR

# what the numbers are called, in short and in a sentence; what their problems have, as a verb and as an adjective; and
# columns of the table: problems of the row, their basis, problems of the source
KINDS = (
    ("pass@k", "pass@k is", "has labels", "with labels", "problems", "solved_basis", "labelled"),
    (
        "scored numbers",
        "the scored numbers are",
        "is scored",
        "scored",
        "problems_scored",
        "scored_basis",
        "own_scored",
    ),
)


class Gap(NamedTuple):
    """clause: in a few words, "pass@k on 5". sentence: the same on a page. lacking: which sources lack how much."""

    clause: str
    sentence: str
    lacking: str


def in_pairs(data: Mapping[str, Any]) -> bool:
    """Whether no problem is in all sources, so that each is compared with the reference on other ones."""
    return any(s.get("compared", {}).get("basis") == PAIR for s in data["sources"].values())


def found(rows: Sequence[Mapping[str, Any]]) -> list[Gap]:
    """The gaps in the rows of the analysis `compared`; none where all that is compared has labels and scores, or where
    no source has any. A source that is compared with nothing has no part in it."""
    out = []
    for name, subject, has, have, problems, kind, of_source in KINDS:
        side = [r for r in rows if r["basis"] != OWN and r[kind]]
        if not any(r[problems] < r["compared"] for r in side):
            continue
        some = {r["source"]: (r[of_source], r["own_problems"]) for r in side if r[of_source] < r["own_problems"]}
        lacking = f"{have}: " + ", ".join(f"{s} {n:,} of {of:,} problems" for s, (n, of) in some.items())
        each = ", ".join(f"{r['row']} {r[problems]:,} of {r['compared']:,}" for r in side)
        common, sizes = all(r[kind] == COMMON for r in side), {(r[problems], r["compared"]) for r in side}
        n, of = next(iter(sizes))
        if not common:
            sentence = f"No problem {has} in all sources: {subject} over different problems in each row ({each};"
        elif len(sizes) == 1:
            sentence = f"{subject} over {n:,} of the {of:,} alone: those {have} in every source that has any ("
        else:
            sentence = f"{subject} over the problems {have} in both sources of a pair ({each};"
        sentence = f"{sentence} {lacking}).".replace("( ", "(").replace("the scored", "The scored", common)
        out.append(Gap(f"{name} on {f'{n:,}' if common and len(sizes) == 1 else 'fewer'}", sentence, lacking))
    return out
