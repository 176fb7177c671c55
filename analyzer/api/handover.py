"""The base goes on from growing prefixes of a source's correct traces: from which step on could it have gone alone?

The prompt's and the trace's own ids up to a step, as they were scored; then `n` draws of the base with the reference's
sampler, of the source's own model with the source's (which by its own law loses nothing), and of the base on the
reference's own correct traces, for control. What was drawn is kept in RUN/handover; `analysis/handover` reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.analysis.data.excerpts import shortened
from analyzer.analysis.data.steps import steps
from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.handover.run import DOUBTFUL
from analyzer.dumps import grading
from analyzer.dumps.numbers import mask_of
from analyzer.errors import ResourceError, UsageError, nearest
from analyzer.records import Sampler, Trace
from analyzer.records.display import counted
from analyzer.records.options import HandoverOptions, ModelOptions
from analyzer.runs import handover as kept
from analyzer.runs.store import Run
from analyzer.scoring import draws
from analyzer.scoring.load import load
from analyzer.scoring.parts import Progress, quiet
from analyzer.scoring.sample import AHEAD, Asked
from analyzer.scoring.servers import draws as server_draws
from analyzer.scoring.servers import server

EXCERPT = 160  # characters of the step that follows a prefix
DISAGREE = 0.05  # share of traces that the dump calls correct and the grader does not, beyond which it is another one
Grader = Callable[[Trace], bool | None]


@dataclass(frozen=True)
class Prefix:
    """What a trace is continued from: cuts, the numbers of the cuts that fall here; step of `of`; text up to the next
    prefix."""

    cuts: tuple[int, ...]
    step: int
    of: int
    next: str
    prompt_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    text: str


def handover(
    run: Run,
    sources: Sequence[str],
    how: HandoverOptions,
    model: ModelOptions,
    *,
    progress: Progress = quiet,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Draw, grade and keep the continuations of the sources (all but the reference where none is named) and, for
    control, of the reference; the same call again continues a killed one.

    Returns {"sources": {source: traces}, "prefixes", "continued" (prefixes that were there), "drawn", and of those
    "cut_off" and "unread"}. A function for a grader is known by its name alone when a call is continued. More
    traces may be asked for later; another grader grades again what is there. Raises UsageError (no scores, no sampler,
    a grader that contradicts the dump, other settings than before), ResourceError.
    """
    scorers = run.manifest["scorers"]
    record = scorers.get("base")
    if record is None:
        raise UsageError(f"nothing in run {run.path} is scored under a base model; score it with --base MODEL")
    reference = run.manifest["settings"]["reference"]
    known = list(dict.fromkeys(run.trace_table(["source"])["source"]))
    for name in sources:
        if name not in known:
            raise UsageError(f"no source {name!r} in run {run.path}{nearest(name, known)}")
    asked = list(dict.fromkeys([*(sources or (s for s in known if s != reference)), reference]))
    sampler = _sampler(run, reference)
    policies = run.manifest.get("policies", {})
    lengths = (len(ids) for f in run.tokens("base", ["token"]) for ids in f["token"])
    begun = next(iter(kept.settings(run.path).values()), {})
    most = how.max_tokens or begun.get("max_tokens") or 2 * max(lengths, default=0)  # the run may have grown since
    done: dict[str, Any] = {"sources": {}, "prefixes": 0, "drawn": 0, "continued": 0, "cut_off": 0, "unread": 0}
    with _grader(how.grader) as (grade, said), run.writing():
        traces = {}
        for source, keys in _chosen(run, asked, how.traces).items():
            if keys:
                traces[source] = _graded(keys, run, source, grade, tell)
                continue
            none = f"no scored trace of {source} is known to be correct, and a handover goes on from those"
            if source in sources:
                raise UsageError(f"{none}; it needs `correct` in the dump")
            tell(f"{none}; left out{' as control' if source == reference else ''}")
        if not traces:
            raise UsageError(f"{run.path}: no scored trace is known to be correct; it needs `correct` in the dumps")
        arms = [("base", "base", source, sampler) for source in traces]
        own = [s for s in traces if how.self_test and _has_other_weights(run, policies.get(s))]
        arms += [("policy", policies[s], s, _sampler(run, s)) for s in own]
        names = [how.base if by == "base" and how.base else scorers[label]["model"] for by, label, *_ in arms]
        if how.concurrent != HandoverOptions().concurrent and not any(map(server.split, names)):
            raise UsageError("--concurrent: requests at a time are made to a server alone")
        loaded: Any = None
        at = ""
        settings = {"cuts": how.cuts, "n": how.n, "seed": how.seed, "max_tokens": most, "grader": said}
        settings |= {"dtype": model.dtype, "base": record["fingerprint"], "sampler": asdict(sampler)}
        _regraded(run, settings, grade, tell)
        for name, (by, label, source, sampler_of) in zip(names, arms, strict=True):
            if name != at:
                loaded = None  # two models need not fit
                loaded, at = _loaded(name, how, model, scorers[label], by), name
            jobs = _jobs(run, label, traces[source], how.cuts, loaded.context, tell)
            with kept.adding(kept.file(run.path, source), settings) as (there, writer):
                have = {(r["key"], r["step"]) for r in there if r["by"] == by}
                left = [(t, p) for t, p in jobs if (t.key, p.step) not in have]
                for n, row in enumerate(_continued(loaded, left, how, sampler_of, most, by, grade), 1):
                    writer.write(row)
                    done |= {"drawn": done["drawn"] + how.n}
                    done |= {what: done[what] + row[what] for what in ("cut_off", "unread")}
                    progress(f"handing {source} over to the {by}", n, len(left), 0)
            done["sources"].setdefault(source, len({trace.key for trace, _ in jobs}))
            done["prefixes"] += len(jobs)
            done["continued"] += len(jobs) - len(left)
        run.manifest["handovers"] = kept.counts(run.path)
        run.save()
    limit = f"were cut at {most:,} tokens (--max-tokens) or the model's context"
    for what, why in (("cut_off", limit), ("unread", "could not be graded")):
        if done[what]:
            share = done[what] / done["drawn"]
            bad = f", and {share:.0%} are too many to trust the success" if share > DOUBTFUL else ""
            tell(f"{done[what]:,} of {done['drawn']:,} continuations {why}; they count as not correct{bad}")
    return done


