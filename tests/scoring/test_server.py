"""Scores of a server equal `plain`, whatever the shape of its answers; a server that lies is refused, one that fails
is asked again, and no wrong value ever comes through."""

from __future__ import annotations

import json
import random
import socket
import time

import numpy as np
import pytest
import torch
from fake_server import FAULTS, Fake, serving

from analyzer.errors import ResourceError, UsageError
from analyzer.records import Sampler, Trace
from analyzer.scoring import load as scorers
from analyzer.scoring import plain
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.servers import client as server_client
from analyzer.scoring.servers import server

VOCAB = 97
KINDS = {"vllm": "ids, prompt_logprobs", "sglang": "ids, echo"}


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The config alone: what --base names beside a server needs no weights."""
    folder = tmp_path_factory.mktemp("served")
    model.config.save_pretrained(folder)
    return str(folder)


def items(n=6, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        p, r = int(rng.integers(1, 9)), int(rng.integers(1, 30))
        ids = tuple(rng.integers(0, VOCAB, p + r).tolist())
        out.append(
            Encoded(Trace("s", "p", i, "", origin=f"dump.jsonl:{i + 1}"), ids[:p], ids[p:], np.full(r, -1, np.int32))
        )
    return out


def connected(folder, url, *, timeout=20.0, waits=None, concurrent=4, tries=6):
    client = server_client.Client(url, timeout=timeout, tries=tries)
    client.sleep = (lambda seconds: None) if waits is None else waits.append
    return server.connect(f"{folder}@{url}", concurrent=concurrent, client=client)


def assert_as_plain(got, want, atol=1e-5):
    """What the server tells equals the definition, all else is NaN."""
    assert set(got.columns) == set(want.columns)
    assert np.allclose(got.columns["logprob"], want.columns["logprob"], atol=atol, rtol=1e-6)
    assert np.array_equal(got.columns["token"], want.columns["token"])
    for name in set(want.columns) - {"token", "logprob", "rank", "offset", "logprob_s"}:
        assert got.columns[name].dtype == np.float32 and np.isnan(got.columns[name]).all()
    assert got.embedding is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", [None, Sampler(), Sampler(0.6, 0.95)], ids=str)
def test_scores_equal_plain(model, folder, kind, sampler):
    want = {s.key: s for s in plain.score(items(), model, sampler)}
    with serving(Fake(model, kind)) as url:
        loaded = connected(folder, url)
        assert loaded.model.way == KINDS[kind] and loaded.vocab_size == VOCAB and loaded.context == 64
        path, why = scorers.choose_path(loaded, sampler, "local")
        got = list(scorers.score(items(), loaded, path=path, sampler=sampler, limit=None))
        assert not loaded.model.client._open  # units must not pile up connections
    assert path == "server" and "passed the probe" in why
    assert [s.key for s in got] == list(want)
    for s in got:
        assert_as_plain(s, want[s.key])
        ranks = want[s.key].columns["rank"] if kind == "vllm" else 0
        assert (s.columns["rank"] == ranks).all() and s.columns["rank"].dtype == np.int32
        if sampler is not None:
            known = s.columns["logprob"] if sampler.is_plain else np.full(len(s), np.nan)
            assert np.array_equal(s.columns["logprob_s"], known, equal_nan=True)
        for (t, ids, values), (t_plain, ids_plain, values_plain) in zip(s.top, want[s.key].top, strict=True):
            assert (t, ids) == (t_plain, ids_plain) and np.allclose(values, values_plain, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_faults_cost_tries_and_never_a_wrong_value(model, folder, kind):
    """Every sequence is answered wrongly up to three times, in one of ten ways each time, before the right answer; one
    of them is first not answered in time."""
    rng, spoilt, waits = random.Random(5), [], []
    left = {}

    def fault(n, body):
        if n < 5:  # the probe, which tries another way first, is left alone here
            return None
        quick = [f for f in FAULTS if f != "slow"]
        first = rng.choices(quick, k=rng.randrange(4)) if left else ["slow"]
        names = left.setdefault(tuple(body["prompt"]), first)
        spoilt.append(names.pop() if names else None)
        return spoilt[-1]

    many = items(40, seed=1)
    with serving(Fake(model, kind, fault=fault), slow=2.0) as url:
        loaded = connected(folder, url, timeout=1.5, waits=waits)
        got = {s.key: s for s in scorers.score(many, loaded, path="server", sampler=None, limit=None)}
    want = {s.key: s for s in plain.score(many, model, None)}
    assert set(got) == set(want)
    for key in want:
        assert_as_plain(got[key], want[key])
    assert {n for n in spoilt if n} == set(FAULTS)
    assert len(waits) >= sum(n is not None for n in spoilt) - 1  # a kept connection may be opened again without a wait
    assert 1 <= waits.count(7.0) <= spoilt.count("429")  # Retry-After is honoured to the second


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_keeps_failing_ends_with_what_is_finished(model, folder, fault):
    many = items(12)
    broken = many[7].prompt_ids + many[7].response_ids
    with serving(Fake(model, fault=lambda n, body: fault if body["prompt"] == list(broken) else None), slow=1.2) as url:
        loaded = connected(folder, url, timeout=1.0 if fault == "slow" else 20, concurrent=2, tries=3)
        got = []
        named = rf"no usable answer .* after 3 tries.* s/p/7 \(dump.jsonl:8, {len(many[7])} tokens\).*saved"
        with pytest.raises(ResourceError, match=named):
            for s in scorers.score(many, loaded, path="server", sampler=None, limit=None):
                got.append(s.key)
    assert set(got) >= {i.trace.key for i in many[:7]} and many[7].trace.key not in got


def shift(by):
    return lambda rows: torch.roll(rows, by, 0)


LIARS = {
    "adds BOS": (dict(bos=1), "BOS"),
    "one place late": (dict(lie=shift(1)), "not aligned"),
    "one place early": (dict(lie=shift(-1)), "not aligned"),
    "not normalised": (dict(lie=lambda rows: rows + 1), "sum to more than 1|no log-prob"),
    "positive": (dict(lie=lambda rows: -rows), "no log-prob"),
    "not a number": (dict(lie=lambda rows: rows * float("nan")), "no log-prob"),
    "length": (dict(fault=lambda n, body: "length"), "were sent"),
    "other tokens": (dict(fault=lambda n, body: "tokens"), "other (prompt ids|tokens)"),
    "no log-probs": (dict(fault=lambda n, body: "empty"), "no prompt_logprobs|no echoed"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("liar", LIARS)
def test_the_probe_refuses_a_server_that_lies(model, folder, kind, liar):
    how, said = LIARS[liar]
    with serving(Fake(model, kind, **how)) as url, pytest.raises(ResourceError, match=said) as caught:
        connected(folder, url)
    assert "no log-probs of a prompt that can be trusted" in str(caught.value)


@pytest.mark.parametrize(("decimals", "atol"), [(2, 0.0051), (4, 0.000051)])
def test_rounded_log_probs_are_said(model, folder, decimals, atol):
    with serving(Fake(model, decimals=decimals)) as url:
        loaded = connected(folder, url)
        got = list(scorers.score(items(), loaded, path="server", sampler=None, limit=None))
    assert loaded.model.about()["rounded_to_decimals"] == decimals
    assert f"rounded to {decimals} decimals" in loaded.model.said()
    for s, want in zip(got, plain.score(items(), model, None)):
        assert np.abs(s.columns["logprob"] - want.columns["logprob"]).max() <= atol


def test_text_is_sent_only_where_the_server_cuts_it_into_the_same_ids(stories):
    """A server like llama-cpp-python's: no ids in, BOS left out of the answer, and no value for the token after it."""
    here = scorers.load(str(stories))
    tok = here.tokenizer
    story = tok("Once upon a time, there was a little girl named Lily. She liked to play")["input_ids"]
    assert story[0] == tok.bos_token_id
    odd = [*story[:6], *tok("play", add_special_tokens=False)["input_ids"], 410, 420, 430]
    parts = {"whole": (story[:5], story[5:]), "odd": (odd[:4], odd[4:]), "bare": (story[:1], story[1:9])}
    parts["twice"] = (story[:4], [*story[4:8], story[0]])
    encoded = [
        Encoded(Trace("s", name, 0, ""), tuple(p), tuple(r), np.full(len(r), -1, np.int32))
        for name, (p, r) in parts.items()
    ]
    with serving(Fake(here.model, "llama", tokenizer=tok)) as url:
        loaded = connected(str(stories), url)
        assert (loaded.model.way, loaded.model.skip) == ("text, echo", 1)
        refused = server.refusals(loaded.model, encoded, loaded.context)
        [got] = scorers.score(encoded[:1], loaded, path="server", sampler=None, limit=None)
    assert_as_plain(got, next(plain.score(encoded[:1], here.model, None)), atol=1e-4)
    assert set(refused) == {"s/odd/0", "s/bare/0", "s/twice/0"}
    assert "cuts this text into other tokens" in refused["s/odd/0"] and "after BOS" in refused["s/bare/0"]


