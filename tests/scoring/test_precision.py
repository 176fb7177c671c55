"""Lower precision: what is rounding is no fault of a path, and a fault of a path does not hide in rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from analyzer.scoring import draws, local, precision
from analyzer.scoring.fast import attention

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def noisy(dtype, seed=0):
    """A model whose rounding in bfloat16 is as large as that of real ones, half a nat."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=12, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.35,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():  # as loading does it: frequencies of positions stay float32
        p.data = p.data.to(KINDS[dtype])
    return model


def logprobs(model, path="plain"):
    items = local._made_up(model)
    return local._logprobs(local.score(items, model, None, path=path), items)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_computed_in_float32_is_a_float32_copy_and_leaves_the_model_as_it_was(dtype):
    model = noisy(dtype)
    before, weights = logprobs(model), {k: v.clone() for k, v in model.state_dict().items()}
    want = logprobs(noisy(dtype).float())
    assert np.abs(before - want).max() > 1e-2
    with precision.computed_in(model):
        assert np.abs(logprobs(model) - want).max() < 1e-6
    assert all(torch.equal(v, weights[k]) and v.dtype == weights[k].dtype for k, v in model.state_dict().items())
    assert np.array_equal(logprobs(model), before)
    full = noisy("float32")
    with precision.computed_in(full, dtype):  # the way down
        assert np.abs(logprobs(full) - before).max() < 1e-6
    assert next(full.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype", KINDS)
def test_real_rounding_keeps_the_shared_path(dtype):
    model = noisy(dtype)
    off = np.abs(logprobs(model, "shared") - logprobs(model)).max()
    assert (off > 0.25) == (dtype == "bfloat16")  # beyond what any fixed tolerance could allow
    assert local.choose(model, None) == ("shared", "agrees with plain on the loaded model")
    assert draws.cache_is_right(model) and draws.cache_is_right(model, (6, 3, 9))


FAULTS = {
    "responses do not see their prompt": ("_merge", lambda real: lambda *a: None),
    "a scale off by a tenth": ("_attention", lambda real: lambda q, k, v, scale, **o: real(q, k, v, 1.1 * scale, **o)),
    "own tokens see each other both ways": (
        "_kernel",
        lambda real: lambda q, k, v, scale, causal: real(q, k, v, scale, causal=False),
    ),
}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_path_is_found_in_every_precision(monkeypatch, fault, dtype):
    name, wrong = FAULTS[fault]
    monkeypatch.setattr(attention, name, wrong(getattr(attention, name)))
    path, why = local.choose(noisy(dtype), None)
    assert path == "cached" and "not shared: off by" in why and "on this architecture" in why


def test_a_fault_that_only_lower_precision_has_is_named_as_that(monkeypatch):
    """As of a kernel that is another one there."""
    real = attention._kernel

    def kernel(q, k, v, scale, *, causal):
        out, lse = real(q, k, v, scale, causal=causal)
        return (out if q.dtype == torch.float32 else out * 1.5), lse

    monkeypatch.setattr(attention, "_kernel", kernel)
    path, why = local.choose(noisy("bfloat16"), None)
    assert path == "cached" and "not shared: loses precision, off by" in why and "nats in bfloat16 where plain" in why
    assert local.choose(noisy("float32"), None)[0] == "shared"


def test_where_the_weights_can_not_be_computed_in_float32_it_is_said(monkeypatch):
    model = noisy("float16")
    monkeypatch.setattr(local, "_in_float32", lambda model, run: None)
    assert local.choose(model, None)[0] == "shared"
    assert "not measured" in local.half_precision_error(model, "shared")
    path, why = local.choose(noisy("bfloat16"), None)
    assert path == "plain" and "by architecture or precision (bfloat16)" in why


def test_the_error_is_told_of_the_path_taken():
    said = local.half_precision_error(noisy("bfloat16"), "shared")
    assert said.startswith("bfloat16 against float32 on 42 made-up tokens: log-prob off by 0.") and "ranks" in said
    assert local.half_precision_error(noisy("float32"), "shared") is None
