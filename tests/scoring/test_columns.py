"""Columns against a float64 oracle, transformers' own generation distribution, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from analyzer.records import CORE_COLUMNS, NOVEL_COLUMNS, NOVEL_POWERS, POWER_COLUMNS, POWERS, Sampler
from analyzer.scoring.columns import all_columns, core_columns, powers, sampler_columns, top_alternatives

EXPONENTS = (*NOVEL_POWERS, 1.0, *POWERS)


def oracle(logits: np.ndarray, target: int) -> dict[str, float]:
    """One row in float64, straight from the definitions."""
    logits = logits.astype(np.float64)
    logp = logits - logsumexp(logits)
    p = np.exp(logp)
    above = logits > logits[target]
    entropy = -(p * logp).sum()
    return {
        "logprob": logp[target],
        "rank": 1 + above.sum(),
        "mass_above": p[above].sum(),
        "entropy": entropy,
        "varentropy": (p * (-logp - entropy) ** 2).sum(),
        "renyi_half": 2 * logsumexp(logp / 2),
    }


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 30.0])
def test_core_columns_equal_the_float64_definitions(scale):
    rng = np.random.default_rng(1)
    logits = (rng.normal(size=(40, 997)) * scale).astype(np.float32)
    targets = np.where(np.arange(40) % 2, logits.argmax(1), rng.integers(0, 997, 40))
    got = core_columns(torch.tensor(logits), torch.tensor(targets))
    assert set(got) == set(CORE_COLUMNS) - {"token"}
    for r in range(40):
        want = oracle(logits[r], targets[r])
        for name, value in want.items():
            assert float(got[name][r]) == pytest.approx(value, rel=2e-5, abs=2e-6 * max(1, scale**2)), (name, r)


def test_logprob_keeps_its_precision_next_to_one():
    logits = torch.zeros(1, 3)
    logits[0, 0] = 20.0
    want = -np.log1p(2 * np.exp(-20.0))
    assert float(core_columns(logits, torch.tensor([0]))["logprob"]) == pytest.approx(want, rel=1e-5)


def test_ties_share_the_better_rank_and_uniform_has_closed_forms():
    got = core_columns(torch.zeros(1, 8), torch.tensor([5]))
    assert int(got["rank"]) == 1 and float(got["mass_above"]) == 0
    for name in ("entropy", "renyi_half"):
        assert float(got[name]) == pytest.approx(np.log(8), rel=1e-6)
    assert float(got["varentropy"]) == pytest.approx(0, abs=1e-9)


def test_masked_vocabulary_entries_do_not_poison_the_row():
    logits = torch.tensor([[1.0, 2.0, -torch.inf, -torch.inf]])
    want = core_columns(logits[:, :2], torch.tensor([1]))
    got = core_columns(logits, torch.tensor([1]))
    for name in want:
        assert float(got[name]) == pytest.approx(float(want[name]), rel=1e-6)


@pytest.mark.parametrize(
    "sampler", [Sampler(0.6, 0.95), Sampler(1.0, 0.9, 20), Sampler(1.5, 1.0, 0, 0.05), Sampler(0.7, 0.8, 50, 0.02)]
)
def test_sampler_columns_are_the_distribution_that_generation_draws_from(sampler):
    """Against GenerationMixin's own processor list, built from a generation config."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    rng = np.random.default_rng(2)
    logits = torch.tensor(rng.normal(size=(64, 300)).astype(np.float32) * 3)
    targets = torch.tensor(rng.integers(0, 300, 64))
    config = GenerationConfig(
        do_sample=True,
        temperature=sampler.temperature,
        top_p=sampler.top_p,
        top_k=sampler.top_k,
        min_p=sampler.min_p or None,
    )
    tiny = LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    processors = tiny._get_logits_processor(config, input_ids_seq_length=1, device="cpu")
    want = processors(None, logits).log_softmax(-1)
    got = sampler_columns(logits, targets, sampler)
    assert torch.equal(got["logprob_s"].isinf(), want[torch.arange(64), targets].isinf())
    assert torch.allclose(got["logprob_s"], want[torch.arange(64), targets], atol=1e-6)
    p = want.exp()
    entropy = torch.special.entr(p).sum(-1)
    assert torch.allclose(got["entropy_s"], entropy, atol=1e-5)