def test_the_key_is_sent_and_shown_nowhere(model, folder, monkeypatch):
    monkeypatch.setenv("ANALYZER_API_KEY", "sesame-17\r\n")
    fake = Fake(model, key="sesame-17")
    with serving(fake) as url:
        loaded = connected(folder, url)
        assert all(h["Authorization"] == "Bearer sesame-17" for h in fake.headers)
        assert "sesame" not in json.dumps(loaded.model.about()) + repr(loaded.model.said())
        fake.key = "other"
        with pytest.raises(ResourceError, match="401") as caught:
            list(scorers.score(items(1), loaded, path="server", sampler=None, limit=None))
    assert "wrong key" in str(caught.value) and "sesame" not in str(caught.value)


@pytest.mark.parametrize("key", ["sesame\r17", "sesame\u20ac17"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key, monkeypatch):
    monkeypatch.setenv("ANALYZER_API_KEY", key)
    with pytest.raises(UsageError, match="ANALYZER_API_KEY") as caught:
        server_client.Client("http://host")
    assert "sesame" not in str(caught.value)


def _rows(**of_each):
    """Changes the entries of all alternatives at one place."""
    return lambda choice: [row.update(of_each) for row in choice["prompt_logprobs"][-1].values()]


ID = "99999999999"
HOSTILE = {
    "log-prob": ("vllm", _rows(logprob=-(10**400)), "no log-prob"),
    "positive log-prob": ("vllm", _rows(logprob=10**400), "no log-prob"),
    "rank": ("vllm", _rows(rank=1 << 40), "no rank"),
    "id": ("vllm", lambda c: c["prompt_logprobs"][-1].update({ID: {"logprob": -1.0, "rank": 1}}), "no token id"),
    "echoed id": ("sglang", lambda c: c["logprobs"]["top_logprobs"][-2].update({f"token_id:{ID}": -1}), "no token id"),
    "endless id": ("sglang", lambda c: c["logprobs"]["tokens"].__setitem__(2, "token_id:" + "9" * 5000), "no token id"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_numbers_that_no_column_holds_are_faults_of_the_answer(model, folder, what):
    """What came before is kept: nothing breaks later, when a part is written."""
    kind, spoil, said = HOSTILE[what]
    some = items(3)
    last = list(some[2].prompt_ids + some[2].response_ids)
    with serving(Fake(model, kind, fault=lambda n, body: spoil if body["prompt"] == last else None)) as url:
        loaded = connected(folder, url, tries=2, concurrent=1, waits=[])
        scoring = scorers.score(some, loaded, path="server", sampler=None, limit=None)
        assert [next(scoring).key, next(scoring).key] == ["s/p/0", "s/p/1"]
        with pytest.raises(ResourceError, match=said) as caught:
            next(scoring)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"max_model_len": "2048"}, "'2048'; expected a whole number"),
        ({"max_model_len": -1}, "-1; expected a whole number"),
        ({"max_model_len": True}, "True; expected a whole number"),
        ({"id": "f\ud800"}, "no text"),
    ],
)
def test_a_list_of_models_that_makes_no_sense_is_refused(model, folder, entry, said):
    fake = Fake(model)
    fake.models = [{"id": "fake"} | entry]
    with serving(fake) as url, pytest.raises(ResourceError, match=said):
        connected(folder, url, waits=[])


