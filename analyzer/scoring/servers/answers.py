"""What is sent to a completions server for the log-probs of one sequence, and how its answers are read and checked.

Every answer is compared with the ids that were sent, as far as it tells any; a Fault says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any, NamedTuple

import numpy as np

from analyzer.errors import ResourceError
from analyzer.scoring.columns import TOP_ALTERNATIVES
from analyzer.scoring.servers.client import Client, Fault, Refused

CONCURRENT = 16  # requests under way at a time
LEAST = -9999.0  # what vLLM writes for -inf
ROUNDING = 1e-3  # nats that a log-prob may exceed 0 by, and shares of 1 that probabilities may sum to beyond 1
INT32 = 1 << 31  # ids and ranks are below it: the token columns hold no more
MOST_DRAWN = 8  # tokens that a server may draw although one was asked for (to complete a character)
PLAIN = {"temperature": 1.0, "top_p": 1.0}  # servers take other defaults from a model's generation_config


@dataclass(frozen=True)
class Server:
    """A server that passed the probe. Stands where `Loaded` holds the weights of other paths."""

    client: Client
    name: str  # as the server calls its model
    owner: str  # what the server says of itself
    way: str  # of WAYS
    skip: int  # leading ids that its answers leave out (BOS)
    decimals: int | None  # that its log-probs are rounded to; None: not visibly
    tokenizer: Any
    concurrent: int = CONCURRENT
    ranks: bool = False  # whether it told the probe the ranks of tokens

    def said(self) -> str:
        """Why and how it is used, in words."""
        rounded = "" if self.decimals is None else f"; its log-probs are rounded to {self.decimals} decimals"
        return f"{self.client.url}, model {self.name}, {self.way}; passed the probe{rounded}"

    def about(self) -> dict[str, Any]:
        """What a run records of it."""
        return {"url": self.client.url, "model": self.name, "owner": self.owner, "way": self.way} | {
            "rounded_to_decimals": self.decimals
        }


class Answer(NamedTuple):
    """What a server says of a sequence: values [n] of the ids sent, NaN, 0 and {} where it says nothing."""

    logprob_N: np.ndarray
    rank_N: np.ndarray
    top_N: list[dict[Any, float]]  # the likeliest tokens there, by id, or by text where ids are not told


def _body_prompt_logprobs(server: Server, ids: Sequence[int]) -> dict[str, Any]:
    return {"prompt": list(ids), "prompt_logprobs": TOP_ALTERNATIVES, "return_token_ids": True}


def _body_echo(server: Server, ids: Sequence[int]) -> dict[str, Any]:
    more = {"return_tokens_as_token_ids": True, "return_token_ids": True}
    return {"prompt": list(ids), "echo": True, "logprobs": TOP_ALTERNATIVES, **more}


def _body_text(server: Server, ids: Sequence[int]) -> dict[str, Any]:
    return {"prompt": text_of(server, ids), "echo": True, "logprobs": TOP_ALTERNATIVES}


def _read_prompt_logprobs(server: Server, ids: Sequence[int], answer: Any) -> Answer:
    choice = one_choice(answer, ids)
    rows = choice.get("prompt_logprobs")
    if not isinstance(rows, list):
        raise Fault("no prompt_logprobs in the answer")
    if len(rows) != len(ids):
        raise Fault(f"log-probs of {len(rows)} tokens, {len(ids)} were sent")
    if rows[0] is not None:
        raise Fault(
            "the first token has a log-prob although nothing precedes it: values are not aligned, or BOS is added"
        )
    out = _nothing(len(ids))
    for n, (token, row) in enumerate(zip(ids, rows)):
        if n == 0:
            continue
        mine = row.get(str(token)) if isinstance(row, dict) else None
        if not isinstance(mine, dict):
            raise Fault(f"no log-prob of id {token} at place {n}: other tokens were scored than were sent")
        out.logprob_N[n] = log_prob(mine.get("logprob"), n)
        out.rank_N[n] = _rank(mine.get("rank"), n)
        try:
            out.top_N[n] = {stored_id(int(t)): log_prob(v["logprob"], n) for t, v in row.items()}
        except (ValueError, TypeError, KeyError):
            raise Fault(f"the alternatives at place {n} can't be read") from None
    return out


def _read_echo(server: Server, ids: Sequence[int], answer: Any) -> Answer:
    choice = one_choice(answer, ids)
    given = choice.get("logprobs")
    tokens, values, tops = (given.get(k) if isinstance(given, dict) else None for k in ECHOED)
    if not all(isinstance(x, list) for x in (tokens, values, tops)) or not len(tokens) == len(values) == len(tops):
        raise Fault("no echoed tokens, token_logprobs and top_logprobs of one length in the answer")
    n = len(ids) - server.skip
    usage = answer.get("usage")
    drawn = usage.get("completion_tokens") if isinstance(usage, dict) else None
    drawn = min(drawn, MOST_DRAWN) if type(drawn) is int else 1
    if not n <= len(tokens) <= n + drawn:
        raise Fault(f"log-probs of {len(tokens)} tokens, {len(ids)} were sent ({drawn} drawn)")
    if not tokens or values[0] is not None:
        raise Fault(
            "the first token has a log-prob although nothing precedes it: values are not aligned, or BOS is added"
        )
    told = isinstance(choice.get("prompt_token_ids"), list)
    out = _nothing(len(ids))
    for at, token in enumerate(ids[server.skip :]):
        n = at + server.skip
        if not _same(tokens[at], token, server.tokenizer, told):
            raise Fault(f"token {brief(tokens[at])} at place {n}, id {token} was sent: other tokens were scored")
        if at == 0:
            continue
        out.logprob_N[n] = log_prob(values[at], n)
        if not isinstance(tops[at], dict):
            raise Fault(f"no top_logprobs at place {n}: whether values are aligned can't be checked")
        # several ids may have one text: the token's own may stand for another's
        told_T = {token_key(t): log_prob(v, n) for t, v in tops[at].items()}
        out.top_N[n] = {t: v for t, v in told_T.items() if isinstance(t, int) or t != tokens[at]}
    return out


ECHOED = ("tokens", "token_logprobs", "top_logprobs")
WAYS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[..., Answer]]] = {
    "ids, prompt_logprobs": (_body_prompt_logprobs, _read_prompt_logprobs),
    "ids, echo": (_body_echo, _read_echo),
    "text, echo": (_body_text, _read_echo),
}


def _nothing(n: int) -> Answer:
    return Answer(np.full(n, np.nan), np.zeros(n, np.int32), [{} for _ in range(n)])


def one_choice(answer: Any, ids: Sequence[int]) -> dict[str, Any]:
    """The one choice of an answer, whatever ids and counts it tells checked against those sent."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Fault("the answer has not exactly one choice")
    told = choices[0].get("prompt_token_ids")
    if isinstance(told, list) and told != list(ids):
        more = "; the server adds tokens of its own (BOS?)" if told[1:] == list(ids) else ""
        raise Fault(f"other prompt ids came back than were sent{more}")
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if type(count) is int and count != len(ids):
        more = "; the server adds a token of its own (BOS?)" if count == len(ids) + 1 else ""
        raise Fault(f"the server counts {count} prompt tokens, {len(ids)} were sent{more}")
    return choices[0]


