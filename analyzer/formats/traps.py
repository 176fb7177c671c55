"""Findings in traces that a reader should know before believing a number: each one sentence, with counts and an origin.

Pure: traces in, sentences out; nothing is changed or dropped here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import median
from typing import Any

from analyzer.records import Trace

SHORT = 80  # characters: a response that holds an answer and no reasoning
ANSWER_ONLY = re.compile(r"\s*(<answer>.*?</answer>|\\boxed\{[^{}]*\}|[-+]?[\d.,/]+)\s*\Z", re.S)


def normal_gold(value: Any) -> str:
    """A reference answer in one spelling: lists of one opened, numbers without a trailing .0, white space folded."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _one_spelling(str(value))


@lru_cache(1 << 16)  # a reference is asked for with every sample of its problem
def _one_spelling(text: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", " ".join(text.split()))


def listed(names: Sequence[str]) -> str:
    """One name, or the first and how many more."""
    return names[0] + (f" and {len(names) - 1:,} other files" if len(names) > 1 else "")


def find(traces: Sequence[Trace], accounts: Sequence[dict[str, Any]], threshold: float) -> list[str]:
    """All findings, in a fixed order."""
    by_source: dict[str, list[Trace]] = defaultdict(list)
    for t in traces:
        by_source[t.source].append(t)
    notes: list[str] = []
    for check in (
        _scores,
        _labels,
        _duplicate_problems,
        _duplicate_responses,
        _renumbered,
        _null_answers,
        _gold,
        _hidden,
        _prompts,
        _made,
        _ids,
        _copies,
        _lengths,
        _samplers,
    ):
        notes += check(traces, by_source, accounts, threshold)
    return notes


def _of(n: int, total: int) -> str:
    return f"{n:,} of {total:,}"


def _scores(traces: Sequence[Trace], by_source: Any, accounts: Any, threshold: float) -> Iterable[str]:
    scored = [t for t in traces if t.score is not None]
    if not scored:
        return
    between = [t for t in scored if t.score not in (0.0, 1.0)]
    values = [f"{v:g}" for v, _ in Counter(t.score for t in between).most_common(5)]
    fractional = (
        f"; {_of(len(between), len(scored))} scores are neither 0 nor 1 (such as {', '.join(values)}, "
        f"{between[0].origin})"
        if between
        else ""
    )
    yield f"Correct means score >= {threshold:g} where a dump has scores ({len(scored):,} traces){fractional}."
    against = [t for t in scored if t.correct is not None and t.correct != (t.score >= threshold)]
    if against:
        yield (
            f"{_of(len(against), len(scored))} traces have a label of their own that differs from score >= "
            f"{threshold:g} (the label counts; {against[0].origin})."
        )


def _labels(traces: Sequence[Trace], by_source: Any, accounts: Any, threshold: float) -> Iterable[str]:
    flips = [t for t in traces if isinstance(t.meta.get("old_correct"), bool) and t.meta["old_correct"] != t.correct]
    versions = sum("old_correct" in t.meta for t in traces)
    if flips:
        yield (
            f"Labels were changed by re-grading in {_of(len(flips), versions)} traces (the newer label counts; "
            f"{flips[0].origin})."
        )
    for source, own in by_source.items():
        none = sum(t.correct is None for t in own)
        if 0 < none < len(own):
            yield f"{source}: {_of(none, len(own))} traces have no label; they count neither as correct nor as wrong."


def problem_rows(traces: Sequence[Trace]) -> dict[tuple[str, str, int], list[Trace]]:
    """(source, file, row of the problem) -> its traces: problems as the rows of the files count them, not joined on
    text."""
    rows: dict[tuple[str, str, int], list[Trace]] = defaultdict(list)
    for t in traces:
        rows[t.source, re.sub(r"[:#]\d+$", "", t.origin), t.meta["row"]].append(t)
    return rows


def _duplicate_problems(traces: Sequence[Trace], by_source: Any, accounts: Any, threshold: float) -> Iterable[str]:
    rows: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    origin: dict[tuple[str, str, str], str] = {}
    for (source, file, row), own in problem_rows(traces).items():
        for t in own:
            rows[source, file][t.problem].add(row)
            origin[source, file, t.problem] = t.origin
    for (source, file), problems in rows.items():
        total, distinct = sum(map(len, problems.values())), len(problems)
        if total > distinct:
            example = next(p for p, r in problems.items() if len(r) > 1)
            yield (
                f"{file}, {source}: {distinct:,} distinct questions in {total:,} problem rows; the samples of a "
                "repeated question are pooled under one "
                f"problem (such as {origin[source, file, example]}), so joined numbers differ from row-level ones."
            )


def _duplicate_responses(traces: Sequence[Trace], by_source: Any, accounts: Any, threshold: float) -> Iterable[str]:
    for source, own in by_source.items():
        texts: dict[tuple[str, int | None], Counter[Any]] = defaultdict(Counter)
        for t in own:
            texts[t.problem, t.step][t.response_ids if t.meta.get("ids_only") else t.response] += 1
        repeats = sum(sum(c.values()) - len(c) for c in texts.values())
        hit = sum(sum(c.values()) > len(c) for c in texts.values())
        if repeats:
            yield (
                f"{source}: {_of(repeats, len(own))} responses repeat an earlier one of the same problem word for "
                f"word ({_of(hit, len(texts))} problems); "
                "they count for pass@k, and as one in clusters."
            )
        empty = [t for t in own if not t.response and not t.meta.get("ids_only")]
        if empty:
            yield f"{source}: {_of(len(empty), len(own))} responses are empty ({empty[0].origin})."


def _renumbered(
    traces: Sequence[Trace], by_source: Any, accounts: Sequence[dict[str, Any]], threshold: float
) -> Iterable[str]:
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


def _null_answers(
    traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float
) -> Iterable[str]:
    for source, own in by_source.items():
        null = [t for t in own if t.meta.get("null_answer")]
        if null:
            yield (
                f"{source}: no answer could be extracted from {_of(len(null), len(own))} responses (null in the "
                f"dump, {null[0].origin}): "
                "a failure of format counts as wrong and looks like inability."
            )


def _gold(traces: Sequence[Trace], by_source: Any, accounts: Any, threshold: float) -> Iterable[str]:
    kinds = Counter(type(t.meta["gold"]).__name__ for t in traces if t.meta.get("gold") is not None)
    if len(kinds) > 1:
        yield (
            f"Reference answers come in {len(kinds)} types "
            f"({', '.join(f'{n:,} {k}' for k, n in kinds.most_common())}); compare them as numbers or text, not "
            "as JSON."
        )
    golds: dict[str, dict[str, str]] = defaultdict(dict)
    for t in traces:
        if t.meta.get("gold") is not None:
            golds[t.problem].setdefault(normal_gold(t.meta["gold"]), t.origin)
    unlike = [g for g in golds.values() if len(g) > 1]
    if unlike:
        (a, where), (b, _) = list(unlike[0].items())[:2]
        yield (
            f"{_of(len(unlike), len(golds))} problems have different reference answers in different rows "
            f"({a[:40]!r} and {b[:40]!r}, {where})."
        )
    drift = [
        t
        for t in traces
        if isinstance(t.answer, str)
        and isinstance(t.meta.get("gold"), (str, int, float))
        and t.answer != str(t.meta["gold"])
        and normal_gold(t.answer) == normal_gold(t.meta["gold"])
    ]
    if drift:
        yield (
            f"{len(drift):,} answers equal the reference only after normalising ({drift[0].answer!r} and "
            f"{drift[0].meta['gold']!r}, {drift[0].origin}); "
            "labels are taken as the dump has them."
        )


def _hidden(
    traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float
) -> Iterable[str]:
    sizes: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    bare: Counter[tuple[str, str | None]] = Counter()
    for t in traces:
        if t.meta.get("ids_only"):
            continue
        sizes[t.source, t.group].append(len(t.response))
        bare[t.source, t.group] += bool(ANSWER_ONLY.match(t.response))
    for (source, group), own in sizes.items():
        short = sum(n <= SHORT for n in own)
        if short < len(own) / 2:
            continue
        others = {
            s: median(n)
            for (s, g), n in sizes.items()
            if g == group and s != source and median(n) >= max(150, 4 * median(own))
        }
        where = f" on {group}" if group else ""
        if others:
            other = max(others, key=lambda s: others[s])
            yield (
                f"{source}{where}: {_of(short, len(own))} responses have at most {SHORT} characters where {other} "
                f"writes {others[other]:,.0f} (median): the reasoning "
                "is hidden or was never written, and a perplexity of the rest says nothing about the reasoning path."
            )
        elif bare[source, group] >= len(own) / 2:
            yield (
                f"{source}{where}: {_of(bare[source, group], len(own))} responses hold an answer and nothing "
                "else: their perplexity says nothing about a reasoning path."
            )


def _prompts(
    traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float
) -> Iterable[str]:
    for source, own in by_source.items():
        without = sum(t.prompt is None and t.prompt_ids is None for t in own)
        if without:
            yield (
                f"{source}: the prompt that the model saw is not in {_of(without, len(own))} rows (at most the "
                "bare question): scoring needs --template."
            )
    prompts: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for t in traces:
        if t.prompt is not None:
            prompts[t.problem][t.source].add(str(t.prompt))
    shared = {p: s for p, s in prompts.items() if len(s) > 1}
    unlike = [p for p, s in shared.items() if len({frozenset(x) for x in s.values()}) > 1]
    if unlike:
        yield (
            f"Prompts differ between sources in {_of(len(unlike), len(shared))} shared problems: each source is "
            "scored after its own prompt."
        )
    several = sum(len(x) > 1 for s in prompts.values() for x in s.values())
    if several:
        yield f"{several:,} problems have more than one prompt within a source."
    problems = {s: {t.problem for t in own} for s, own in by_source.items()}
    labels = list(problems)
    for label in labels[1:]:
        if not problems[label] & problems[labels[0]]:
            yield f"{labels[0]} and {label} share no problem: nothing can be compared between them."


def _made(traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float) -> Iterable[str]:
    for source, own in by_source.items():
        bare = sum(bool(t.meta.get("ids_only")) for t in own)
        if bare:
            yield (
                f"{source}: {_of(bare, len(own))} responses are token ids without text: they can be scored, but "
                "nothing that reads the text (steps, answers, grading) sees them."
            )
        joined = [t for t in own if t.meta.get("joined_reasoning")]
        if joined:
            yield (
                f"{source}: {_of(len(joined), len(own))} responses were kept as reasoning and answer apart and are "
                f"joined as <think> reasoning </think> answer ({joined[0].origin}): the tokens at the seams are "
                "assumed."
            )


def _ids(traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float) -> Iterable[str]:
    for source, own in by_source.items():
        have = sum(t.response_ids is not None for t in own)
        if 0 < have < len(own):
            yield f"{source}: {_of(have, len(own))} rows have token ids; the others will be re-tokenised from text."
        undeclared = sum(t.response_logprobs is not None and t.logprobs_temperature is None for t in own)
        if undeclared:
            yield (
                f"{source}: {_of(undeclared, len(own))} rows have log-probabilities without the temperature they "
                "were taken at; they are not used."
            )


def _copies(
    traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float
) -> Iterable[str]:
    """Sources that are largely one another, whatever their files look like. Short answers agree by themselves."""
    if len(by_source) < 2:
        return
    said = {
        s: {(t.problem, hash(t.response_ids if t.meta.get("ids_only") else t.response)) for t in own if _is_long(t)}
        for s, own in by_source.items()
    }
    labels = list(by_source)
    for i, a in enumerate(labels):
        for b in labels[i + 1 :]:
            both = len(said[a] & said[b])
            if both and both >= 0.5 * min(len(said[a]), len(said[b])):
                yield (
                    f"{a} and {b}: {_of(both, min(len(said[a]), len(said[b])))} long responses are the same word for "
                    "word on the same problems: one seems to be a copy of the other."
                )


def _is_long(t: Trace) -> bool:
    return len(t.response_ids or ()) > SHORT if t.meta.get("ids_only") else len(t.response) > SHORT


def _lengths(
    traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Any, threshold: float
) -> Iterable[str]:
    budgets = {s: sorted({t.meta["max_tokens"] for t in own if "max_tokens" in t.meta}) for s, own in by_source.items()}
    known = {s: b for s, b in budgets.items() if b}
    if len({tuple(b) for b in known.values()}) > 1:
        yield (
            "Token budgets differ: "
            + ", ".join(f"{s} {'/'.join(map(str, b))}" for s, b in known.items())
            + "; pass@k and lengths are not comparable as they stand."
        )
    unknown = [s for s, own in by_source.items() if all(t.finish is None for t in own)]
    if unknown:
        yield (
            f"Finish reasons are not recorded for {', '.join(unknown)}: a cut response can't be told from a "
            "finished one."
        )
    for source, own in by_source.items():
        cut = sum(t.finish == "length" for t in own)
        if cut:
            yield f"{source}: {_of(cut, len(own))} responses ended at the token budget."
        open_ = [t for t in own if "<think>" in t.response and "</think>" not in t.response]
        if open_:
            yield (
                f"{source}: {_of(len(open_), len(own))} responses open <think> and never close it "
                f"({open_[0].origin}): probably cut at the token budget."
            )
        other = Counter(t.meta["finish_raw"] for t in own if "finish_raw" in t.meta)
        if other:
            yield (
                f"{source}: finish reasons other than stop and length: "
                f"{', '.join(f'{k} ({n:,})' for k, n in other.most_common(4))}; kept in meta, counted as unknown."
            )


def _samplers(
    traces: Sequence[Trace], by_source: dict[str, list[Trace]], accounts: Sequence[dict[str, Any]], threshold: float
) -> Iterable[str]:
    for source, own in by_source.items():
        kinds = {t.sampler for t in own}
        if len(kinds) > 1:
            yield (
                f"{source}: {len(kinds)} different samplers are recorded (or some rows have none); name one with "
                f"--sampler {source}=T,top_p."
            )
        if any(t.meta.get("greedy") for t in own):
            yield (
                f"{source}: decoded greedily (temperature 0), which has no sampling distribution; membership and "
                "reach can't be asked."
            )
    named = [
        a["path"] for a in accounts if a["mapping"].get("temperature") == "file name" and "top_p" not in a["mapping"]
    ]
    if named:
        yield (
            f"{listed(named)}: the temperature comes from the file name, which does not tell top-p: give "
            "--sampler LABEL=T,top_p if it was not 1."
        )
