"""Log-probs by the names that trainers give them, for rollouts that were written as they are.

A name is in the tables below where a producer's source holds it (docs/formats.md, Your own numbers). A trainer's number
is taken only where it fits the response ids in every row looked at, and one under the base only where its temperature
is recorded beside it: trainers take it at the rollout's temperature as a rule, which is not for this reader to assume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from analyzer.dumps import automatic, numbers, shapes
from analyzer.dumps.names import SYNONYMS
from analyzer.dumps.paths import Fault, has
from analyzer.dumps.values import ids

POLICY = (  # the engine's own numbers first, then those that the trainer computed again
    "rollout_log_probs",  # verl, OpenRLHF, slime
    "rollout_logprobs",  # SkyRL
    "sampling_per_token_logps",  # TRL
    "completion_logprobs",  # verifiers, prime-rl
    "old_log_probs",  # verl
    "old_per_token_logps",  # TRL
    "action_log_probs",  # OpenRLHF, SkyRL
)
BASE = (
    "ref_log_prob",  # verl
    "ref_log_probs",  # slime, ROLL
    "ref_logprobs",  # loggers of verl, Atropos
    "ref_per_token_logps",  # TRL
    "base_action_log_probs",  # OpenRLHF, SkyRL
)
OWN = ("response_logprobs", "logprobs_temperature", "base_logprobs", "base_logprobs_temperature", "response_mask")


def find(fields: shapes.Fields, head: Sequence[Any], given: shapes.Fields) -> list[str]:
    """Add to `fields` what the first records hold of trainers' numbers, and take out what can't be read as such: notes
    about it. `given` (from --map) is left as it is."""
    notes: list[str] = []
    response = fields["response"][0]
    if response.startswith("*."):
        return notes
    values = automatic.first_values(list(head))
    policy, base = ([p for n in names if (p := _path(n, values, response))] for names in (POLICY, BASE))
    names = {n: SYNONYMS[n] if n == "response_mask" else (n,) for n in OWN if not _held(fields, n, head)}
    paths = {n: next((p for s in some if (p := _path(s, values, response))), None) for n, some in names.items()}
    own = {n: p for n, p in paths.items() if p}
    beside = None if _held(fields, "response_ids", head) else _path("response_ids", values, response)
    if beside and (policy or base or own):  # a dialect that knows of no ids
        fields["response_ids"] = (beside,)
    if not _held(fields, "response_ids", head):
        for path in (*policy, *base, *(p for n, p in own.items() if "temperature" not in n)):
            notes.append(f"{path} was not read: no response_ids beside it, one per number (--map response_ids=FIELD).")
        if "response_ids" not in fields and "response_mask" not in given and _held(fields, "response_mask", head):
            path = fields.pop("response_mask")[0]
            notes.append(f"{path} was not read: no response_ids beside it, one per value (--map response_ids=FIELD).")
        return notes
    for name, path in own.items():
        fields[name] = (path,)
    if "response_mask" not in given and "response_mask" in fields:
        _masks(fields, head)
    notes += _weak(fields, head, given)
    if policy and not _held(fields, "response_logprobs", head):
        notes += _take(fields, head, "response_logprobs", policy)
    if base and not _held(fields, "base_logprobs", head):
        objects = [p for p in base if "[]" not in p and isinstance(values.get(p), dict)]
        if objects or _held(fields, "base_logprobs_temperature", head):
            notes += _take(fields, head, "base_logprobs", objects or base)
        else:
            beside = "temperature" if "temperature" in values else "FIELD"
            notes.append(
                f"{base[0]} looks like log-probs under the base and was not read: the temperature that they were taken "
                f"at is not beside it; where a field of the rows holds it, --map base_logprobs={base[0]} --map "
                f"base_logprobs_temperature={beside}, else write it into every row as base_logprobs_temperature."
            )
    return notes


def _masks(fields: shapes.Fields, head: Sequence[Any]) -> None:
    """Read the other masks beside the one that was taken too: a row that lacks that one has its mask by another name,
    and where two differ the user chooses (`numbers.read`)."""
    path = fields["response_mask"][0]
    begin, dot, _ = path.removesuffix("[]").rpartition(".")
    end = "[]" * path.endswith("[]")
    for name in numbers.MASKS:
        other = f"{begin}{dot}{name}{end}"
        if other != path and _held({name: (other,)}, name, head):
            fields[f"mask.{name}"] = (other,)
            fields["response_mask"] += (other,)


def _path(name: str, values: dict[str, Any], response: str) -> str | None:
    """The path of a name beside the responses: in the row, or in each object of the list that holds them."""
    head, mark, tail = response.partition("[]")
    if mark and tail:
        held = values.get(head)
        if isinstance(held, list) and held and isinstance(held[0], dict) and name in held[0]:
            return f"{head}[].{name}"
    value = values.get(name)
    if value is None or name == response:
        return None
    if mark and "temperature" not in name:
        return f"{name}[]" if isinstance(value, list) else None
    wanted = (int, float) if "temperature" in name else list if name in OWN[:1] + OWN[-1:] else (list, dict)
    return name if isinstance(value, wanted) else None


def _held(fields: shapes.Fields, name: str, head: Sequence[Any]) -> bool:
    return any(has(r, p) for p in fields.get(name, ()) for r in head if isinstance(r, dict))


def _take(fields: shapes.Fields, head: Sequence[Any], name: str, found: list[str]) -> Iterator[str]:
    """Read the first of the paths that fits every row looked at as `name`."""
    for path in found:
        tried = {**fields, name: (path,)}
        fault = next((f for f in _faults(tried, head, name) if f), None)
        if fault is None:
            fields[name] = (path,)
            others = ", ".join(p for p in found if p != path)
            yield f"{path} was read as {name}" + (f", not {others}: --map {name}=FIELD chooses." if others else ".")
            return
        yield f"{path} was not read as {name}: {fault.detail}."


def _weak(fields: shapes.Fields, head: Sequence[Any], given: shapes.Fields) -> Iterator[str]:
    """Take out a field for which only a name like `logprobs` spoke, where none of its values is one per id."""
    name = "response_logprobs"
    path = fields.get(name, (name,))[0]
    if name in given or path.split(".")[-1].removesuffix("[]") == name or path[:1] == "@":
        return
    faults = list(_faults(fields, head, name))
    if faults and all(faults):
        del fields[name]
        yield f"{path} was not read as {name}: {faults[0].detail}."


def _faults(fields: shapes.Fields, head: Sequence[Any], name: str) -> Iterator[Fault | None]:
    """For each draft that has the field and ids, what is wrong with it."""
    wanted = ("response", "response_ids", "prompt_ids", name, "base_logprobs_temperature", "response_mask")
    read = shapes.reader({n: fields[n] for n in wanted if n in fields})
    for record in head:
        try:
            drafts = read(record)
        except (Fault, RecursionError):
            continue
        for draft in drafts:
            if draft.get(name) is None or draft.get("response_ids") is None:
                continue
            try:
                own = ids(draft["response_ids"], "response_ids")
            except Fault:
                continue
            try:
                held = draft.get("response_mask")
                prompt = draft.get("prompt_ids")
                before = len(prompt) if isinstance(prompt, list) else 0
                written = None if held is None else numbers.mask(held, len(own), before)
                if name == "base_logprobs":
                    at = draft.get("base_logprobs_temperature")
                    numbers.of_base(draft[name], at if isinstance(at, (int, float)) else None, len(own), written)
                else:
                    numbers.of_policy(draft[name], own, written)
                yield None
            except Fault as fault:
                yield fault
