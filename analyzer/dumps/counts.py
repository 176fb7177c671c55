"""What a survey adds up to: counts by source, accuracies over problems, and what sources share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from analyzer.dumps.survey import Columns, Source, Survey, grouped
from analyzer.stats import passk

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEEDED = ("problem", "step", "file", "row", "said", "size", "bare", "correct", "group")
Counts = dict[str, Any]
Positions = dict[str, tuple[np.ndarray, np.ndarray]]  # file -> the problem of each of its problem rows; each once


def count(survey: Survey) -> tuple[dict[str, Counts], list[Counts], list[Counts]]:
    """(source -> its counts, accuracies by source and file, pairs of sources), as `dumps.check.describe` has them."""
    columns, sources, accuracies = survey.arrays(), {}, []
    problems: dict[str, np.ndarray] = {}
    positions: dict[str, Positions] = {}
    for number, (label, own) in enumerate(survey.sources.items()):
        here = np.flatnonzero(columns["source"] == number)
        c = {name: columns[name][here] for name in NEEDED}
        parts = _parts(c, list(survey.numbers["file"]))
        rows = [_accuracies(label, name, c, part) for name, part in parts]
        if len(parts) > 1:
            rows.append(_accuracies(label, "all files", c, slice(None)))
        accuracies += rows
        sources[label] = _source(own, c, rows[-1], list(survey.numbers["group"]))
        problems[label] = np.unique(c["problem"])
        positions[label] = {name: _position(c, part) for name, part in parts}
    return sources, accuracies, list(_joins(problems, positions))


def accuracy(correct_N: np.ndarray, *keys: np.ndarray) -> tuple[float | None, float | None, int, int]:
    """(pass@1, share with any correct sample, groups with a label, groups) over groups of traces, one per problem:
    those that agree in all keys [N]. correct: 1, 0, or -1 without a label; traces without one are left out, and groups
    of nothing else too."""
    order, starts = grouped(*keys)
    labels = np.add.reduceat(correct_N[order] >= 0, starts, dtype=np.int64)
    right = np.add.reduceat(correct_N[order] > 0, starts, dtype=np.int64)
    have = np.flatnonzero(labels)
    n = len(have)
    if not n:
        return None, None, 0, len(starts)
    have = have[np.argsort(order[starts[have]])]  # in order of appearance: so is the mean added up, to the last digit
    share = right[have] / labels[have]
    return float(np.cumsum(share)[-1]) / n, np.count_nonzero(share) / n, n, len(starts)


def _parts(c: Columns, names: list[str]) -> list[tuple[str, np.ndarray | slice]]:
    """The files of a source, in order of appearance: name, its traces."""
    order, starts = grouped(c["file"])
    if len(starts) == 1:
        return [(names[c["file"][0]][:-1], slice(None))]
    parts = sorted(np.split(order, starts[1:]), key=lambda part: part[0])
    return [(names[c["file"][part[0]]][:-1], part) for part in parts]


def _accuracies(source: str, file: str, c: Columns, part: np.ndarray | slice) -> Counts:
    correct, file_N, row, problem, step = (c[name][part] for name in ("correct", "file", "row", "problem", "step"))
    row_1, row_any, row_n, rows = accuracy(correct, file_N, row, step)
    joined_1, joined_any, joined_n, joined = accuracy(correct, problem, step)
    return {
        "source": source,
        "file": file,
        "problem_rows": rows,
        "row_pass@1": row_1,
        "row_any_correct": row_any,
        "rows_labelled": row_n,
        "problems": joined,
        "joined_pass@1": joined_1,
        "joined_any_correct": joined_any,
        "problems_labelled": joined_n,
    }


def _source(own: Source, c: Columns, whole: Counts, names: list[str]) -> Counts:
    """whole: its accuracies over all files; names: of groups."""
    counts, samplers, n = own.counts, own.samplers, len(c["problem"])
    steps = np.unique(c["step"][c["step"] > 0]) - 1
    sizes = np.diff(grouped(c["problem"], c["step"])[1], append=n)
    labelled = int(np.count_nonzero(c["correct"] >= 0))
    sampler = next(iter(samplers)) if len(samplers) == 1 else None
    return {
        "traces": n,
        "problems": len(np.unique(c["problem"])),
        "problem_rows": len(grouped(c["file"], c["row"])[1]),
        "samples_per_problem": {"min": int(sizes.min()), "max": int(sizes.max()), **_most(sizes)},
        "labelled_per_problem": _depth(c),
        "samples_of_most": int(np.sort(sizes)[::-1][math.ceil(0.9 * len(sizes)) - 1]),  # nine problems in ten have them
        "labelled": labelled,
        "correct": int(np.count_nonzero(c["correct"] > 0)) if labelled else None,
        "pass@1": whole["row_pass@1"],
        "any_correct": whole["row_any_correct"],
        "chars": _quantiles(np.where(c["bare"] < 0, 0, c["size"])),
        "empty": counts["empty"],
        "blank": counts["blank"],
        "repeats": n - len(grouped(c["problem"], c["step"], c["said"])[1]),
        "null_answers": counts["null_answer"],
        "finish": {finish or "not recorded": k for finish, k in own.by("finish").most_common()},
        "prompts": dict(own.by("prompt").most_common()),
        "response_ids": counts["ids"],
        "response_logprobs": counts["logprobs"],
        "numbers": _numbers(own),
        "sampler": sampler and {k: getattr(sampler, k) for k in ("temperature", "top_p", "top_k", "min_p")},
        "samplers": sum(s is not None for s in samplers),
        "steps": {"min": int(steps[0]), "max": int(steps[-1]), "count": len(steps)} if len(steps) else None,
        "groups": _groups(c["group"], names),
    }


def _numbers(own: Source) -> Counts | None:
    """Of the rows' own log-probs under the base and under policies, and of their masks; None where there are none."""
    held = own.numbers.counts
    policies = {name.removeprefix("policy "): n for name, n in held.items() if name.startswith("policy ")}
    if not (held["base rows"] or held["masked rows"] or policies):
        return None
    names = ("rows", "values", "unknown", "impossible")
    return {
        "base_rows": held["base rows"],
        "both_rows": held["both rows"],
        "laws": {f"{t:.12g}": {k: law[k] for k in names} for t, law in sorted(own.laws.items())},
        "policies": policies,
        "masked": held["masked"],
        "masked_rows": held["masked rows"],
    }


