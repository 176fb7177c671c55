"""The fast statistics against float64 definitions and transformers' own processors, where rounding bites most."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from analyzer.records import NOVEL_POWERS, POWERS, SAMPLER_COLUMNS, Sampler
from analyzer.scoring.columns import all_columns, powers, sampler_columns, truncations
from analyzer.scoring.fast import head, nucleus

SAMPLERS = [
    Sampler(0.6, 0.95),
    Sampler(0.6),
    Sampler(0.1, 0.3),
    Sampler(1.0, 0.9, 20),
    Sampler(1.0, 1.0, 5),
    Sampler(2.0, 0.5),
    Sampler(1.5, 1.0, 0, 0.05),
    Sampler(0.7, 0.8, 50, 0.02),
]

SCALES = {"uniform": 0.0, "nearly uniform": 0.01, "flat": 1.0, "usual": 4.0, "peaked": 15.0, "huge": 120.0}
KINDS = [*SCALES, "masked", "certain", "ties", "a heap below the top"]
EXPONENTS = (*NOVEL_POWERS, *POWERS)


def fast(
    logits: torch.Tensor, targets: torch.Tensor, sampler: Sampler | None, cells: int = 1 << 14, *more: tuple | dict
) -> dict:
    work = torch.empty(3, max(1, cells // logits.shape[1]) * logits.shape[1])
    return head._columns_on_cpu(logits, targets, work, sampler, *more)


def kernel(
    logits: torch.Tensor, targets: torch.Tensor, sampler: Sampler | None, cells: int = 0, *more: tuple | dict
) -> dict:
    """The same by the Triton kernel: on a GPU, or by Triton's interpreter (TRITON_INTERPRET=1)."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed: its kernel was not run")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set: the Triton kernel was not run")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = head._columns_on_device(logits.to(device), targets.to(device), sampler, *more)
    return {name: values.cpu() for name, values in found.items()}


