"""`plain` against a direct transformers forward, `local` against `plain`: order, batch size, padding, architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyzer import scorers
from analyzer.records import Sampler, Trace
from analyzer.scorers import local, plain, windows
from analyzer.scorers.encode import Encoded


def made_up(vocab: int, shapes: list[tuple[int, int]], seed: int = 0) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    out = []
    for n, (p, r) in enumerate(shapes):
        ids = tuple(int(i) for i in rng.integers(0, vocab, p + r))
        out.append(Encoded(Trace("s", "p", n, ""), ids[:p], ids[p:], np.full(r, -1, np.int32)))
    return out


SHAPES = [(1, 1), (3, 40), (17, 2), (5, 9), (5, 9), (30, 100), (2, 64)]


@pytest.fixture(scope="module")
def loaded(stories):
    return scorers.load(str(stories))


def assert_same(got, want, atol=1e-4):
    assert set(got.columns) == set(want.columns)
    for name, values in want.columns.items():
        other = got.columns[name]
        assert values.dtype == other.dtype and len(values) == len(other)
        assert np.array_equal(np.isfinite(values), np.isfinite(other)), name
        if name == "rank":  # far down the tail neighbours lie closer than float32 sums: the order there is not defined
            assert np.array_equal(other[values <= 20], values[values <= 20])
            assert (np.abs(other - values) <= 1 + 0.01 * values).all()
            continue
        finite = np.isfinite(values)
        assert np.allclose(other[finite], values[finite], atol=atol, rtol=1e-4), (
            name,
            np.abs(other - values)[finite].max(),
        )
    assert np.allclose(got.embedding.astype(float), want.embedding.astype(float), atol=2e-2)
    assert [t[0] for t in got.top] == [t[0] for t in want.top]


def test_plain_is_a_direct_forward(loaded):
    for item, got in zip(made_up(512, SHAPES), plain.score(made_up(512, SHAPES), loaded.model, None)):
        ids = torch.tensor([item.prompt_ids + item.response_ids])
        with torch.no_grad():
            logp = loaded.model(ids).logits[0].log_softmax(-1)
        p = len(item.prompt_ids)
        want = [float(logp[p - 1 + t, token]) for t, token in enumerate(item.response_ids)]
        assert np.abs(got.columns["logprob"] - want).max() < 1e-4
        assert list(got.columns["token"]) == list(item.response_ids)


@pytest.mark.parametrize("sampler", [None, Sampler(), Sampler(0.6, 0.95), Sampler(0.9, 1.0, 40)])
def test_local_equals_plain_whatever_the_batching(loaded, sampler):
    items = made_up(512, SHAPES)
    want = {s.key: s for s in plain.score(items, loaded.model, sampler)}
    rng = np.random.default_rng(5)
    for budget in (1, 64, 300, 10_000):
        shuffled = [items[i] for i in rng.permutation(len(items))]
        got = {s.key: s for s in local.score(shuffled, loaded.model, sampler, token_budget=budget)}
        assert set(got) == set(want)
        for key in want:
            assert_same(got[key], want[key])


def test_row_blocks_do_not_change_anything(loaded, monkeypatch):
    items = made_up(512, SHAPES)
    want = list(local.score(items, loaded.model, None))
    monkeypatch.setattr(local, "ROW_BLOCK", 7)
    for got, expected in zip(local.score(items, loaded.model, None), want):
        assert_same(got, expected)


def tiny(kind: str):
    """A random two-layer model of an architecture, with logits spread enough to make ranks meaningful."""
    import transformers as t

    torch.manual_seed(0)
    common = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    configs = {
        "llama": lambda: t.LlamaConfig(**common),
        "qwen2": lambda: t.Qwen2Config(**common),
        "qwen3": lambda: t.Qwen3Config(**common, head_dim=8),
        "gpt2": lambda: t.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128),
        "gemma2": lambda: t.Gemma2Config(**common, head_dim=8, sliding_window=16, final_logit_softcapping=3.0),
        "cohere": lambda: t.CohereConfig(**common, logit_scale=0.25),
        "granite": lambda: t.GraniteConfig(**common, logits_scaling=4.0),
    }
    model = t.AutoModelForCausalLM.from_config(configs[kind]()).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    return model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2", "gemma2", "cohere", "granite"])
def test_local_equals_plain_on_other_architectures(kind):
    model = tiny(kind)
    items = made_up(97, [(3, 20), (9, 31), (1, 5)], seed=3)
    want = {s.key: s for s in plain.score(items, model, None)}
    for got in local.score(items, model, None):
        assert_same(got, want[got.key])
    assert local.probe(model, None) is None


def test_a_broken_head_makes_the_probe_step_down(loaded, monkeypatch):
    assert scorers.choose_path(loaded, None, "local")[0] == "local"
    real = local._post_head
    # a constant shift would cancel in the softmax; a change of 1e-3 in scale must not
    monkeypatch.setattr(local, "_post_head", lambda model, logits: real(model, logits) * 1.001)
    path, why = scorers.choose_path(loaded, None, "local")
    assert path == "plain" and "off by" in why


@pytest.mark.parametrize("limit", [4, 9, 10, 33, 64, 127, 200])
def test_windows_cover_the_response_once_with_context(limit):
    for item in made_up(512, [(1, 150), (8, 120), (100, 60), (140, 9)]):
        parts = windows.split(item, limit)
        assert sum((p.response_ids for p in parts), ()) == item.response_ids
        ids = item.prompt_ids + item.response_ids
        at = len(item.prompt_ids)
        for part in parts:
            assert part.prompt_ids and len(part) <= limit
            assert part.prompt_ids == ids[at - len(part.prompt_ids) : at]
            assert part.prompt_ids == ids[:at] or len(part.prompt_ids) >= limit // 2
            at += len(part.response_ids)


def test_windows_that_are_long_enough_change_nothing(loaded):
    items = made_up(512, [(5, 30), (2, 11)])
    want = {s.key: s for s in plain.score(items, loaded.model, None)}
    for got in scorers.score(items, loaded, scorer="local", sampler=None, limit=512):
        assert_same(got, want[got.key])
    long = made_up(512, [(10, 90)])
    [got] = scorers.score(long, loaded, scorer="local", sampler=None, limit=40)
    [whole] = plain.score(long, loaded.model, None)
    assert len(got) == 90 and np.allclose(got.columns["logprob"][:30], whole.columns["logprob"][:30], atol=1e-4)
    assert not np.allclose(got.columns["logprob"][30:], whole.columns["logprob"][30:], atol=1e-4)


def test_equal_ids_are_scored_once_and_given_to_every_trace(loaded, monkeypatch):
    items = made_up(512, [(4, 9), (4, 9), (3, 5)])
    items[1] = Encoded(items[1].trace, items[0].prompt_ids, items[0].response_ids, np.arange(9, dtype=np.int32))
    seen = []
    real = scorers.SCORERS["local"]
    monkeypatch.setitem(
        scorers.SCORERS, "local", lambda e, m, s: real([seen.append(i.trace.key) or i for i in e], m, s)
    )
    got = {s.key: s for s in scorers.score(items, loaded, scorer="local", sampler=None, limit=None)}
    assert seen == ["s/p/0", "s/p/2"] and set(got) == {"s/p/0", "s/p/1", "s/p/2"}
    assert np.array_equal(got["s/p/1"].columns["logprob"], got["s/p/0"].columns["logprob"])
    assert list(got["s/p/1"].columns["offset"]) == list(range(9))
