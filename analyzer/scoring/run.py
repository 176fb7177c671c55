"""Score what a run holds under the models that were named. Resumable: what is on disk is not done again.

Nothing prints: progress goes to a callback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from analyzer.errors import DumpError, UsageError
from analyzer.records import NOVEL_POWERS, POWERS
from analyzer.records.options import ModelOptions, ScoreOptions
from analyzer.records.steps import stored
from analyzer.runs import manifests
from analyzer.runs.store import Run
from analyzer.scoring import changes
from analyzer.scoring.parts import Asked, Progress, quiet, score_all
from analyzer.scoring.work import Work, day, exponents, is_finished, padding_marks, planned, samplers_of, wanted

if TYPE_CHECKING:
    from analyzer.scoring.encoding.asked import Coded

FIXED = ("template", "eos", "on_overlong", "score_at_most")  # for a run, and its dtype


def score(
    run: Run,
    how: ScoreOptions,
    model: ModelOptions,
    *,
    progress: Progress = quiet,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Score everything in the run that is not scored yet: all sources under the base and the cross models, each
    source with a policy also under that, and the reference's traces under it (what training lost). Where there are
    policies the base also gets the power columns: what its other temperatures would have given. Where a source has none
    it gets those of the exponents below 1: what novelty is told by.

    A model serves all its scorers in one pass (`Work.passes`): the base's own weights are not run again for a source
    with another sampler, and one with the reference's has no scorer of its own. Of `how`: template: source label (or
    "*" for the others) -> file or name, for bare questions. prompt_of: the reference's label, where the base is to be
    asked under the reference's prompts whatever the source: each response is scored under the base after the prompt
    that the reference has for the same problem, and under its own policy after its own (`Work.asked_as`).
    template_date: by default the day of the first call; recorded where a template writes it. server: label (or "*") ->
    URL[#NAME] of the server that has its model (`servers.server`). shard (i, n): only the units whose number leaves i
    when divided by n. cluster: see `scoring.cluster`. tell: called with what is to be known of a model's ids before
    they are scored. Raises DumpError (over-long traces, missing or several prompts), ResourceError (model, memory,
    disk, another writer), UsageError (unknown labels, changed settings). Settings become fixed for the run once its
    traces could be encoded with them.
    """
    from analyzer.scoring import load as scorers
    from analyzer.scoring.encoding import findings, padding, special
    from analyzer.scoring.encoding.prompts import DATED, UNDATED

    settings = stored(how, *FIXED) | stored(model, "dtype")
    part = {"shard": "{}/{}".format(*how.shard)} if how.shard else {}
    with run.writing():
        work = planned(run, how)
        run.refuse_changes(**{"shard": None} | settings | part)
        changes.refuse_other_prompts(run, how.prompt_of)
        run.settle(**part)
        today = day(run, how.template_date)
        changes.refuse_other_models(run, work)
        changes.refuse_other_definitions(run, work)
        on_servers = changes.connected(run, work, lambda m: scorers.load(m, concurrent=how.concurrent, **vars(model)))
        with _loader(how, vars(model)) as load:
            loaded = None
            for labels in work.passes():
                held = {label: wanted(run, work, label) for label in labels}
                left = [label for label in labels if not is_finished(run, label, *held[label])]
                if not left:
                    continue
                name, sampler, _ = work.jobs[left[0]]
                if name in on_servers:
                    loaded = on_servers[name]
                elif loaded is None or loaded.name != name:
                    loaded = load(name)
                if how.eos is not None and how.eos >= loaded.vocab_size:
                    raise UsageError(f"--eos {how.eos}: {name} has a vocabulary of {loaded.vocab_size}")
                path, why, dtype_error = scorers.prepare(loaded, sampler, how.scorer)
                path_of = {"path": path, "path_reason": why, "dtype": loaded.dtype, "dtype_error": dtype_error}
                texts = {"eos": how.eos, "date": today, "marks": padding_marks(run.manifest, loaded, how.eos)}
                # all of the first one's, also when only another is left: how units are cut must not depend on it
                coded = _fitting(work.encode(left[0], held[labels[0]][0], loaded, texts), loaded, how)
                asked: dict[str, Asked] = {}
                for label in left:
                    _, sampler, sources = work.jobs[label]
                    done, mine = held[label][1], coded.of(sources)
                    end = None
                    if how.eos is not None:
                        end = special.checked_end(how.eos, loaded, mine.encoded, work.reference)
                    encoded = _recorded(run, label, mine, loaded, how, done)
                    for found in [end, *findings.sentences(encoded), findings.of_tokenizer(encoded, loaded)]:
                        if found is not None:
                            tell(f"{label}: {found}")
                    run.manifest.setdefault("padding", padding.as_json(texts["marks"]))
                    run.settle(**settings, **({} if how.prompt_of is None else {"prompt_of": how.prompt_of}))
                    if any(d.startswith(DATED) for e in encoded for d in e.decisions):
                        run.settle(template_date=today)
                    record = _record(run, work, label, loaded, path_of, mine, how.eos, begun=bool(done))
                    run.manifest["versions"] = record["versions"]
                    run.manifest["scorers"][label] = record | {"examples": findings.examples(encoded)}
                    run.manifest.setdefault("finished", {})[label] = []
                    asked[label] = Asked(sampler, sources, done)
                _record_policies(run, work.produced)
                declared = {} if name in on_servers else samplers_of(run)  # a server tells the log-probs of none
                context = loaded.context if how.on_overlong == "window" else None
                score_all(run, asked, coded.encoded, declared, loaded, path, context, how.shard, progress)
                for label in left:  # in one step: a pass is finished for all of its scorers or for none
                    # on disk: what can't be scored the first shard writes for all
                    run.manifest["finished"][label] = [len(held[label][0]), run.status_counts(label).total()]
                    run.record(label)
                run.save()
        _record_policies(run, work.produced)
        made = (d for scorer in run.manifest["scorers"].values() for d in scorer["decisions"])
        if how.template_date is not None and not any(d.startswith(DATED) for d in made):
            tell(UNDATED.format(how.template_date))


