"""Canonical fields: what a draft may hold, and the checks that turn raw values into the values of a Trace.

Nothing is guessed here: a value of the wrong kind is a Fault of its row that says what is allowed.
"""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from analyzer.dumps import media, numbers, settings
from analyzer.dumps.paths import Fault, show
from analyzer.dumps.settings import SETTINGS
from analyzer.dumps.values import answer, bare, ids, integer, number, parts, prompt, step, text, thought, truth, votes
from analyzer.errors import UsageError
from analyzer.records import Sampler

# canonical field -> what it holds; the names that --map takes (besides `rows` and `meta.NAME`)
CANONICAL = {
    "source": "label of the policy that produced the response",
    "model": "name of the model; its last part names the source where `source` is absent",
    "problem": "id of the problem, when files shall be joined on it instead of on the question's text",
    "id": "the dump's own id of the problem; joins only where there is no question and no prompt",
    "question": "the bare question (text); its hash is the problem's id",
    "prompt": "what the model was given: text, or chat messages [{role, content}]",
    "images": "what the prompt shows besides its text: paths, addresses or data, of which the hash is kept (in meta)",
    "response": "what the model wrote (text)",
    "reasoning": "its reasoning, where the dump keeps that apart: joined as <think> reasoning </think> response",
    "prompt_ids": "token ids of the prompt (integers >= 0)",
    "response_ids": "token ids of the response (integers >= 0)",
    "response_logprobs": "log-probs (nats) under the policy that wrote the row, one per response id; null: unknown",
    "logprobs_temperature": "temperature that response_logprobs were taken at (number > 0)",
    "base_logprobs": 'the same under the base: a list, or {temperature: list}; null: unknown, "-inf": impossible',
    "base_logprobs_temperature": "temperature that a list of base_logprobs was taken at (number > 0)",
    "policy_logprobs": "of the reference's rows, the same under other sources' policies: {source: {temperature: list}}",
    "response_mask": "1 for each response id that the policy wrote, 0 for the others (what a tool said)",
    "sample": "number of the sample within its problem (integer >= 0)",
    "seed": "seed of the draw (kept in meta)",
    "step": "training step (integer >= 0, or text that ends in one)",
    "correct": 'true, false, 1, 0, "true", "false" or null',
    "valid": "whether the reasoning is valid, of a correct response: true, false, or a list of votes",
    "score": "number; correct = score >= threshold where `correct` is absent",
    "finish": "why generation ended (text)",
    "truncated": "true where the token budget cut the response; the finish reason where there is no other",
    "answer": "the answer taken from the response (text or number)",
    "gold": "the reference answer",
    "group": "benchmark or kind of problem (text)",
    "sampler": "{temperature, top_p, top_k, min_p} or null",
    "temperature": "of the sampler",
    "top_p": "of the sampler",
    "top_k": "of the sampler",
    "min_p": "of the sampler",
    "max_tokens": "the budget of new tokens (kept in meta)",
    "meta": "an object that is kept as it is",
}
FINISH = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "finished": "stop",
    "endoftext": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_length": "length",
    "max_new_tokens": "length",
    "truncated": "length",
    "model_length": "length",
}


def sampler(draft: dict[str, Any]) -> tuple[Sampler | None, bool]:
    """The recorded sampler, or None where no temperature is recorded; second value: True for greedy decoding (T = 0),
    which has no sampling distribution. A missing top_p, top_k or min_p counts as off."""
    values = stated(draft)
    unknown = set(values) - {"temperature", "top_p", "top_k", "min_p"}
    if unknown:
        raise Fault(
            "bad sampler",
            f"sampler has {min(unknown, key=str)!r}; expected temperature, top_p, top_k, min_p, beside them a penalty "
            "or the like by its name in vLLM or transformers",
        )
    if "temperature" not in values:
        return None, False
    found = {k: number(v, f"sampler {k}") for k, v in values.items() if not isinstance(v, bool)}
    if len(found) < len(values):
        raise Fault("bad sampler", f"sampler = {show(values)}; expected numbers")
    if found["temperature"] == 0:
        return None, True
    found["temperature"] = numbers.tidy(found["temperature"])
    if "top_k" in found:
        found["top_k"] = max(found["top_k"], 0.0)  # vLLM writes -1 for off
        found["top_k"] = int(found["top_k"]) if found["top_k"].is_integer() else found["top_k"]
    try:
        return Sampler(**found), False
    except UsageError as e:
        raise Fault("bad sampler", str(e)) from None


def stated(draft: dict[str, Any]) -> dict[str, Any]:
    """What a draft says about its sampling, raw: its sampler's values, and those of fields of their own. Raises Fault
    where the two say different things."""
    given = draft.get("sampler")
    if given is not None and not isinstance(given, dict):
        raise Fault("bad sampler", f"sampler = {show(given)}; expected an object or null")
    out = {k: v for k, v in (given or {}).items() if v is not None and k not in BESIDE}
    for name in ("temperature", "top_p", "top_k", "min_p"):
        if (value := draft.get(name)) is None:
            continue
        if out.setdefault(name, value) != value and not _close(out[name], value):
            raise Fault(
                "two samplers",
                f"sampler.{name} = {show(out[name])}, and beside it {name} = {show(value)}; expected one sampler "
                "(--map sampler=sampler reads that alone)",
            )
    return out


