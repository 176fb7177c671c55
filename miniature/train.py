"""Pretraining and supervised fine-tuning of the 0.46 M-parameter Llamas. One thread: two collapse when the machine is
shared.

Both trainings draw their text on the fly from `traces`, so there is no data set to keep; the seed is the data set.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch

from miniature import tokenizer
from miniature.traces import document

PRETRAIN = {
    "steps": 2800,
    "batch": 64,
    "lr": 4e-3,
    "betas": (0.9, 0.98),
    "weight_decay": 0.05,
    "warmup": 100,
    "floor": 0.03,
    "clip": 1.0,
}
POOL = 8  # batches are cut from pools of this many, sorted by length, so that little padding is computed


def new_model(seed: int):
    """An untrained Llama of 458,304 parameters (hidden 96, 4 layers, 4 heads, tied embeddings), float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer.word_ids()),
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=256,
            tie_word_embeddings=True,
            max_position_embeddings=192,
            rope_theta=10000.0,
            bos_token_id=tokenizer.BOS,
            eos_token_id=tokenizer.EOS,
            pad_token_id=tokenizer.PAD,
        )
    )


def save_model(model, folder, words=None) -> None:
    """A folder that AutoModelForCausalLM and AutoTokenizer load; `words` is another world's tokenizer."""
    model.save_pretrained(folder)
    (words or tokenizer.build()).save_pretrained(folder)
    # transformers 5 writes a class name that 4 does not know; this one loads in both
    path = Path(folder) / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")


def schedule(step: int, steps: int, warmup: int, floor: float) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def pad(rows: list[list[int]], fill: int) -> torch.Tensor:
    """Right-padded (B, T) int64."""
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def batches(draw: Callable[[], tuple[list[int], int]], batch: int, rng: random.Random):
    """Endless (ids, labels), both (B, T) int64; `draw` gives one document's ids and how many of them carry no loss.

    Right padding needs no attention mask here: a causal model's real tokens never see it, and padding has no loss.
    """
    while True:
        pool = sorted((draw() for _ in range(POOL * batch)), key=lambda item: len(item[0]))
        cuts = [pool[i : i + batch] for i in range(0, len(pool), batch)]
        rng.shuffle(cuts)
        for cut in cuts:
            yield (
                pad([ids for ids, _ in cut], tokenizer.PAD),
                pad([[-100] * skip + ids[skip:] for ids, skip in cut], -100),
            )


def fit(model, source, recipe: dict, log: Callable[[str], None]) -> dict:
    """Train on `source` for recipe["steps"] batches; returns steps, tokens, seconds and the last losses (nats per
    token).
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe["lr"], betas=recipe["betas"], weight_decay=recipe["weight_decay"]
    )
    model.train()
    started, tokens, recent = time.perf_counter(), 0, []
    for step in range(recipe["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = recipe["lr"] * schedule(step, recipe["steps"], recipe["warmup"], recipe["floor"])
        ids, labels = next(source)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["clip"])
        optimizer.step()
        tokens += int((labels != -100).sum())
        recent = [*recent[-99:], loss.item()]
        if step % 50 == 0 or step + 1 == recipe["steps"]:
            seconds = time.perf_counter() - started
            loss_now = sum(recent) / len(recent)
            log(f"step {step + 1}/{recipe['steps']} loss {loss_now:.4f} {tokens / seconds:.0f} tok/s {seconds:.0f} s")
    model.eval()
    return {
        "steps": recipe["steps"],
        "tokens": tokens,
        "seconds": round(time.perf_counter() - started, 1),
        "loss": round(sum(recent) / len(recent), 4),
    }


def pretrain(seed: int, log: Callable[[str], None], recipe: dict = PRETRAIN):
    """(model, what happened): a base model from nothing, loss on every token of every document."""
    model, rng = new_model(seed), random.Random(seed)
    words = [
        word for word in tokenizer.vocabulary() if word not in ("*", "multiply")
    ]  # multiplication stays in `fact` lines

    def one() -> tuple[list[int], int]:
        return [tokenizer.BOS, *tokenizer.encode(document(rng, words)), tokenizer.EOS], 1

    return model, fit(model, batches(one, recipe["batch"], rng), recipe, log)


def finetune(
    model,
    draw: Callable[[random.Random], tuple[list[str], list[str]]],
    recipe: dict,
    seed: int,
    log: Callable[[str], None],
) -> dict:
    """Supervised fine-tuning in place, loss on the response alone; `draw` gives (prompt words, response words)."""
    rng = random.Random(seed)

    def one() -> tuple[list[int], int]:
        prompt, response = draw(rng)
        return [tokenizer.BOS, *tokenizer.encode(prompt), *tokenizer.encode(response), tokenizer.EOS], 1 + len(prompt)

    return fit(model, batches(one, recipe["batch"], rng), recipe, log)