BUSY = {
    "429": "HTTP 429",
    "500": "however it asked: HTTP 500 [^;]*; its own log",
    "503": "HTTP 503",
    "401": "HTTP 401 .*ANALYZER_API_KEY",
    "403": "HTTP 403 .*ANALYZER_API_KEY",
    "308": "HTTP 308 .*points to https://other.host/v1/completions.* give https://other.host as URL",
    "slow": "however it asked: no answer within",
    "cut": "however it asked: the connection was cut after [0-9,]+ bytes",
}


@pytest.mark.parametrize("fault", BUSY)
def test_a_server_that_does_not_answer_the_probe_is_not_called_a_liar(model, folder, fault):
    fake = Fake(model, fault=lambda n, body: fault)
    patience = {"timeout": 0.5, "tries": 1} if fault == "slow" else {"tries": 3}
    with serving(fake, slow=0.8) as url, pytest.raises(ResourceError, match=BUSY[fault]) as caught:
        connected(folder, url, waits=[], **patience)
    assert "probe got no answer" in str(caught.value)
    assert "trusted" not in str(caught.value) and "tokenize" not in str(caught.value)
    assert len(fake.bodies) == {"401": 1, "403": 1, "308": 1, "429": 3, "503": 3, "slow": 2}.get(fault, 6)


