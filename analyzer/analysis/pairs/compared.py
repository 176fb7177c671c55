"""The key numbers computed again over the problems that are compared, where the sources do not all have the same.

The analyses take all traces of a source, as its word does; side by side in one table their numbers would be over
different problems. One group for all sources that share problems; where no problem is in all, one for each pair with
the reference. A source that shares none keeps its own problems. Within a group, what the base model says is over the
problems scored in all its sources that were scored, and pass@k over those with labels in all that have any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyzer.analysis import basis, variations
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.data.summaries import last_steps
from analyzer.analysis.perplexity import run as perplexity
from analyzer.analysis.support import run as support
from analyzer.errors import UsageError
from analyzer.records import BUDGET, Estimate, Result, Tables
from analyzer.stats.bootstrap import DRAWS

QUESTION = "What are the key numbers over the problems that are compared?"
FIGURES: dict[str, Any] = {}
MODULES = {"perplexity": perplexity, "support": support, "boundary": boundary}
SCORED = ("perplexity", "support")  # of MODULES: over the problems that are scored in all
COUNTS = ("problems", "traces", "correct", "problems_scored", "scored", "tokens")


def chosen(traces: pd.DataFrame, reference: str) -> basis.Basis:
    """On which problems the sources of `traces` (columns source, problem, step) are set side by side."""
    return basis.choose(traces.groupby("source", sort=False)["problem"].agg(set).to_dict(), reference)


def run(
    tables: Tables, results: Mapping[str, Result], *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS
) -> Result:
    """`results`: those of the run, whose numbers a source that shares nothing keeps.

    Estimates: those of MODULES, `<row>.<name>`, for the rows of the table `rows` (row, source, `on`: the problems in
    words, and the counts behind them: problems, traces and correct ones with a label; problems, traces and tokens
    scored; `basis`: the kind of the source's; `compared`: the problems that the row is compared on, of which pass@k and
    the scored numbers may have fewer; `solved_basis`, `scored_basis`: their kind within these, "" where there are none;
    `own_problems`, `labelled` and `own_scored`: all problems of the source, those with a label, those scored).
    Raises UsageError where every source has the same problems, labelled and scored: the numbers of the analyses are
    that already.
    """
    whole = variations.last(tables)
    found = chosen(whole.traces, tables.reference)
    own = {s: _problems(whole.traces, s) for s in tables.sources}
    known = whole.traces[whole.traces["correct"].notna()]
    under = whole.scores
    under = under[(under["model"] == tables.base) & under["nll_mean"].notna()] if tables.base else under.iloc[:0]
    labelled, scored = ({s: _problems(f, s) for s in tables.sources} for f in (known, under))
    same = all(len(p) == len(own[s]) and found.kind[s] == basis.COMMON for s, p in found.problems.items())
    if same and not any(0 < len(seen[s]) < len(own[s]) for seen in (labelled, scored) for s in own):
        raise UsageError("every source has the same problems: its numbers are over these already")
    estimates: dict[str, Estimate] = {}
    rows: list[dict[str, Any]] = []
    reference, pairs = tables.reference, [s for s, kind in found.kind.items() if kind == basis.PAIR]
    common = [s for s in tables.sources if found.kind[s] == basis.COMMON and found.problems[s]]
    groups = [(common, "")] if common else []
    groups += [([reference, s], f"on the problems of {s}") for s in pairs if s != reference and reference in pairs]
    groups += [(pairs, "")] if pairs and reference not in pairs else []
    for sources, on in groups:
        problems = set.intersection(*(found.problems[s] for s in sources))
        both = [problems & scored[s] for s in sources if problems & scored[s]]
        of_all = set.intersection(*both) if both else set()
        kinds = (len(problems), basis.COMMON if of_all else basis.OWN)
        made = {}
        for name, module in MODULES.items():
            wanted = (of_all or problems) if name in SCORED else problems
            part = _part(whole, sources, wanted)
            if name in results and len(part.traces) == len(whole.traces):
                made[name] = results[name]
                continue
            try:
                made[name] = module.run(part, budget=budget, seed=seed, draws=draws)
            except UsageError:  # no model, no labels: the run's own analyses say so
                continue
        for s in sources:
            _add(made, s, on if s == reference else "", kinds, rows, estimates)
    for s in tables.sources:
        if found.kind[s] == basis.OWN:
            mine = {n: results[n] for n in MODULES if n in results}
            _add(mine, s, "on its own problems", (len(own[s]), basis.OWN), rows, estimates)
    for row in rows:
        s = row["source"]
        row |= {
            "basis": found.kind[s],
            "own_problems": len(own[s]),
            "labelled": len(labelled[s]),
            "own_scored": len(scored[s]),
        }
    place = {s: i for i, s in enumerate(tables.sources)}
    if common:  # the sources in the order of the page; pairs stay side by side
        rows.sort(key=lambda r: place[r["source"]])
    params = {"reference": reference, "budget": budget, "draws": draws}
    frame = pd.DataFrame(rows).astype(dict.fromkeys(COUNTS, "Int64"))
    return Result("compared", QUESTION, estimates, {"rows": frame}, (), params, seed)


def _problems(frame: pd.DataFrame, source: str) -> set[str]:
    return set(frame["problem"][frame["source"] == source])


def _part(whole: Tables, sources: Sequence[str], problems: set[str]) -> Tables:
    mine = whole.traces["source"].isin(sources) & whole.traces["problem"].isin(problems)
    return variations.kept(whole, mine.to_numpy(bool))


def _add(
    made: Mapping[str, Result],
    source: str,
    on: str,
    kinds: tuple[int, str],
    rows: list[dict[str, Any]],
    estimates: dict[str, Estimate],
) -> None:
    """The row of one source and its estimates, from the analyses of its group; kinds: the problems that the group is
    compared on and the kind of basis of its scored numbers."""
    row = f"{source} ({on})" if on else source
    counts: dict[str, Any] = dict.fromkeys(COUNTS) | {"compared": kinds[0], "solved_basis": "", "scored_basis": ""}
    if "boundary" in made:
        accuracy = last_steps(made["boundary"].tables["accuracy"].astype({"step": "Int64"}))
        mine = accuracy[accuracy["source"] == source].iloc[0]
        counts |= {"problems": int(mine["problems_joined"]), "traces": int(mine["rows_joined"])}
        counts["correct"] = int(mine["correct_joined"]) if mine["rows_joined"] else None
        counts["solved_basis"] = mine["basis"] if mine["rows_joined"] else ""
        if not mine["rows_joined"]:
            counts |= {"problems": int(mine["problems"]), "traces": int(mine["rows"])}
    scored = made["perplexity"].tables["sources"] if "perplexity" in made else pd.DataFrame({"source": []})
    if (scored["source"] == source).any():
        mine = scored[scored["source"] == source].iloc[0]
        counts |= {"problems_scored": int(mine["problems"]), "scored": int(mine["n"]), "tokens": int(mine["tokens"])}
        counts["scored_basis"] = kinds[1]
    rows.append({"row": row, "source": source, "on": on, **counts})
    for result in made.values():
        for key, e in result.estimates.items():
            if key.startswith(f"{source}."):
                estimates.setdefault(f"{row}.{key[len(source) + 1 :]}", e)
