"""Responses drawn by a completions server: ids out, ids and log-probs back where the server tells them.

A server need not echo log-probs for this. Each sample is a request of its own with its own seed; whether equal seeds
give equal responses is the server's affair.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from typing import Any

from analyzer.errors import ResourceError
from analyzer.records import Sampler
from analyzer.scoring.servers import answers as server_answers
from analyzer.scoring.servers import server
from analyzer.scoring.servers.answers import Server
from analyzer.scoring.servers.client import Fault

FINISH = {"stop": "stop", "length": "length"}


def connect(name: str, concurrent: int) -> Any:
    """A `Loaded` as `server.connect` gives it, for drawing alone: prompts go as ids, as text where ids are refused."""
    return server.connect(name, concurrent=concurrent, check=_accepts, ways=("ids, echo", "text, echo"))


def _accepts(one: Server, vocab_size: int) -> Server:
    """The server with the way that prompts go to it. Raises Fault, Refused."""
    ids = server.probe_ids(one, vocab_size)
    if one.way == "text, echo":
        one = replace(one, skip=int(ids[0] == one.tokenizer.bos_token_id))
        if server_answers.cut(one, ids) != ids:
            raise Fault("the server's tokenizer cuts text into other tokens than that of --model, or adds tokens")
    _ask(one, tuple(ids), 1, Sampler(), 0)
    return one


def draw(loaded: Any, problems: Sequence[Any], n: int, sampler: Sampler, seed: int) -> Iterator[tuple]:
    """(ids or None, log-probs or None, text, finish) of n samples of each problem (`scoring.sample.Asked`), in order.

    Ids are None where the server tells none; log-probs stay only where they are those of T=1 without truncation, since
    servers differ in what they tell under another sampler.
    """
    one = loaded.model

    def name(asked: Any) -> str:
        return f"the prompt of {asked.trace.problem} ({asked.trace.origin})"

    for asked in problems if one.way == "text, echo" else ():
        with server_answers.naming(one, name(asked)):
            same = server_answers.cut(one, asked.prompt_ids) == list(asked.prompt_ids)
        if not same:
            raise ResourceError(
                f"server {one.client.url} takes no token ids, and cuts the prompt of {asked.trace.problem} into other "
                "tokens; leave this problem out, or use a server that takes ids"
            )

    def ask(asked: Any, sample: int) -> tuple:
        key = hashlib.sha256(f"{seed}\0{asked.trace.problem}\0{sample}".encode()).digest()
        number = int.from_bytes(key[:4], "little") >> 1
        with server_answers.naming(one, name(asked)):
            return _ask(one, asked.prompt_ids, asked.max_tokens, sampler, number)

    pool = ThreadPoolExecutor(one.concurrent)
    try:
        yield from pool.map(lambda pair: ask(*pair), product(problems, range(n)))
    except BaseException:
        one.client.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        one.client.release()


def _ask(one: Server, prompt_ids: tuple[int, ...], max_tokens: int, sampler: Sampler, seed: int) -> tuple:
    takes_text = one.way == "text, echo"
    body = {
        "model": one.name,
        "prompt": server_answers.text_of(one, prompt_ids) if takes_text else list(prompt_ids),
        "max_tokens": max_tokens,
        "temperature": sampler.temperature,
        "top_p": sampler.top_p,
        "top_k": sampler.top_k or (0 if takes_text else -1),  # off: llama.cpp says 0, the others -1
        "min_p": sampler.min_p,
        "repetition_penalty": 1.0,
        "seed": seed,
    }
    if not takes_text:
        body |= {"logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True}

    def read(answer: Any) -> tuple:
        choice = server_answers.one_choice(answer, prompt_ids)
        text, finish = choice.get("text"), choice.get("finish_reason")
        if not isinstance(text, str) or finish not in FINISH:
            raise Fault(f"no text, or an end without a reason ({finish!r})")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise Fault("the text holds half a character")
        ids, values = _drawn_ids(choice)
        if ids is not None and not 1 <= len(ids) <= max_tokens:
            raise Fault(f"{len(ids)} tokens drawn, {max_tokens} were asked for")
        if ids is None or values is None or not sampler.is_plain:
            return ids, None, text, FINISH[finish]
        return ids, tuple(round(v, 6) + 0.0 for v in values), text, FINISH[finish]

    return one.client.ask("/v1/completions", body, read)


def _drawn_ids(choice: dict[str, Any]) -> tuple[tuple[int, ...] | None, list[float] | None]:
    """The ids drawn and their log-probs, as far as they are told; they must be of one length."""
    given = choice.get("logprobs") if isinstance(choice.get("logprobs"), dict) else {}
    tokens, values = given.get("tokens"), given.get("token_logprobs")
    ids = choice.get("token_ids")
    if not isinstance(ids, list) and isinstance(tokens, list):
        ids = [server_answers.token_key(t) for t in tokens if isinstance(t, str)]
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        return None, None
    ids = [server_answers.stored_id(i) for i in ids]
    if not isinstance(values, list):
        return tuple(ids), None
    if len(values) != len(ids):
        raise Fault(f"{len(values)} log-probs of {len(ids)} tokens")
    values = [server_answers.log_prob(v, n) for n, v in enumerate(values)]
    return tuple(ids), values if all(map(math.isfinite, values)) else None
