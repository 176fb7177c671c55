"""Two sources on the same problems, problem by problem: every pair for the report, one pair for `analyzer compare`.

Differences are a minus b within each problem, averaged over the problems that both have; bootstrap over problems. A
source with several training steps enters with its last one. Nothing here is a test of support.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analyses.paired_figures import FIGURES, draw_by_problem, mixed
from analyzer.errors import UsageError, nearest
from analyzer.records import Estimate, Result, Tables
from analyzer.stats import bootstrap
from analyzer.stats.bootstrap import DRAWS
from analyzer.summaries import last_steps

QUESTION = "How do two sources differ on the same problems?"
PAIRS = 10  # of sources without the reference that a report takes
BAND = (0.05, 0.95)  # of the reference's traces of a problem, by surprisal per token
LEAST = 8  # other traces of the reference that make a band
# measure -> unit, and the words for a difference above and below zero
MEASURES = {
    "pass_rate": ("share correct", "is right more often", "is right less often"),
    "n_tokens": ("tokens per trace", "is longer", "is shorter"),
    "nll_mean": ("nats per token", "surprises the base more", "surprises the base less"),
    "typical": ("share inside the band", "is more often typical of the reference", "is less often typical of it"),
}
SHARES = ("pass_rate", "typical")  # counts of traces, which have an interval by problem


def run(
    tables: Tables, *, a: str | None = None, b: str | None = None, budget: int = 64, seed: int = 0, draws: int = DRAWS
) -> Result:
    """Paired differences of sources by problem; `budget` plays no part.

    a, b: the one pair that is asked for. Without them: every source against the reference, then every pair of the
    others (the first PAIRS of them).
    Measures: `pass_rate`, `n_tokens` (the median trace of a problem, tokens of the base), `nll_mean` (likewise, nats
    per token under the base), `typical` (share of the traces between the 5 % and the 95 % point of the reference's own
    on the problem, by nll_mean; a trace of the reference is compared with the others).
    Estimates: `<a>-<b>.<measure>`, a minus b, over the problems where both have a value. Tables: pairs (what differs,
    in a sentence), differences (one row per pair and measure), problems (one row per pair and problem: values of both
    sides, and for the shares the interval of the difference within the problem, Newcombe's hybrid score).
    Raises UsageError for unknown labels, half a pair, or no two sources with a problem in common.
    """
    pairs, left = _pairs(tables, a, b)
    values = _by_problem(tables)
    estimates: dict[str, Estimate] = {}
    rows: list[dict[str, Any]] = []
    said, problems, apart = [], [], []
    for one, other in pairs:
        table = _joined(values, one, other)
        if table.empty:
            apart.append(f"{one} and {other}")
            continue
        problems.append(table)
        mine = []
        for name in MEASURES:
            row, found = _difference(table, one, other, name, draws=draws, seed=seed)
            key = f"{one}-{other}.{name}"
            # "a-b" against "c" and "a" against "b-c"
            estimates[key if key not in estimates else f"{one} - {other}.{name}"] = found
            mine.append(row)
        rows += mine
        said.append({"a": one, "b": other, "says": says(mine)})
    if not rows:
        raise UsageError(f"{apart[0]} have no problem in common" if apart else "there is one source: nothing to pair")
    frames = {"pairs": pd.DataFrame(said), "differences": pd.DataFrame(rows)}
    frames["problems"] = pd.concat(problems, ignore_index=True)
    params = {"reference": tables.reference, "draws": draws, "band": list(BAND), "pairs": len(problems)}
    name = "paired" if a is None else f"{a} against {b}"
    notes = _notes(frames, tables.reference, left, apart)
    return Result(name, QUESTION, estimates, frames, tuple(notes), params, seed)


def _pairs(tables: Tables, a: str | None, b: str | None) -> tuple[list[tuple[str, str]], int]:
    """The pairs to compare, and how many a report leaves out."""
    if (a is None) != (b is None):
        raise UsageError(f"a pair needs two sources; given: {a or b}")
    if a is not None and b is not None:
        for label in (a, b):
            if label not in tables.sources:
                raise UsageError(f"no source {label!r} in this run{nearest(label, tables.sources)}")
        return [(a, b)], 0
    others = [s for s in tables.sources if s != tables.reference]
    own = [(s, tables.reference) for s in others] if tables.reference in tables.sources else []
    among = list(combinations(others, 2))
    return own + among[:PAIRS], max(0, len(among) - PAIRS)


def _by_problem(tables: Tables) -> pd.DataFrame:
    """Index (source, problem); for each measure its value and, of a share, n and hits; NaN where it is not known."""
    traces = last_steps(tables.traces)
    out = traces.groupby(["source", "problem"]).size().rename("n").to_frame()
    known = traces[traces["correct"].notna()]
    out = _share(out, known.assign(hit=known["correct"].astype(float)), "pass_rate")
    scores = last_steps(tables.scores) if tables.base else tables.scores.iloc[:0]
    base = scores[scores["model"] == tables.base]
    for name in ("n_tokens", "nll_mean"):
        column = base[base[name].notna()] if len(base) else base
        out[name] = column.astype({name: float}).groupby(["source", "problem"])[name].median()
    return _share(out, _typical(base, tables.reference), "typical")


def _share(out: pd.DataFrame, traces: pd.DataFrame, name: str) -> pd.DataFrame:
    """Add the columns `name`, `name`.n and `name`.hits from the 0/1 column `hit`."""
    found = traces.groupby(["source", "problem"])["hit"].agg(["mean", "size", "sum"])
    found.columns = [name, f"{name}.n", f"{name}.hits"]
    return out.join(found)


def _typical(base: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Columns source, problem, hit: whether a trace's surprisal per token has a rank inside BAND among the reference's
    (other) traces of its problem; problems with fewer than LEAST of them are left out."""
    own = base[base["nll_mean"].notna()] if len(base) else base
    ranges = {p: np.sort(v.to_numpy(float)) for p, v in own[own["source"] == reference].groupby("problem")["nll_mean"]}
    parts = [pd.DataFrame({"source": [], "problem": [], "hit": []})]
    for (source, problem), values in own.groupby(["source", "problem"])["nll_mean"]:
        sorted_R, itself = ranges.get(problem, np.empty(0)), source == reference
        others = len(sorted_R) - itself
        if others < LEAST:
            continue
        x = values.to_numpy(float)
        below, upto = (np.searchsorted(sorted_R, x, side=side) for side in ("left", "right"))
        rank = (below + upto - itself) / 2 / others
        hit = ((rank >= BAND[0]) & (rank <= BAND[1])).astype(float)
        parts.append(pd.DataFrame({"source": source, "problem": problem, "hit": hit}))
    return pd.concat(parts if len(parts) == 1 else parts[1:], ignore_index=True)


def _joined(values: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """One row per problem of both: a, b, problem, n_a, n_b, <measure>_a and _b, <share>_low and _high."""
    sources = values.index.get_level_values(0)
    if a not in sources or b not in sources:
        return pd.DataFrame()
    both = values.loc[a].add_suffix("_a").join(values.loc[b].add_suffix("_b"), how="inner").sort_index()
    out = pd.DataFrame({"a": a, "b": b, "problem": both.index, "n_a": both["n_a"].to_numpy()})
    out["n_b"] = both["n_b"].to_numpy()
    for name in MEASURES:
        for side in "ab":
            out[f"{name}_{side}"] = both[f"{name}_{side}"].to_numpy(float)
        if name in SHARES:
            counts = [both[f"{name}.{x}_{side}"].to_numpy(float) for side in "ab" for x in ("hits", "n")]
            out[f"{name}_low"], out[f"{name}_high"] = newcombe(*counts)
    return out


def newcombe(
    hits_a: np.ndarray, n_a: np.ndarray, hits_b: np.ndarray, n_b: np.ndarray, *, z: float = 1.959964
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a difference of two independent shares, a - b: method 10 of Newcombe, Statistics in Medicine 17
    (1998) 873, from Wilson's intervals. NaN where a side has no trace."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ends = []
        for hits, n in ((hits_a, n_a), (hits_b, n_b)):
            p = hits / n
            middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
            ends.append((p, (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))
    (p, low_p, high_p), (q, low_q, high_q) = ends
    return p - q - np.hypot(p - low_p, high_q - q), p - q + np.hypot(high_p - p, q - low_q)


def _difference(
    table: pd.DataFrame, a: str, b: str, name: str, *, draws: int, seed: int
) -> tuple[dict[str, Any], Estimate]:
    """The row of `differences` and the estimate of one measure of one pair."""
    both = table[[f"{name}_a", f"{name}_b"]].dropna()
    d_P = (both[f"{name}_a"] - both[f"{name}_b"]).to_numpy(float)
    finite = np.isfinite(d_P)  # a trace that the base could never write has infinite surprisal
    both, d_P, endless = both[finite], d_P[finite], int((~finite).sum())
    found = bootstrap.mean(d_P, np.arange(len(d_P)), draws=draws, seed=seed)
    note = "" if len(d_P) else f"{name} is not known for both"
    if endless:
        note = f"{note}; {endless} problems with an infinite median left out".lstrip("; ")
    row = {"a": a, "b": b, "measure": name, "problems": len(d_P)}
    row |= {f"mean_{side}": float(both[f"{name}_{side}"].mean()) if len(d_P) else math.nan for side in "ab"}
    row |= {"difference": found.value, "low": found.low, "high": found.high}
    row |= {"higher": int((d_P > 0).sum()), "lower": int((d_P < 0).sum()), "equal": int((d_P == 0).sum())}
    return row | {"note": note}, Estimate(found.value, found.low, found.high, found.n, found.method, note)


def says(rows: list[dict[str, Any]]) -> str:
    """What differs between two sources, from their rows of `differences`; a difference counts as found where its own
    interval leaves out zero."""
    found, open_, unknown = [], [], []
    for row in rows:
        unit, more, less = MEASURES[row["measure"]]
        if not row["problems"]:
            unknown.append(unit)
        elif row["low"] > 0 or row["high"] < 0:
            found.append(f"{more if row['low'] > 0 else less} ({_number(row)} {unit})")
        else:
            open_.append(f"{unit} ({_number(row)})")
    parts = [", ".join(found)] if found else []
    parts += [f"no difference shown in {', '.join(open_)}"] if open_ else []
    parts += [f"not known: {', '.join(unknown)}"] if unknown else []
    problems = max(row["problems"] for row in rows)
    return f"{rows[0]['a']} against {rows[0]['b']} ({problems} problems): {'; '.join(parts)}."


def _number(row: dict[str, Any]) -> str:
    """ "+0.031 [+0.012, +0.049]", two digits of the interval's width."""
    width = row["high"] - row["low"]
    digits = max(0, 1 - math.floor(math.log10(width))) if math.isfinite(width) and width > 0 else 3
    ends = "" if math.isnan(width) else f" [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
    return f"{row['difference']:+.{digits}f}{ends}"


def _notes(frames: dict[str, pd.DataFrame], reference: str, left: int, apart: list[str]) -> list[str]:
    shown = mixed(frames["problems"], reference)
    pairs = frames["pairs"].set_index(["a", "b"])["says"]
    n = int((frames["differences"]["problems"] > 1).sum())
    notes = [
        pairs[shown] if shown else pairs.iloc[0],
        "Each interval is at 95 % for itself, and nothing is corrected for their number (no Holm, no false discovery "
        f"rate): one in twenty misses its value by chance, and there are {n}.",
    ]
    if len(pairs) > 1:
        notes.append("What differs between the other pairs stands in the table pairs, a sentence each.")
    if left:
        notes.append(f"{left} further pairs are not shown; any two: analyzer compare RUN A B.")
    if apart:
        notes.append(f"No problem in common: {'; '.join(apart)}.")
    return notes


draw = draw_by_problem
__all__ = ["FIGURES", "MEASURES", "QUESTION", "draw", "newcombe", "run", "says"]
