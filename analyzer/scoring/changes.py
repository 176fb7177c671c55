"""What must not change between the calls that score one run: models, encoding, prompts, servers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from analyzer import __version__
from analyzer.errors import UsageError
from analyzer.runs.store import Run
from analyzer.scoring.work import Work, is_finished, wanted

LIBRARIES = ("torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of this program, of Python and of the libraries that decide the numbers."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"analyzer": __version__, "python": python, **{name: version(name) for name in LIBRARIES}}


def refuse_other_models(run: Run, work: Work) -> None:
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


def refuse_other_definitions(run: Run, work: Work) -> None:
    """Raise UsageError when traces are still to be scored in a run where another version made others into ids, or
    numbers of them, in another way."""
    from analyzer.scoring.encoding.findings import differing

    records = run.manifest["scorers"].items()
    other = [(label, *found) for label, record in records if run.done(label) for found in differing(record)]
    for label in work.jobs if other else ():
        todo, done = wanted(run, work, label)
        if not is_finished(run, label, todo, done) and (n := sum(t.key not in done for t in todo)):
            whose, what, then, now = other[0]
            raise UsageError(
                f"run {run.path} was scored by another version ({whose} has {what} {then}, this one {now}): text "
                "became ids, or ids became numbers, in another way then, and scores of both ways can't stand in one "
                f"run; {n:,} traces are still to be scored under {label}: score all of them into another -o folder "
                "(what is scored here can still be reported)"
            )


def refuse_other_prompts(run: Run, prompt_of: str | None) -> None:
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


def connected(run: Run, work: Work, load: Callable[[str], Any]) -> dict[str, Any]:
    """Model -> Loaded of those on servers that are still needed, before anything is scored. Raises UsageError when one
    served model stands for two, or another than in an earlier call."""
    from analyzer.scoring.servers import served, server

    loaded: dict[str, Any] = {}
    found = {}
    for label, (model, _, _) in work.jobs.items():
        if server.split(model):
            before = run.manifest["scorers"].get(label, {}).get("server")
            if not is_finished(run, label, *wanted(run, work, label)):
                if model not in loaded:
                    loaded[model] = load(model)
                now = loaded[model].model.about()
                served.refuse_exchange(label, before, now)
                before = now
            if before:
                found[label] = model, before
    served.refuse_one_for_two(found)
    return loaded