def log_prob(value: Any, n: int) -> float:
    """A log-prob as float: finite or -inf, at most 0."""
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # of an integer with hundreds of digits
            number = float(value)
    if not number <= ROUNDING:
        raise Fault(f"{brief(value)} at place {n} is no log-prob")
    return -math.inf if number <= LEAST else min(0.0, number)


def _rank(value: Any, n: int) -> int:
    """A rank, 0 where the server tells none."""
    if type(value) is not int or value < 1:
        return 0
    if value >= INT32:
        raise Fault(f"{brief(value)} at place {n} is no rank")
    return value


def stored_id(number: int) -> int:
    """The number, where it can be a token's id. Raises Fault."""
    if not 0 <= number < INT32:
        raise Fault(f"{brief(number)} is no token id")
    return number


def token_key(token: str) -> int | str:
    """The id that a server writes as "token_id:17", else the text as it is."""
    head, _, number = token.partition(":")
    if head != "token_id" or not number.isdecimal():
        return token
    return stored_id(int(number[:11]))  # more digits would be too many anyway


def _same(told: Any, token: int, tokenizer: Any, ids_told: bool) -> bool:
    """Whether an echoed token can be the id sent: by its id where it tells one, else by its text. Texts that only
    their neighbours complete (parts of a character) or that are not shown (special tokens) prove nothing."""
    key = token_key(told) if isinstance(told, str) else None
    if isinstance(key, int):
        return key == token
    if key is None or ids_told:
        return key is not None
    mine = tokenizer.decode([token]).strip()
    return "\ufffd" in mine + told or not mine or not told.strip() or mine == told.strip()


def text_of(server: Server, ids: Sequence[int]) -> str:
    return server.tokenizer.decode(list(ids[server.skip :]), clean_up_tokenization_spaces=False)


def cut(server: Server, ids: Sequence[int]) -> list[int]:
    """The ids that the server's own tokenizer gives for the text of these ids."""

    def read(answer: Any) -> list[int]:
        if not isinstance(answer, dict) or not isinstance(answer.get("tokens"), list):
            raise Fault("no tokens in the answer")
        return answer["tokens"]

    return server.client.ask("/extras/tokenize", {"model": server.name, "input": text_of(server, ids)}, read)


@contextlib.contextmanager
def naming(server: Server, name: str) -> Iterator[None]:
    """Failures inside become ResourceErrors that name what was asked about: what always fails can be found."""
    saved = "what was finished is saved, the same line again continues"
    try:
        yield
    except Refused as error:
        raise ResourceError(f"server {server.client.url} refuses {name}: {error}; {saved}") from None
    except ResourceError as error:
        raise ResourceError(f"{error}; asked about {name}; {saved}") from None


def ask(server: Server, ids: Sequence[int], *, wrong: int | None = None) -> Answer:
    """What the server says of one sequence; a wrong answer is asked for again (`wrong`: see `Client.ask`). Raises
    Refused, ResourceError."""
    body, read = WAYS[server.way]
    request = {"model": server.name, "max_tokens": 1, **PLAIN, **body(server, ids)}
    return server.client.ask("/v1/completions", request, lambda answer: read(server, ids, answer), wrong=wrong)
