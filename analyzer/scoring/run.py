"""Score what a run holds: which models see which traces, encoding, over-long traces, parts on disk.

Resumable: what is on disk is not done again. Nothing prints: progress goes to a callback.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analyzer.errors import DumpError, UsageError, nearest
from analyzer.records import NOVEL_POWERS, POWERS, Sampler, Scored, Trace
from analyzer.runs.rows import prompt_hash
from analyzer.runs.store import SCHEMA, Run
from analyzer.scoring.plan import choose, units

if TYPE_CHECKING:
    from analyzer.scoring.encoding import padding
    from analyzer.scoring.encoding.asked import Coded

UNIT_TRACES = 2000  # a unit of work, and so a part on disk, holds at most this many traces,
UNIT_TOKENS = 2_000_000  # this many tokens,
SERVER_TOKENS = 200_000  # (on a server)
UNIT_FLOPS = {"cpu": 1e13, "cuda": 1e16}  # and about this much work (minutes): what a killed run loses

NOT_FINITE = "log-probabilities that are not finite: the weights hold NaN, or overflow (try --dtype float32)"
LOADING = ("dtype", "device", "concurrent", "trust_remote_code", "allow_pickle")  # arguments that say how to load
Progress = Callable[[str, int, int, int], None]  # what, traces done, traces in all, tokens done
Job = tuple[str, Sampler | None, set[str]]  # model, sampler of the source that it produces, sources scored under it


class Work(NamedTuple):
    """What a call of `score` is about. jobs: by scorer label. produced: source -> scorer label of its policy.
    templates: source label or "*" -> text. traces: those to be scored; over: those beyond at_most. reference: the
    reference's label. prompt_of: the source whose prompts the base is asked under, None: every trace's own."""

    jobs: dict[str, Job]
    produced: dict[str, str]
    templates: dict[str, str | None]
    traces: list[Trace]
    over: list[Trace]
    reference: str
    prompt_of: str | None = None

    def asked_as(self, label: str) -> str | None:
        """The source whose prompts a scorer is asked under; None: every trace's own. Each law is that under which its
        own source was drawn: a policy keeps the prompts of its source, also for the reference's traces."""
        if self.prompt_of is None or label.startswith("cross-"):
            return None
        return self.prompt_of if label == "base" else label.removeprefix("policy-")

    def encode(self, label: str, traces: list[Trace], loaded: Any, texts: Mapping[str, Any]) -> Coded:
        """The traces as a scorer gets them; texts: `eos`, `date` and `marks` of `encode`. Raises DumpError."""
        from analyzer.scoring.encoding.asked import encode_all, of_source

        asked, whose = None, self.asked_as(label)
        if whose is not None:
            every, template = [*self.traces, *self.over], self.templates.get(whose, self.templates.get("*"))
            asked = of_source(every, whose, loaded, template, texts, strict=label == "base")
        return encode_all(traces, loaded, templates=self.templates, texts=texts, asked=asked)


def quiet(what: str, done: int, total: int, tokens: int) -> None:
    """The progress callback that says nothing."""


