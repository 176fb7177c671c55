"""Scores from an OpenAI-style completions server that echoes the log-probs of a prompt.

    ids, prompt_logprobs   ids go out, ids, log-probs and ranks come back           (vLLM)
    ids, echo              ids go out, the echoed tokens' log-probs come back       (SGLang, others)
    text, echo             for servers that take no ids: the text goes out only where the server's own tokenizer gives
                           exactly the ids that shall be scored                     (llama-cpp-python)
The first way that passes the probe is taken. Ids are made by the tokenizer of the model named by --base; every answer
is checked against them, and a wrong one is asked for again, never used. What a server does not tell is NaN (ranks: 0).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np

from analyzer.errors import ResourceError, UsageError, nearest
from analyzer.records import CORE_COLUMNS, SAMPLER_COLUMNS, Sampler, Scored
from analyzer.scoring.columns import TOP_ALTERNATIVES, TOP_SURPRISAL
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.identity import fingerprint
from analyzer.scoring.loaded import Loaded, refuse_sizes
from analyzer.scoring.names import split
from analyzer.scoring.servers.answers import CONCURRENT, ROUNDING, WAYS, Answer, Server, ask, cut, naming
from analyzer.scoring.servers.client import PASSING, Away, Client, Fault, Refused

log = logging.getLogger(__name__)

FIRST_TIMEOUT = 30.0  # seconds without a byte, for the list of models and the probe: a wrong address shows itself soon
ADVICE = "is the server up? http or https? the address is the server's root, or that with /v1"
PROBE_TOLERANCE = 0.25  # nats between two requests for one distribution: half precision, other batches
PROBE_TEXT = "The first of them went down to the river in the morning, and the second went up to the hill."


def spec(model: str, label: str, servers: dict[str, str]) -> str:
    """The model spec of a label. servers: label, or "*" for all others, -> URL[#NAME]."""
    if found := split(model):
        Client(found[1].partition("#")[0])
        return model
    url = servers.get(label, servers.get("*"))
    if url is None:
        raise UsageError(f"--scorer server: no server is named for {label}; give --server {label}=URL")
    Client(url.partition("#")[0])
    return f"{model}@{url}"


def connect(
    name: str,
    *,
    concurrent: int = CONCURRENT,
    client: Client | None = None,
    check: Callable[[Server, int], Server] | None = None,
    ways: Sequence[str] = tuple(WAYS),
) -> Any:
    """A `Loaded` for a model spec "MODEL@URL[#NAME]": tokenizer, vocabulary and context from MODEL (weights are not
    read), log-probs from the server. NAME: of the model on a server that has several. check: what one of the ways must
    pass, (server, vocabulary) -> server, raising Fault; by default that its log-probs are right.

    Raises ResourceError when the server can't be reached, has no such model, or fails the probe in every way.
    """
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    model, address = split(name)
    offline = Path(model).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1"
    url, _, wanted = address.partition("#")
    client = client or Client(url)
    refuse_sizes(model)
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=offline).get_text_config()
    except Exception as error:  # what a config that is not as it should be raises has no end
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ResourceError(
            f"model {model!r} of {name}: config.json can't be read ({why}); --base names the "
            "folder or hub name whose tokenizer and config belong to the served model"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=offline)
    except (OSError, ValueError, KeyError, ImportError):
        tokenizer = None
    patience, client.timeout = client.timeout, min(client.timeout, FIRST_TIMEOUT)
    served = _served(client, model, wanted)
    limits = [getattr(config, "max_position_embeddings", None) or math.inf, _longest(client, served)]
    server = probe(client, served, tokenizer, config.vocab_size, concurrent, check or _checked, ways)
    client.timeout = patience
    return Loaded(
        name,
        fingerprint(name),
        server,
        tokenizer,
        config.vocab_size,
        None if min(limits) == math.inf else int(min(limits)),
        "unknown",
        f"server {server.owner}",
    )


