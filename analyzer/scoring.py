"""Score what a run holds: which models see which traces, encoding, over-long traces, parts on disk.

Resumable: what is on disk is not done again. Nothing prints: progress goes to a callback.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from analyzer.errors import DumpError, UsageError, nearest
from analyzer.plan import choose, units
from analyzer.records import Sampler, Scored, Trace
from analyzer.store import SCHEMA, Run, prompt_hash

UNIT_TRACES = 2000  # a unit of work, and so a part on disk, holds at most this many traces,
UNIT_TOKENS = 2_000_000  # this many tokens,
UNIT_FLOPS = {"cpu": 1e13, "cuda": 1e16}  # and about this much work (minutes): what a killed run loses

Progress = Callable[[str, int, int, int], None]  # what, traces done, traces in all, tokens done


def quiet(what: str, done: int, total: int, tokens: int) -> None:
    """The progress callback that says nothing."""


def score(
    run: Run,
    *,
    base: str,
    policies: Mapping[str, str] | None = None,
    cross: Mapping[str, str] | None = None,
    templates: Mapping[str, str] | None = None,
    eos: int | None = None,
    on_overlong: str = "error",
    scorer: str = "local",
    dtype: str = "auto",
    device: str = "auto",
    at_most: int | None = None,
    progress: Progress = quiet,
) -> None:
    """Score everything in the run that is not scored yet: all sources under the base and the cross models, each
    source with a policy also under that, and the reference's traces under it (what training lost).

    A model that equals the base, for a source with the reference's sampler, is not run again. templates: source label
    (or "*" for the others) -> file or name, for bare questions. at_most: traces per source, problem and step. Raises
    DumpError (over-long traces, missing prompts), ResourceError (model, memory), UsageError (unknown labels, changed
    settings). Settings become fixed for the run once its traces could be encoded with them.
    """
    from analyzer import scorers
    from analyzer.scorers.encode import load_template

    if scorer not in scorers.SCORERS:
        raise UsageError(f"--scorer {scorer!r} is unknown{nearest(scorer, scorers.SCORERS)}")
    texts = {label: load_template(name) for label, name in (templates or {}).items()}
    jobs, produced = _jobs(run, base, dict(policies or {}), dict(cross or {}), set(texts))
    settings = {
        "templates": dict(templates or {}),
        "eos": eos,
        "on_overlong": on_overlong,
        "at_most": at_most,
        "dtype": dtype,
    }
    run.refuse_changes(**settings)
    traces, _ = choose(list(run.traces()), at_most)
    _refuse_other_models(run, jobs, produced)
    loaded = None
    for label, (model, sampler, sources) in jobs.items():
        wanted = [t for t in traces if t.source in sources]
        if not _todo(run, label, wanted) and label in run.manifest["scorers"]:
            continue
        if loaded is None or loaded.name != model:
            loaded = scorers.load(model, dtype=dtype, device=device)
        if eos is not None and not 0 <= eos < loaded.vocab_size:
            raise UsageError(f"--eos {eos}: {model} has a vocabulary of {loaded.vocab_size}")
        path, why = scorers.choose_path(loaded, sampler, scorer)
        encoded = _encode(run, label, wanted, loaded, texts, eos, on_overlong)
        run.settle(**settings)
        run.manifest["scorers"][label] = {
            "model": model,
            "fingerprint": loaded.fingerprint,
            "sampler": asdict(sampler) if sampler else None,
            "path": path,
            "path_reason": why,
            "dtype": loaded.dtype,
            "dtype_error": scorers.local.half_precision_error(loaded.model, path),
            "device": loaded.device,
            "context": loaded.context,
            "vocabulary": loaded.vocab_size,
            "eos": eos,
            "decisions": run.manifest["scorers"].get(label, {}).get("decisions", {}),
        }
        _record_policies(run, produced)
        limit = loaded.context if on_overlong == "window" else None
        _score_all(run, label, encoded, loaded, path, sampler, limit, len(wanted), progress)
    _record_policies(run, produced)


def _refuse_other_models(
    run: Run, jobs: dict[str, tuple[str, Sampler | None, set[str]]], produced: dict[str, str]
) -> None:
    """Raise UsageError when a label of the run was scored under another model, or a policy is declared anew."""
    from analyzer.scorers import fingerprint

    for label, (model, _, _) in jobs.items():
        before, now = run.manifest["scorers"].get(label), fingerprint(model)
        if before and before["fingerprint"] != now:
            raise UsageError(
                f"run {run.path} was scored under another {label} model ({before['model']}, {before['fingerprint']}); "
                f"now {model} ({now}); use another -o folder"
            )
    known = run.manifest.get("policies", {})
    for source, label in produced.items():
        if known.get(source, label) != label:
            raise UsageError(
                f"run {run.path} was scored with {known[source]} as the model of {source}, which is now {label}; "
                "use another -o folder"
            )


def _record_policies(run: Run, produced: dict[str, str]) -> None:
    run.manifest["policies"] = run.manifest.get("policies", {}) | produced
    run.save()


def _jobs(
    run: Run, base: str, policies: dict[str, str], cross: dict[str, str], templated: set[str]
) -> tuple[dict[str, tuple[str, Sampler | None, set[str]]], dict[str, str]]:
    """What to score: scorer label -> (model, sampler of the source it produces, sources scored under it), and
    source label -> the scorer label of its policy."""
    from analyzer.scorers import fingerprint

    samplers = {label: Sampler(**s) if s else None for label, s in run.manifest["samplers"].items()}
    for flag, labels in (("--policy", policies), ("--template", templated - {"*"})):
        for label in labels:
            if label not in samplers:
                raise UsageError(f"{flag} {label}=...: no source has that label{nearest(label, samplers)}")
    reference = run.manifest["settings"]["reference"]
    jobs: dict[str, tuple[str, Sampler | None, set[str]]] = {"base": (base, samplers[reference], set(samplers))}
    produced = {reference: "base"}
    base_print = fingerprint(base)
    for label, model in policies.items():
        if fingerprint(model) == base_print and samplers[label] == samplers[reference]:
            produced[label] = "base"
        else:
            produced[label] = f"policy-{label}"
            jobs[f"policy-{label}"] = (model, samplers[label], {label, reference})
    return jobs | {f"cross-{label}": (model, None, set(samplers)) for label, model in cross.items()}, produced


def _todo(run: Run, label: str, traces: list[Trace]) -> list[Trace]:
    done = run.done(label)
    return [t for t in traces if t.key not in done]


def _encode(
    run: Run, label: str, wanted: list[Trace], loaded: Any, templates: dict[str, str], eos: int | None, on_overlong: str
) -> list:
    """All traces that can be scored, as ids; those that can't are recorded with the reason."""
    from analyzer.scorers.encode import encode

    encoded, unscored = [], []
    for trace in wanted:
        if not trace.response_ids and not trace.response:
            unscored.append((trace, (), "empty response"))
            continue
        template = templates.get(trace.source, templates.get("*"))
        encoded.append(encode(trace, loaded.tokenizer, vocab_size=loaded.vocab_size, template=template, eos=eos))
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
    done = run.done(label)
    run.append_scores(label, [row for row in unscored if row[0].key not in done])
    return encoded