@pytest.mark.parametrize(
    ("fault", "said", "advised"),
    [
        ("429", "HTTP 429", False),
        ("401", "its key belongs into ANALYZER_API_KEY", False),
        ("308", "points to https://other.host/v1/models; .* give https://other.host as URL", False),
        ("404", "HTTP 404", True),
        ("page", "not JSON: '<html>", True),
        ("error", "an error with HTTP 200: 'CUDA is out of memory'", True),
    ],
)
def test_what_is_wrong_with_the_address_is_said(model, folder, fault, said, advised):
    fake = Fake(model)
    fake.front = fault
    with serving(fake) as url, pytest.raises(ResourceError, match=said) as caught:
        connected(folder, url, waits=[])
    assert ("is the server up? http or https?" in str(caught.value)) == advised
    if fault == "page":
        fake.front = None
        with serving(fake) as url, pytest.raises(ResourceError, match="WRONG_VERSION_NUMBER.*http or https"):
            connected(folder, url.replace("http", "https"), waits=[])


def test_waits_are_said_once_for_all_that_wait(model, folder, caplog):
    """Requests that are told to wait at one time share a line; a longer wait gets a line of its own."""
    fake = Fake(model, fault=lambda n, body: "429" if 3 <= n < 9 else None)
    with serving(fake) as url:
        loaded = connected(folder, url, waits=[])
        list(scorers.score(items(), loaded, path="server", sampler=None, limit=None))
    assert caplog.messages == [f"server {url} said 429, waiting 7 s (try 2 of 6)"]
    client = loaded.model.client
    client._tell(server_client.Fault("no list", wait=60.0), 60.0, "try 2 of 3")
    assert caplog.messages[1:] == [f"server {url}: no list, waiting 60 s (try 2 of 3)"]


def test_a_port_that_never_answers_is_given_up_soon_and_a_slow_answer_is_not(model, folder, monkeypatch):
    monkeypatch.setattr(server, "FIRST_TIMEOUT", 0.1)
    silent = pytest.raises(ResourceError, match="no answer within 0.1 s.*is the server up")
    with socket.create_server(("127.0.0.1", 0)) as port, silent:
        connected(folder, f"http://127.0.0.1:{port.getsockname()[1]}", timeout=600, waits=[])
    monkeypatch.setattr(server, "FIRST_TIMEOUT", 0.5)
    with serving(Fake(model, fault=lambda n, body: "slow" if n > 2 else None), slow=0.8) as url:
        loaded, waits = connected(folder, url, timeout=20), []
        loaded.model.client.sleep = waits.append
        assert len(list(scorers.score(items(2), loaded, path="server", sampler=None, limit=None))) == 2
    assert not waits


def test_ranks_that_stop_coming_are_unknown_and_counted(model, folder, caplog):
    def unranked(choice):
        for row in choice["prompt_logprobs"][-1].values():
            del row["rank"]

    with serving(Fake(model, fault=lambda n, body: unranked if n in (3, 5) else None)) as url:
        loaded = connected(folder, url, concurrent=1)
        got = list(scorers.score(items(), loaded, path="server", sampler=None, limit=None))
    assert [bool(s.columns["rank"].all()) for s in got] == [False, True, False, True, True, True]
    assert caplog.messages == [f"server {url} told the probe ranks, but not those of 2 traces: they are unknown"]


def test_flags_that_name_no_server_are_refused():
    from analyzer.cli.commands import build_parser
    from analyzer.cli.flags import given
    from analyzer.records.options import ScoreOptions
    from analyzer.records.steps import taken

    for text in ("127.0.0.1:8000", "localhost:8000/v1", "ftp://host"):
        with pytest.raises(UsageError, match="begins with http:// or https://"):
            ScoreOptions(server=text)
    assert ScoreOptions(server=["base=http://a", "http://b"]).server == {"base": "http://a", "*": "http://b"}
    score = ["score", "base.jsonl", "-o", "run", "--concurrent", "4"]
    draw = ["sample", "q.jsonl", "-o", "s.jsonl", "--concurrent", "4"]

    def read(line):
        return taken(line[0], given(build_parser().parse_args(line), line[0]))

    for line in ([*score, "--base"], [*draw, "--model"]):
        with pytest.raises(UsageError, match="--concurrent"):
            read([*line, "MODEL"])
        read([*line, "MODEL", "--server", "http://a"])
        read([*line, "MODEL@http://a"])


