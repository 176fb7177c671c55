"""Training of the last layers: every step is one `update` of the miniature's policy gradient.

Supervised steps are the same update with every advantage 1. What is trained on is drawn when its step comes, so that
rollouts are those of the model as it is then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from analyzer.records import Sampler, Trace
from analyzer.scoring import draws
from analyzer.scoring.sample import Asked
from miniature.grpo import advantages, update
from miniature.train import schedule
from validation.real.problems import Lesson, is_correct

MICRO_BATCH = 8  # rows at a time: the logits of a vocabulary of 49,152 take the memory
BATCH = 8  # lessons of a supervised step
Row = tuple[list[int], list[int], float]  # prompt ids, response ids, advantage
Log = Callable[[str], None]


def train(model: Any, batches: Iterable[list[Row]], steps: int, *, layers: int, lr: float, log: Log) -> None:
    """Train the last `layers` in place for `steps` batches; a batch without rows is no step."""
    import torch

    model.requires_grad_(False)
    last = model.model.layers[-layers:]
    last.requires_grad_(True)
    optimizer = torch.optim.AdamW(last.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    for step, rows in zip(range(steps), batches):  # the range first: no batch is drawn beyond the last step
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps, warmup=3, floor=0.1)
        if rows:
            update(model, optimizer, rows, 1.0, MICRO_BATCH)
        log(f"step {step + 1} of {steps}, {len(rows)} rows")
    model.requires_grad_(False)
    model.eval()


def supervised(pairs: list[tuple[list[int], list[int]]], seed: int) -> Iterator[list[Row]]:
    """Endless batches of (prompt ids, response ids), in a new order every time through."""
    rng = random.Random(seed)
    while True:
        order = rng.sample(pairs, len(pairs))
        for start in range(0, len(order), BATCH):
            yield [(prompt, response, 1.0) for prompt, response in order[start : start + BATCH]]


def rollouts(
    loaded: Any, problems: list[Lesson], *, per_step: int, each: int, max_tokens: int, seed: int, log: Log
) -> Iterator[list[Row]]:
    """Endless batches of the model's own draws at T = 1 on `per_step` problems, `each` times, with the advantages that
    the verifier's reward gives them; draws of a problem that all earn the same are left out."""
    import torch

    rng, draw = random.Random(seed), draws.drawer(loaded, batch=64)
    while True:
        some = rng.sample(problems, min(per_step, len(problems)))
        asked = [asked_of(loaded.tokenizer, one, max_tokens) for one in some]
        drawn = draw(loaded, asked, each, Sampler(), rng.randrange(2**31))
        right = [one.answer for one in some for _ in range(each)]
        # an unfinished response earns nothing
        paid = [float(end == "stop" and is_correct(text, gold)) for (*_, text, end), gold in zip(drawn, right)]
        log(f"mean reward {sum(paid) / len(paid):.3f}")
        signal = advantages(torch.tensor(paid).view(-1, each)).flatten().tolist()
        prompts = [list(asked[i // each].prompt_ids) for i in range(len(drawn))]
        yield [(p, list(ids), a) for p, (ids, *_), a in zip(prompts, drawn, signal) if a != 0.0]


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """The ids of a question under the model's chat template, as `analyzer.sample(template="chat")` makes them."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def asked_of(tokenizer: Any, one: Lesson, max_tokens: int) -> Asked:
    """A lesson ready to be sampled."""
    trace = Trace("lessons", one.question, 0, "", question=one.question)
    return Asked(trace, tuple(prompt_ids(tokenizer, one.question)), max_tokens)


def written(tokenizer: Any, question: str, response: str) -> tuple[list[int], list[int]]:
    """(prompt ids, response ids with the end token) of a text to learn."""
    ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    return prompt_ids(tokenizer, question), [*ids, tokenizer.eos_token_id]