def _score_all(
    run: Run,
    label: str,
    encoded: list,
    loaded: Any,
    path: str,
    sampler: Sampler | None,
    limit: int | None,
    total: int,
    progress: Progress,
) -> None:
    """Score unit by unit, each written as one part by a thread of its own while the next is scored.

    Units are cut from all traces that the run wants under this model; what is on disk is left out of them. An
    interrupted unit is written as far as it is done. Progress counts what was done in earlier, interrupted calls too.
    """
    from analyzer import scorers

    record = run.manifest["scorers"][label]
    done = run.done(label)
    tokens = sum(len(e.response_ids) for e in encoded if e.trace.key in done)
    finished = total - sum(e.trace.key not in done for e in encoded)
    since = tokens

    def note(name: str, value: Any) -> None:
        record[name] = value

    def save(number: int, items: dict, rows: list[Scored]) -> None:
        """The part first, then the count of the decisions behind it: what is counted was scored."""
        if rows:
            rows = sorted(rows, key=lambda scored: scored.key)
            found = [(items[s.key].trace, items[s.key].prompt_ids, s) for s in rows]
            run.append_scores(label, found, part=f"{number:05d}-{_unit_id(found, record)}")
            counts = Counter(record["decisions"])
            counts.update(d for s in rows for d in items[s.key].decisions)
            record["decisions"] = dict(sorted(counts.items()))
            run.save()

    cut = units([(e.prompt_ids, e.response_ids) for e in encoded], tokens=_unit_tokens(loaded), traces=UNIT_TRACES)
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for number, members in enumerate(cut):
            items = {encoded[i].trace.key: encoded[i] for i in members if encoded[i].trace.key not in done}
            rows: list[Scored] = []
            try:
                for scored in scorers.score(items.values(), loaded, path=path, sampler=sampler, limit=limit, note=note):
                    rows.append(scored)
                    finished, tokens = finished + 1, tokens + len(scored)
                    progress(label, finished, total, tokens - since)
            finally:
                if writing is not None:
                    writing.result()  # at most one part waits: memory stays bounded, and its error ends the run
                writing = writer.submit(save, number, items, rows)
        if writing is not None:
            writing.result()


