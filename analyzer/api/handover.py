"""The base goes on from growing prefixes of a source's correct traces: from which step on could it have gone alone?

The prompt's and the trace's own ids up to a step, as they were scored; then `n` draws of the base with the reference's
sampler, of the source's own model with the source's (which by its own law loses nothing), and of the base on the
reference's own correct traces, for control. What was drawn is kept in RUN/handover; `analysis/handover` reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import runpy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.analysis.data.excerpts import shortened
from analyzer.analysis.data.steps import steps
from analyzer.analysis.data.summaries import among, last_steps
from analyzer.dumps import grading
from analyzer.errors import AnalyzerError, UsageError, nearest
from analyzer.records import Sampler, Trace
from analyzer.records.display import counted
from analyzer.records.options import HandoverOptions, ModelOptions
from analyzer.runs import handover as kept
from analyzer.runs.store import Run
from analyzer.scoring import draws
from analyzer.scoring.load import load
from analyzer.scoring.parts import Progress, quiet
from analyzer.scoring.sample import Asked
from analyzer.scoring.servers import draws as server_draws
from analyzer.scoring.servers import server

EXCERPT = 160  # characters of the step that follows a prefix
DISAGREE = 0.05  # share of traces that the dump calls correct and the grader does not, beyond which it is another one
Grader = Callable[[Trace], bool | None]


@dataclass(frozen=True)
class Prefix:
    """What a trace is continued from: cuts, the numbers of the cuts that fall here; step of `of`; text of the next."""

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

    Returns {"sources": {source: traces}, "prefixes", "drawn", "continued"}. Raises UsageError (no scores, no sampler, a
    grader that contradicts the dump, other settings than before), ResourceError, and what the grader raises.
    """
    record = run.manifest["scorers"].get("base")
    if record is None:
        raise UsageError(f"nothing in run {run.path} is scored under a base model; score it with --base MODEL")
    reference = run.manifest["settings"]["reference"]
    known = list(dict.fromkeys(run.trace_table(["source"])["source"]))
    for name in sources:
        if name not in known:
            raise UsageError(f"no source {name!r} in run {run.path}{nearest(name, known)}")
    asked = list(sources) or [s for s in known if s != reference]
    asked += [reference] * (reference not in asked)
    where, policies = how.base or record["model"], run.manifest.get("policies", {})
    most = how.max_tokens or 2 * max(len(ids) for f in run.tokens("base", ["token"]) for ids in f["token"])
    chosen = _chosen(run, asked, how.traces)
    done: dict[str, Any] = {"sources": {}, "prefixes": 0, "drawn": 0, "continued": 0}
    with _grader(how.grader) as (grade, said), run.writing():
        arms = [("base", "base", source) for source in asked]
        arms += [
            ("policy", policies[s], s)
            for s in asked
            if how.self_test and policies.get(s, "base") != "base" and _other(run, policies[s])
        ]
        traces = {source: _graded(keys, run, source, grade, tell) for source, keys in chosen.items()}
        loaded, at = None, None
        for by, label, source in sorted(arms, key=lambda arm: (arm[0] != "base", asked.index(arm[2]))):
            sampler = _sampler(run, reference if by == "base" else source)
            name = where if by == "base" else run.manifest["scorers"][label]["model"]
            if name != at:
                loaded, at = _loaded(name, how, model, run.manifest["scorers"][label]), name
            jobs = _jobs(run, label, traces[source], how.cuts)
            settings = {"cuts": how.cuts, "n": how.n, "seed": how.seed, "max_tokens": most, "grader": said}
            settings |= {"traces": hashlib.sha256(repr(sorted(traces[source])).encode()).hexdigest()[:16]}
            settings |= {"base": record["fingerprint"], "sampler": asdict(_sampler(run, reference))}
            with kept.adding(kept.file(run.path, source), settings) as (there, writer):
                have = {(r["key"], r["tokens"]) for r in there if r["by"] == by}
                left = [(t, p) for t, p in jobs if (t.key, len(p.prefix_ids)) not in have]
                done["continued"] += len(jobs) - len(left)
                draw, step = _drawer(loaded, how)
                for start in range(0, len(left), step):
                    some = left[start : start + step]
                    rows = _continued(loaded, draw, some, how, sampler, most, by, grade)
                    for row in rows:
                        writer.write(row)
                        done["drawn"] += how.n
                    progress(f"handing {source} over to the {by}", start + len(some), len(left), 0)
            done["sources"][source] = len(traces[source])
            done["prefixes"] += len(jobs)
    return done