def score(
    run: Run,
    *,
    base: str,
    policies: Mapping[str, str] | None = None,
    cross: Mapping[str, str] | None = None,
    templates: Mapping[str, str] | None = None,
    prompt_of: str | None = None,
    eos: int | None = None,
    template_date: str | None = None,
    on_overlong: str = "error",
    scorer: str = "local",
    dtype: str = "auto",
    device: str = "auto",
    at_most: int | None = None,
    servers: Mapping[str, str] | None = None,
    concurrent: int = 16,
    shard: tuple[int, int] | None = None,
    cluster: str | None = None,
    workers: int | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    progress: Progress = quiet,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Score everything in the run that is not scored yet: all sources under the base and the cross models, each
    source with a policy also under that, and the reference's traces under it (what training lost). Where there are
    policies the base also gets the power columns: what its other temperatures would have given. Where a source has none
    it gets those of the exponents below 1: what novelty is told by.

    A model that equals the base, for a source with the reference's sampler, is not run again. templates: source label
    (or "*" for the others) -> file or name, for bare questions. prompt_of: the reference's label, where the base is to
    be asked under the reference's prompts whatever the source: each response is scored under the base after the prompt
    that the reference has for the same problem, and under its own policy after its own (`Work.asked_as`).
    template_date: YYYY-MM-DD, what chat templates write as today (by default the day of the first call; recorded where
    one does). at_most: traces per source, problem and step. servers: label (or "*") -> URL[#NAME] of the server that
    has its model (`servers.server`), asked `concurrent` requests at a time. shard (i, n): only the units whose number
    leaves i when divided by n. cluster: address of a Ray cluster, or "auto" (`scoring.cluster`), with so many workers.
    tell: called with what is to be known of a model's ids before they are scored. Raises DumpError (over-long traces,
    missing or several prompts), ResourceError (model, memory, disk, another writer), UsageError (unknown labels,
    changed settings). Settings become fixed for the run once its traces could be encoded with them.
    """
    from analyzer.scoring import load as scorers
    from analyzer.scoring.encoding import findings, padding, special
    from analyzer.scoring.encoding.encode import ENCODING
    from analyzer.scoring.encoding.prompts import DATED
    from analyzer.scoring.identity import tokenizer_fingerprint

    settings = {
        "templates": dict(templates or {}),
        "eos": eos,
        "on_overlong": on_overlong,
        "at_most": at_most,
        "dtype": dtype,
    }
    options = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
    part = {"shard": f"{shard[0]}/{shard[1]}"} if shard else {}
    models = {"base": base, "policies": policies, "cross": cross, "servers": servers}
    with run.writing():
        work = planned(run, **models, templates=templates, prompt_of=prompt_of, scorer=scorer, at_most=at_most)
        run.refuse_changes(**{"shard": None} | settings | part)
        _refuse_other_prompts(run, prompt_of)
        run.settle(**part)
        today = day(run, template_date)
        _refuse_other_models(run, work)
        _refuse_other_encoding(run, work)
        on_servers = _connected(run, work, lambda model: scorers.load(model, concurrent=concurrent, **options))
        with _loader(cluster, workers, options) as load:
            loaded = None
            for label, (model, sampler, _) in work.jobs.items():
                wanted, done = _wanted(run, work, label)
                if _is_finished(run, label, wanted, done):
                    continue
                if model in on_servers:
                    loaded = on_servers[model]
                elif loaded is None or loaded.name != model:
                    loaded = load(model)
                if eos is not None and not 0 <= eos < loaded.vocab_size:
                    raise UsageError(f"--eos {eos}: {model} has a vocabulary of {loaded.vocab_size}")
                path, why, dtype_error = scorers.prepare(loaded, sampler, scorer)
                texts = {"eos": eos, "date": today, "marks": padding_marks(run.manifest, loaded, eos)}
                coded = work.encode(label, wanted, loaded, texts)
                end = None if eos is None else special.checked_end(eos, loaded, coded.encoded, work.reference)
                encoded = _encoded(run, label, coded, loaded, sampler, on_overlong, shard, done)
                for found in [end, *findings.sentences(encoded), findings.of_tokenizer(encoded, loaded)]:
                    if found is not None:
                        tell(f"{label}: {found}")
                run.manifest.setdefault("padding", padding.as_json(texts["marks"]))
                run.settle(**settings, **({} if prompt_of is None else {"prompt_of": prompt_of}))
                if any(d.startswith(DATED) for e in encoded for d in e.decisions):
                    run.settle(template_date=today)
                before = run.manifest["scorers"].get(label, {})
                powers = () if model in on_servers else exponents(work, label)
                run.manifest["scorers"][label] = before | {
                    "model": model,
                    "fingerprint": loaded.fingerprint,
                    "tokenizer": tokenizer_fingerprint(model),
                    "sampler": asdict(sampler) if sampler else None,
                    "path": path,
                    "path_reason": why,
                    "dtype": loaded.dtype,
                    "dtype_error": dtype_error,
                    "device": loaded.device,
                    "context": loaded.context,
                    "vocabulary": loaded.vocab_size,
                    "eos": eos,
                    "eos_ids": sorted({*loaded.eos_ids, *(() if eos is None else (eos,))}),
                    "powers": sorted({*powers, *before.get("powers", ())}, key=(NOVEL_POWERS + POWERS).index),
                    **(_about(loaded.model, before) if model in on_servers else {}),
                    **({} if work.asked_as(label) is None else {"prompt_of": work.asked_as(label)}),
                    **({} if work.asked_as(label) is None else {"prompts": coded.prompts}),
                    # with another one all is done (`_refuse_other_encoding`), and that is what stays
                    "encoding": before.get("encoding") if before and done else ENCODING,
                    "decisions": {},
                    "examples": findings.examples(encoded),
                }
                run.manifest.setdefault("finished", {})[label] = []
                _record_policies(run, work.produced)
                limit = loaded.context if on_overlong == "window" else None
                _score_all(run, label, encoded, loaded, path, sampler, limit, shard, progress, done)
                run.manifest["finished"][label] = [len(wanted), len(done)]
                run.record(label)
                run.save()
        _record_policies(run, work.produced)


def planned(
    run: Run,
    *,
    base: str,
    policies: Mapping[str, str] | None = None,
    cross: Mapping[str, str] | None = None,
    templates: Mapping[str, str] | None = None,
    prompt_of: str | None = None,
    scorer: str = "local",
    at_most: int | None = None,
    servers: Mapping[str, str] | None = None,
) -> Work:
    """What `score` with these arguments is about; no model is loaded. Raises UsageError (labels, scorer)."""
    from analyzer.scoring import load as scorers
    from analyzer.scoring.encoding.prompts import load_template

    if scorer not in scorers.SCORERS:
        raise UsageError(f"--scorer {scorer!r} is unknown{nearest(scorer, scorers.SCORERS)}")
    texts = {label: load_template(name) for label, name in (templates or {}).items()}
    base, policies, cross = _on_servers(base, policies or {}, cross or {}, scorer, servers or {})
    jobs, produced = _jobs(run, base, policies, cross, set(texts), prompt_of)
    return Work(
        jobs, produced, texts, *choose(list(run.traces()), at_most), run.manifest["settings"]["reference"], prompt_of
    )


def exponents(work: Work, label: str) -> tuple[float, ...]:
    """Of the power columns that a scorer stores: the base's alone, for the sources with a policy and for those without
    (the reference's own is the base)."""
    if label != "base":
        return ()
    without = work.jobs[label][2] - set(work.produced)
    with_policy = len(work.produced) > 1 or "base" not in work.produced.values()
    return (NOVEL_POWERS if without else ()) + (POWERS if with_policy else ())


@contextlib.contextmanager
def _loader(cluster: str | None, workers: int | None, options: dict[str, Any]) -> Iterator[Callable[[str], Any]]:
    """The function that loads a model: here, by a process per device, or by the workers of a Ray cluster."""
    from analyzer.scoring import cluster as actors
    from analyzer.scoring import load as scorers
    from analyzer.scoring import processes

    if cluster is not None:
        with actors.crew(cluster, workers, options) as load:
            yield load
    elif "," in options["device"]:
        with processes.crew(options["device"], options) as load:
            yield load
    else:
        with scorers.kept():  # adapters share their base
            yield lambda model: scorers.load(model, **options)


def _connected(run: Run, work: Work, load: Callable[[str], Any]) -> dict[str, Any]:
    """Model -> Loaded of those on servers that are still needed, before anything is scored. Raises UsageError when one
    served model stands for two, or another than in an earlier call."""
    from analyzer.scoring.servers import served, server

    loaded: dict[str, Any] = {}
    found = {}
    for label, (model, _, _) in work.jobs.items():
        if server.split(model):
            before = run.manifest["scorers"].get(label, {}).get("server")
            if not _is_finished(run, label, *_wanted(run, work, label)):
                if model not in loaded:
                    loaded[model] = load(model)
                now = loaded[model].model.about()
                served.refuse_exchange(label, before, now)
                before = now
            if before:
                found[label] = model, before
    served.refuse_one_for_two(found)
    return loaded


def _about(server: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a scorer's record says of its server: which, and at which other addresses it was asked in earlier calls."""
    now, known = server.about(), before.get("server", {})
    others = {*before.get("other_urls", ()), known.get("url", now["url"])} - {now["url"]}
    return {"server": now} | ({"other_urls": sorted(others)} if others else {})


def _wanted(run: Run, work: Work, label: str) -> tuple[list[Trace], dict[str, str]]:
    """The traces that are to be scored under a label, and those on disk: key -> status."""
    return [t for t in work.traces if t.source in work.jobs[label][2]], run.done(label)


def _is_finished(run: Run, label: str, wanted: list[Trace], done: Mapping[str, str]) -> bool:
    """Whether everything is on disk and counted: recorded by the call that did it (in runs made before there was such
    a record: everything is on disk)."""
    recorded = run.manifest.get("finished", {}).get(label)
    if recorded is None:
        return label in run.manifest["scorers"] and all(t.key in done for t in wanted)
    return recorded == [len(wanted), len(done)]


def _on_servers(
    base: str, policies: Mapping[str, str], cross: Mapping[str, str], scorer: str, servers: Mapping[str, str]
) -> tuple[str, dict[str, str], dict[str, str]]:
    """Base, policies and cross models, as "MODEL@URL" where a server has them. Raises UsageError."""
    from analyzer.scoring.servers import server

    if not servers and scorer != "server":
        return base, dict(policies), dict(cross)
    if scorer not in ("local", "server"):
        raise UsageError(f"--scorer {scorer}: what --server names is scored there; leave one of the two out")
    labels = {"base", "*", *policies, *cross}
    for label in servers:
        if label not in labels:
            raise UsageError(f"--server {label}=...: no model has that label{nearest(label, labels - {'*'})}")
    named = ({label: server.spec(m, label, dict(servers)) for label, m in group.items()} for group in (policies, cross))
    return server.spec(base, "base", dict(servers)), *named


def _refuse_other_models(run: Run, work: Work) -> None:
    """Raise UsageError when a label of the run was scored under another model, or a policy is declared again."""
    from analyzer.scoring.identity import fingerprint, is_model, tokenizer_fingerprint
    from analyzer.scoring.servers.served import at_its_earlier_address

    for label, (model, _, _) in work.jobs.items():
        before = run.manifest["scorers"].get(label)
        if before and not is_model(before["fingerprint"], at_its_earlier_address(model, before)):
            raise UsageError(
                f"run {run.path} was scored under another {label} model ({before['model']}, {before['fingerprint']}); "
                f"now {model} ({fingerprint(model)}); use another -o folder"
            )
        now = tokenizer_fingerprint(model)
        if before and before.get("tokenizer", now) != now:  # earlier runs recorded none
            raise UsageError(
                f"run {run.path} was scored with another tokenizer or chat template of the {label} model "
                f"({before['model']}, {before['tokenizer']}; now {model}, {now}); restore its files, or use another -o "
                "folder"
            )
    known = run.manifest.get("policies", {})
    for source, label in work.produced.items():
        if known.get(source, label) != label:
            raise UsageError(
                f"run {run.path} was scored with {known[source]} as the model of {source}, which is now {label}; "
                "use another -o folder"
            )


def _refuse_other_encoding(run: Run, work: Work) -> None:
    """Raise UsageError when traces are still to be scored in a run where an earlier version made others into ids."""
    from analyzer.scoring.encoding.encode import ENCODING

    records = run.manifest["scorers"].items()
    other = [label for label, record in records if record.get("encoding") != ENCODING and run.done(label)]
    for label in work.jobs if other else ():
        wanted, done = _wanted(run, work, label)
        if not _is_finished(run, label, wanted, done) and (n := sum(t.key not in done for t in wanted)):
            then = run.manifest["scorers"][other[0]].get("encoding", "none")
            raise UsageError(
                f"run {run.path} was scored by another version ({other[0]} has encoding {then}, this one {ENCODING}): "
                "text, padding and masked tokens became ids in another way then, and scores of both ways can't stand "
                f"in one run; {n:,} traces are still to be scored under {label}: score all of them into another -o "
                "folder (what is scored here can still be reported)"
            )


def _refuse_other_prompts(run: Run, prompt_of: str | None) -> None:
    """Raise UsageError when the run was scored after other prompts. (Runs without --prompt-of record none.)"""
    before = run.manifest["settings"].get("prompt_of")
    if before != prompt_of and (before is not None or run.manifest["scorers"]):
        then, now = (
            "every trace after its own prompt" if label is None else f"the base after the prompts of {label}"
            for label in (before, prompt_of)
        )
        flag = "leave --prompt-of out" if before is None else f"add --prompt-of {before}"
        raise UsageError(
            f"run {run.path} was scored with {then}, now with {now}; scores after both can't stand in one run: {flag}, "
            "or use another -o folder"
        )


def _record_policies(run: Run, produced: dict[str, str]) -> None:
    run.manifest["policies"] = run.manifest.get("policies", {}) | produced
    run.save()


def _jobs(
    run: Run, base: str, policies: dict[str, str], cross: dict[str, str], templated: set[str], prompt_of: str | None
) -> tuple[dict[str, Job], dict[str, str]]:
    """`jobs` and `produced` of Work."""
    from analyzer.scoring.servers.served import is_same

    samplers = _samplers(run)
    for flag, labels in (("--policy", policies), ("--template", templated - {"*"})):
        for label in labels:
            if label not in samplers:
                raise UsageError(f"{flag} {label}=...: no source has that label{nearest(label, samplers)}")
    reference = run.manifest["settings"]["reference"]
    if prompt_of is not None and prompt_of not in samplers:
        raise UsageError(f"--prompt-of {prompt_of}: no source has that label{nearest(prompt_of, samplers)}")
    if prompt_of not in (None, reference):
        raise UsageError(
            f"--prompt-of {prompt_of}: the reference {reference} was drawn after its own prompts, and what the base "
            f"writes after others its traces do not show; only --prompt-of {reference} can be scored. For the base "
            f"after the prompts of {prompt_of} draw the reference again: analyzer sample DUMP_OF_{prompt_of} --model "
            "BASE -o FILE"
        )
    jobs: dict[str, Job] = {"base": (base, samplers[reference], set(samplers))}
    produced = {reference: "base"}
    for label, model in policies.items():
        own_prompts = prompt_of in (None, label)  # else the same weights are asked under two prompts: two laws
        if own_prompts and samplers[label] == samplers[reference] and is_same(model, base):
            produced[label] = "base"
        else:
            produced[label] = f"policy-{label}"
            jobs[f"policy-{label}"] = (model, samplers[label], {label, reference})
    return jobs | {f"cross-{label}": (model, None, set(samplers)) for label, model in cross.items()}, produced


def _samplers(run: Run) -> dict[str, Sampler | None]:
    """Source label -> its declared sampler, None: unknown."""
    return {label: Sampler(**s) if s else None for label, s in run.manifest["samplers"].items()}


def padding_marks(held: Mapping[str, Any], loaded: Any, eos: int | None) -> padding.Marks:
    """What padding is told by in a run: by its first model, as its manifest (`held`) keeps it; else by this model."""
    from analyzer.scoring.encoding import padding
    from analyzer.scoring.encoding.encode import marks_of

    if "padding" in held:
        return padding.of_json(held["padding"])
    return marks_of(loaded.tokenizer, {*loaded.eos_ids, *(() if eos is None else (eos,))})


def _encoded(
    run: Run,
    label: str,
    coded: Coded,
    loaded: Any,
    sampler: Sampler | None,
    on_overlong: str,
    shard: tuple[int, int] | None,
    done: dict[str, str],
) -> list:
    """All traces that can be scored, as ids; those that can't are recorded with the reason (by the first shard), on
    disk and in `done`. Where the declared sampler of a trace's source is neither plain nor the model's own `sampler`,
    its log-probs under that are asked for too (not of a server, which tells none)."""
    from analyzer.scoring.servers import served, server

    on_server = isinstance(loaded.model, server.Server)
    told = served.decisions(loaded.name, loaded.model.name) if on_server else ()
    declared = {} if on_server else _samplers(run)
    other = {source: s for source, s in declared.items() if s is not None and not s.is_plain and s != sampler}
    unscored = coded.unscored
    encoded = [replace(e, decisions=e.decisions + told, sampler=other.get(e.trace.source)) for e in coded.encoded]
    limit = loaded.context
    overlong = [e for e in encoded if limit is not None and len(e) > limit]
    if overlong and on_overlong == "error":
        worst = max(overlong, key=len)
        raise DumpError(
            f"{len(overlong)} of {len(encoded)} traces are longer than the {limit} tokens of {loaded.name}'s context "
            f"(longest {len(worst)}: {worst.trace.key}, {worst.trace.origin}); "
            "--on-overlong skip leaves them out, --on-overlong window scores them in overlapping windows"
        )
    if overlong and on_overlong == "skip":
        why = f"longer than the model's context of {limit} tokens"
        unscored += [(e.trace, e.prompt_ids, why) for e in overlong]
        encoded = [e for e in encoded if len(e) <= limit]
    if on_server:
        refused = server.refusals(loaded.model, (e for e in encoded if e.trace.key not in done), limit)
        refused |= {key: status for key, status in done.items() if status != "ok"}
        unscored += [(e.trace, e.prompt_ids, refused[e.trace.key]) for e in encoded if e.trace.key in refused]
        encoded = [e for e in encoded if e.trace.key not in refused]
    if shard is None or shard[0] == 0:
        rows = [row for row in unscored if row[0].key not in done]
        if rows and run.manifest.get("finished", {}).get(label):  # or a kill would leave a part that nobody expects
            run.manifest["finished"][label] = []
            run.save()
        run.append_scores(label, rows)
        done |= {trace.key: done.get(trace.key, why) for trace, _, why in unscored}
    return encoded


def day(run: Run, wanted: str | None) -> str:
    """What chat templates write as today, YYYY-MM-DD: what the run has recorded, else `wanted`, else today. Raises
    UsageError for what is no date, or another than recorded."""
    from analyzer.scoring.encoding.prompts import today

    if wanted is not None:
        run.refuse_changes(template_date=today(wanted))
    return wanted or run.manifest.get("settings", {}).get("template_date") or today()


def _score_all(
    run: Run,
    label: str,
    encoded: list,
    loaded: Any,
    path: str,
    sampler: Sampler | None,
    limit: int | None,
    shard: tuple[int, int] | None,
    progress: Progress,
    done: dict[str, str],
) -> None:
    """Score unit by unit, each written as one part by a thread of its own while the next is scored.

    Units are cut from all traces that the run wants under this model, whatever is on disk and whichever share of them
    this process does: who scores what changes no value. An interrupted unit is written as far as it is done. Progress
    and decisions count what was done in earlier, interrupted calls too. `done` grows by what is written.
    """
    from analyzer.scoring import load as scorers

    record = run.manifest["scorers"][label]
    earlier = [e for e in encoded if done.get(e.trace.key) == "ok"]
    decisions = Counter(d for e in earlier for d in e.decisions)
    since = tokens = sum(e.tokens for e in earlier)
    cut = units([(e.prompt_ids, e.response_ids) for e in encoded], tokens=unit_tokens(loaded), traces=UNIT_TRACES)
    first, step = shard or (0, 1)
    todo = {
        number: {encoded[i].trace.key: encoded[i] for i in cut[number] if encoded[i].trace.key not in done}
        for number in range(first, len(cut), step)
    }
    finished, total = len(done), len(done) + sum(map(len, todo.values()))

    def note(name: str, value: Any) -> None:
        record[name] = value

    def save(number: int, rows: list[Scored]) -> None:
        """What was noted first (nobody notes it again once the last part is on disk), then the part, then the count of
        the decisions behind it: what is counted was scored."""
        run.save()
        rows = sorted(rows, key=lambda scored: scored.key)
        items = [todo[number][s.key] for s in rows]
        found = [(item.trace, item.prompt_ids, s) for item, s in zip(items, rows, strict=True)]
        part = f"{number:05d}-{_unit_id(found, record)}"
        status = {s.key: "ok" if np.isfinite(s.columns["logprob"]).all() else NOT_FINITE for s in rows}
        found = [(t, ids, s if status[s.key] == "ok" else NOT_FINITE) for t, ids, s in found]
        run.append_scores(label, found, part=part)
        done.update(status)
        decisions.update(d for item in items if status[item.trace.key] == "ok" for d in item.decisions)
        record["decisions"] = dict(sorted(decisions.items()))
        run.save()

    with ThreadPoolExecutor(1) as writer:
        writing = None

        def hand_over(number: int, rows: list[Scored]) -> None:
            nonlocal writing
            if writing is not None:
                writing.result()  # at most one part waits: memory stays bounded, and its error ends the run
            writing = writer.submit(save, number, rows)

        parts: dict[int, list[Scored]] = {}  # by unit, as far as they are done
        work = [(number, list(items.values())) for number, items in todo.items() if items]
        try:
            options = {"path": path, "sampler": sampler, "limit": limit, "powers": tuple(record["powers"])}
            for number, scored in scorers.score_units(work, loaded, **options, note=note):
                parts.setdefault(number, []).append(scored)
                finished, tokens = finished + 1, tokens + len(scored)
                progress(label, finished, total, tokens - since)
                if len(parts[number]) == len(todo[number]):
                    hand_over(number, parts.pop(number))
        finally:
            for number, rows in parts.items():
                hand_over(number, rows)
            if writing is not None:
                writing.result()
    record["decisions"] = dict(sorted(decisions.items()))


def unit_tokens(loaded: Any) -> int:
    """Tokens of a unit, by the work that a token costs on this device."""
    if not loaded.parameters:  # a server: what it costs there is not known
        return SERVER_TOKENS
    work = UNIT_FLOPS.get(loaded.device.partition(":")[0], 1e13) / (2 * loaded.parameters)
    return int(min(UNIT_TOKENS, max(4096, work)))


def _unit_id(rows: list[tuple[Trace, tuple[int, ...], Scored]], record: Mapping[str, Any]) -> str:
    """8 hex digits of what a part depends on: which traces and ids, the model, how it was run, the schema."""
    digest = hashlib.sha256(f"{SCHEMA} {record['fingerprint']} {record['dtype']} {record['sampler']}".encode())
    digest.update(f"{record['powers']}".encode() if record["powers"] else b"")
    for trace, prompt_ids, scored in rows:
        digest.update(f"{trace.key} {prompt_hash(prompt_ids)} ".encode() + scored.columns["token"].tobytes())
    return digest.hexdigest()[:8]