def _close(a: Any, b: Any) -> bool:
    numbers_ = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return numbers_ and math.isclose(a, b, rel_tol=1e-5)


def _label(value: Any, name: str) -> str:
    out = text(value, name)
    if not out or out.isspace():
        raise Fault(f"empty {name}", f"{name} = {show(value)}; expected text")
    return out


def _identity(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise Fault(f"bad {name}", f"{name} = {show(value)}; expected text or an integer")
    return text(str(value), name)


def _meta(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault("bad meta", f"meta = {show(value)}; expected an object")
    return value


CHECKS: dict[str, Any] = {
    **dict.fromkeys(("source", "model", "group", "question"), _label),
    **dict.fromkeys(("problem", "id"), _identity),
    **dict.fromkeys(("prompt_ids", "response_ids"), ids),
    **dict.fromkeys(("logprobs_temperature", "base_logprobs_temperature", "score"), number),
    **dict.fromkeys(("sample", "max_tokens"), integer),
    "seed": lambda value, name: integer(value, name, 2**64),
    "prompt": lambda value, name: prompt(value),
    "step": lambda value, name: step(value),
    "answer": lambda value, name: answer(value),
    "images": lambda value, name: media.of_column(value),
    "gold": lambda value, name: value,
    "valid": votes,
    "meta": _meta,
}
SAMPLING = frozenset(("sampler", "temperature", "top_p", "top_k", "min_p"))
BESIDE = settings.INERT | SETTINGS.keys()  # in a sampler: of no effect, or judged by `_settings`
RARE = (
    SAMPLING
    | SETTINGS.keys()
    | numbers.FIELDS
    | {"response_ids", "logprobs_temperature", "answer", "meta", "images", "valid"}
)
LATER = object()  # checked after the others
AS_IT_IS: dict[str, Any] = {  # field -> the kind of value that needs no more than a look
    **dict.fromkeys(("source", "model", "group", "question", "problem", "id", "prompt"), str),
    **dict.fromkeys(("sample", "seed", "max_tokens", "step"), int),
    "score": float,
    **dict.fromkeys(("response", "correct", "finish"), LATER),
}


def _response(draft: dict[str, Any]) -> tuple[str, str]:
    """The text of the response, and how it was made: "" as it stands, "ids" where only its ids are there, "joined"
    where reasoning was kept apart."""
    value, reasoning = draft.get("response"), draft.get("reasoning")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "role" in value[0]:
        value = value[0].get("content")  # a completion kept as one chat message
    if isinstance(value, list) and value and isinstance(value[0], dict) and "type" in value[0]:
        value, inner = parts(value, "response")
        reasoning = inner or reasoning
    if value is None and draft.get("response_ids") is not None:
        return "", "ids"
    if value is None and reasoning is None:
        raise Fault("no response", "the response is null" if "response" in draft else "the row has no response")
    if isinstance(reasoning, list) and len(reasoning) == 1:
        reasoning = reasoning[0]
    out = text("" if value is None else value, "response")
    if reasoning is None or not (why := bare(text(reasoning, "reasoning"))):
        return out, ""
    if why in out and (len(why) > 40 or "</think>" in out):
        return out, ""  # kept once more beside a response that has it
    return thought(reasoning, out), "joined"


def _cut(draft: dict[str, Any]) -> dict[str, Any]:
    """A draft whose switch `truncated` is its finish reason, where it has no other; else what it says is kept: it may
    have been the prompt that was cut."""
    cut = truth(draft["truncated"], "truncated")
    if cut is None:
        return draft
    if draft.get("finish") is None:
        return {**draft, "finish": "length" if cut else "stop"}
    return {**draft, "meta.truncated": cut}


def _settings(draft: dict[str, Any], out: dict[str, Any]) -> None:
    """Settings of a draw that no Sampler has (penalties, beams): with one of them there is no sampler, and what the row
    states is kept as `sampler_part`. Without sampling the likeliest tokens were taken."""
    other = settings.shaping(draft.get("sampler") or {}) | settings.shaping(draft)
    if not other:
        return
    out["sampler"] = None
    if not other.pop("do_sample", True):
        out["greedy"] = True
    if other:
        out["sampler_part"] = stated(draft) | {name: settings.kept(value) for name, value in other.items()}


def clean(draft: dict[str, Any], threshold: float) -> dict[str, Any]:
    """A draft -> checked values (keys of Trace, plus id, model, gold, seed, max_tokens, greedy, finish_raw, problem
    when given). Raises Fault. `correct` stays None where neither `correct` nor `score` is recorded."""
    response, made = draft.get("response"), ""
    if type(response) is not str or not response.isascii() or "reasoning" in draft:
        response, made = _response(draft)
    out: dict[str, Any] = {"response": response, "sampler": None}
    extras: dict[str, Any] = {}
    for name, value in draft.items():
        kind = AS_IT_IS.get(name)
        if value is None or kind is LATER:
            continue
        # the common values without a call: this loop is a third of all reading
        if kind is type(value) and (
            value.isascii() and value and not value.isspace() if kind is str else 0 <= value < 2**62
        ):
            out[name] = value
        elif (check := CHECKS.get(name)) is not None:
            out[name] = check(value, name)
        elif name[:5] == "meta.":
            extras[name[5:]] = value
    correct = draft.get("correct")
    if correct is not True and correct is not False:
        correct = truth(correct)
        if correct is None and "score" in out:
            correct = out["score"] >= threshold
    out["correct"] = correct
    if "truncated" in draft:
        draft = _cut(draft)
        extras |= {k[5:]: v for k, v in draft.items() if k == "meta.truncated"}
    if (reason := draft.get("finish")) is not None:
        out["finish"] = FINISH.get(reason) if type(reason) is str else None
        if out["finish"] is None:
            if isinstance(reason, bool):
                raise Fault(
                    "finish is not text",
                    f"finish = {reason} (bool); expected a string, or where true says that the response was cut, "
                    "--map truncated=FIELD",
                )
            reason = text(reason, "finish")
            out["finish"] = FINISH.get(reason.strip().lower())
            if out["finish"] is None:
                out["finish_raw"] = reason
    if not (made or extras or type(out.get("prompt")) is list) and RARE.isdisjoint(draft):
        gold = out.get("gold")
        if gold is None or (type(gold) is str and gold.isascii()):
            return out
    return _rest(draft, out, response, made, extras)


def _long(value: Any) -> Any:
    """A value with integers beyond 64 bits as text: few readers of JSON keep their last digits."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, list):
        return [_long(v) for v in value]
    if isinstance(value, dict):
        return {k: _long(v) for k, v in value.items()}
    return value


def _rest(
    draft: dict[str, Any], out: dict[str, Any], response: str, made: str, extras: dict[str, Any]
) -> dict[str, Any]:
    """What `clean` checks of the fields that most rows do not have."""
    if "response_ids" in out and not out["response_ids"] and (response or made == "ids"):
        raise Fault(
            "bad response_ids", "response_ids is empty although the response has text; expected the ids of the response"
        )
    if not numbers.FIELDS.isdisjoint(draft):
        numbers.read(draft, out)
    if "logprobs_temperature" in out:
        if out["logprobs_temperature"] <= 0:
            raise Fault(
                "bad logprobs_temperature",
                f"logprobs_temperature = {show(out['logprobs_temperature'])}; expected a number > 0",
            )
        out["logprobs_temperature"] = numbers.tidy(out["logprobs_temperature"])
    if isinstance(asked := out.get("prompt"), list):
        shown = [one for message in asked for one in media.of_column(message.get("images"))]
        column = out.get("images", ())  # which says what the places in the messages stand for
        out["images"] = (*(one for one in shown if " " in one or not column), *column)
    if not out.get("images", True):
        del out["images"]
    if "valid" in out:  # a column of that name which nobody mapped is kept in meta as `valid`
        out["valid_votes"] = out.pop("valid")
    if "answer" in draft and draft["answer"] in (None, []):
        out["null_answer"] = True
    if not SAMPLING.isdisjoint(draft):
        out["sampler"], greedy = sampler(draft)
        if greedy:
            out["greedy"] = True
        elif out["sampler"] is None and (part := stated(draft)):
            out["sampler_part"] = part  # a truncation without a temperature: no sampler, but not nothing either
    if not (SETTINGS.keys().isdisjoint(draft) and SETTINGS.keys().isdisjoint(draft.get("sampler") or ())):
        _settings(draft, out)
    if made:
        extras["ids_only" if made == "ids" else "joined_reasoning"] = True
    if extras:
        out["meta"] = {**out.get("meta", {}), **extras}
    gold = out.get("gold")
    if "meta" in out or (gold is not None and (type(gold) is not str or not gold.isascii())):
        try:
            for name in ("gold", "meta"):
                if name in out:
                    out[name] = _long(out[name])
            json.dumps([out.get("gold"), out.get("meta")], allow_nan=False, ensure_ascii=False).encode()
            orjson.dumps([out.get("gold"), out.get("meta")])  # takes NaN, but neither deep nesting nor long integers
        except (ValueError, TypeError, RecursionError, UnicodeEncodeError):
            raise Fault(
                "bad meta",
                "the reference answer or meta holds a value that JSON can't write (NaN, a lone surrogate, "
                "more than 250 levels)",
            ) from None
    return out