def _unit_tokens(loaded: Any) -> int:
    """Tokens of a unit, by the work that a token costs on this device."""
    each = 2 * sum(p.numel() for p in loaded.model.parameters())
    return int(min(UNIT_TOKENS, max(4096, UNIT_FLOPS.get(loaded.model.device.type, 1e13) / each)))


def _unit_id(rows: list[tuple[Trace, tuple[int, ...], Scored]], record: Mapping[str, Any]) -> str:
    """8 hex digits of what a part depends on: which traces and ids, the model, how it was run, the schema."""
    digest = hashlib.sha256(f"{SCHEMA} {record['fingerprint']} {record['dtype']} {record['sampler']}".encode())
    for trace, prompt_ids, scored in rows:
        digest.update(f"{trace.key} {prompt_hash(prompt_ids)} ".encode() + scored.columns["token"].tobytes())
    return digest.hexdigest()[:8]


def dry_run(
    run: Run,
    *,
    base: str,
    templates: Mapping[str, str] | None = None,
    eos: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    at_most: int | None = None,
    policies: Mapping[str, str] | None = None,
    cross: Mapping[str, str] | None = None,
    on_overlong: str = "error",
    scorer: str = "local",
) -> dict[str, Any]:
    """What scoring would cost under the base model: exact tokens, weights in memory, disk. Scores nothing.

    Takes the arguments of `score`; further models see at most the same tokens each.
    """
    from analyzer import scorers
    from analyzer.scorers.encode import encode, load_template

    texts = {label: load_template(name) for label, name in (templates or {}).items()}
    jobs, _ = _jobs(run, base, dict(policies or {}), dict(cross or {}), set(texts))
    traces, over = choose(list(run.traces()), at_most)
    loaded = scorers.load(base, dtype=dtype, device=device)
    encoded = [
        encode(t, loaded.tokenizer, vocab_size=loaded.vocab_size, template=texts.get(t.source, texts.get("*")), eos=eos)
        for t in _todo(run, "base", traces)
        if t.response_ids or t.response
    ]
    response = sum(len(e.response_ids) for e in encoded)
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return {
        "traces_to_score": len(encoded),
        "traces_over_the_limit": len(over),
        "models": len(jobs),
        "prompt_tokens": sum(len(e.prompt_ids) for e in encoded),
        "response_tokens": response,
        "longest_trace_tokens": max(map(len, encoded), default=0),
        "context_tokens": loaded.context,
        "weights_bytes": weights,
        "disk_bytes_about": 30 * response,
    }
