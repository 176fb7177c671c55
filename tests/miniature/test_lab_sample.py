"""The sampler draws from the model's own distribution, truncated as transformers truncates."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper  # noqa: E402

from miniature import tokenizer  # noqa: E402
from miniature.domain import prompt_text, random_problem  # noqa: E402
from miniature.sample import sample, truncate, weights  # noqa: E402
from miniature.train import new_model  # noqa: E402


@pytest.fixture(scope="module")
def model():
    """An untrained model with weights large enough that its distributions are far from uniform."""
    built = new_model(0).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return built


def questions(count, seed=0):
    rng = random.Random(seed)
    return [
        [tokenizer.BOS, *tokenizer.encode(prompt_text(*random_problem("reachable", rng)).split())] for _ in range(count)
    ]


@pytest.mark.parametrize("temperature", [0.3, 0.6, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 0.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 500])
@pytest.mark.parametrize("min_p", [0.0, 0.1])
def test_truncation_is_that_of_transformers(temperature, top_p, top_k, min_p):
    logits = 4 * torch.randn(50, 157, generator=torch.Generator().manual_seed(3))
    logits[0] = 0.0  # ties
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1.0:
        expected = TopPLogitsWarper(top_p)(None, expected)
    if min_p:
        expected = MinPLogitsWarper(min_p)(None, expected)
    assert torch.equal(truncate(logits, temperature, top_p, top_k, min_p), expected)


def test_truncation_at_exact_ties_is_that_of_transformers():
    logits = torch.zeros(1, 4)  # a quarter each: the cumulative sum hits 1 - top_p exactly
    for top_p in (0.25, 0.5, 0.75):
        assert torch.equal(truncate(logits, top_p=top_p), TopPLogitsWarper(top_p)(None, logits))


def test_logprobs_are_the_models_own(model):
    """Over batches, mixed prompt lengths and rows that end early, log p equals a plain forward pass over each
    sequence.
    """
    prompts = questions(40)
    assert len(set(map(len, prompts))) == 2
    drawn = sample(weights(model), prompts, torch.Generator().manual_seed(1), new_tokens=50, batch=16)
    assert {finish for _, _, finish in drawn} == {"stop", "length"}
    for prompt, (ids, logprobs, finish) in zip(prompts, drawn):
        assert (ids[-1] == tokenizer.EOS) == (finish == "stop") and tokenizer.EOS not in ids[:-1]
        assert len(ids) == 50 if finish == "length" else len(ids) <= 50
        with torch.no_grad():
            expected = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(
            torch.tensor(logprobs), expected[torch.arange(len(ids)), torch.tensor(ids)], atol=1e-4, rtol=0
        )


def test_same_generator_same_draws(model):
    prompts, w = questions(8), weights(model)
    first, again, other = (sample(w, prompts, torch.Generator().manual_seed(seed), new_tokens=20) for seed in (5, 5, 6))
    assert first == again and first != other


def test_frequencies_are_the_models_probabilities(model):
    """First tokens of 2000 draws against the exact distribution; chi-square at 1e-6 false alarms."""
    from scipy.stats import chi2

    prompt, n = questions(1)[0], 2000
    drawn = sample(weights(model), [prompt] * n, torch.Generator().manual_seed(7), new_tokens=1)
    with torch.no_grad():
        p = model(torch.tensor([prompt])).logits[0, -1].softmax(-1).double()
    counts = torch.bincount(torch.tensor([ids[0] for ids, _, _ in drawn]), minlength=len(p)).double()
    often = p * n >= 5
    observed = torch.cat([counts[often], counts[~often].sum()[None]])
    expected = torch.cat([p[often], p[~often].sum()[None]]) * n
    assert ((observed - expected) ** 2 / expected).sum().item() < chi2.isf(1e-6, len(observed) - 1)


def test_truncated_draws_stay_inside_and_report_log_p_at_temperature_one(model):
    prompts = questions(30)
    sampler = {"temperature": 0.7, "top_p": 0.6, "top_k": 0, "min_p": 0.0}
    drawn = sample(weights(model), prompts, torch.Generator().manual_seed(2), sampler=sampler, new_tokens=20)
    for prompt, (ids, logprobs, _) in zip(prompts, drawn):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        rows = torch.arange(len(ids))
        assert torch.isfinite(truncate(logits, **sampler)[rows, torch.tensor(ids)]).all()
        expected = logits.log_softmax(-1)[rows, torch.tensor(ids)]
        torch.testing.assert_close(torch.tensor(logprobs), expected, atol=1e-4, rtol=0)