def _has_other_weights(run: Run, label: str | None) -> bool:
    """Whether a source's own model is known, and is not the base."""
    scorers = run.manifest["scorers"]
    return label in scorers and scorers[label]["fingerprint"] != scorers["base"]["fingerprint"]


def _sampler(run: Run, source: str) -> Sampler:
    values = run.manifest.get("samplers", {}).get(source)
    if not values:
        raise UsageError(
            f"the sampler of {source} is not known, so nobody knows how to go on; read the dumps again with --sampler "
            f"{source}=T[,top_p[,top_k[,min_p]]]"
        )
    return Sampler(**values)


def _chosen(run: Run, sources: list[str], at_most: int) -> dict[str, list[str]]:
    """Source -> keys of its correct traces (scored, last step, not cut by a limit), problems in turn, lowest sample
    first."""
    frame = last_steps(run.trace_table(["key", "source", "problem", "step", "sample", "correct", "finish"]))
    scored = {key for key, status in run.done("base").items() if status == "ok"}
    right = frame["correct"].fillna(False).astype(bool) & (frame["finish"] != "length")
    frame = frame[right & among(frame["key"], scored)]
    frame = frame.sort_values("sample", kind="stable")
    turn = frame.groupby(["source", "problem"], sort=False).cumcount()
    frame = frame.assign(turn=turn).sort_values(["turn", "problem"], kind="stable")
    return {source: frame.loc[frame["source"] == source, "key"].head(at_most).tolist() for source in sources}


def _graded(keys: list[str], run: Run, source: str, grade: Grader, tell: Callable[[str], None]) -> dict[str, Trace]:
    """The chosen traces by key, without those that the grader does not call correct."""
    wanted = set(keys)
    found = {t.key: t for t in run.traces() if t.key in wanted}
    right = {key: found[key] for key in keys if grade(replace(found[key], correct=None)) is True}
    wrong = len(keys) - len(right)
    if wrong > DISAGREE * len(keys):
        first = next(key for key in keys if key not in right)
        raise UsageError(
            f"--grader: {wrong:,} of {counted(len(keys), 'trace')} of {source} that the dump calls correct are not by "
            f"this grader (first {first}); give the one that labelled the dump"
        )
    if wrong:
        tell(f"{source}: {counted(wrong, 'trace')} of {len(keys):,} left out, which the grader does not call correct")
    return right


