"""Small random models, and the log-probs that an engine with a known fault would give: written apart from the tool."""

from __future__ import annotations

import copy

import numpy as np
import torch
import transformers as t

from analyzer.records import Trace
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.loaded import described

LETTERS = "abcdefghijklmnopqrstuvwxyz ?:\nQA"
FAULTS = {  # what is planted -> the kind that must be named
    "template": "template",
    "BOS twice": "BOS",
    "RoPE scale": "RoPE",
    "RoPE theta": "RoPE",
    "temperature": "temperature",
    "top-p": "truncation",
    "off by one": "off by one",
    "stale weights": "weights",
    "bfloat16": "precision",
    "int8": "quantisation",
    "int4": "quantisation",
}


def tokenizer():
    """One token a letter, BOS in front, and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = {"<s>": 0, "</s>": 1, "<u>": 2} | {c: n + 3 for n, c in enumerate(LETTERS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<u>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    out = t.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<u>")
    out.chat_template = "{{ bos_token }}{% for m in messages %}Q: {{ m.content }}\nA: {% endfor %}"
    return out


def model(seed: int, kind: str = "llama"):
    """Three layers whose attention matters, with logits that are neither flat nor a point."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": 3 + len(LETTERS), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128,
        "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    configs = {"llama": t.LlamaConfig, "qwen2": t.Qwen2Config, "gpt_neox": t.GPTNeoXConfig}
    return t.AutoModelForCausalLM.from_config(configs[kind](**common)).eval()


def rounded(one, dtype=torch.bfloat16):
    """A copy with its weights in another precision, as loading gives it."""
    out = copy.deepcopy(one)
    for p in out.parameters():
        p.data = p.data.to(dtype)
    return out


def logits(one, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return one(torch.tensor([ids]), use_cache=False).logits[0].float()


def drawn(one, seed: int, traces: int = 8, tokens: int = 40) -> list[Encoded]:
    """Its own responses to questions, at T=1."""
    rng, words = np.random.default_rng(seed), tokenizer()
    out = []
    for n in range(traces):
        question = "".join(rng.choice(list(LETTERS[:26]), 6)) + "?"
        prompt = tuple(words(question)["input_ids"])
        ids = list(prompt)
        for _ in range(tokens):
            p = logits(one, ids)[-1].double().softmax(-1).numpy()
            p[:3] = 0  # no end: all are of one length
            ids.append(int(rng.choice(len(p), p=p / p.sum())))
        response = tuple(ids[len(prompt) :])
        trace = Trace("a", f"p{n}", 0, "", prompt_ids=prompt, response_ids=response, question=question, origin=f"d:{n}")
        out.append(Encoded(trace, prompt, response, np.full(tokens, -1, np.int32)))
    return out


def about(one):
    return described(one, tokenizer(), "m", "")


def logprobs(one, items, prompt=lambda item: item.prompt_ids, warp=lambda rows: rows) -> list[np.ndarray]:
    out = []
    for item in items:
        before = list(prompt(item))
        rows = warp(logits(one, before + list(item.response_ids))[len(before) - 1 : -1].double()).log_softmax(-1)
        out.append(rows.gather(1, torch.tensor(item.response_ids)[:, None])[:, 0].numpy())
    return out


def planted(fault: str, one, items, engine=lambda m: m) -> list[np.ndarray]:
    """Log-probs of the items with a fault; engine: what else the engine does to a model."""
    words = tokenizer()
    if fault == "template":
        return logprobs(engine(one), items, lambda i: words(f"Question: {i.trace.question}\nAnswer:")["input_ids"])
    if fault == "BOS twice":
        return logprobs(engine(one), items, lambda i: (0, *i.prompt_ids))
    if fault in ("RoPE scale", "RoPE theta"):
        other = copy.deepcopy(one)
        config, given = other.config, dict(one.config.rope_parameters)
        change = {"rope_type": "linear", "factor": 4.0} if fault == "RoPE scale" else {"rope_theta": 1e6}
        config.rope_parameters = given | change
        fresh = type(other)(config).eval()
        fresh.load_state_dict(one.state_dict())
        return logprobs(engine(fresh), items)
    if fault == "temperature":
        return logprobs(engine(one), items, warp=lambda rows: rows / 0.7)
    if fault == "top-p":
        return logprobs(engine(one), items, warp=lambda rows: t.TopPLogitsWarper(0.9)(None, rows))
    if fault == "off by one":
        return [np.r_[np.nan, v[:-1]] for v in logprobs(engine(one), items)]
    if fault == "stale weights":
        other = copy.deepcopy(one)
        step = torch.optim.SGD(other.parameters(), lr=0.02)
        for item in items[:4]:
            ids = torch.tensor([item.prompt_ids + item.response_ids])
            step.zero_grad()
            other(ids, labels=ids).loss.backward()
            step.step()
        return logprobs(engine(other), items)
    if fault == "bfloat16":
        return logprobs(rounded(one), items)
    other = copy.deepcopy(one)
    for module in other.modules():
        if isinstance(module, torch.nn.Linear) and module is not other.get_output_embeddings():
            module.weight.data = _quantised(module.weight.data, fault)
    return logprobs(engine(other), items)


def _quantised(w: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "int8":
        step = w.abs().max(1, keepdim=True).values / 127
        return torch.round(w / step) * step
    blocks = w.view(w.shape[0], -1, 32)
    low, high = blocks.min(-1, keepdim=True).values, blocks.max(-1, keepdim=True).values
    step = (high - low) / 15
    return (torch.round((blocks - low) / step) * step + low).view_as(w)
