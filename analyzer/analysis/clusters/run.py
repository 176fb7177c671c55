"""Which kinds of trace does a source write, problem by problem, and which of them does the reference not write at all?

Traces of one problem are clustered together without looking at who wrote them: mean hidden states of the base model
where they were scored, and TF-IDF of the text. The clusters are then counted by source. Small clusters are empty of any
source by chance, and a difference in wording is a cluster too: `novel_cluster_mass` must be read against the A/A row
(one half of the reference's traces against the other) and the leave-one-out value beside it. It is a description, never
a certificate: the clusters come from the very traces that are counted (a test needs clusters from the other half).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.clusters import map as cluster_map
from analyzer.analysis.clusters.figures import FIGURES, draw_map
from analyzer.analysis.clusters.grouping import LIMIT, MOST, Problem, chosen, cluster_all
from analyzer.analysis.data import features
from analyzer.records import BUDGET, Estimate, Result, Tables
from analyzer.stats import bootstrap
from analyzer.stats.bootstrap import DRAWS

QUESTION = "Which kinds of trace does each source write, and how much of it lies where the reference wrote nothing?"
SMALLEST = 3  # traces of a source that make a novel cluster
SPLITS = 10  # of the reference in halves
POINTS = 4000  # on the map as a figure
MEMBERS = 20_000  # on the map of the page
SHOWN = 20  # novel clusters per source in the table
EXCERPT = 200  # characters
HIDDEN, TEXT = "hidden states", "TF-IDF"


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """Clusters per problem and what each source puts where; needs no model (`budget` plays no part).

    Per problem: at most 64 traces per source (the lowest sample numbers of the last training step), equal texts one
    point, principal components (at most 32), KMeans with k = sqrt(points / 2) rounded, at most 16.
    Estimates: `<s>.novel_cluster_mass`, the share of a source's traces in clusters of their problem without any trace
    of the reference, over the problems that both have, interval by resampling problems; of the reference: A/A.
    From hidden states where the base scored the traces, else from TF-IDF.
    Tables: novel_mass and novel (both representations), clusters, sources, occupancy, members (which trace is in which
    cluster, and where on the map: at most MEMBERS), map (those of them that the figure shows).
    """
    traces, left_out = chosen(tables)
    sources = tables.sources
    keys, vectors = features.pooled(tables, tables.base, keys=set(traces["key"])) if tables.base else ([], None)
    by_representation = {}
    if keys:
        rows = traces.set_index("key").loc[keys].reset_index()
        by_representation[HIDDEN] = cluster_all(rows, np.asarray(vectors), seed)
    texts = traces[~features.is_blank(traces["response"])]
    if len(texts):
        by_representation[TEXT] = cluster_all(texts, None, seed)
    first = next(iter(by_representation), None)
    frames: dict[str, pd.DataFrame] = {}
    masses = [
        row
        for name, problems in by_representation.items()
        for row in _masses(name, problems, tables.reference, sources, seed=seed, draws=draws)
    ]
    frames["novel_mass"] = pd.DataFrame(masses)
    problems = by_representation.get(first, [])
    frames["occupancy"] = _occupancy(problems, tables.reference)
    frames["clusters"] = _clusters(problems, sources)
    frames["sources"] = _sources(frames["occupancy"], sources, seed, draws)
    frames["novel"] = pd.DataFrame(
        [row for name, found in by_representation.items() for row in _novel(found, name, tables.reference, sources)]
    )
    members = cluster_map.members(
        problems, dict(zip(keys, vectors, strict=True)) if first == HIDDEN else None, POINTS, MEMBERS, seed
    )
    frames["members"] = members[["key", "cluster", "x", "y"]] if len(members) else members
    frames["map"] = members[members["drawn"]].drop(columns="drawn").reset_index(drop=True) if len(members) else members
    estimates = {f"{s}.novel_cluster_mass": _estimate(s, tables.reference, first, masses) for s in sources}
    params = {
        "draws": draws,
        "representation": first,
        "limit": LIMIT,
        "components": features.COMPONENTS,
        "most_clusters": MOST,
        "smallest": SMALLEST,
        "splits": SPLITS,
        "map_points": POINTS,
        "members": MEMBERS,
        "clustered": sum(len(p.frame) for p in problems),
    }
    return Result(
        "clusters", QUESTION, estimates, frames, tuple(_notes(tables, traces, left_out, first, frames)), params, seed
    )


def _counts(problem: Problem) -> tuple[np.ndarray, list[str]]:
    """Traces by cluster and source [K, S], and the sources."""
    codes, labels = pd.factorize(problem.frame["source"], sort=True)
    count = np.zeros((problem.cluster.max() + 1, len(labels)), int)
    np.add.at(count, (problem.cluster, codes), 1)
    return count, list(labels)


def _masses(
    name: str, problems: list[Problem], reference: str, sources: list[str], *, seed: int, draws: int
) -> list[dict[str, Any]]:
    """Mass in clusters without the reference: one row per source; the reference's row is A/A over random halves.

    `chance`: the share of the reference's traces that are its only one in their cluster, which is what one more of its
    traces meets when it faces the others (leave-one-out, Good-Turing); A/A faces only half of them and is larger.
    """
    values: dict[str, list[np.ndarray]] = {}
    labels: dict[str, list[str]] = {}
    halves: dict[str, float] = {}
    alone: dict[str, float] = {}
    for p in problems:
        source = p.frame["source"].to_numpy()
        own = source == reference
        if not own.any():
            continue
        problem = p.frame["problem"].iloc[0]
        count = np.bincount(p.cluster[own], minlength=p.cluster.max() + 1)
        for label in np.unique(source[~own]):
            novel = (count[p.cluster[source == label]] == 0).astype(float)
            values.setdefault(label, []).append(novel)
            labels.setdefault(label, []).extend([problem] * len(novel))
        alone[problem] = float((count == 1).sum() / own.sum())
        if own.sum() >= 2:
            halves[problem] = _half_mass(p.cluster[own], seed)
    rows = []
    aa, one_out = (
        bootstrap.mean(np.array(list(x.values()), float), np.array(list(x), dtype=str), draws=draws, seed=seed)
        for x in (halves, alone)
    )
    for label in sources:
        row = {"representation": name, "source": label}
        if label == reference:
            if aa.n:
                traces = sum(int((p.frame["source"] == label).sum()) for p in problems)
                row |= {
                    "mass": aa.value,
                    "low": aa.low,
                    "high": aa.high,
                    "n": traces,
                    "problems": aa.problems,
                    "method": f"A/A: halves of the reference, {SPLITS} splits; {aa.method}",
                }
        elif label in values:
            found = bootstrap.rate(np.concatenate(values[label]), np.array(labels[label]))
            row |= {
                "mass": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "problems": found.problems,
                "method": found.method,
            }
        if "mass" in row:
            chance = {
                "aa_mass": aa.value,
                "chance": one_out.value,
                "chance_low": one_out.low,
                "chance_high": one_out.high,
            }
            rows.append(row | chance)
    return rows


def _half_mass(cluster: np.ndarray, seed: int) -> float:
    """Mean over random splits of the share of one half's traces in clusters that the other half does not touch."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(SPLITS):
        order = rng.permutation(len(cluster))
        one, other = cluster[order[: len(cluster) // 2]], cluster[order[len(cluster) // 2 :]]
        out.append(np.mean(np.bincount(other, minlength=cluster.max() + 1)[one] == 0))
    return float(np.mean(out))


def _estimate(source: str, reference: str, representation: str | None, masses: list[dict[str, Any]]) -> Estimate:
    row = next((r for r in masses if r["source"] == source and r["representation"] == representation), None)
    if row is None:
        why = (
            "needs at least two traces of a problem"
            if source == reference
            else f"{source} and {reference} have no problem in common that could be clustered"
        )
        return Estimate(math.nan, note=why)
    note = f"from {representation}"
    if source == reference:
        note += f"; A/A: one half of {reference} against the other, what chance alone leaves in empty clusters"
    elif math.isfinite(row["aa_mass"]):
        note += (
            f"; by chance {row['chance']:.4f} (leave-one-out of {reference}), A/A of its halves {row['aa_mass']:.4f}"
        )
    return Estimate(row["mass"], row["low"], row["high"], row["n"], row["method"], note)


def _occupancy(problems: list[Problem], reference: str) -> pd.DataFrame:
    """One row per problem and source: clusters touched, their effective number, mass away from the reference."""
    rows = []
    for p in problems:
        count, labels = _counts(p)
        own = count[:, labels.index(reference)] if reference in labels else None
        source, text = p.frame["source"].to_numpy(), p.frame["text"].to_numpy()
        for i, label in enumerate(labels):
            share = count[:, i] / count[:, i].sum()
            used = share[share > 0]
            mass = math.nan if own is None or label == reference else float(share[own == 0].sum())
            rows.append(
                {
                    "problem": p.frame["problem"].iloc[0],
                    "source": label,
                    "n": int(count[:, i].sum()),
                    "clusters": len(count),
                    "touched": len(used),
                    "effective": float(np.exp(-(used * np.log(used)).sum())),
                    "novel_mass": mass,
                    "distinct_texts": len(set(text[source == label].tolist()) - {-1}),
                }
            )
    return pd.DataFrame(rows)


def _clusters(problems: list[Problem], sources: list[str]) -> pd.DataFrame:
    """One row per cluster: its traces, the one nearest to its centre, and how many traces of each source it holds."""
    rows = []
    for p in problems:
        count, labels = _counts(p)
        at = {label: i for i, label in enumerate(labels)}
        keys, problem = p.frame["key"].tolist(), p.frame["problem"].iloc[0]
        for c, counts in enumerate(count.tolist()):
            row = {"problem": problem, "cluster": c, "n": sum(counts), "exemplar": keys[p.middle[c]]}
            rows.append(row | {f"n.{s}": counts[at[s]] if s in at else 0 for s in sources})
    return pd.DataFrame(rows)


def _sources(occupancy: pd.DataFrame, sources: list[str], seed: int, draws: int) -> pd.DataFrame:
    """Means over problems by source; `effective` = exp(entropy of the occupancy), which grows with n."""
    rows = []
    for source in sources:
        frame = occupancy[occupancy["source"] == source] if len(occupancy) else occupancy
        if len(frame):
            found = bootstrap.mean(
                frame["effective"].to_numpy(float), frame["problem"].to_numpy(), draws=draws, seed=seed
            )
            rows.append(
                {
                    "source": source,
                    "effective": found.value,
                    "low": found.low,
                    "high": found.high,
                    "touched": frame["touched"].mean(),
                    "clusters": frame["clusters"].mean(),
                    "distinct_texts": frame["distinct_texts"].mean(),
                    "traces_per_problem": frame["n"].mean(),
                    "n": int(frame["n"].sum()),
                    "problems": len(frame),
                }
            )
    return pd.DataFrame(rows)


def _novel(problems: list[Problem], representation: str, reference: str, sources: list[str]) -> list[dict[str, Any]]:
    """Clusters without a reference trace that hold at least SMALLEST of a source, the largest first."""
    rows = []
    for p in problems:
        count, labels = _counts(p)
        if reference not in labels:
            continue
        own = count[:, labels.index(reference)]
        for c, i in zip(*np.nonzero((own == 0)[:, None] & (count >= SMALLEST)), strict=True):
            members = p.frame[(p.cluster == c) & (p.frame["source"] == labels[i]).to_numpy()]
            middle = p.frame.iloc[p.middle[c]]
            exemplar = middle if middle["source"] == labels[i] else members.iloc[0]
            right = members["correct"].astype("boolean").mean()
            rows.append(
                {
                    "representation": representation,
                    "source": labels[i],
                    "problem": p.frame["problem"].iloc[0],
                    "cluster": int(c),
                    "n_source": len(members),
                    "share": len(members) / count[:, i].sum(),
                    "distinct_texts": members["response"].nunique(),
                    "correct": math.nan if pd.isna(right) else float(right),
                    "n_reference": int(own.sum()),
                    "reference_below": min(1.0, 3 / own.sum()),
                    "exemplar": exemplar["key"],
                    "text": str(exemplar["response"])[:EXCERPT],
                }
            )
    rows.sort(key=lambda r: (sources.index(r["source"]), -r["share"], r["problem"], r["cluster"]))
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["source"]] = seen.get(row["source"], 0) + 1
        row |= {"rank": seen[row["source"]]}
    return [row | {"of": seen[row["source"]]} for row in rows if row["rank"] <= SHOWN]


def _notes(
    tables: Tables, traces: pd.DataFrame, left_out: list[str], first: str | None, frames: dict[str, pd.DataFrame]
) -> list[str]:
    if first is None:
        return ["No trace has a text or a hidden state: nothing to cluster."]
    notes = [
        f"Clusters from {first}; KMeans on at most {features.COMPONENTS} principal components, "
        f"k = sqrt(distinct texts / 2), at most {MOST}.",
        "The clusters come from the traces that are counted: for a cluster chosen because it is empty of the reference "
        "3 / n is too low a bound. A description, not a test.",
        "In the A/A row one half of the reference faces the other, half as many traces as a source faces, so it is "
        "more than chance leaves to a source; the column chance (each reference trace against the others) is not.",
        "Kinds much smaller than a cluster (traces / k) can melt into a neighbour and stay unseen.",
        "novel_mass and sources weigh repeated traces by their number; the clusters themselves count equal texts once.",
    ]
    notes += left_out
    sizes = traces.groupby(["source", "problem"]).size().groupby("source").median()
    if sizes.nunique() > 1:
        notes.append(
            "Traces per problem differ, and the effective number of clusters grows with them: "
            + ", ".join(f"{s} {n:g}" for s, n in sizes.items())
            + "."
        )
    novel = frames["novel"]
    if len(novel):
        last = novel.groupby(["representation", "source"], sort=False)["of"].max()
        notes.append(
            f"Novel clusters (no reference trace, at least {SMALLEST} of the source): "
            + "; ".join(f"{s}, {r}: {n}" for (r, s), n in last.items())
            + f"; the table shows {SHOWN} of each."
        )
    if tables.base is None:
        notes.append("No base model: hidden states are not at hand, TF-IDF sees wording only.")
    return notes


draw = draw_map
__all__ = ["FIGURES", "QUESTION", "draw", "run"]
