"""The key numbers anew over the problems that are compared, where the sources do not all have the same.

The analyses take all traces of a source, as its word does; side by side in one table their numbers would be over
different problems. One group for all sources that share problems; where no problem is in all, one for each pair with
the reference. A source that shares none keeps its own problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analyzer import basis
from analyzer.analyses import boundary, perplexity, support, variations
from analyzer.errors import UsageError
from analyzer.records import Estimate, Result, Tables
from analyzer.stats.bootstrap import DRAWS
from analyzer.summaries import last_steps

QUESTION = "What are the key numbers over the problems that are compared?"
FIGURES: dict[str, Any] = {}
MODULES = {"perplexity": perplexity, "support": support, "boundary": boundary}
COUNTS = ("problems", "traces", "correct", "problems_scored", "scored", "tokens")


def chosen(traces: pd.DataFrame, reference: str) -> basis.Basis:
    """On which problems the sources of `traces` (columns source, problem, step) are set side by side."""
    return basis.choose(traces.groupby("source", sort=False)["problem"].agg(set).to_dict(), reference)


def run(
    tables: Tables, results: Mapping[str, Result], *, budget: int = 64, seed: int = 0, draws: int = DRAWS
) -> Result:
    """`results`: those of the run, whose numbers a source that shares nothing keeps.

    Estimates: those of MODULES, `<row>.<name>`, for the rows of the table `rows` (row, source, `on`: the problems in
    words, and the counts behind them: problems, traces and correct ones with a label; problems, traces and tokens
    scored). Raises UsageError where every source has the same problems: the numbers of the analyses are that already.
    """
    whole = variations.last(tables)
    found = chosen(whole.traces, tables.reference)
    own = whole.traces.groupby("source")["problem"].nunique()
    if all(len(p) == own[s] and found.kind[s] == basis.COMMON for s, p in found.problems.items()):
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
        part = variations.kept(
            whole, (whole.traces["source"].isin(sources) & whole.traces["problem"].isin(problems)).to_numpy(bool)
        )
        made = {}
        for name, module in MODULES.items():
            try:
                made[name] = module.run(replace(part), budget=budget, seed=seed, draws=draws)
            except UsageError:  # no model, no labels: the run's own analyses say so
                continue
        for s in sources:
            _add(made, s, on if s == reference else "", rows, estimates)
    for s in tables.sources:
        if found.kind[s] == basis.OWN:
            _add({n: results[n] for n in MODULES if n in results}, s, "on its own problems", rows, estimates)
    place = {s: i for i, s in enumerate(tables.sources)}
    if common:  # the sources in the order of the page; pairs stay side by side
        rows.sort(key=lambda r: place[r["source"]])
    params = {"reference": reference, "budget": budget, "draws": draws}
    frame = pd.DataFrame(rows).astype(dict.fromkeys(COUNTS, "Int64"))
    return Result("compared", QUESTION, estimates, {"rows": frame}, (), params, seed)


def _add(
    made: Mapping[str, Result], source: str, on: str, rows: list[dict[str, Any]], estimates: dict[str, Estimate]
) -> None:
    """The row of one source and its estimates, from the analyses of its group."""
    row = f"{source} ({on})" if on else source
    counts: dict[str, Any] = dict.fromkeys(COUNTS)
    if "boundary" in made:
        accuracy = last_steps(made["boundary"].tables["accuracy"].astype({"step": "Int64"}))
        mine = accuracy[accuracy["source"] == source].iloc[0]
        counts |= {"problems": int(mine["problems_joined"]), "traces": int(mine["rows_joined"])}
        counts["correct"] = int(mine["correct_joined"]) if mine["rows_joined"] else None
        if not mine["rows_joined"]:
            counts |= {"problems": int(mine["problems"]), "traces": int(mine["rows"])}
    scored = made["perplexity"].tables["sources"] if "perplexity" in made else pd.DataFrame({"source": []})
    if (scored["source"] == source).any():
        mine = scored[scored["source"] == source].iloc[0]
        counts |= {"problems_scored": int(mine["problems"]), "scored": int(mine["n"]), "tokens": int(mine["tokens"])}
    rows.append({"row": row, "source": source, "on": on, **counts})
    for result in made.values():
        for key, e in result.estimates.items():
            if key.startswith(f"{source}."):
                estimates.setdefault(f"{row}.{key[len(source) + 1 :]}", e)