def _served(client: Client, model: str, wanted: str) -> dict[str, Any]:
    """The entry of the list of models that is meant."""

    def read(answer: Any) -> list[dict[str, Any]]:
        models = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(models, list) or not all(
            isinstance(m, dict) and isinstance(m.get("id"), str) and m["id"].isprintable() for m in models
        ):
            raise Fault("the list of models has no ids, or some that are no text")
        return models

    try:
        models = {m["id"]: m for m in client.ask("/v1/models", read=read, tries=3)}
    except Refused as error:
        more = f"; {ADVICE}" if error.status in (None, 400, 404, 405) else ""
        raise ResourceError(
            f"server {client.url}: its list of models (/v1/models) can't be read: {error}{more}"
        ) from None
    except ResourceError as error:
        raise ResourceError(f"{error}; {ADVICE}" if error.__cause__.status is None else str(error)) from None
    if wanted or model in models:
        if (wanted or model) not in models:
            raise ResourceError(f"server {client.url} has no model {wanted!r}{nearest(wanted, models)}")
        return models[wanted or model]
    if len(models) != 1:
        names = ", ".join(sorted(models)) or "none"
        raise ResourceError(f"server {client.url} has several models or none ({names}); say which: URL#NAME")
    return next(iter(models.values()))


def _longest(client: Client, served: dict[str, Any]) -> float:
    """The longest sequence that the server can score: one more token must be drawn. inf where it tells none."""
    longest = served.get("max_model_len") or math.inf
    if longest is not math.inf and (type(longest) is not int or longest < 2):
        raise ResourceError(
            f"server {client.url}: max_model_len of {served['id']} is {brief(longest)}; expected a whole number of at "
            "least 2, or none"
        )
    return longest - 1


def refusals(server: Server, items: Iterable[Encoded], limit: int | None) -> dict[str, str]:
    """Trace key -> why the server can't score it; only servers that take no ids refuse any. limit: context, tokens."""
    if server.way != "text, echo":
        return {}

    def reason(item: Encoded) -> str:
        with naming(server, _name(item)):
            return found(item)

    def found(item: Encoded) -> str:
        ids = item.prompt_ids + item.response_ids
        if limit is not None and len(ids) > limit:
            return "the server takes no token ids, and windows can't be cut from text"
        if len(item.prompt_ids) <= server.skip:
            return "the server tells no log-prob of the first token after BOS"
        if ids.count(ids[0]) > 1 and server.skip:
            return "the server leaves out BOS wherever it stands"
        same = cut(server, ids) == list(ids)
        return "" if same else "the server takes no token ids, and cuts this text into other tokens"

    items = list(items)
    with ThreadPoolExecutor(server.concurrent) as pool:
        refused = {i.trace.key: why for i, why in zip(items, pool.map(reason, items)) if why}
    server.client.release()
    return refused


# ---- the probe

# statuses that another way of asking would get too; 500 and a broken connection may come of one way alone
NOT_NOW = {301, 302, 303, 307, 308, 401, 403, *PASSING} - {500}