@contextlib.contextmanager
def _loader(how: ScoreOptions, options: dict[str, Any]) -> Iterator[Callable[[str], Any]]:
    """The function that loads a model: here, by a process per device, or by the workers of a Ray cluster."""
    from analyzer.scoring import cluster as actors
    from analyzer.scoring import load as scorers
    from analyzer.scoring import processes

    if how.cluster is not None:
        with actors.crew(how.cluster, how.workers, options) as load:
            yield load
    elif "," in options["device"]:
        with processes.crew(options["device"], options) as load:
            yield load
    else:
        with scorers.kept():  # adapters share their base
            yield lambda name: scorers.load(name, **options)


def _record(
    run: Run,
    work: Work,
    label: str,
    loaded: Any,
    path_of: dict[str, Any],
    coded: Coded,
    eos: int | None,
    *,
    begun: bool,
) -> dict[str, Any]:
    """What run.json says of a scorer; begun: whether an earlier call has scored some."""
    from analyzer.scoring.encoding.findings import definitions
    from analyzer.scoring.identity import tokenizer_fingerprint
    from analyzer.scoring.servers import server

    name, sampler, _ = work.jobs[label]
    before = run.manifest["scorers"].get(label, {})
    powers = () if server.split(name) else exponents(work, label)
    made = {"versions": changes.versions(), "device": loaded.device, **path_of}
    return {name: value for name, value in before.items() if name != "earlier"} | {
        "model": name,
        "fingerprint": loaded.fingerprint,
        "tokenizer": tokenizer_fingerprint(name),
        "sampler": asdict(sampler) if sampler else None,
        **made,
        **(manifests.earlier(made, before) if begun else {}),
        "context": loaded.context,
        "vocabulary": loaded.vocab_size,
        "eos": eos,
        "eos_ids": sorted({*loaded.eos_ids, *(() if eos is None else (eos,))}),
        "powers": sorted({*powers, *before.get("powers", ())}, key=(NOVEL_POWERS + POWERS).index),
        **(_about(loaded.model, before) if server.split(name) else {}),
        **({} if work.asked_as(label) is None else {"prompt_of": work.asked_as(label), "prompts": coded.prompts}),
        # with others all is done (`refuse_other_definitions`), and those are what stays
        **definitions(before if before and begun else None),
        "decisions": {},
    }


def _about(server: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a scorer's record says of its server: which, and at which other addresses it was asked in earlier calls."""
    now, known = server.about(), before.get("server", {})
    others = {*before.get("other_urls", ()), known.get("url", now["url"])} - {now["url"]}
    return {"server": now} | ({"other_urls": sorted(others)} if others else {})


def _record_policies(run: Run, produced: dict[str, str]) -> None:
    run.manifest["policies"] = run.manifest.get("policies", {}) | produced
    run.save()


def _fitting(coded: Coded, loaded: Any, how: ScoreOptions) -> Coded:
    """What is to be scored, with what a server's name says; traces beyond the context are refused, or not scored."""
    from analyzer.scoring.servers import served, server

    told = served.decisions(loaded.name, loaded.model.name) if isinstance(loaded.model, server.Server) else ()
    encoded = [replace(e, decisions=e.decisions + told) for e in coded.encoded] if told else coded.encoded
    limit = loaded.context
    overlong = [e for e in encoded if limit is not None and len(e) > limit]
    if overlong and how.on_overlong == "error":
        worst = max(overlong, key=len)
        raise DumpError(
            f"{len(overlong)} of {len(encoded)} traces are longer than the {limit} tokens of {loaded.name}'s context "
            f"(longest {len(worst)}: {worst.trace.key}, {worst.trace.origin}); "
            "--on-overlong skip leaves them out, --on-overlong window scores them in overlapping windows"
        )
    unscored = coded.unscored
    if overlong and how.on_overlong == "skip":
        why = f"longer than the model's context of {limit} tokens"
        unscored = unscored + [(e.trace, e.prompt_ids, why) for e in overlong]
        encoded = [e for e in encoded if len(e) <= limit]
    return coded._replace(encoded=encoded, unscored=unscored)


def _recorded(run: Run, label: str, coded: Coded, loaded: Any, how: ScoreOptions, done: dict[str, str]) -> list:
    """All traces that can be scored, as ids; those that can't are recorded with the reason (by the first shard), on
    disk and in `done`."""
    from analyzer.scoring.servers import server

    encoded, unscored = coded.encoded, coded.unscored
    if isinstance(loaded.model, server.Server):
        refused = server.refusals(loaded.model, (e for e in encoded if e.trace.key not in done), loaded.context)
        refused |= {key: status for key, status in done.items() if status != "ok"}
        unscored += [(e.trace, e.prompt_ids, refused[e.trace.key]) for e in encoded if e.trace.key in refused]
        encoded = [e for e in encoded if e.trace.key not in refused]
    if how.shard is None or how.shard[0] == 0:
        rows = [row for row in unscored if row[0].key not in done]
        if rows and run.manifest.get("finished", {}).get(label):  # or a kill would leave a part that nobody expects
            run.manifest["finished"][label] = []
            run.save()
        run.append_scores(label, rows)
    done |= {trace.key: done.get(trace.key, why) for trace, _, why in unscored}
    return encoded