def _most(sizes: np.ndarray) -> dict[str, int]:
    """most: the number that most problems have (the largest of equals); problems: how many have it; of: problems."""
    value, n = np.unique(sizes, return_counts=True)
    at = len(n) - 1 - int(n[::-1].argmax())
    return {"most": int(value[at]), "problems": int(n[at]), "of": len(sizes)}


def _depth(c: Columns) -> Counts | None:
    """Labelled samples of a problem: min, max, the number that most have, `reached`: that nine problems in ten have, to
    which pass@k goes. None without labels."""
    have = c["correct"] >= 0
    if not have.any():
        return None
    problem, step = c["problem"][have], c["step"][have]
    sizes = np.diff(grouped(problem, step)[1], append=len(problem))
    reached = int(passk.budgets(sizes)[-1])
    return {"min": int(sizes.min()), "max": int(sizes.max()), **_most(sizes), "reached": reached}


def _quantiles(values_N: np.ndarray) -> dict[str, int]:
    ordered = np.sort(values_N)
    out = {f"q{int(q * 100):02d}": int(ordered[min(len(ordered) - 1, int(q * len(ordered)))]) for q in QUANTILES}
    return {"min": int(ordered[0]), **out, "max": int(ordered[-1])}


def _groups(group_N: np.ndarray, names: list[str]) -> dict[str, int]:
    """Group -> traces, the most first."""
    found, first, size = np.unique(group_N, return_index=True, return_counts=True)
    appear = np.argsort(first)
    sizes = Counter({names[g]: k for g, k in zip(found[appear].tolist(), size[appear].tolist(), strict=True)})
    return {name: k for name, k in sizes.most_common() if name is not None}


def _position(c: Columns, part: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
    _, first = np.unique(c["row"][part], return_index=True)
    problem = c["problem"][part][first]
    return problem, np.unique(problem)


def _joins(problems: dict[str, np.ndarray], positions: dict[str, Positions]) -> Iterator[Counts]:
    """Pairs of sources: problems shared on text, and for files of equally many rows how many positions agree."""
    for a, b in combinations(problems, 2):
        shared = _shared(problems[a], problems[b])
        yield {
            "sources": [a, b],
            "shared": shared,
            "only": [len(problems[a]) - shared, len(problems[b]) - shared],
            "positions": [
                {
                    "files": [file_a, file_b],
                    "rows": len(row_a),
                    "agree": int(np.count_nonzero(row_a == row_b)),
                    "shared": both,
                }
                for file_a, (row_a, own_a) in positions[a].items()
                for file_b, (row_b, own_b) in positions[b].items()
                if len(row_a) == len(row_b) and (both := _shared(own_a, own_b))
            ],
        }


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    return len(np.intersect1d(a, b, assume_unique=True))