def _other(run: Run, label: str) -> bool:
    """Whether a policy's weights are not the base's own."""
    scorers = run.manifest["scorers"]
    return scorers[label]["fingerprint"] != scorers["base"]["fingerprint"]


def _sampler(run: Run, source: str) -> Sampler:
    values = run.manifest.get("samplers", {}).get(source)
    if not values:
        raise UsageError(
            f"the sampler of {source} is not known, so nobody knows how to go on; read the dumps again with --sampler "
            f"{source}=T[,top_p[,top_k[,min_p]]]"
        )
    return Sampler(**values)


def _chosen(run: Run, sources: list[str], at_most: int) -> dict[str, list[str]]:
    """Source -> keys of its correct traces of its last step that no limit cut, problems in turn, those that all sources
    have solved before others, lowest sample first."""
    frame = last_steps(run.trace_table(["key", "source", "problem", "step", "sample", "correct", "finish"]))
    frame = frame[frame["correct"].fillna(False).astype(bool) & (frame["finish"] != "length")]
    frame = frame[frame["source"].isin(sources)].sort_values("sample", kind="stable")
    for source in set(sources) - set(frame["source"]):
        raise UsageError(f"no trace of {source} is known to be correct; a handover needs `correct` in the dump")
    frame["turn"] = frame.groupby(["source", "problem"], sort=False).cumcount()
    frame["alone"] = frame.groupby("problem")["source"].transform("nunique") < len(sources)
    frame = frame.sort_values(["turn", "alone", "problem"], kind="stable")
    return {source: frame.loc[frame["source"] == source, "key"].head(at_most).tolist() for source in sources}


def _graded(keys: list[str], run: Run, source: str, grade: Grader, tell: Callable[[str], None]) -> dict[str, Trace]:
    """The chosen traces by key, without those that the grader does not call correct."""
    wanted = set(keys)
    found = {t.key: t for t in run.traces() if t.key in wanted}
    right = {key: found[key] for key in keys if grade(found[key]) is True}
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


def _jobs(run: Run, label: str, traces: dict[str, Trace], cuts: int) -> list[tuple[Trace, Prefix]]:
    """Every trace with each of its prefixes, by the ids that were scored."""
    prompts, out = run.prompts(label), {}
    for frame in run.tokens(label, ["token", "offset"]):
        frame = frame[among(frame["key"], traces) & frame["offset"].notna()]
        for key, prompt, token, offset in zip(*(frame[n] for n in ("key", "prompt", "token", "offset")), strict=True):
            own = _prefixes(traces[key].response, token, offset, tuple(prompts[prompt].tolist()), cuts)
            out[key] = [(traces[key], p) for p in own]
    return [pair for key in traces for pair in out.get(key, ())]


