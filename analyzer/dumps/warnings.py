"""Findings in traces that a reader should know before believing a number: each one sentence, with counts and an origin.

Pure: a survey of the traces in, sentences out; nothing is changed or dropped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from analyzer.dumps.counts import accuracy
from analyzer.dumps.survey import Columns, Survey, grouped
from analyzer.errors import nearest
from analyzer.records.display import counted

SHORT = 80  # characters: a response that holds an answer and no reasoning
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: spreads small numbers over 64 bits


def listed(names: Sequence[str]) -> str:
    """One name, or the first and how many more."""
    return names[0] + (f" and {len(names) - 1:,} other files" if len(names) > 1 else "")


def find(survey: Survey, accounts: Sequence[dict[str, Any]]) -> list[str]:
    """All findings, in a fixed order."""
    if not survey.sources:
        return []
    columns, notes = survey.arrays(), []
    for check in (_scores, _labels):
        notes += check(survey)
    notes += _duplicate_problems(survey, columns)
    notes += _split_problems(survey, columns)
    notes += _duplicate_responses(survey, columns)
    notes += _renumbered(accounts)
    notes += _told(survey, "null_answer")
    notes += _gold(survey, columns)
    notes += _hidden(survey, columns)
    notes += _prompts(survey, columns)
    notes += _shown(survey)
    notes += _told(survey, "ids only", "joined_reasoning", "ids")
    for check in (_undeclared, _numbers, _foreign):
        notes += check(survey)
    notes += _copies(survey, columns)
    notes += _lengths(survey)
    notes += _samplers(survey, accounts)
    return notes


def _of(n: int, total: int) -> str:
    return f"{n:,} of {total:,}"


def _scores(survey: Survey) -> Iterable[str]:
    n, between, against = (survey.all.counts[name] for name in ("scored", "fractional", "against"))
    if not n:
        return
    values = [f"{v:g}" for v, _ in survey.scores.most_common(5)]
    fractional = (
        f"; {_of(between, n)} scores are neither 0 nor 1 (such as {', '.join(values)}, "
        f"{survey.all.first['fractional']})"
        if between
        else ""
    )
    yield f"Correct means score >= {survey.threshold:g} where a dump has scores ({n:,} traces){fractional}."
    if against:
        yield (
            f"{_of(against, n)} traces have a label of their own that differs from score >= "
            f"{survey.threshold:g} (the label counts; {survey.all.first['against']})."
        )


# a property of traces -> the warning for those that have it; of PART only where other traces lack it
SENTENCES = {
    "unlabelled": "{share} traces have no label; they count neither as correct nor as wrong.",
    "null_answer": "no answer could be extracted from {share} responses (null in the dump, {first}): a failure of "
    "format counts as wrong and looks like inability.",
    "no prompt": "the prompt that the model saw is not in {share} rows (at most the bare question): scoring needs "
    "--template.",
    "ids only": "{share} responses are token ids without text: they can be scored, but nothing that reads the text "
    "(steps, answers, grading) sees them.",
    "joined_reasoning": "{share} responses were kept as reasoning and answer apart and are joined as <think> reasoning "
    "</think> answer ({first}): the tokens at the seams are assumed.",
    "ids": "{share} rows have token ids; the others will be re-tokenised from text.",
    "cut": "{share} responses ended at the token budget.",
    "open": "{share} responses open <think> and never close it ({first}): probably cut at the token budget.",
    "greedy": "{share} responses were decoded greedily (temperature 0, as lm-eval does unless told otherwise). A mode "
    "is no sample: its perplexity lies below that of samples, one response per problem is all there is (pass@1 alone), "
    "and membership, reach and the verdict can't be asked. Draw again with a temperature: lm-eval --gen_kwargs "
    "do_sample=true,temperature=1, `repeats` in the task's file; or analyzer sample.",
}
PART = ("unlabelled", "ids")


def _told(survey: Survey, *names: str) -> Iterable[str]:
    for source, own in survey.sources.items():
        held = own.tally()
        for name in names:
            if (n := held.counts[name]) and not (name in PART and n == own.traces):
                yield f"{source}: {SENTENCES[name].format(share=_of(n, own.traces), first=held.first[name])}"


def _labels(survey: Survey) -> Iterable[str]:
    flips, versions = survey.all.counts["flipped"], survey.all.counts["regraded"]
    if flips:
        yield (
            f"Labels were changed by re-grading in {_of(flips, versions)} traces (the newer label counts; "
            f"{survey.all.first['flipped']})."
        )
    yield from _told(survey, "unlabelled")


def _duplicate_problems(survey: Survey, c: Columns) -> Iterable[str]:
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
            f"{files[c['file'][i]][:-1]}, {sources[c['source'][i]]}: {distinct:,} distinct questions in {total:,} "
            "problem rows; the samples of a repeated question are pooled under one "
            f"problem (such as {survey.origin(example)}), so joined numbers differ from row-level ones."
        )


def _split_problems(survey: Survey, c: Columns) -> Iterable[str]:
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


def _duplicate_responses(survey: Survey, c: Columns) -> Iterable[str]:
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
                f"{source}: {_of(repeats, own.traces)} responses repeat an earlier one of the same problem word for "
                f"word ({_of(hit, len(pairs))} problems); "
                "they count for pass@k, and as one in clusters."
            )
        if n := own.counts["empty"] + (blank := own.counts["blank"]):
            held = f"{'' if blank == n else f'{blank:,} '}hold white space only; " if blank else ""
            where = own.first.get("empty") or own.first["blank"]
            yield f"{source}: {_of(n, own.traces)} responses are empty ({held}{where})."


def _renumbered(accounts: Sequence[dict[str, Any]]) -> Iterable[str]:
    for a in accounts:
        n = a["counts"].get("renumbered", 0)
        if n:
            yield (
                f"{a['path']}: {n:,} sample numbers were taken already within their source and problem and were "
                "given the next free one."
            )
        if a["counts"].get("by_id"):
            yield (
                f"{a['path']}: no question and no prompt, so problems go by the dump's own id "
                f"({a['mapping'].get('id', 'ids')}); "
                "they join with another file only if the same id means the same problem there."
            )


def _gold(survey: Survey, c: Columns) -> Iterable[str]:
    kinds = survey.gold_kinds
    if len(kinds) > 1:
        yield (
            f"Reference answers come in {len(kinds)} types "
            f"({', '.join(f'{n:,} {k}' for k, n in kinds.most_common())}); compare them as numbers or text, not "
            "as JSON."
        )
    have = np.flatnonzero(c["gold"])
    problem, gold = c["problem"][have], c["gold"][have]
    order, starts = grouped(problem, gold)
    at = have[order[starts]]  # where each reference of a problem stands first
    distinct, count = np.unique(c["problem"][at], return_counts=True)
    unlike = distinct[count > 1]
    if len(unlike):
        among = np.isin(c["problem"][at], unlike)
        first = c["problem"][have[np.isin(problem, unlike)][0]]
        a, b = sorted(at[among & (c["problem"][at] == first)].tolist())[:2]
        said = [survey.golds[int(c["gold"][i])] for i in (a, b)]
        yield (
            f"{_of(len(unlike), len(distinct))} problems have different reference answers in different rows "
            f"({said[0]!r} and {said[1]!r}, {survey.origin(a)})."
        )
    if n := np.count_nonzero(c["drift"]):
        answer, reference, origin = survey.drift
        told = (_misspelt(source, c, number) for number, source in enumerate(survey.sources))
        each = "; ".join(filter(None, told))
        yield (
            f"{n:,} answers equal the reference only after normalising ({answer!r} and {reference!r}, {origin}): "
            f"{each}; labels are taken as the dump has them."
        )


def _misspelt(source: str, c: Columns, number: int) -> str:
    """How many of a source's answers that differ from the reference by spelling alone are labelled wrong, and pass@1
    with and without them; "" where it has none."""
    here = c["source"] == number
    drift, correct = c["drift"][here] > 0, c["correct"][here]
    n, wrong = int(drift.sum()), drift & (correct == 0)
    if not n:
        return ""
    bare = int((drift & (correct < 0)).sum())
    said = f"{source} {n:,}, " + (
        f"{int(wrong.sum()):,} of them labelled wrong" if wrong.any() else "none labelled wrong"
    )
    said += f", {bare:,} without a label" if bare else ""
    if not wrong.any():
        return said
    rows = [c[name][here] for name in ("file", "row", "step")]
    now, then = (accuracy(np.where(wrong, right, correct), *rows)[0] for right in (0, 1))
    return f"{said} (pass@1 {now:.3f} as labelled, {then:.3f} if they were right)"


def _hidden(survey: Survey, c: Columns) -> Iterable[str]:
    have = np.flatnonzero(c["bare"] >= 0)
    order, starts = grouped(c["source"][have], c["group"][have])
    parts = sorted((have[part] for part in np.split(order, starts[1:]) if len(part)), key=lambda part: part[0])
    sources, groups = list(survey.sources), list(survey.numbers["group"])
    medians = [float(np.median(c["size"][part])) for part in parts]
    for part, middle in zip(parts, medians, strict=True):
        source, group = sources[c["source"][part[0]]], groups[c["group"][part[0]]]
        short, bare = int(np.count_nonzero(c["size"][part] <= SHORT)), int(np.count_nonzero(c["bare"][part]))
        if short < len(part) / 2:
            continue
        others = {
            sources[c["source"][p[0]]]: m
            for p, m in zip(parts, medians, strict=True)
            if c["group"][p[0]] == c["group"][part[0]] and p is not part and m >= max(150, 4 * middle)
        }
        where = f" on {group}" if group else ""
        if others:
            other = max(others, key=lambda s: others[s])
            yield (
                f"{source}{where}: {_of(short, len(part))} responses have at most {SHORT} characters where {other} "
                f"writes {others[other]:,.0f} (median): the reasoning "
                "is hidden or was never written, and a perplexity of the rest says nothing about the reasoning path."
            )
        elif bare >= len(part) / 2:
            yield (
                f"{source}{where}: {_of(bare, len(part))} responses hold an answer and nothing "
                "else: their perplexity says nothing about a reasoning path."
            )


def _prompts(survey: Survey, c: Columns) -> Iterable[str]:
    yield from _told(survey, "no prompt")
    have = np.flatnonzero(c["prompt"])
    order, starts = grouped(c["problem"][have], c["source"][have], c["prompt"][have])
    at = have[order[starts]]  # one trace per problem, source and prompt
    if len(at):
        new = (np.diff(c["problem"][at]) != 0) | (np.diff(c["source"][at]) != 0)
        pairs = np.r_[0, 1 + np.flatnonzero(new)]  # problem and source
        mixed = c["prompt"][at].view(np.uint64) * MIX
        prompts_of = np.add.reduceat(mixed ^ (mixed >> np.uint64(29)), pairs)  # of a set, in whatever order
        owner = c["problem"][at][pairs]
        problems = np.r_[0, 1 + np.flatnonzero(np.diff(owner))]
        shared = np.diff(np.r_[problems, len(pairs)]) > 1
        unlike = np.minimum.reduceat(prompts_of, problems) != np.maximum.reduceat(prompts_of, problems)
        if (n := int(np.count_nonzero(unlike))) > 0:
            yield (
                f"Prompts differ between sources in {_of(n, int(np.count_nonzero(shared)))} shared problems: each "
                "source is scored after its own prompt, and no verdict compares them, unless the base is asked under "
                "the reference's (score with --prompt-of LABEL)."
            )
        several = int(np.count_nonzero(np.diff(np.r_[pairs, len(at)]) > 1))
        if several:
            yield f"{several:,} problems have more than one prompt within a source."
    labels = list(survey.sources)
    own = [np.unique(c["problem"][c["source"] == i]) for i in range(len(labels))]
    shared = [len(np.intersect1d(problems, own[0], assume_unique=True)) for problems in own[1:]]
    if apart := [label for label, n in zip(labels[1:], shared, strict=True) if not n]:
        yield f"{labels[0]} shares no problem with {', '.join(apart)}: nothing can be compared between them."


def _shown(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        if n := own.shown.counts["rows"]:
            yield (
                f"{source}: {_of(n, own.traces)} prompts show {counted(own.shown.counts['images'], 'image')} or the "
                f"like ({own.shown.first['rows']}), kept by address or hash (meta.images): problems are told apart by "
                "them. A scorer of text does not see them, so these rows are refused where a model is to score them."
            )


def _undeclared(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        if n := own.counts["undeclared"]:
            yield (
                f"{source}: {_of(n, own.traces)} rows have log-probabilities without the temperature they "
                "were taken at; they are not used"
                + (", but for reach beside the base's, as those of the sampler." if own.laws else ".")
            )


def _numbers(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        held, first = own.numbers.counts, own.numbers.first
        if n := held["unknown rows"]:
            yield (
                f"{source}: {held['unknown']:,} log-probabilities in {_of(n, own.traces)} rows are not known (null, "
                f"NaN or infinite, {first['unknown rows']}); they are left out, and with them the sums over their "
                "responses."
            )
        if n := held["masked rows"]:
            share = _of(held["masked"], held["of masked rows"])
            yield (
                f"{source}: response_mask says that the policy did not write {share} tokens of {counted(n, 'row')} "
                f"({first['masked rows']}): they are conditioned on and never scored."
            )
        for label in (name.removeprefix("policy ") for name in held if name.startswith("policy ")):
            if label not in survey.sources:
                yield (
                    f"{source}: policy_logprobs names {label!r} ({first[f'policy {label}']}), and no source here has "
                    f"that label{nearest(label, survey.sources)}; a run that lacks it refuses these rows."
                )


def _foreign(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        held, first = own.foreign.counts, own.foreign.first
        if n := held["held"]:
            marks = [k.removeprefix("mark ") for k in held if k.startswith("mark ")]
            share = held["held: characters"] / held["held: of"]
            masked = held["masked"]
            what = (
                "their masks leave it out of every score."
                if masked == n
                else "a model would score it as the policy's words, and its perplexity is in part that of the "
                "retriever or tool. Give response_ids with a response_mask (0 where the policy did not write)."
            )
            yield (
                f"{source}: {_of(n, own.traces)} responses hold retrieved text or tool output that the model did not "
                f"write ({', '.join(marks[:3])}; {first['held']}), {share:.0%} of their characters: {what}"
            )
        if n := held["repeated"]:
            share = held["repeated: characters"] / held["repeated: of"]
            yield (
                f"{source}: {_of(n, own.traces)} responses begin with their own prompt, word for word "
                f"({first['repeated']}), {share:.0%} of their characters: a model would score it as the policy's "
                "words, after the prompt once more. Take it out of the responses."
            )


def _copies(survey: Survey, c: Columns) -> Iterable[str]:
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
                    f"{a} and {b}: {_of(both, least)} long responses are the same word for "
                    "word on the same problems: one seems to be a copy of the other."
                )


def _lengths(survey: Survey) -> Iterable[str]:
    known = {s: sorted(own.budgets) for s, own in survey.sources.items() if own.budgets}
    if len({tuple(b) for b in known.values()}) > 1:
        yield (
            "Token budgets differ: "
            + ", ".join(f"{s} {'/'.join(map(str, b))}" for s, b in known.items())
            + "; pass@k and lengths are not comparable as they stand."
        )
    unknown = [s for s, own in survey.sources.items() if own.counts["no finish"] == own.traces]
    if unknown:
        yield (
            f"Finish reasons are not recorded for {', '.join(unknown)}: a cut response can't be told from a "
            "finished one."
        )
    yield from _told(survey, "cut", "open")
    for source, own in survey.sources.items():
        if own.other_ends:
            yield (
                f"{source}: finish reasons other than stop and length: "
                f"{', '.join(f'{k} ({n:,})' for k, n in own.other_ends.most_common(4))}; kept in meta, counted as "
                "unknown."
            )


def _samplers(survey: Survey, accounts: Sequence[dict[str, Any]]) -> Iterable[str]:
    for source, own in survey.sources.items():
        if len(own.samplers) > 1:
            yield (
                f"{source}: {len(own.samplers)} different samplers are recorded (or some rows have none); name one "
                f"with --sampler {source}=T,top_p."
            )
        if n := own.settings.counts[""]:
            words = [w for w, _ in own.settings.counts.most_common() if w not in ("", "given")]
            more = f" (and {len(words) - 1:,} other settings)" if len(words) > 1 else ""
            yield (
                f"{source}: {_of(n, own.traces)} rows state {words[0]}{more}, which no sampler here has "
                f"({own.settings.first['']}): "
                + (
                    f"the given --sampler {source} is taken in its place, and no law is exact that rests on it."
                    if own.settings.counts["given"]
                    else "no sampler is recorded from them, and their temperature is not taken for one. Only "
                    f"--sampler {source}=T,top_p sets it aside."
                )
            )
    yield from _told(survey, "greedy")
    named = [
        a["path"] for a in accounts if a["mapping"].get("temperature") == "file name" and "top_p" not in a["mapping"]
    ]
    if named:
        yield (
            f"{listed(named)}: the temperature comes from the file name, which does not tell top-p: give "
            "--sampler LABEL=T,top_p if it was not 1."
        )