def rows(kind: str, count: int = 96, vocab: int = 997, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    scale = {"uniform": 0.0, "nearly uniform": 0.01, "flat": 1.0, "usual": 4.0, "peaked": 15.0, "huge": 120.0}.get(
        kind, 4
    )
    logits = (rng.normal(size=(count, vocab)) * scale).astype(np.float32)
    targets = np.where(np.arange(count) % 3 > 0, logits.argmax(1), rng.integers(0, vocab, count))
    if kind == "masked":
        logits[:, 100:] = -np.inf
        targets = targets % 100
    if kind == "certain":  # p = 1 - 1e-7 and nearer
        logits[np.arange(count), targets] = 30 + np.arange(count) / 4
    if kind == "ties":
        logits = np.round(logits)
    if kind == "a heap below the top":  # the one-pass variance cancels
        logits = np.where(np.arange(vocab) == 3, 5.0, rng.normal(size=(count, vocab)) * 0.01).astype(np.float32)
    return torch.from_numpy(logits), torch.from_numpy(targets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [fast, kernel])
def test_core_statistics_are_the_float64_definitions(kind, how):
    logits, targets = rows(kind, vocab=9001)  # three steps of the kernel
    got = {name: values.numpy() for name, values in how(logits, targets, None).items()}
    l_RV, t_R = logits.numpy().astype(np.float64), targets.numpy()
    logp = l_RV - logsumexp(l_RV, axis=1, keepdims=True)
    p = np.exp(logp)
    surprisal = np.where(p > 0, -logp, 0.0)
    entropy = (p * surprisal).sum(1)
    target = l_RV[np.arange(len(t_R)), t_R][:, None]
    scale = np.abs(np.where(np.isfinite(l_RV), l_RV, 0)).max()
    near = 1e-5 + 2e-7 * scale  # float32 logits of that size
    # next to p = 1 the log-prob must keep its relative precision: sum the others, not one minus
    with np.errstate(over="ignore"):  # where the target is not the arg-max the sum is not used
        others = np.where(np.arange(l_RV.shape[1]) == t_R[:, None], 0.0, np.exp(l_RV - target)).sum(1)
    is_top = (l_RV > target).sum(1) == 0
    exact = np.where(is_top, -np.log1p(np.where(is_top, others, 0)), logp[np.arange(len(t_R)), t_R])
    assert np.abs(got["logprob"] - exact).max() < near
    assert (np.abs(got["logprob"] - exact)[is_top] <= 1e-5 * np.abs(exact[is_top]) + 1e-30).all()
    assert (got["rank"] == 1 + (l_RV > target).sum(1)).all() and got["rank"].dtype == np.int32
    assert np.abs(got["mass_above"] - (p * (l_RV > target)).sum(1)).max() < 1e-6 + 2e-7 * scale
    assert np.abs(got["entropy"] - entropy).max() < near
    variance = (p * (surprisal - entropy[:, None]) ** 2).sum(1)
    assert (np.abs(got["varentropy"] - variance) <= 1e-9 + (1e-5 + 1e-6 * scale) * variance).all()
    renyi = 2 * logsumexp(np.where(p > 0, logp, -np.inf) / 2, axis=1)
    assert np.abs(got["renyi_half"] - renyi).max() < near


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("how", [fast, kernel])
def test_sampler_statistics_are_what_generation_applies(kind, sampler, how):
    """Who is kept by transformers' own processors on the same float32 logits; the numbers in float64."""
    logits, targets = rows(kind, count=48, seed=1)
    got = {name: values.double().numpy() for name, values in how(logits, targets, sampler).items()}
    kept = logits / sampler.temperature
    for warper in truncations(sampler):
        kept = warper(None, kept)
    l_RV = np.where(np.isfinite(kept.numpy()), logits.numpy().astype(np.float64) / sampler.temperature, -np.inf)
    logp = l_RV - logsumexp(l_RV, axis=1, keepdims=True)
    p = np.exp(logp)
    surprisal = np.where(p > 0, -logp, 0.0)
    entropy = (p * surprisal).sum(1)
    chosen = logp[np.arange(len(logp)), targets.numpy()]
    assert (np.isfinite(got["logprob_s"]) == np.isfinite(chosen)).all()
    inside = np.isfinite(chosen)
    near = 1e-5 + 3e-7 * float(logits[logits.isfinite()].abs().max()) / sampler.temperature
    assert np.abs(got["logprob_s"][inside] - chosen[inside]).max(initial=0) < near
    assert np.abs(got["entropy_s"] - entropy).max() < near
    variance = (p * (surprisal - entropy[:, None]) ** 2).sum(1)
    assert (np.abs(got["varentropy_s"] - variance) <= 1e-9 + 10 * near * np.maximum(variance, 1e-3)).all()
    tempered = logits.numpy().astype(np.float64) / sampler.temperature
    whole = np.exp(tempered - logsumexp(tempered, axis=1, keepdims=True))
    target = tempered[np.arange(len(tempered)), targets.numpy()][:, None]
    assert np.abs(got["mass_above_s"] - (whole * (tempered > target)).sum(1)).max() < 10 * near


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [fast, kernel])
def test_powers_are_the_definition(kind, how):
    """Whichever token is the target, and next to p = 1 relative to what is left (which float32 cuts at e^-80)."""
    logits, targets = rows(kind, vocab=9001)
    targets[::4] = logits[::4].argmin(1)
    got, want = how(logits, targets, None, 1 << 14, EXPONENTS), powers(logits.double(), EXPONENTS)
    for a in EXPONENTS:
        name = f"power_{a:g}"
        assert got[name].dtype == torch.float32
        assert torch.allclose(got[name].double(), want[name].double(), rtol=1e-4, atol=1e-25), name
        assert (got[name] <= 0).all() if a > 1 else (got[name] >= 0).all()
    without = how(logits, targets, None)
    assert all(torch.equal(without[name], got[name]) for name in without)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [fast, kernel])
def test_columns_by_further_samplers_are_those_by_the_main_one(kind, how):
    """Row by row another sampler, some rows under several, some under none."""
    logits, targets = rows(kind, count=60, seed=2)
    samplers = [Sampler(), *SAMPLERS]
    needed = {s: (torch.arange(60) % len(samplers) == n) | (torch.arange(60) < 5) for n, s in enumerate(samplers)}
    needed[SAMPLERS[0]][:] = False
    got = how(logits, targets, Sampler(0.7, 0.8), 1 << 14, (), needed)
    for s, mask in needed.items():
        for name, want in how(logits, targets, s).items():
            if name in SAMPLER_COLUMNS:
                law = got[name, s]
                assert law.isnan().tolist() == (~mask).tolist() and law.dtype == torch.float32
                assert torch.allclose(law[mask], want[mask], rtol=1e-6, atol=1e-6), (name, s)
    without = how(logits, targets, Sampler(0.7, 0.8))
    assert all(torch.equal(without[name], got[name]) for name in without)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: its kernel was not compiled")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted, the kernel is not compiled")