def test_a_run_goes_on_where_the_server_left_it(model, folder, tmp_path, monkeypatch):
    """Killed by a server that fails for good, the same call again asks only for what is missing; another scorer's
    values never get into the run."""
    from analyzer.api import pipeline
    from analyzer.runs.store import Run

    monkeypatch.setattr(server_client, "FIRST_WAIT", 0.001)
    many = items(30, seed=2)
    rows = [
        {"source": "base", "question": f"q{n % 5}", "response": "r", "prompt_ids": i.prompt_ids, "sample": n // 5}
        | {"response_ids": i.response_ids, "sampler": {"temperature": 1.0}}
        for n, i in enumerate(many)
    ]
    (tmp_path / "base.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
    fake = Fake(model)
    fake.fault = lambda n, body: "500" if n >= 15 else None
    with serving(fake) as url:
        how = {"base": folder, "server": {"*": f"{url}/v1"}, "concurrent": 2}
        with pytest.raises(ResourceError, match="the same line again continues"):
            pipeline.score(run, **how)
        saved = set(run.done("base"))
        assert 5 <= len(saved) < 15
        fake.fault, fake.bodies = (lambda n, body: None), []
        again = Run.open(tmp_path / "run")
        pipeline.score(again, **how)
        assert len(again.done("base")) == 30
        asked = [tuple(b["prompt"]) for b in fake.bodies[3:]]  # after the probe
        assert len(asked) == 30 - len(saved)
        fake.bodies = []
        pipeline.score(Run.open(tmp_path / "run"), **how)
        assert not fake.bodies
        with pytest.raises(UsageError, match="no server is named for base"):
            pipeline.score(again, base=folder, scorer="server")
        with pytest.raises(UsageError, match="leave one of the two out"):
            pipeline.score(again, **how, scorer="plain")
    record = Run.open(tmp_path / "run").manifest["scorers"]["base"]
    assert record["path"] == "server" and record["server"]["url"] == url and record["server"]["model"] == "fake"
    model.save_pretrained(tmp_path / "local")
    with pytest.raises(UsageError, match="scored under another base model"):
        pipeline.score(again, base=str(tmp_path / "local"))
    want = {s.columns["token"].tobytes(): s for s in plain.score(many, model, None)}
    for part in again.tokens("base", ["token", "logprob", "logprob_s", "rank", "entropy"]):
        for row in part.to_dict("records"):
            expected = want[np.array(row["token"], np.int32).tobytes()].columns
            assert np.allclose(row["logprob"], expected["logprob"], atol=1e-5)
            assert np.array_equal(row["logprob_s"], row["logprob"]) and np.array_equal(row["rank"], expected["rank"])
            assert np.isnan(row["entropy"]).all()


@pytest.mark.parametrize(
    "url",
    ["http://me:secret@host/v1", "http://host/v1?key=secret", "ftp://host", "host:8000", "http://", "http://h:x"]
    + ["http://a..b:80", f"http://{'a' * 70}.com", "http://host/a b", "http://host/\u20ac"],
)
def test_addresses_that_are_none_or_hold_credentials_are_refused(url):
    with pytest.raises(UsageError) as caught:
        server_client.Client(url)
    assert "secret" not in str(caught.value)


def test_the_served_model_must_be_named_where_there_are_several(model, folder):
    fake = Fake(model)
    fake.models = [{"id": "one", "owned_by": "vllm", "max_model_len": 33}, {"id": "two"}]
    with serving(fake) as url:
        with pytest.raises(ResourceError, match=r"\(one, two\); say which"):
            connected(folder, url)
        with pytest.raises(ResourceError, match="no model 'tow'; did you mean 'two'"):
            connected(folder, f"{url}#tow")
        assert connected(folder, f"{url}/v1#one").context == 32
    with pytest.raises(ResourceError, match="no usable answer to /v1/models after 3 tries.*is the server up"):
        connected(folder, url)


def test_a_slow_server_does_not_hold_up_an_interrupted_run(model, folder):
    with serving(Fake(model, fault=lambda n, body: "slow" if n > 5 else None), slow=4.0) as url:
        loaded = connected(folder, url, timeout=60, concurrent=2)
        scoring = scorers.score(items(8), loaded, path="server", sampler=None, limit=None)
        next(scoring)
        since = time.monotonic()
        scoring.close()
        assert time.monotonic() - since < 2
