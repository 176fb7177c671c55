"""What stands twice among traces: problems, the responses of a problem, whole sources. Each finding one sentence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from analyzer.dumps.survey import Columns, Survey, grouped
from analyzer.records.display import counted

SHORT = 80  # characters: a response that holds an answer and no reasoning
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: spreads small numbers over 64 bits


def of(n: int, total: int) -> str:
    return f"{n:,} of {total:,}"


def problems(survey: Survey, c: Columns) -> Iterable[str]:
    order, starts = grouped(c["source"], c["file"], c["problem"], c["row"])
    at = order[starts]  # the first trace of each problem row
    place = np.stack([c["source"][at], c["file"][at]])
    problem, changed = c["problem"][at], np.any(np.diff(place) != 0, axis=0)
    bounds = np.r_[0, 1 + np.flatnonzero(changed), len(at)]
    found = []
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        distinct, rows = np.unique(problem[low:high], return_counts=True)
        if len(distinct) == high - low:
            continue
        repeated = low + np.flatnonzero(np.isin(problem[low:high], distinct[rows > 1]))
        example = problem[repeated[at[repeated].argmin()]]  # the one that appears first
        latest = repeated[problem[repeated] == example]
        latest = latest[at[latest].argmax()]  # its row that appears last
        stop = starts[latest + 1] if latest + 1 < len(starts) else len(order)
        found.append((int(at[low:high].min()), high - low, len(distinct), int(order[stop - 1])))
    sources, files = list(survey.sources), list(survey.numbers["file"])
    for i, total, distinct, example in sorted(found):
        yield (
            f"{files[c['file'][i]][:-1]}, {sources[c['source'][i]]}: "
            f"{counted(distinct, 'distinct question')} in {total:,} "
            "problem rows; the samples of a repeated question are pooled under one "
            f"problem (such as {survey.origin(example)}), so joined numbers differ from row-level ones."
        )


def split_problems(survey: Survey, c: Columns) -> Iterable[str]:
    """Questions that two sources have under different ids of their problems: they are not joined."""
    asked = np.frombuffer(survey.asked, np.int64)
    order, starts = grouped(asked)
    ends = np.r_[starts[1:], len(order)]
    again = (ends - starts > 1) & (asked[order[starts]] != 0)
    several = [order[a:b] for a, b in zip(starts[again].tolist(), ends[again].tolist(), strict=True)]
    names, found = list(survey.numbers["problem"]), []
    if not several or len(survey.sources) < 2:
        return
    of = _sources_of(c, np.concatenate(several))
    for problems in several:
        a = int(problems[0])
        other = next((int(b) for b in problems[1:] if not of[a] & of[int(b)]), None)
        if other is not None:
            found.append((a, other))
    if found:
        found.sort()  # the first that appears, whatever this process hashes
        where = [survey.origin(int(np.flatnonzero(c["problem"] == p)[0])) for p in found[0]]
        where = [f"{names[p]!r} in {w}" for p, w in zip(found[0], where, strict=True)]
        yield (
            f"{len(found):,} questions stand under several problem ids in different sources ({where[0]}, {where[1]}): "
            "they are different problems here and are not compared. Write the same ids, or leave the ids out: problems "
            "are then joined on the question's text."
        )


def _sources_of(c: Columns, problems: np.ndarray) -> dict[int, set[int]]:
    """The sources that have each of these problems."""
    here = np.isin(c["problem"], problems)
    out: dict[int, set[int]] = {}
    for problem, source in np.unique(np.stack([c["problem"][here], c["source"][here]]), axis=1).T.tolist():
        out.setdefault(problem, set()).add(source)
    return out


def responses(survey: Survey, c: Columns) -> Iterable[str]:
    for number, (source, own) in enumerate(survey.sources.items()):
        here = np.flatnonzero(c["source"] == number)
        problem, step, said = (c[name][here] for name in ("problem", "step", "said"))
        order, texts = grouped(problem, step, said)
        new = (np.diff(problem[order[texts]]) != 0) | (np.diff(step[order[texts]]) != 0)
        pairs = np.r_[0, 1 + np.flatnonzero(new)]  # problem and step
        traces = np.add.reduceat(np.diff(np.r_[texts, len(order)]), pairs)
        distinct = np.diff(np.r_[pairs, len(texts)])
        repeats, hit = len(order) - len(texts), int(np.count_nonzero(traces > distinct))
        if repeats:
            yield (
                f"{source}: {of(repeats, own.traces)} responses repeat an earlier one of the same problem word for "
                f"word ({of(hit, len(pairs))} problems); "
                "they count for pass@k, and as one in clusters."
            )
        if n := own.counts["empty"] + (blank := own.counts["blank"]):
            held = f"{'' if blank == n else f'{blank:,} '}hold white space only; " if blank else ""
            where = own.first.get("empty") or own.first["blank"]
            yield f"{source}: {of(n, own.traces)} responses are empty ({held}{where})."


def sources(survey: Survey, c: Columns) -> Iterable[str]:
    """Sources that are largely one another, whatever their files look like. Short answers agree by themselves."""
    labels = list(survey.sources)
    if len(labels) < 2:
        return
    long = c["size"] > SHORT
    pair = c["said"].view(np.uint64) ^ (c["problem"].astype(np.uint64) * MIX)
    said = [np.unique(pair[long & (c["source"] == i)]) for i in range(len(labels))]
    for i, a in enumerate(labels):
        for j, b in enumerate(labels[i + 1 :], i + 1):
            both, least = len(np.intersect1d(said[i], said[j], assume_unique=True)), min(len(said[i]), len(said[j]))
            if both and both >= 0.5 * least:
                yield (
                    f"{a} and {b}: {of(both, least)} long responses are the same word for "
                    "word on the same problems: one seems to be a copy of the other."
                )