def _regraded(run: Run, settings: dict[str, Any], grade: Grader, tell: Callable[[str], None]) -> None:
    """What was drawn before another grader is graded by this one; traces that it does not call correct lose their rows.
    Raises UsageError where any other setting differs."""
    kept.refuse_other(run.path, {name: value for name, value in settings.items() if name != "grader"})
    for path, begun in kept.settings(run.path).items():
        if begun["grader"] == settings["grader"]:
            continue
        rows = kept.read(path)[1]
        if any("finishes" not in row for row in rows):
            kept.refuse_other(run.path, settings)
        tell(f"{path} was graded by {begun['grader']}; what was drawn is graded again by {settings['grader']}")
        known = run.origins()
        keys = [key for key in dict.fromkeys(row["key"] for row in rows) if key in known]
        traces = _graded(keys, run, rows[0]["source"], grade, tell) if keys else {}

        def again(row: dict[str, Any], traces: dict[str, Trace] = traces) -> dict[str, Any] | None:
            if row["key"] not in traces:
                return None
            return row | _verdicts(traces[row["key"]], row["responses"], row["finishes"], grade)

        kept.rewrite(path, begun | {"grader": settings["grader"]}, again)


def _jobs(
    run: Run, label: str, traces: dict[str, Trace], cuts: int, context: int | None, tell: Callable[[str], None]
) -> list[tuple[Trace, Prefix]]:
    """Every trace with each of its prefixes, by the ids that were scored. Left out, and told, are traces that were not
    scored, whose steps can't be found among their tokens, or of which a mask covers a part."""
    prompts, out = run.prompts(label), {}
    for frame in run.tokens(label, ["token", "offset"]):
        frame = frame[among(frame["key"], traces) & frame["offset"].notna()]
        for key, prompt, token, offset in zip(*(frame[n] for n in ("key", "prompt", "token", "offset")), strict=True):
            long = context is not None and len(prompts[prompt]) + len(token) > context
            if not long and (np.diff(offset, prepend=0) >= 0).all() and mask_of(traces[key]) is None:
                own = _prefixes(traces[key].response, token, offset, tuple(prompts[prompt].tolist()), cuts)
                out[key] = [(traces[key], p) for p in own]
    if left := [key for key in traces if key not in out]:
        why = "beyond the context, masked in part, or with tokens that have no place in the text"
        tell(f"{len(left):,} of {counted(len(traces), 'trace')} can't be handed over ({why}); first {left[0]}")
    return [pair for key in traces for pair in out.get(key, ())]


