"""Findings in traces that a reader should know before believing a number: each one sentence, with counts and an origin.

Pure: a survey of the traces in, sentences out; nothing is changed or dropped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from analyzer.dumps import repeats
from analyzer.dumps.counts import accuracy
from analyzer.dumps.repeats import MIX, SHORT, of
from analyzer.dumps.survey import Columns, Survey, grouped
from analyzer.errors import nearest
from analyzer.records.display import counted


def listed(names: Sequence[str]) -> str:
    """One name, or the first and how many more."""
    return names[0] + (f" and {len(names) - 1:,} other files" if len(names) > 1 else "")


def find(survey: Survey, accounts: Sequence[dict[str, Any]]) -> list[str]:
    """All findings, in a fixed order."""
    if not survey.sources:
        return []
    columns = survey.arrays()
    return [
        *_scores(survey),
        *_labels(survey),
        *repeats.problems(survey, columns),
        *repeats.split_problems(survey, columns),
        *repeats.responses(survey, columns),
        *_renumbered(accounts),
        *_told(survey, "null_answer"),
        *_gold(survey, columns),
        *_hidden(survey, columns),
        *_prompts(survey, columns),
        *_shown(survey),
        *_told(survey, "ids only", "joined_reasoning", "ids"),
        *_undeclared(survey),
        *_numbers(survey),
        *_foreign(survey),
        *repeats.sources(survey, columns),
        *_lengths(survey),
        *_samplers(survey, accounts),
    ]


def _scores(survey: Survey) -> Iterable[str]:
    n, between, against = (survey.all.counts[name] for name in ("scored", "fractional", "against"))
    if not n:
        return
    values = [f"{v:g}" for v, _ in survey.scores.most_common(5)]
    fractional = (
        f"; {of(between, n)} scores are neither 0 nor 1 (such as {', '.join(values)}, {survey.all.first['fractional']})"
        if between
        else ""
    )
    yield f"Correct means score >= {survey.threshold:g} where a dump has scores ({counted(n, 'trace')}){fractional}."
    if against:
        yield (
            f"{of(against, n)} traces have a label of their own that differs from score >= "
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
                yield f"{source}: {SENTENCES[name].format(share=of(n, own.traces), first=held.first[name])}"


def _labels(survey: Survey) -> Iterable[str]:
    flips, versions = survey.all.counts["flipped"], survey.all.counts["regraded"]
    if flips:
        yield (
            f"Labels were changed by re-grading in {of(flips, versions)} traces (the newer label counts; "
            f"{survey.all.first['flipped']})."
        )
    yield from _told(survey, "unlabelled")


def _renumbered(accounts: Sequence[dict[str, Any]]) -> Iterable[str]:
    for a in accounts:
        n = a["counts"].get("renumbered", 0)
        if n:
            yield (
                f"{a['path']}: {counted(n, 'sample number')} {'was' if n == 1 else 'were'} taken already within source "
                f"and problem and {'was' if n == 1 else 'were'} given the next free one."
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
            f"{of(len(unlike), len(distinct))} problems have different reference answers in different rows "
            f"({said[0]!r} and {said[1]!r}, {survey.origin(a)}). Where the same words ask about different things "
            "(another text, table, options), --map problem=FIELD names what tells them apart."
        )
    if n := np.count_nonzero(c["drift"]):
        answer, reference, origin = survey.drift
        told = (_misspelt(source, c, number) for number, source in enumerate(survey.sources))
        each = "; ".join(filter(None, told))
        yield (
            f"{counted(n, 'answer')} {'equals' if n == 1 else 'equal'} the reference only after normalising "
            f"({answer!r} and {reference!r}, {origin}): "
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
                f"{source}{where}: {of(short, len(part))} responses have at most {SHORT} characters where {other} "
                f"writes {others[other]:,.0f} (median): the reasoning "
                "is hidden or was never written, and a perplexity of the rest says nothing about the reasoning path."
            )
        elif bare >= len(part) / 2:
            yield (
                f"{source}{where}: {of(bare, len(part))} responses hold an answer and nothing "
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
                f"Prompts differ between sources in {of(n, int(np.count_nonzero(shared)))} shared problems: each "
                "source is scored after its own prompt, and no verdict compares them, unless the base is asked under "
                "the reference's (score with --prompt-of LABEL)."
            )
        several = int(np.count_nonzero(np.diff(np.r_[pairs, len(at)]) > 1))
        if several:
            have = "has" if several == 1 else "have"
            yield f"{counted(several, 'problem')} {have} more than one prompt within a source."
    labels = list(survey.sources)
    own = [np.unique(c["problem"][c["source"] == i]) for i in range(len(labels))]
    shared = [len(np.intersect1d(problems, own[0], assume_unique=True)) for problems in own[1:]]
    if apart := [label for label, n in zip(labels[1:], shared, strict=True) if not n]:
        yield f"{labels[0]} shares no problem with {', '.join(apart)}: nothing can be compared between them."


def _shown(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        if n := own.shown.counts["rows"]:
            yield (
                f"{source}: {of(n, own.traces)} prompts show {counted(own.shown.counts['images'], 'image')} or the "
                f"like ({own.shown.first['rows']}), kept by address or hash (meta.images): problems are told apart by "
                "them. A scorer of text does not see them, so these rows are refused where a model is to score them."
            )


def _undeclared(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        if n := own.counts["undeclared"]:
            yield (
                f"{source}: {of(n, own.traces)} rows have log-probabilities without the temperature they "
                "were taken at; they are not used"
                + (", but for reach beside the base's, as those of the sampler." if own.laws else ".")
            )


def _numbers(survey: Survey) -> Iterable[str]:
    for source, own in survey.sources.items():
        held, first = own.numbers.counts, own.numbers.first
        if n := held["unknown rows"]:
            yield (
                f"{source}: {held['unknown']:,} log-probabilities in {of(n, own.traces)} rows are not known (null, "
                f"NaN or infinite, {first['unknown rows']}); they are left out, and with them the sums over their "
                "responses."
            )
        if n := held["masked rows"]:
            share = of(held["masked"], held["of masked rows"])
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
                f"{source}: {of(n, own.traces)} responses hold retrieved text or tool output that the model did not "
                f"write ({', '.join(marks[:3])}; {first['held']}), {share:.0%} of their characters: {what}"
            )
        if n := held["repeated"]:
            share = held["repeated: characters"] / held["repeated: of"]
            yield (
                f"{source}: {of(n, own.traces)} responses begin with their own prompt, word for word "
                f"({first['repeated']}), {share:.0%} of their characters: a model would score it as the policy's "
                "words, after the prompt once more. Take it out of the responses."
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
                f"{source}: {of(n, own.traces)} rows state {words[0]}{more}, which no sampler here has "
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