@pytest.mark.parametrize("number", [0, 5])
def test_the_kernel_compiles_for_gpus_that_are_not_here(number):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from analyzer.scoring.fast import kernel

    kinds = {"logits": "*fp32", "targets": "*i64", "exponents": "*fp32", "out": "*fp32"}
    kinds |= {"vocab": "i32", "row_stride": "i64"}
    fixed = {"NUMBER": number, "SLOTS": 8, "BLOCK": kernel.BLOCK, "LEAST": kernel.LEAST}
    source = ASTSource(kernel._sums, kinds | dict.fromkeys(fixed, "constexpr"), fixed)
    assert "ex2.approx" in compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


def test_a_device_without_a_kernel_takes_the_definition_in_slices(monkeypatch):
    logits, targets = rows("usual")
    monkeypatch.setattr(head, "find_spec", lambda name: None)
    monkeypatch.setattr(head, "EAGER_CELLS", 5 * 997)
    for sampler in (None, Sampler(), Sampler(0.6, 0.95)):
        needed = {Sampler(0.5): torch.ones(len(logits), dtype=torch.bool)}
        got = head._columns_on_device(logits, targets, sampler, EXPONENTS, needed)
        want = all_columns(logits, targets, sampler, EXPONENTS)
        want |= {(name, Sampler(0.5)): v for name, v in sampler_columns(logits, targets, Sampler(0.5)).items()}
        assert got.keys() == want.keys()
        for name in want:
            assert torch.allclose(got[name], want[name], atol=1e-6), name


@pytest.mark.parametrize("cells", [1, 997, 5 * 997, 1 << 20])
def test_the_size_of_the_stretches_changes_nothing(cells):
    logits, targets = rows("usual")
    want = fast(logits, targets, Sampler(0.7, 0.9))
    for name, values in fast(logits, targets, Sampler(0.7, 0.9), cells).items():
        assert torch.allclose(values, want[name], atol=1e-6), name


def test_rows_that_candidates_do_not_settle_take_the_definition(monkeypatch):
    """A boundary within rounding, or ties at it: then transformers' own sort decides, and ours must ask it."""
    asked = []
    monkeypatch.setattr(nucleus, "sampler_columns", lambda x, t, s: asked.append(len(x)) or sampler_columns(x, t, s))
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]])
    for top_p, ties in ((0.75, False), (0.9, True)):
        asked.clear()
        got = fast(weights.log(), torch.tensor([2]), Sampler(1.0, top_p))
        want = sampler_columns(weights.log(), torch.tensor([2]), Sampler(1.0, top_p))
        assert asked == [1], (top_p, ties)
        assert all(torch.equal(got[name], want[name]) for name in want)
    asked.clear()
    fast(weights.log(), torch.tensor([2]), Sampler(1.0, 0.8))
    assert asked == []


def test_a_target_that_is_masked_has_no_probability():
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [1.0, 2.0, 3.0]])
    got, want = (f(logits, torch.tensor([2, 2]), None) for f in (fast, all_columns))
    assert got["logprob"][0] == -torch.inf and got["rank"].tolist() == [3, 1]
    for name in want:
        assert torch.allclose(got[name], want[name], atol=1e-6, equal_nan=True), name


def test_half_precision_heads_are_multiplied_in_float32():
    """bfloat16 logits tie, and ties change ranks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=3000, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    hidden = torch.randn(40, 32).to(torch.bfloat16)
    targets = torch.randint(0, 3000, (40,))
    found, _ = head.columns(hidden, targets, head.prepare(model), None)
    exact = hidden.double() @ model.lm_head.weight.double().t()
    assert (found["rank"] == 1 + (exact > exact.gather(1, targets[:, None])).sum(1).numpy()).mean() > 0.95
    rounded = (hidden @ model.lm_head.weight.t()).float()
    assert (found["rank"] == 1 + (rounded > rounded.gather(1, targets[:, None])).sum(1).numpy()).mean() < 0.7