def _prefixes(
    text: str, token_T: np.ndarray, offset_T: np.ndarray, prompt: tuple[int, ...], cuts: int
) -> Iterator[Prefix]:
    """The prefixes at 0/cuts to (cuts - 1)/cuts of the steps; cuts that fall on one step are one."""
    found = steps(text)
    end_T = np.append(offset_T[1:], len(text))
    groups = [(step, tuple(own)) for step, own in groupby(range(cuts), key=lambda j: j * len(found) // cuts)]
    for (step, own), (to, _) in pairwise([*groups, (len(found), ())]):
        n = 0
        if step:
            n = int(np.searchsorted(end_T, found[step].start, "right"))
            n = int(np.searchsorted(offset_T, offset_T[n]))  # bytes of one character stay together
        said = shortened(text[found[step].start : found[to - 1].end], EXCERPT) if found else ""
        ids = tuple(token_T[:n].tolist())
        yield Prefix(own, step, len(found), said, prompt, ids, text[: int(offset_T[n]) if n else 0])


def _loaded(name: str, how: HandoverOptions, model: ModelOptions, record: dict[str, Any], by: str) -> Any:
    """The model of a scorer. Raises UsageError where it is not the one that scored."""
    try:
        loaded = server_draws.connect(name, how.concurrent) if server.split(name) else load(name, **vars(model))
    except ResourceError as error:
        other = "--base MODEL gives the base's place" if by == "base" else "--no-self-test leaves this model out"
        raise ResourceError(f"{error} ({other})") from error
    if not server.split(name) and not server.split(record["model"]) and loaded.fingerprint != record["fingerprint"]:
        raise UsageError(f"{name} is another model than the one that scored the run ({record['model']})")
    return loaded


def _continued(
    loaded: Any,
    jobs: list[tuple[Trace, Prefix]],
    how: HandoverOptions,
    sampler: Sampler,
    most: int,
    by: str,
    grade: Grader,
) -> Iterator[dict[str, Any]]:
    """A row for each prefix: what was drawn from it, and how much of it is correct."""
    draw: Callable[..., Any]
    if isinstance(loaded.model, server.Server):
        draw, step = server_draws.draw, max(1, AHEAD * how.concurrent // how.n)
    else:
        draw, step = draws.drawer(loaded, how.batch), max(1, 4 * how.batch // how.n)
    for start in range(0, len(jobs), step):
        some, asked = jobs[start : start + step], []
        for trace, prefix in some:
            ids = prefix.prompt_ids + prefix.prefix_ids
            room = most if loaded.context is None else min(most, loaded.context - len(ids))
            name = f"{by} {trace.key} {len(prefix.prefix_ids)}"  # random numbers of its own
            asked.append(Asked(replace(trace, problem=name), ids, room))
        drawn = list(draw(loaded, asked, how.n, sampler, how.seed))  # a server left in the middle asks no more
        for at, (trace, prefix) in enumerate(some):
            own = drawn[at * how.n : (at + 1) * how.n]
            yield _row(trace, prefix, by, own, loaded.tokenizer, grade)


def _row(
    trace: Trace, prefix: Prefix, by: str, drawn: list[draws.Drawn], tokenizer: Any, grade: Grader
) -> dict[str, Any]:
    responses: list[str] = []
    for ids, _, text, _ in drawn:
        if ids is not None and tokenizer is not None:  # a piece decoded alone may lose its first blank
            text = tokenizer.decode([*prefix.prefix_ids, *ids], skip_special_tokens=True)
        else:
            text = prefix.text + text
        responses.append(text)
    finishes = [finish for *_, finish in drawn]
    row: dict[str, Any] = {"by": by, "source": trace.source, "problem": trace.problem, "key": trace.key}
    row |= {"cuts": prefix.cuts, "step": prefix.step, "of": prefix.of, "tokens": len(prefix.prefix_ids)}
    row |= {"next": prefix.next, "n": len(drawn), **_verdicts(trace, responses, finishes, grade)}
    return row | {"cut_off": finishes.count("length"), "finishes": finishes, "responses": responses}


def _verdicts(trace: Trace, responses: list[str], finishes: list[str | None], grade: Grader) -> dict[str, int]:
    """How many responses are correct, and how many can't be read."""
    plain = replace(trace, response_ids=None, correct=None)
    found = [grade(replace(plain, response=r, finish=f)) for r, f in zip(responses, finishes, strict=True)]
    return {"correct": found.count(True), "unread": found.count(None)}


@contextlib.contextmanager
def _grader(given: Any) -> Iterator[tuple[Grader, str]]:
    """The grader of the option, called with a Trace, and its name for the settings."""
    if callable(given):
        yield _checked(given, "given"), getattr(given, "__qualname__", repr(given))
        return
    if given is None:
        with grading.judging() as judge:
            yield partial(_equals_gold, judge), "math-verify"
        return
    path, _, name = given.rpartition(":")
    before = list(sys.path)
    sys.path[:0] = [str(Path(path).resolve().parent), str(Path.cwd())]  # as for a script, and for python -m
    try:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
                function = runpy.run_path(path).get(name)
        except (Exception, SystemExit) as error:
            raise UsageError(f"--grader {given}: {type(error).__name__}: {error}") from error
        if not callable(function):
            raise UsageError(f"--grader {given}: {path} has no function {name!r}")
        mark = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
        yield _checked(function, given), f"{Path(path).name}:{name} ({mark})"
    finally:
        sys.path[:] = before


def _equals_gold(judge: grading.Judge, trace: Trace) -> bool | None:
    gold = trace.meta.get("gold")
    if gold is None:
        raise UsageError(f"{trace.key} has no reference answer (gold) to grade by; give --grader FILE.py:FUNCTION")
    return grading.LABELS[judge(gold, trace.response)] if trace.response.strip() else None


def _checked(function: Grader, named: str) -> Grader:
    def grade(trace: Trace) -> bool | None:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found = function(trace)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"--grader {named} on {trace.key}: {type(error).__name__}: {error}; return None for what can't be read"
            ) from error
        if found is not None and not isinstance(found, (bool, np.bool_)):
            raise UsageError(
                f"--grader {named}: expected True, False or None (not read), got {found!r} for {trace.key}; of a "
                "reward return reward > 0, or wherever correct begins"
            )
        return None if found is None else bool(found)

    return grade
