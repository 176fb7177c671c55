"""`plain` against a direct forward, every path against `plain`: order, budget, company, architecture, faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analyzer.errors import ResourceError
from analyzer.records import NOVEL_POWERS, SAMPLER_COLUMNS, Sampler, Trace
from analyzer.scoring import load as scorers
from analyzer.scoring import local, plain, trunk, windows
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.fast import attention, head, shared
from analyzer.scoring.team import light as sent


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
    got_columns, want_columns = (
        s.columns | {(name, law): v for law, of_it in s.laws.items() for name, v in of_it.items()} for s in (got, want)
    )
    assert set(got_columns) == set(want_columns)
    for name, values in want_columns.items():
        other = got_columns[name]
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


def groups(vocab: int, seed: int = 0) -> list[Encoded]:
    """Two prompts, responses of many lengths, some of which begin alike, one that is the beginning of another."""
    rng = np.random.default_rng(seed)
    prompts = [tuple(rng.integers(3, vocab, n).tolist()) for n in (1, 30)]
    stem = tuple(rng.integers(3, vocab, 20).tolist())
    responses = [stem, stem[:8], stem[:12] + stem[3:14], stem + stem[::-1]]
    responses += [tuple(rng.integers(3, vocab, n).tolist()) for n in (1, 2, 9, 9, 40, 90)]
    return [
        Encoded(Trace("s", f"p{p}", n, ""), prompt, response, np.full(len(response), -1, np.int32))
        for p, prompt in enumerate(prompts)
        for n, response in enumerate(responses)
    ]


@pytest.mark.parametrize("path", ["shared", "cached"])
@pytest.mark.parametrize("sampler", [None, Sampler(), Sampler(0.6, 0.95), Sampler(0.9, 1.0, 40)], ids=str)
def test_every_path_equals_plain_whatever_the_order_and_budget(loaded, path, sampler):
    items = groups(512)
    want = {s.key: s for s in plain.score(items, loaded.model, sampler)}
    rng = np.random.default_rng(5)
    for budget in (17, 64, 300, 10_000):
        shuffled = [items[i] for i in rng.permutation(len(items))]
        got = {s.key: s for s in local.score(shuffled, loaded.model, sampler, path=path, token_budget=budget)}
        assert set(got) == set(want)
        for key in want:
            assert_same(got[key], want[key])


@pytest.mark.parametrize("path", ["shared", "cached"])
def test_company_changes_nothing(loaded, path):
    """One trace alone, and among others: the same to 1e-5."""
    items = groups(512)
    together = {s.key: s for s in local.score(items, loaded.model, Sampler(0.7, 0.9), path=path)}
    for item in items[::5]:
        [alone] = local.score([item], loaded.model, Sampler(0.7, 0.9), path=path)
        assert_same(alone, together[item.trace.key], atol=1e-5)


def test_row_blocks_do_not_change_anything(loaded, monkeypatch):
    items = groups(512)
    want = {s.key: s for s in local.score(items, loaded.model, None)}
    monkeypatch.setattr(head, "ROW_BLOCK", {"cpu": 7})
    monkeypatch.setattr(head, "CACHE_CELLS", 1)
    assert len(head.prepare(loaded.model).logits) == 7
    for got in local.score(items, loaded.model, None):
        assert_same(got, want[got.key])


DRAWN = (Sampler(0.6, 0.95), Sampler(0.5), Sampler(1.5, 1.0, 0, 0.05), Sampler(1.0, 0.9, 20), Sampler())
MIXED = ((), *((s,) for s in DRAWN))


def mixed(vocab: int) -> list[Encoded]:
    """`groups`, each trace with other laws; two with the ids of others but other laws, one of them with two."""
    items = [replace(item, laws=MIXED[n % len(MIXED)]) for n, item in enumerate(groups(vocab, seed=7))]
    again = [(items[0], 20, MIXED[1] + MIXED[2]), (items[9], 21, ())]
    return items + [replace(i, trace=replace(i.trace, sample=n), laws=s) for i, n, s in again]


@pytest.mark.parametrize("path", ["shared", "cached", "plain"])
def test_powers_and_further_laws_are_the_definition_whatever_the_order_budget_and_company(path):
    model, exponents, items = tiny("llama"), (*NOVEL_POWERS, 1.25, 2.5), mixed(97)
    want = {s.key: s for s in plain.score(items, model, Sampler(0.8), powers=exponents)}
    for item in items:  # the definition itself: each trace scored under that sampler alone
        columns, laws = want[item.trace.key].columns, want[item.trace.key].laws
        assert tuple(laws) == item.laws
        for law in item.laws:
            [own] = plain.score([item], model, law)
            for name in SAMPLER_COLUMNS:
                assert np.allclose(laws[law][name], own.columns[name], atol=1e-6)
        cooler = next(plain.score([item], model, Sampler(0.4))).columns["logprob_s"]
        assert np.allclose(2.5 * columns["logprob"] - columns["power_2.5"], cooler, atol=1e-4)
    rng = np.random.default_rng(5)
    for budget in (17, 64, 10_000):
        shuffled = [items[i] for i in rng.permutation(len(items))]
        scored = local.score(shuffled, model, Sampler(0.8), path=path, powers=exponents, token_budget=budget)
        got = {s.key: s for s in scored}
        assert set(got) == set(want)
        for key in want:
            assert_same(got[key], want[key])
    for item in items[::6]:
        [alone] = local.score([item], model, Sampler(0.8), path=path, powers=exponents)
        assert_same(alone, got[item.trace.key], atol=1e-5)


def test_without_powers_and_samplers_of_sources_the_columns_are_those_of_before():
    model, items = tiny("llama"), groups(97)
    [bare] = local.score(items[5:6], model, None)
    names = {"token", "logprob", "rank", "mass_above", "entropy", "varentropy", "renyi_half", "offset"}
    assert set(bare.columns) == names


def test_two_threads_give_the_columns_of_one():
    model, items, before = tiny("llama"), mixed(97), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append({s.key: s for s in local.score(items, model, Sampler(0.8), powers=(0.95, 5.0))})
    torch.set_num_threads(before)
    for key, want in found[0].items():
        assert_same(found[1][key], want, atol=1e-5)


def test_windows_and_equal_ids_keep_the_laws():
    model = tiny("llama")
    here = scorers.Loaded("m", "f", model, None, 97, 256, "float32", "cpu")
    half, cut = Sampler(0.5), Sampler(0.6, 0.9)
    long = [replace(i, laws=(half,)) for i in made_up(97, [(5, 60)])]
    how = {"path": "shared", "sampler": None, "powers": (2.0,)}
    [got] = scorers.score(long, here, limit=40, **how)
    own = 2 * got.columns["logprob"] - got.columns["power_2"]  # temperature 1/2
    assert len(got) == 60 and np.allclose(got.laws[half]["logprob_s"], own, atol=1e-4)
    [same] = made_up(97, [(4, 9)])
    laws = [(), (half,), (half,), (cut,)]
    four = [replace(same, trace=replace(same.trace, sample=n), laws=some) for n, some in enumerate(laws)]
    got = {s.key: s.laws for s in scorers.score(four, here, limit=None, **how)}
    a, b, c, d = (got[i.trace.key] for i in four)
    assert not a and np.array_equal(b[half]["logprob_s"], c[half]["logprob_s"])
    assert not np.allclose(b[half]["logprob_s"], d[cut]["logprob_s"])
    light = sent(four[1])
    assert light.laws == (half,) and light.trace.response == ""


def tiny(kind: str):
    """A random small model of an architecture, with logits spread enough to make ranks meaningful."""
    import transformers as t

    torch.manual_seed(0)
    common = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    short = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97, "pad_token_id": 0}
    gpt = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    rope = {"rope_theta": 1e4, "factor": 4.0}
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    configs = {
        "llama": lambda: t.LlamaConfig(**common, tie_word_embeddings=True),
        "qwen2": lambda: t.Qwen2Config(**common),
        "qwen3": lambda: t.Qwen3Config(**common, head_dim=8),
        "olmo2": lambda: t.Olmo2Config(**common),
        "phi": lambda: t.PhiConfig(**common),
        "gpt_neox": lambda: t.GPTNeoXConfig(**common),
        "mixtral": lambda: t.MixtralConfig(**common, **experts),
        "gpt2": lambda: t.GPT2Config(**gpt),
        "cohere": lambda: t.CohereConfig(**common, logit_scale=0.25),
        "granite": lambda: t.GraniteConfig(**common, logits_scaling=4.0),
        "nanochat": lambda: t.NanoChatConfig(**common),
        "mistral": lambda: t.MistralConfig(**common, sliding_window=24),
        "gemma3": lambda: t.Gemma3TextConfig(**common, head_dim=8, sliding_window=24),
        "gemma2": lambda: t.Gemma2Config(**common, head_dim=8, sliding_window=24, final_logit_softcapping=3.0),
        "gpt_oss": lambda: t.GptOssConfig(**common, **experts, head_dim=8, sliding_window=24),
        "gptj": lambda: t.GPTJConfig(**gpt, rotary_dim=4),
        "bloom": lambda: t.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
        "falcon": lambda: t.FalconConfig(**short, num_attention_heads=4, alibi=True, new_decoder_architecture=False),
        "deepseek_v3": lambda: t.DeepseekV3Config(
            **common | {"num_key_value_heads": 4, "num_experts_per_tok": 2},
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=16,
            first_k_dense_replace=1,
        ),
        "qwen3_next": lambda: t.Qwen3NextConfig(
            **common | {"num_hidden_layers": 4},
            **linear,
            head_dim=8,
            linear_value_head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
        "falcon_h1": lambda: t.FalconH1Config(
            **common, head_dim=8, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1
        ),
        "mamba": lambda: t.MambaConfig(**short, state_size=8),
        "jamba": lambda: t.JambaConfig(
            **common | {"num_hidden_layers": 8}, num_experts=2, mamba_d_state=8, mamba_dt_rank=4
        ),
        "llama4": lambda: t.Llama4TextConfig(
            **common, attention_chunk_size=16, head_dim=8, num_local_experts=2, intermediate_size_mlp=48
        ),
        "dynamic": lambda: t.LlamaConfig(
            **common | {"max_position_embeddings": 64}, rope_parameters=rope | {"rope_type": "dynamic"}
        ),
        "longrope": lambda: t.Phi3Config(
            **common, original_max_position_embeddings=64, rope_parameters=rope | factors | {"rope_type": "longrope"}
        ),
    }
    model = t.AutoModelForCausalLM.from_config(configs[kind]()).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    return model


# Which path every family must take: the fast one is worth nothing if it is never used, the wrong one worse.
PATHS = {
    "shared": "llama qwen2 qwen3 olmo2 phi gpt_neox mixtral gpt2 cohere granite nanochat mistral gemma3 dynamic "
    "longrope",
    "cached": "gemma2 gpt_oss gptj bloom falcon deepseek_v3 qwen3_next falcon_h1",
    "plain": "mamba jamba llama4",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "path"), [(kind, path) for path, kinds in PATHS.items() for kind in kinds.split()])
def test_architectures_take_their_path_and_are_scored_as_one_by_one_in_float64(kind, path):
    model = tiny(kind)
    taken, why = local.choose(model, None)
    assert taken == path, why
    items = groups(97, seed=3)
    got = {s.key: s for budget in (64, 4096) for s in local.score(items, model, None, path=taken, token_budget=budget)}
    # the definition in float64; where a layer has no float64 kernel (experts, scans), its float32 forward one by one
    single = kind in ("falcon_h1", "jamba", "mamba", "mixtral", "gpt_oss", "deepseek_v3", "qwen3_next", "llama4")
    exact, tolerance = (model, 5e-5) if single else (model.double(), 2e-5)
    for item in items:
        ids = torch.tensor([item.prompt_ids + item.response_ids])
        with torch.no_grad():
            trunk.forget_lengths(exact)
            logits = exact(ids, use_cache=False).logits[0].double()
        rows = logits[len(item.prompt_ids) - 1 : -1]
        logp = rows.log_softmax(-1)
        columns, targets = got[item.trace.key].columns, ids[0, len(item.prompt_ids) :, None]
        assert np.abs(columns["logprob"] - logp.gather(1, targets)[:, 0].numpy()).max() < tolerance, item.trace.key
        entropy = torch.special.entr(logp.exp()).sum(-1).numpy()
        assert np.abs(columns["entropy"] - entropy).max() < tolerance
        # ranks are equal up to logits that lie within rounding of the target's
        target = rows.gather(1, targets)
        low, high = (1 + (rows > target + d).sum(1).numpy() for d in (1e-4, -1e-4))
        assert ((columns["rank"] >= low) & (columns["rank"] <= high)).all()


def test_traces_beyond_a_window_or_a_rope_limit_leave_the_shared_path():
    items = groups(97, seed=3)
    routes = dict(local._routes(items, tiny("mistral"), "shared"))
    assert all(len(i) <= 24 for i in routes["shared"]) and all(len(i) > 24 for i in routes["cached"])
    routes = dict(local._routes(items, tiny("longrope"), "shared"))
    assert all(len(i) <= 64 for i in routes["shared"]) and all(len(i) > 64 for i in routes["plain"])
    assert [w for w, _ in local._routes(items, tiny("llama"), "shared")] == ["shared"]


def test_the_path_beyond_a_window_is_probed_once_for_a_model(monkeypatch):
    """Every unit of work asks for it."""
    probed, model, items = [], tiny("mistral"), groups(97, seed=3)
    monkeypatch.setattr(local, "probe", lambda model, sampler, path: probed.append(path))
    for _ in range(3):
        local._routes(items, model, "shared")
    assert probed == ["cached"]


def test_a_broken_head_or_attention_makes_the_probe_step_down(loaded, monkeypatch):
    assert scorers.choose_path(loaded, None, "local") == ("shared", "agrees with plain on the loaded model")
    real_kernel = attention._kernel
    with monkeypatch.context() as patch:
        patch.setattr(
            attention, "_kernel", lambda q, k, v, s, *, causal: real_kernel(q, k, v * 1.001, s, causal=causal)
        )
        path, why = scorers.choose_path(loaded, None, "local")
        assert path == "cached" and "not shared: off by" in why
    real = head._logits
    # a constant shift would cancel in the softmax; a change of 1e-3 in scale must not
    monkeypatch.setattr(head, "_logits", lambda hidden, work: real(hidden, work) * 1.001)
    path, why = scorers.choose_path(loaded, None, "local")
    assert path == "plain" and "not shared: off by" in why and "not cached: off by" in why


def test_lower_precision_says_what_it_costs(stories, loaded):
    half = scorers.load(str(stories), dtype="bfloat16")
    path, _ = scorers.choose_path(half, None, "local")
    said = local.half_precision_error(half.model, path)
    assert path == "shared" and said.startswith("bfloat16 against float32 on 42 made-up tokens: log-prob off by 0.0")
    assert local.half_precision_error(loaded.model, path) is None
    items = groups(512)
    got = {s.key: s.columns["logprob"] for s in local.score(items, half.model, None, path=path)}
    off = np.concatenate([got[s.key] - s.columns["logprob"] for s in plain.score(items, loaded.model, None)])
    assert 1e-4 < np.sqrt((off**2).mean()) < 0.1


def test_running_out_of_memory_halves_the_budget_and_loses_nothing(loaded, monkeypatch):
    items, noted, real = groups(512), [], shared.score

    def greedy(some, model, sampler, *, token_budget, powers):
        for n, scored in enumerate(real(some, model, sampler, token_budget=token_budget, powers=powers)):
            if token_budget > 1000 and n == 3:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            yield scored

    monkeypatch.setitem(local.RUN, "shared", greedy)
    got = list(local.score(items, loaded.model, None, note=lambda name, value: noted.append((name, value))))
    assert sorted(s.key for s in got) == sorted(i.trace.key for i in items)
    assert [v for _, v in noted] == [4096, 2048, 1024, 512]
    monkeypatch.setattr(local, "LEAST_BUDGET", 3000)
    with pytest.raises(ResourceError, match="out of memory while scoring"):
        list(scorers.score(items, loaded, path="shared", sampler=None, limit=None))


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
    for got in scorers.score(items, loaded, path="shared", sampler=None, limit=512):
        assert_same(got, want[got.key])
    long = made_up(512, [(10, 90)])
    [got] = scorers.score(long, loaded, path="shared", sampler=None, limit=40)
    [whole] = plain.score(long, loaded.model, None)
    assert len(got) == 90 and np.allclose(got.columns["logprob"][:30], whole.columns["logprob"][:30], atol=1e-4)
    assert not np.allclose(got.columns["logprob"][30:], whole.columns["logprob"][30:], atol=1e-4)


def test_equal_ids_are_scored_once_and_given_to_every_trace(loaded, monkeypatch):
    items = made_up(512, [(4, 9), (4, 9), (3, 5)])
    items[1] = Encoded(items[1].trace, items[0].prompt_ids, items[0].response_ids, np.arange(9, dtype=np.int32))
    seen = []
    real = local.RUN["shared"]
    monkeypatch.setitem(
        local.RUN, "shared", lambda e, m, s, **more: real([seen.append(i.trace.key) or i for i in e], m, s, **more)
    )
    got = {s.key: s for s in scorers.score(items, loaded, path="shared", sampler=None, limit=None)}
    assert seen == ["s/p/0", "s/p/2"] and set(got) == {"s/p/0", "s/p/1", "s/p/2"}
    assert np.array_equal(got["s/p/1"].columns["logprob"], got["s/p/0"].columns["logprob"])
    assert list(got["s/p/1"].columns["offset"]) == list(range(9))


@pytest.mark.parametrize(("away", "path"), [("model.layers.1", "shared"), ("lm_head", "plain")])
def test_a_model_in_several_places_is_scored_by_a_path_that_is_right(tmp_path, away, path):
    """As `--device map` does where a model does not fit: a part lies on disk and is fetched when it is called."""
    from transformers import AutoModelForCausalLM

    whole = tiny("qwen2")
    whole.save_pretrained(tmp_path / "model")
    names = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head", "model.layers.0", "model.layers.1"]
    places = dict.fromkeys(names, "cpu") | {away: "disk"}
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "away", use_safetensors=True
    ).eval()
    assert any(p.device.type == "meta" for p in model.parameters())
    chosen, why = local.choose(model, None)
    assert chosen == path, why
    items = groups(97)[:6]
    want = {s.key: s for s in plain.score(items, whole, None)}
    for got in local.score(items, model, None, path=chosen):
        assert_same(got, want[got.key])


def test_device_map_loads_the_same_model(stories, loaded):
    spread = scorers.load(str(stories), device="map")
    assert (spread.fingerprint, spread.dtype) == (loaded.fingerprint, "float32")
    assert scorers.choose_path(spread, None, "local")[0] == "shared"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the CUDA kernels were not run")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shared_path_on_cuda(stories, dtype):
    on_gpu = scorers.load(str(stories), dtype=dtype, device="cuda")
    assert scorers.choose_path(on_gpu, None, "local")[0] == "shared"
    items = groups(512)
    want = {s.key: s for s in plain.score(items, on_gpu.model, Sampler(0.6, 0.95))}
    for got in local.score(items, on_gpu.model, Sampler(0.6, 0.95)):
        off = np.abs(got.columns["logprob"] - want[got.key].columns["logprob"]).max()
        assert off < (1e-4 if dtype == "float32" else 0.25)