def probe(
    client: Client,
    served: dict[str, Any],
    tokenizer: Any,
    vocab_size: int,
    concurrent: int,
    check: Callable[[Server, int], Server],
    ways: Sequence[str],
) -> Server:
    """The first of the ways that passes the check. Raises ResourceError: also at once where the server answers nobody
    now, or not us; the way of asking changes nothing then."""
    reasons: list[tuple[str, Fault | Refused]] = []
    owner = served.get("owned_by")
    owner = owner if isinstance(owner, str) and owner.isprintable() else "of unknown kind"
    about = f"server {client.url}, model {served['id']}"
    for way in ways:
        for skip in (0, 1) if way == "text, echo" else (0,):
            server = Server(client, served["id"], owner, way, skip, None, tokenizer, concurrent)
            try:
                return check(server, vocab_size)
            except (Fault, Refused, ResourceError) as error:
                problem = error.__cause__ if isinstance(error, ResourceError) else error
                if problem.status in NOT_NOW:
                    raise ResourceError(f"{about}: the probe got no answer: {problem}") from None
                reasons.append((way, problem))
    sent = [problem for way, problem in reasons if way != "text, echo" or tokenizer is not None]
    away = [problem for problem in sent if isinstance(problem, Away)]
    if away and all(isinstance(problem, Away) or problem.status for problem in sent):
        said = "; ".join(dict.fromkeys(map(str, away)))
        raise ResourceError(f"{about}: the probe got no answer, however it asked: {said}; its own log may say why")
    listed = "; ".join(dict.fromkeys(f"{way}: {problem}" for way, problem in reasons))
    raise ResourceError(
        f"{about}: it gives no log-probs of a prompt that can be trusted ({listed}); "
        "vLLM, SGLang and llama-cpp-python's server with logits_all can"
    )


def _checked(server: Server, vocab_size: int) -> Server:
    """The server with what the probe saw of its rounding. Raises Fault where something is wrong.

    The distribution at the last place must not depend on the token that stands there, and must depend on the one
    before: values that are shifted by one place, in either direction, fail one of the two.
    """
    ids, other_last, other_before = _sequences(server, vocab_size)
    first = ask(server, ids, wrong=2)
    known = first.logprob_N[1 + server.skip :]
    if np.isnan(known).any():
        raise Fault("a token after the first has no log-prob")
    for n, top in enumerate(first.top_N):
        if not top:
            continue
        if sum(map(math.exp, top.values())) > 1 + ROUNDING:
            raise Fault(f"the probabilities at place {n} sum to more than 1")
        if all(isinstance(t, int) for t in top) and first.logprob_N[n] > max(top.values()) + ROUNDING:
            raise Fault(f"the token at place {n} is likelier than the likeliest one")
    if not first.top_N[-1]:
        raise Fault("no alternatives: whether values are aligned can't be checked")
    same, changed = (_distance(first.top_N[-1], ask(server, s, wrong=2).top_N[-1]) for s in (other_last, other_before))
    if not same <= PROBE_TOLERANCE:
        raise Fault(f"what precedes is the same, the log-probs differ by {same:.2g} nats: values are not aligned")
    if not changed > max(2 * same, 1e-3):
        raise Fault("the token before changes nothing: values are not aligned")
    values = known[np.isfinite(known)]
    decimals = next((d for d in range(5) if np.array_equal(values.round(d), values)), None)
    return replace(server, decimals=decimals, ranks=bool((first.rank_N[1:] >= 1).all()))


