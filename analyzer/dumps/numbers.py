"""Numbers that a row brings for its response ids: log-probs under the policy that wrote it and under the base, and the
mask of the tokens that the policy did not write. Unknown is NaN, never 0; what can't be a log-prob is a Fault."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from analyzer.dumps.paths import Fault, show
from analyzer.records import ROUNDING, Trace

# of a log-prob: at the first and below stands for "outside of the top k" or minus infinity, up to the other is rounding
LEAST, MOST = -9999.0, ROUNDING
LISTS = ("response_logprobs", "base_logprobs", "policy_logprobs", "response_mask")
FIELDS = frozenset((*LISTS, "base_logprobs_temperature"))
MASKS = (
    *("response_mask", "loss_mask", "loss_masks", "assistant_mask", "assistant_masks", "completion_mask"),
    "action_mask",
)
Laws = dict[float, tuple[float, ...]]  # temperature -> one log-prob per response id


def tidy(temperature: float) -> float:
    """A temperature to six digits: one that went through float32 (0.60000002384) is the one that it was made of."""
    return float(f"{temperature:.6g}")


def read(draft: dict[str, Any], out: dict[str, Any]) -> None:
    """Put the checked FIELDS of a draft into `out`, whose response_ids are checked. Raises Fault."""
    ids = out.get("response_ids")
    held = {name: draft[name] for name in FIELDS if draft.get(name) is not None}
    temperature = out.pop("base_logprobs_temperature", None)
    if temperature is not None and temperature <= 0:
        raise Fault(
            "bad base_logprobs_temperature", f"base_logprobs_temperature = {show(temperature)}; expected a number > 0"
        )
    if ids is None:
        name = next((n for n in LISTS if n in held), None)
        if name is not None:
            reason = "bad mask" if name == "response_mask" else "bad logprobs"
            raise Fault(reason, f"{name} without response_ids; expected one per id")
        return
    before = len(out.get("prompt_ids") or ())
    own = mask(held["response_mask"], len(ids), before) if "response_mask" in held else None
    if own is not None:
        _one_mask(draft, own, before)
    own = None if own is None or all(own) else own
    if "response_logprobs" in held:
        out["response_logprobs"] = of_policy(held["response_logprobs"], ids, own)
    if "base_logprobs" in held and (laws := of_base(held["base_logprobs"], temperature, len(ids), own)):
        out["base_logprobs"] = laws
    if "policy_logprobs" in held and (by_source := of_policies(held["policy_logprobs"], len(ids), own)):
        out["policy_logprobs"] = by_source
    if own is not None:
        out["response_mask"] = own  # kept in meta: what was masked can't be told from NaN alone


def of_policy(value: Any, ids: tuple[int, ...], own: list[int] | None = None) -> tuple[float, ...]:
    """Log-probs (nats) of the ids under the policy that drew them. What an engine could not tell (null, NaN, an
    infinite number) is NaN, and so is whatever stands at an id that `own` (the mask) says it did not write."""
    if isinstance(value, list) and value and all(isinstance(v, list) and len(v) == 3 for v in value):
        # SGLang's output_token_logprobs: [log-prob, id, text or null] for each token
        for i, (entry, drawn) in enumerate(zip(value, ids, strict=False)):
            if entry[1] != drawn:
                raise Fault(
                    "bad logprobs",
                    f"response_logprobs[{i}] is of the id {show(entry[1])}, response_ids[{i}] is {drawn}",
                )
        value = [entry[0] for entry in value]
    elif isinstance(value, list) and len(value) == len(ids) and all(map(_drawn, value, ids)):
        # vLLM's logprobs: {id: {logprob, rank, decoded_token}} for each token, the drawn one among the likeliest
        value = [_drawn(entry, drawn)["logprob"] for entry, drawn in zip(value, ids, strict=True)]
    return _numbers(value, "response_logprobs", len(ids), own, base=False)


def _drawn(entry: Any, drawn: int) -> dict[str, Any] | None:
    held = entry.get(str(drawn)) if isinstance(entry, dict) else None
    return held if isinstance(held, dict) and "logprob" in held else None


def of_base(value: Any, temperature: float | None, count: int, own: list[int] | None = None) -> Laws:
    """Log-probs (nats) of `count` ids under the base: a list with its temperature, or an object {temperature: list}; an
    object's null says nothing. own: as for `of_policy`."""
    if isinstance(value, list):
        if temperature is None:
            raise Fault(
                "no base_logprobs_temperature",
                "base_logprobs is a list and base_logprobs_temperature is missing; expected the temperature that they "
                "were taken at (a number > 0, --map base_logprobs_temperature=FIELD), or an object {temperature: list}",
            )
        return {tidy(temperature): _numbers(value, "base_logprobs", count, own, base=True)}
    if not isinstance(value, dict):
        raise Fault(
            "bad logprobs",
            f"base_logprobs = {show(value)}; expected a list beside base_logprobs_temperature, or an object "
            '{temperature: list} such as {"1.0": [...]}',
        )
    out = _by_temperature(value, "base_logprobs", count, own)
    if out and temperature is not None and tidy(temperature) not in out:
        raise Fault(
            "bad base_logprobs_temperature",
            f"base_logprobs_temperature = {temperature:g}, but base_logprobs is an object of {', '.join(value)}; "
            "expected the temperature beside a list only",
        )
    return out


def of_policies(value: Any, count: int, own: list[int] | None = None) -> dict[str, Laws]:
    """Source label -> log-probs (nats) of `count` ids under that source's policy, as for the base: the only form is an
    object {source: {temperature: list}}; null says nothing."""
    form = 'expected an object {source: {temperature: list}} such as {"rl": {"1.0": [...]}}'
    if not isinstance(value, dict):
        raise Fault("bad logprobs", f"policy_logprobs = {show(value)}; {form}")
    out = {}
    for source, laws in value.items():
        if laws is not None and not isinstance(laws, dict):
            raise Fault("bad logprobs", f"policy_logprobs.{source} = {show(laws)}; {form}")
        if laws and (found := _by_temperature(laws, f"policy_logprobs.{source}", count, own)):
            out[source] = found
    return out