def _prefixes(
    text: str, token_T: np.ndarray, offset_T: np.ndarray, prompt: tuple[int, ...], cuts: int
) -> Iterator[Prefix]:
    """The prefixes at 0/cuts to (cuts - 1)/cuts of the steps; cuts that fall on one step are one."""
    found = steps(text)
    end_T = np.append(offset_T[1:], len(text))
    at = [j * len(found) // cuts for j in range(cuts)]
    for step, group in groupby(range(cuts), key=lambda j: at[j]):
        begins = found[step].start if step else 0
        n = int(np.searchsorted(end_T, begins, "right")) if step else 0
        own = tuple(token_T[:n].tolist())
        said = shortened(text[found[step].start : found[step].end], EXCERPT) if found else ""
        yield Prefix(tuple(group), step, len(found), said, prompt, own, text[: int(offset_T[n]) if n else 0])


def _loaded(name: str, how: HandoverOptions, model: ModelOptions, record: dict[str, Any]) -> Any:
    """The model of a scorer. Raises UsageError where it is not the one that scored."""
    loaded = server_draws.connect(name, how.concurrent) if server.split(name) else load(name, **vars(model))
    if not server.split(name) and not server.split(record["model"]) and loaded.fingerprint != record["fingerprint"]:
        raise UsageError(f"{name} is another model than the one that scored the run ({record['model']})")
    return loaded


def _drawer(loaded: Any, how: HandoverOptions) -> tuple[Callable[..., Any], int]:
    if isinstance(loaded.model, server.Server):
        return server_draws.draw, max(1, 8 * how.concurrent // how.n)
    return draws.drawer(loaded, how.batch), max(1, 4 * how.batch // how.n)


def _continued(
    loaded: Any,
    draw: Callable[..., Any],
    jobs: list[tuple[Trace, Prefix]],
    how: HandoverOptions,
    sampler: Sampler,
    most: int,
    by: str,
    grade: Grader,
) -> Iterator[dict[str, Any]]:
    """A row for each prefix: what was drawn from it, and how much of it is correct."""
    asked = []
    for trace, prefix in jobs:
        ids = prefix.prompt_ids + prefix.prefix_ids
        room = most if loaded.context is None else min(most, loaded.context - len(ids))
        if room < 1:
            raise UsageError(f"{trace.key}: {len(ids)} tokens leave no room in the context of {loaded.name}")
        name = f"{by} {trace.key} {len(prefix.prefix_ids)}"  # random numbers of its own
        asked.append(Asked(replace(trace, problem=name), ids, room))
    drawn = iter(draw(loaded, asked, how.n, sampler, how.seed))
    for trace, prefix in jobs:
        responses: list[str] = []
        ends: Counter[str] = Counter()
        for ids, _, text, finish in (next(drawn) for _ in range(how.n)):
            if ids is not None and loaded.tokenizer is not None:  # a piece decoded alone may lose its first blank
                text = loaded.tokenizer.decode([*prefix.prefix_ids, *ids], skip_special_tokens=True)
            else:
                text = prefix.text + text
            verdict = grade(replace(trace, response=text, finish=finish, response_ids=None, correct=None))
            ends[{True: "correct", False: "wrong", None: "unread"}[verdict]] += 1
            ends["cut_off"] += finish == "length"
            responses.append(text)
        row: dict[str, Any] = {"by": by, "source": trace.source, "problem": trace.problem, "key": trace.key}
        row |= {
            "cuts": prefix.cuts,
            "step": prefix.step,
            "of": prefix.of,
            "tokens": len(prefix.prefix_ids),
            "next": prefix.next,
        }
        yield row | {"n": how.n, **{k: ends[k] for k in ("correct", "unread", "cut_off")}, "responses": responses}


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
    try:
        function = runpy.run_path(path).get(name)
    except Exception as error:
        raise UsageError(f"--grader {given}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise UsageError(f"--grader {given}: {path} has no function {name!r}")
    mark = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
    yield _checked(function, given), f"{Path(path).name}:{name} ({mark})"


def _equals_gold(judge: grading.Judge, trace: Trace) -> bool | None:
    gold = trace.meta.get("gold")
    if gold is None:
        raise UsageError(f"{trace.key} has no reference answer (gold) to grade by; give --grader FILE.py:FUNCTION")
    return grading.LABELS[judge(gold, trace.response)] if trace.response.strip() else None


def _checked(function: Grader, named: str) -> Grader:
    def grade(trace: Trace) -> bool | None:
        try:
            found = function(trace)
        except Exception as error:
            raise AnalyzerError(f"--grader {named} on {trace.key}: {type(error).__name__}: {error}") from error
        if found is not None and not isinstance(found, (bool, np.bool_)):
            raise UsageError(f"--grader {named}: expected True, False or None, got {found!r} for {trace.key}")
        return None if found is None else bool(found)

    return grade