def probe_ids(server: Server, vocab_size: int) -> list[int]:
    """A sentence as ids, after BOS where there is one; made-up ids where the tokenizer can't spell the sentence."""
    bos, ids = getattr(server.tokenizer, "bos_token_id", None), []
    with contextlib.suppress(Exception):  # tokenizers' own errors are bare Exceptions
        ids = [i for i in server.tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"] if i < vocab_size]
    if len(set(ids)) < 6:
        if server.way == "text, echo":
            raise Fault("there is no tokenizer to make text with")
        ids = np.random.default_rng(0).integers(vocab_size // 4, vocab_size, 12).tolist()
    return ids if bos is None else [bos, *ids]


def _sequences(server: Server, vocab_size: int) -> tuple[list[int], list[int], list[int]]:
    """A sequence, one with another last token, and one with another token before the last."""
    ids = probe_ids(server, vocab_size)
    if server.skip and ids[0] != getattr(server.tokenizer, "bos_token_id", None):
        raise Fault("the server leaves out the first token")
    out = [ids]
    for place in (-1, -2):
        for token in dict.fromkeys(ids[-3::-1]):
            other = [*ids]
            other[place] = token
            if other != ids and (server.way != "text, echo" or cut(server, other) == other):
                out.append(other)
                break
        else:
            raise Fault("no two texts differ in one token")
    if server.way == "text, echo" and cut(server, ids) != ids:
        raise Fault("the server's tokenizer cuts text into other tokens than that of --base, or adds tokens")
    return out[0], out[1], out[2]


def _distance(one: dict[Any, float], other: dict[Any, float]) -> float:
    """Largest difference of the log-probs that two answers share, inf where they share none."""
    both = [t for t in one if t in other and math.isfinite(one[t]) and math.isfinite(other[t])]
    return max((abs(one[t] - other[t]) for t in both), default=math.inf)


# ---- scoring


def score(
    items: Iterable[Encoded],
    server: Server,
    sampler: Sampler | None,
    *,
    path: str = "server",
    note: Callable[[str, Any], None] = lambda name, value: None,
) -> Iterator[Scored]:
    """Score traces with distinct ids, `server.concurrent` requests at a time, in the order given.

    When a request fails for good, what has been answered by then is still yielded. Raises ResourceError.
    """
    note("server", server.about())
    left, waiting = iter(items), deque()
    unranked = 0
    pool = ThreadPoolExecutor(server.concurrent)
    try:
        while True:
            while len(waiting) < 2 * server.concurrent and (item := next(left, None)) is not None:
                waiting.append((item, pool.submit(_one, server, item, sampler)))
            if not waiting:
                return
            result = waiting.popleft()[1].result()
            unranked += server.ranks and not result.columns["rank"].all()
            yield result
    except ResourceError:
        yield from _finished(future for _, future in waiting)
        raise
    finally:
        for _, future in waiting:
            future.cancel()
        if waiting:
            server.client.close()
        pool.shutdown()
        server.client.release()
        if unranked:
            log.warning(
                "server %s told the probe ranks, but not those of %d traces: they are unknown",
                server.client.url,
                unranked,
            )


def _finished(futures: Iterable[Future]) -> Iterator[Scored]:
    for future in futures:
        try:
            if future.done():
                yield future.result()
        except (ResourceError, CancelledError):
            pass


def _one(server: Server, item: Encoded, sampler: Sampler | None) -> Scored:
    with naming(server, _name(item)):
        return scored(item, ask(server, item.prompt_ids + item.response_ids), sampler)


def _name(item: Encoded) -> str:
    key, _, window = item.trace.key.rpartition("\0")
    if not window.isdigit():
        key, window = item.trace.key, ""
    return f"{key} ({f'window {window}' if window else item.trace.origin}, {len(item)} tokens)"


def scored(item: Encoded, answer: Answer, sampler: Sampler | None) -> Scored:
    """The record of an answer; at T=1 without truncation the sampler's log-probs are the model's."""
    start, n = len(item.prompt_ids), item.tokens
    place_T = np.arange(start, len(item))[item.at]
    logprob_T = answer.logprob_N[place_T].astype(np.float32)
    rank_T = answer.rank_N[place_T]
    known = {
        "token": np.array(item.response_ids, np.int32)[item.at],
        "logprob": logprob_T,
        "rank": rank_T if (rank_T >= 1).all() else np.zeros(n, np.int32),  # known for all tokens, or for none
    }
    names = CORE_COLUMNS if sampler is None else CORE_COLUMNS | SAMPLER_COLUMNS
    columns = {name: known.get(name, np.full(n, np.nan, np.float32)) for name in names}
    if sampler is not None and sampler.is_plain:
        columns["logprob_s"] = logprob_T
    tops = []
    for t in np.flatnonzero(-logprob_T >= TOP_SURPRISAL).tolist():
        best = sorted(answer.top_N[place_T[t]].items(), key=lambda kv: -kv[1])[:TOP_ALTERNATIVES]
        if best and all(isinstance(token, int) for token, _ in best):
            tops.append((t, tuple(token for token, _ in best), tuple(value for _, value in best)))
    return Scored(item.trace.key, columns | {"offset": item.offset_T[item.at]}, None, tuple(tops))