def test_top_p_membership_is_mass_above_below_top_p():
    rng = np.random.default_rng(3)
    logits = torch.tensor(rng.normal(size=(500, 50)).astype(np.float32) * 2)
    targets = torch.tensor(rng.integers(0, 50, 500))
    got = sampler_columns(logits, targets, Sampler(0.6, 0.9))
    clear = (got["mass_above_s"] - 0.9).abs() > 1e-5
    assert clear.sum() > 480
    assert torch.equal((got["logprob_s"] > -torch.inf)[clear], (got["mass_above_s"] < 0.9)[clear])


def power_oracle(logits: np.ndarray, a: float) -> np.ndarray:
    """log sum p^a in float64 [R]; the likeliest token is left out of the sums, so that p = 1 - 1e-30 is seen."""
    top_R = logits.argmax(1)[:, None]
    d = logits.astype(np.float64) - np.take_along_axis(logits.astype(np.float64), top_R, 1)

    def log_sum(a):
        terms = np.exp(a * d)
        np.put_along_axis(terms, top_R, 0.0, 1)
        return np.log1p(terms.sum(1))

    return log_sum(a) - a * log_sum(1.0)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 30.0])
def test_powers_equal_the_float64_definition(scale):
    logits = (np.random.default_rng(6).normal(size=(40, 997)) * scale).astype(np.float32)
    logits[:10, 500:] = -np.inf
    got = powers(torch.tensor(logits), EXPONENTS)
    assert {*POWER_COLUMNS, *NOVEL_COLUMNS} < set(got) and all(v.dtype == torch.float32 for v in got.values())
    for a in EXPONENTS:
        want = power_oracle(logits, a)
        assert np.allclose(got[f"power_{a:g}"], want, rtol=5e-6, atol=1e-12), a
    logp = torch.tensor(logits).double().log_softmax(-1)
    tempered = (torch.tensor(logits).double() * 2.5).log_softmax(-1)
    finite = logp.isfinite()
    off = (2.5 * logp - got["power_2.5"].double()[:, None] - tempered)[finite].abs().max()
    assert off < 1e-5 * max(1, scale)


def test_powers_keep_their_precision_next_to_one_and_their_sign():
    logits = torch.zeros(60, 3)
    logits[:, 0] = torch.arange(60.0)
    got = powers(logits, EXPONENTS)
    for a in EXPONENTS:
        values = got[f"power_{a:g}"].double().numpy()
        assert np.allclose(values, power_oracle(logits.numpy(), a), rtol=1e-5, atol=0), a
        assert (values <= 0).all() if a > 1 else (values >= 0).all() if a < 1 else (values == 0).all()
    assert float(got["power_5"][16]) == pytest.approx(-5 * 2 * np.exp(-16.0), rel=1e-5)
    certain = powers(torch.tensor([[3.0, -torch.inf, -torch.inf]]), EXPONENTS)
    assert all(float(v) == 0 for v in certain.values())


def test_powers_of_equal_logits_have_a_closed_form():
    for a, values in zip(EXPONENTS, powers(torch.tensor([[7.0] * 8, [1e4] * 8]), EXPONENTS).values(), strict=True):
        assert np.allclose(values, (1 - a) * np.log(8), rtol=1e-6), a


def test_plain_sampler_repeats_the_core_columns_and_unknown_sampler_has_none():
    logits = torch.tensor(np.random.default_rng(4).normal(size=(5, 9)).astype(np.float32))
    targets = torch.arange(5)
    plain = all_columns(logits, targets, Sampler())
    tempered = sampler_columns(logits, targets, Sampler())
    for name, values in tempered.items():
        assert torch.allclose(plain[name], values, atol=1e-6), name
    assert "logprob_s" not in all_columns(logits, targets, None)


def test_alternatives_only_where_the_token_surprises():
    logits = torch.tensor([[10.0, 0, 0, 0, 0, 0, 0], [10.0, 0, 0, 0, 0, 0, 3]])
    columns = core_columns(logits, torch.tensor([0, 6]))
    [(row, ids, values)] = top_alternatives(logits, columns["logprob"])
    assert row == 1 and ids[:2] == (0, 6) and len(ids) == 5
    assert values[1] == pytest.approx(float(columns["logprob"][1]), abs=1e-5)
