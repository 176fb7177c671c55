"""What a call of `score` is about: which model sees which traces. No model is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from analyzer.errors import UsageError, nearest
from analyzer.records import NOVEL_POWERS, POWERS, Sampler, Trace
from analyzer.records.options import ScoreOptions
from analyzer.runs.store import Run
from analyzer.scoring.plan import choose

if TYPE_CHECKING:
    from analyzer.scoring.encoding import padding
    from analyzer.scoring.encoding.asked import Coded

Job = tuple[str, Sampler | None, set[str]]  # model, sampler of the source that it produces, sources scored under it


class Work(NamedTuple):
    """What a call of `score` is about. jobs: by scorer label. produced: source -> scorer label of its policy.
    templates: source label or "*" -> text. traces: those to be scored; over: those beyond score_at_most. reference: the
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

    def passes(self) -> list[list[str]]:
        """The labels of the scorers, those together that one pass over a model serves: the base and what has its
        weights, tokenizer and prompts, so that only samplers differ. A server tells nothing of another sampler."""
        from analyzer.scoring.identity import fingerprint, tokenizer_fingerprint
        from analyzer.scoring.servers import server

        def law(label: str) -> tuple[str, str, str | None]:
            model = self.jobs[label][0]
            return fingerprint(model), tokenizer_fingerprint(model), self.asked_as(label)

        base, local = law("base"), [label for label, job in self.jobs.items() if not server.split(job[0])]
        shared = ["base", *(label for label in local if label != "base" and law(label) == base)]
        return [shared, *([label] for label in self.jobs if label not in shared)]

    def encode(self, label: str, traces: list[Trace], loaded: Any, texts: Mapping[str, Any]) -> Coded:
        """The traces as a scorer gets them; texts: `eos`, `date` and `marks` of `encode`. Raises DumpError."""
        from analyzer.scoring.encoding.asked import encode_all, of_source

        asked, whose = None, self.asked_as(label)
        if whose is not None:
            every, template = [*self.traces, *self.over], self.templates.get(whose, self.templates.get("*"))
            asked = of_source(every, whose, loaded, template, texts, strict=label == "base")
        return encode_all(traces, loaded, templates=self.templates, texts=texts, asked=asked)


def planned(run: Run, how: ScoreOptions) -> Work:
    """What `score` with these options is about. Raises UsageError (labels)."""
    from analyzer.scoring.encoding.prompts import load_template

    templates = {label: load_template(name) for label, name in how.template.items()}
    jobs, produced = _jobs(run, *_on_servers(how), set(templates), how.prompt_of)
    traces, over = choose(list(run.traces()), how.score_at_most)
    return Work(jobs, produced, templates, traces, over, run.manifest["settings"]["reference"], how.prompt_of)


def exponents(work: Work, label: str) -> tuple[float, ...]:
    """Of the power columns that a scorer stores: the base's alone, for the sources with a policy and for those without
    (the reference's own is the base)."""
    if label != "base":
        return ()
    without = work.jobs[label][2] - set(work.produced)
    with_policy = len(work.produced) > 1 or "base" not in work.produced.values()
    return (NOVEL_POWERS if without else ()) + (POWERS if with_policy else ())


def wanted(run: Run, work: Work, label: str) -> tuple[list[Trace], dict[str, str]]:
    """The traces that are to be scored under a label, and those on disk: key -> status."""
    return [t for t in work.traces if t.source in work.jobs[label][2]], run.done(label)


def is_finished(run: Run, label: str, wanted: list[Trace], done: Mapping[str, str]) -> bool:
    """Whether everything is on disk and counted: recorded by the call that did it (in runs made before there was such
    a record: everything is on disk)."""
    recorded = run.manifest.get("finished", {}).get(label)
    if recorded is None:
        return label in run.manifest["scorers"] and all(t.key in done for t in wanted)
    return recorded == [len(wanted), len(done)]


def _on_servers(how: ScoreOptions) -> tuple[str, dict[str, str], dict[str, str]]:
    """Base, policies and cross models, as "MODEL@URL" where a server has them. Raises UsageError."""
    from analyzer.scoring.servers import server

    base = str(how.base)
    if not how.server and how.scorer != "server":
        return base, dict(how.policy), dict(how.cross)
    if how.scorer not in ("local", "server"):
        raise UsageError(f"--scorer {how.scorer}: what --server names is scored there; leave one of the two out")
    labels, servers = {"base", "*", *how.policy, *how.cross}, dict(how.server)
    for label in servers:
        if label not in labels:
            raise UsageError(f"--server {label}=...: no model has that label{nearest(label, labels - {'*'})}")
    policies, cross = (
        {label: server.spec(m, label, servers) for label, m in x.items()} for x in (how.policy, how.cross)
    )
    return server.spec(base, "base", servers), policies, cross


def _jobs(
    run: Run, base: str, policies: dict[str, str], cross: dict[str, str], templated: set[str], prompt_of: str | None
) -> tuple[dict[str, Job], dict[str, str]]:
    """`jobs` and `produced` of Work."""
    from analyzer.scoring.servers.served import is_same

    samplers = samplers_of(run)
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
    jobs |= {f"cross-{label}": (model, None, set(samplers)) for label, model in cross.items()}
    spelled: dict[str, str] = {}
    for label in jobs:
        if (other := spelled.setdefault(label.casefold(), label)) != label:
            raise UsageError(
                f"{other} and {label} differ in the case of letters alone, and their scores would lie in one folder on "
                "many systems; name one of the two otherwise"
            )
    return jobs, produced


def samplers_of(run: Run) -> dict[str, Sampler | None]:
    """Source label -> its declared sampler, None: unknown."""
    return {label: Sampler(**s) if s else None for label, s in run.manifest["samplers"].items()}


def padding_marks(held: Mapping[str, Any], loaded: Any, eos: int | None) -> padding.Marks:
    """What padding is told by in a run: by its first model, as its manifest (`held`) keeps it; else by this model."""
    from analyzer.scoring.encoding import padding
    from analyzer.scoring.encoding.encode import marks_of

    if "padding" in held:
        return padding.of_json(held["padding"])
    return marks_of(loaded.tokenizer, {*loaded.eos_ids, *(() if eos is None else (eos,))})


def day(run: Run, wanted: str | None) -> str:
    """What chat templates write as today, YYYY-MM-DD: what the run has recorded, else `wanted`, else today. Raises
    UsageError for another than recorded."""
    from analyzer.scoring.encoding.prompts import today

    if wanted is not None:
        run.refuse_changes(template_date=wanted)
    return wanted or run.manifest.get("settings", {}).get("template_date") or today()