def _by_temperature(value: dict[str, Any], name: str, count: int, own: list[int] | None) -> Laws:
    out: Laws = {}
    for key, values in value.items():
        at = _temperature(key, name)
        if at in out:
            raise Fault("bad logprobs", f"{name} has the temperature {at:g} twice; expected each once")
        if values is not None:
            out[at] = _numbers(values, f"{name}.{key}", count, own, base=True)
    _impossible(out, name)
    return out


def _impossible(laws: Laws, name: str) -> None:
    """Raise Fault where a token is impossible at one temperature and possible at a lower one: cooling makes no token
    possible. (The reverse is a number too small to be written.)"""
    for hot, cool in pairwise(sorted(laws, reverse=True)):
        if -math.inf not in laws[hot]:
            continue
        for i, (above, below) in enumerate(zip(laws[hot], laws[cool], strict=True)):
            if above == -math.inf and below > -math.inf:
                raise Fault(
                    "bad logprobs",
                    f'{name}[{i}] is "-inf" at T={hot:g} and {below:g} at T={cool:g}; expected "-inf" at every lower '
                    "temperature of an impossible token, or null where it is not known (outside of the top k, say)",
                )


def mask(value: Any, count: int, before: int = 0) -> list[int]:
    """1 for each of `count` ids that the policy wrote, 0 for the others (what a tool said, injected text). before: ids
    of the prompt, which a mask may cover too."""
    if not isinstance(value, list):
        raise Fault("bad mask", f"response_mask = {show(value)}; expected a list of 0 and 1, one per response id")
    if before and len(value) == before + count:
        value = value[before:]
    if len(value) != count:
        raise Fault("bad mask", f"{len(value)} values of response_mask for {count} response ids; expected one per id")
    for i, v in enumerate(value):
        if not isinstance(v, (bool, int, float)) or v not in (0, 1):
            raise Fault("bad mask", f"response_mask[{i}] = {show(v)}; expected 0, 1, true or false")
    return list(map(int, value))


def _one_mask(draft: dict[str, Any], own: list[int], before: int) -> None:
    """Raise Fault where another mask of the row says something else: which tokens the policy wrote is not for this
    reader to choose. Lists of anything but 0 and 1 are no masks."""
    for name in MASKS:
        value = draft.get(f"mask.{name}")
        if not isinstance(value, list) or not all(isinstance(v, (bool, int, float)) and v in (0, 1) for v in value):
            continue
        inside = value[before:] if before and len(value) == before + len(own) else value
        if inside != own:
            raise Fault(
                "two masks",
                f"{name} says {sum(map(bool, inside))} of {len(inside)} tokens, the mask that was taken before it "
                f"{sum(own)} of {len(own)}; choose one: --map response_mask={name}",
            )


def mask_of(trace: Trace) -> list[int] | None:
    """The mask that a trace was read with, None where there was none or it masked nothing. The dump's own meta may hold
    anything under its name."""
    held = trace.meta.get("response_mask")
    fits = isinstance(held, list) and trace.response_ids is not None and len(held) == len(trace.response_ids)
    return held if fits and all(type(v) is int and v in (0, 1) for v in held) else None


def unknown(values: tuple[float, ...]) -> int:
    """How many are NaN: of most lists none is, which their sum tells sooner."""
    return sum(v != v for v in values) if math.isnan(sum(values)) else 0


def _temperature(key: str, name: str) -> float:
    try:
        at = math.nan if "_" in key else float(key)
    except ValueError:
        at = math.nan
    if not (math.isfinite(at) and at > 0):
        raise Fault("bad logprobs", f"{name} has the key {show(key)}; expected a temperature > 0 such as 1.0")
    return tidy(at)


def _numbers(value: Any, name: str, count: int, own: list[int] | None, *, base: bool) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise Fault("bad logprobs", f"{name} = {show(value)}; expected a list of numbers <= 0")
    if len(value) != count:
        raise Fault("bad logprobs", f"{name} has {len(value)} values for {count} response ids; expected one per id")
    if own is not None:
        value = [v if written else None for v, written in zip(value, own, strict=True)]
    if {*map(type, value)} <= {int, float} and all(LEAST < v <= MOST for v in value):
        return tuple(map(float, value))
    return tuple(_number(v, f"{name}[{i}]", base) for i, v in enumerate(value))


def _number(value: Any, where: str, base: bool) -> float:
    """A log-prob that is not as most are."""
    if value is None:
        return math.nan
    if type(value) in (int, float):
        if value != value or LEAST < value <= MOST:
            return float(value)
        if value == -math.inf:
            return value if base else math.nan
    if value == "-inf" and base:
        return -math.inf
    if value == "-inf":
        raise Fault(
            "bad logprobs",
            f'{where} = "-inf": the policy that wrote the row can\'t have drawn an impossible token; expected a number '
            "<= 0, or null where it is not known",
        )
    if type(value) in (int, float) and value <= LEAST:
        raise Fault(
            "bad logprobs",
            f"{where} = {show(value)}: servers write -9999 and less for a token outside of their top k, whose log-prob "
            "is not told; expected null there" + (', or "-inf" where the token is impossible' if base else ""),
        )
    raise Fault(
        "bad logprobs",
        f"{where} = {show(value)}; expected a number <= 0 (and > -9999), null where it is not known"
        + (', or "-inf" where the token is impossible' if base else ""),
    )
