"""What `support` and `preflight` both ask of the scorers: one engine for a ratio, and the floor that its noise sets.

log q and log p must come from one engine: a mismatch of sd .05 per token over 2,000 tokens fakes a Cov_16 of .11.
The floor k_min = exp(q99 |l0|) is measured where the dump holds the generating engine's log-probs: l0 is
their sum minus the sum that the scoring engine gives the same tokens under the same model; ratios closer than that to
the budget are noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import last_steps
from analyzer.records import Tables
from analyzer.stats import conformal, evalue

FLOOR = 0.99  # quantile of |l0|
SLACK = 1.05  # k counts as reached from k_min / 1.05: |l0| < .05 moves a term of E_k by at most .05
CONTRADICTED = 0.01  # share of traces foreign to their own declared model or sampler beyond which that is wrong
REFUSED = 0.01  # of true declarations, at most
Z_MOST = 2.81  # two-sided size .005 of the check of a declaration
SHIFT = 0.01  # of 1 / T: a smaller deviation of a declaration is reported and refuses nothing
SETTINGS = ("dtype", "device", "eos")  # of two scorers, must agree for a ratio


def floors(tables: Tables) -> pd.DataFrame:
    """Columns source, n (traces), gap99 (nats), gap_max (nats), k_min, note: one row per source, NaN where unknown."""
    scores = last_steps(tables.scores) if len(tables.scores) else tables.scores
    rows = []
    for source in tables.sources:
        row = {"source": source, "n": 0, "gap99": math.nan, "gap_max": math.nan, "k_min": math.nan, "note": ""}
        model = tables.policies.get(source)
        if "logprob_generated" not in tables.traces:
            row["note"] = "no generation-time log-probs"
        elif model is None:
            row["note"] = "the model that produced the source is not known"
        else:
            row |= _gap(tables, scores, source, model)
        rows.append(row)
    return pd.DataFrame(rows)


def _gap(tables: Tables, scores: pd.DataFrame, source: str, model: str) -> dict[str, object]:
    mine = scores[(scores["model"] == model) & (scores["source"] == source)]
    names = ["key", "logprob_generated", "n_generated"]
    both = mine[["key", "logprob", "n_tokens"]].merge(tables.traces[names], on="key", how="left")
    both = both[both["logprob_generated"].notna()]
    same = both[both["n_generated"] == both["n_tokens"]]
    gap = (same["logprob_generated"] - same["logprob"]).abs().to_numpy(dtype=float)
    gap = gap[~np.isnan(gap)]
    if not len(gap):
        why = "counts other tokens than the scorer" if len(both) else "the dump has none at temperature 1"
        return {"note": f"no generation-time log-probs: {why}"}
    at = float(np.quantile(gap, FLOOR, method="inverted_cdf"))
    left = len(both) - len(same)
    note = f"{left:,} traces left out: other tokens than the scorer's" if left else ""
    return {"n": len(gap), "gap99": at, "gap_max": float(gap.max()), "k_min": math.exp(min(at, 700.0)), "note": note}


def k_min(table: pd.DataFrame, *sources: str) -> float:
    """The largest known floor of these sources; NaN if none is known."""
    known = table.loc[table["source"].isin(sources), "k_min"].dropna() if len(table) else table
    return float(known.max()) if len(known) else math.nan


def below(k: float, floor: float) -> bool:
    """True where the engine's noise forbids a statement at budget k; an unknown floor (NaN) forbids nothing."""
    return k * SLACK < floor


def other_settings(tables: Tables, one: str, other: str) -> list[str] | None:
    """What differs between two scorers ("dtype float32 / bfloat16"); None where a run does not record it."""
    a, b = tables.engines.get(one), tables.engines.get(other)
    if not a or not b:
        return None
    return [f"{name} {a.get(name)} / {b.get(name)}" for name in SETTINGS if a.get(name) != b.get(name)]


class Declared(NamedTuple):
    """z of a source's own traces under its declared model and sampler, Student's t over traces of the same sum, by how
    much 1 / T seems off, how many traces."""

    z: float
    t: float
    shift: float
    n: int

    @property
    def wrong(self) -> bool:
        """Whether the declaration is refused: by z and by t, which a few rare tokens do not make large."""
        return min(abs(self.z), abs(self.t)) > Z_MOST and abs(self.shift) > SHIFT


def declared(under: pd.DataFrame) -> Declared | None:
    """Two-sided: the surprisal of a source's own traces must lie where its declared model and sampler expect it.

    under: its rows of the scorer that is declared for it. Under a true declaration sum(s - H) is a martingale
    with variance sum V, whatever the problems: z is about N(0, 1). The sum over V is, to first order, by how much 1 / T
    is off. None where entropies under the sampler are not known.
    """
    if "excess_s" not in under:
        return None
    known = under[["excess_s", "variance_s"]].astype(float)
    known = known[np.isfinite(known).all(axis=1)]
    excess, variance = known["excess_s"].sum(), known["variance_s"].sum()
    if len(known) < 2 or not variance > 0:
        return None
    spread = float(known["excess_s"].std()) * math.sqrt(len(known))
    t = excess / spread if spread > 0 else math.copysign(math.inf, excess)
    return Declared(float(excess / math.sqrt(variance)), float(t), float(-excess / variance), len(known))


def misdeclared(found: Declared, source: str) -> str:
    """What a deviation looks like, and what to look at."""
    word = "too low" if found.z < 0 else "too high"
    return (
        f"surprisal {word}, as if 1 / T were off by {found.shift:+.3f}; check --policy {source}=MODEL and "
        f"--sampler {source}=..."
    )


def foreign_share(tables: Tables, rows: pd.DataFrame, source: str) -> float:
    """Share of the rows (scores under the source's own model) that can't be draws of that model; NaN: not checked.

    The e-value under a source's own model, Benjamini-Hochberg at REFUSED: for a true declaration it flags any trace
    at all with probability at most REFUSED. A sampler known to be hotter than T=1 is not covered and is not checked.
    """
    sampler = tables.samplers.get(source)
    log_e = rows["log_e"].to_numpy(dtype=float) if len(rows) else np.empty(0)
    if np.isnan(log_e).all() or (sampler is not None and sampler.temperature > 1):
        return math.nan
    return float(conformal.discoveries(evalue.p_value(log_e), q=REFUSED).mean())


def foreign(tables: Tables, rows: pd.DataFrame, source: str, model: str, advice: str) -> str:
    """Why the rows can't be draws of the model that they are scored under, or the empty string."""
    share = foreign_share(tables, rows, source)
    if not share > CONTRADICTED:
        return ""
    return f"{share:.1%} of the traces of {source} are foreign to {model}, which is said to have written them; {advice}"


def contradiction(exits: float, source: str) -> str:
    """A sampler that could not have drawn its own source's traces was declared wrongly (or the engines differ)."""
    if not exits > CONTRADICTED:
        return ""
    what = f"{exits:.1%} of the traces of {source} hold a token that its declared sampler could never draw"
    return f"{what}; check --sampler {source}=..."


def token_mismatch(rows: pd.DataFrame, base: pd.DataFrame) -> float:
    """Share of the traces in both frames (columns key, n_tokens) whose token counts differ; NaN: none in both."""
    both = rows[["key", "n_tokens"]].merge(base[["key", "n_tokens"]].reset_index(drop=True), on="key")
    return float((both["n_tokens_x"] != both["n_tokens_y"]).mean()) if len(both) else math.nan
