"""The one call against a direct forward, on random models of several architectures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as t

import analyzer
from analyzer.errors import UsageError
from analyzer.records import CORE_COLUMNS, Sampler
from analyzer.scoring import load as scorers
from analyzer.scoring import local, trunk

COMMON = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
KINDS = {
    "gpt2": lambda: t.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=2),
    "llama": lambda: t.LlamaConfig(**COMMON),
    "qwen2": lambda: t.Qwen2Config(**COMMON, tie_word_embeddings=True),
    "gemma2": lambda: t.Gemma2Config(**COMMON, head_dim=8, sliding_window=12),
    "gpt_neox": lambda: t.GPTNeoXConfig(**COMMON),
    "mamba": lambda: t.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=8),
}


def model_of(kind):
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(KINDS[kind]())
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_direct_forward(kind):
    model, rng = model_of(kind).train(), np.random.default_rng(1)
    prompt = rng.integers(0, 97, 9).tolist()
    responses = [rng.integers(0, 97, n).tolist() for n in (1, 20, 7)] + [[3, 4]] * 2
    names = ["logprob", "entropy", "rank", "logprob_s", "power_2", "token"]
    got = analyzer.logprobs(model, prompt, responses, columns=names, sampler=Sampler(0.5))
    assert model.training and [list(g) for g in got] == [names] * 5
    model.eval()
    for response, columns in zip(responses, got, strict=True):
        with torch.no_grad():
            trunk.forget_lengths(model)
            logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1 : -1].double()
        ids = torch.tensor(response)[:, None]
        logp = logits.log_softmax(-1)
        want = {
            "logprob": logp.gather(1, ids)[:, 0],
            "entropy": -(logp.exp() * logp).sum(-1),
            "logprob_s": (2 * logits).log_softmax(-1).gather(1, ids)[:, 0],
            "power_2": (2 * logp).logsumexp(-1),
        }
        for name, values in want.items():
            assert columns[name].dtype == np.float32 and np.abs(columns[name] - values.numpy()).max() < 5e-5
        assert np.array_equal(columns["rank"], 1 + (logits > logits.gather(1, ids)).sum(-1).numpy())
        assert columns["token"].tolist() == response


def test_every_response_may_have_its_own_prompt_and_the_model_is_probed_once(monkeypatch):
    model, calls, real = model_of("llama"), [], local.choose
    monkeypatch.setattr(local, "choose", lambda *a: calls.append(a) or real(*a))
    prompts, responses = [[5, 6], [7]], [np.array([1, 2]), torch.tensor([3])]
    both = analyzer.logprobs(model, prompts, responses)
    assert list(both[0]) == list(CORE_COLUMNS)
    for prompt, response, want in zip(prompts, responses, both, strict=True):
        [alone] = analyzer.logprobs(model, prompt, [response], columns=["logprob"])
        np.testing.assert_allclose(alone["logprob"], want["logprob"], atol=1e-5)
    [of_numpy] = analyzer.logprobs(model, [np.int64(7)], [[np.int64(3)]])
    np.testing.assert_allclose(of_numpy["logprob"], both[1]["logprob"], atol=1e-5)
    assert len(calls) == 1 and analyzer.logprobs(model, [1], []) == []


def test_it_is_the_function_under_score(monkeypatch):
    monkeypatch.setattr(scorers, "score", lambda *a, **o: iter(()))
    with pytest.raises(KeyError):
        analyzer.logprobs(model_of("llama"), [1], [[2]])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([], [[1]], {}), "prompt_ids is empty"),
        (([1], [[]], {}), r"response_ids\[0\] is empty"),
        (([1], [[97]], {}), "holds 97; expected at least one id from 0 to 96"),
        (([1], [[1.0]], {}), "holds 1.0"),
        (([1], [2], {}), r"response_ids\[0\] is 2; expected a list of ids"),
        (([[1], [2]], [[1]], {}), "2 prompts for 1 responses"),
        (([1], [[2] * 200], {}), "201 tokens long, more than the model's context of 128"),
        (([1], [[2]], {"columns": ["logprobs"]}), "'logprobs' is not known here; did you mean 'logprob'"),
        (([1], [[2]], {"columns": "logprob"}), "expected a list of names"),
        (([1], [[2]], {"columns": ["logprob_s"]}), "it needs a sampler"),
        (([1], [[2]], {"columns": ["power_2.50"]}), "write it power_2.5"),
        (([1], [[2]], {"columns": ["power_-1"]}), "not known"),
    ],
)
def test_what_can_not_be_meant_is_refused(given, said):
    prompt, responses, options = given
    with pytest.raises(UsageError, match=said):
        analyzer.logprobs(model_of("llama"), prompt, responses, **options)
