"""Other people's scorers over the same ids, for bench_score.py: what is usually written, and two libraries."""

from __future__ import annotations

from collections.abc import Callable

import torch

from analyzer.scoring.encoding.encode import Encoded


def padded(model, items: list[Encoded], batch: int = 8) -> None:
    """What people write: right-padded batches, full logits, log_softmax, entropy, rank."""
    items = sorted(items, key=len, reverse=True)
    for at in range(0, len(items), batch):
        some = items[at : at + batch]
        ids = torch.zeros((len(some), len(some[0])), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for b, item in enumerate(some):
            ids[b, : len(item)] = torch.tensor(item.prompt_ids + item.response_ids)
            mask[b, : len(item)] = 1
        with torch.no_grad():
            logits = model(ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logp = logits.log_softmax(-1)
            target = ids[:, 1:, None]
            logp.gather(-1, target)
            -(logp.exp() * logp).sum(-1)
            (logits > logits.gather(-1, target)).sum(-1) + 1


def word_tokenizer(vocab: int):
    """A tokenizer whose words t0, t1, ... are its ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="t0", eos_token="t0", bos_token="t0")


def lm_eval(model) -> Callable[[list[Encoded]], None] | None:
    """lm-evaluation-harness' `_loglikelihood_tokens`, batch 8 (log-prob only); None where it is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    harness = HFLM(pretrained=model, tokenizer=word_tokenizer(model.config.vocab_size), batch_size=8, max_length=65_536)

    def run(items: list[Encoded]) -> None:
        requests = [((i.trace.key, ""), list(i.prompt_ids), list(i.response_ids)) for i in items]
        harness._loglikelihood_tokens(requests, disable_tqdm=True)

    return run


def minicons(model) -> Callable[[list[Encoded]], None] | None:
    """minicons' conditional_score, batch 8 (log-prob only); None where it is not installed."""
    try:
        from minicons.scorer import IncrementalLMScorer
    except ImportError:
        return None
    scorer = IncrementalLMScorer(model, "cpu", tokenizer=word_tokenizer(model.config.vocab_size))

    def run(items: list[Encoded]) -> None:
        for at in range(0, len(items), 8):
            some = items[at : at + 8]
            prefix = [" ".join(f"t{t}" for t in i.prompt_ids) for i in some]
            rest = [" ".join(f"t{t}" for t in i.response_ids) for i in some]
            scorer.conditional_score(prefix, rest)

    return run
