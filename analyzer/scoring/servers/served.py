"""Which model of a server stands behind a label: one model each, and the same as when the run began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError
from analyzer.scoring.identity import fingerprint
from analyzer.scoring.servers import server


def is_same(model: str, other: str) -> bool:
    """Whether two model specs mean one model: the same weights, or one name at one address of a server (what stands
    beside a server need not have weights to compare)."""
    one, two = server.split(model), server.split(other)
    if one and two:
        return _place(one[0]) == _place(two[0]) and one[1] == two[1]
    return fingerprint(model) == fingerprint(other)


def at_its_earlier_address(model: str, record: Mapping[str, Any]) -> str:
    """The spec of a model as a scorer's record has it, where at most the address is another: servers move between
    calls. A name that is not the recorded one keeps the spec as it is."""
    now, before = server.split(model), server.split(record["model"])
    if not now or not before:
        return model
    wanted = now[1].partition("#")[2]
    return f"{now[0]}@{before[1]}" if wanted in ("", record.get("server", {}).get("model", wanted)) else model


def refuse_exchange(label: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raise UsageError when a server's model, owner or way to be asked is another than recorded (`Server.about`)."""
    for what in ("model", "owner", "way"):
        if before and before[what] != now[what]:
            raise UsageError(
                f"{label} was scored by a server with {what} {before[what]} ({before['url']}), and {now['url']} has "
                f"{what} {now[what]}: values of both must not stand in one run; serve what was served before, or use "
                "another -o folder"
            )


def refuse_one_for_two(found: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    """Raise UsageError when one served model answers for labels with different models. found: label -> (spec, what the
    server is, as `Server.about` says it)."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for label, (spec, about) in found.items():
        model = server.split(spec)[0]
        other, its = seen.setdefault((about["url"], about["model"]), (label, model))
        if _place(its) != _place(model):
            raise UsageError(
                f"{other} ({its}) and {label} ({model}) are different models, and {about['url']} scores both by the "
                f"one that it calls {about['model']}; say where {label} is served: "
                f"--server {label.partition('-')[2] or label}=URL[#NAME]"
            )


def decisions(spec: str, name: str) -> tuple[str, ...]:
    """What is to be said where a server's only model, taken without being named, is called otherwise than asked for."""
    model, address = server.split(spec)
    if "#" in address or Path(model).name == Path(name).name:
        return ()
    return (f"model: the server serves {name}; it was asked as {Path(model).name}",)


def _place(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model
