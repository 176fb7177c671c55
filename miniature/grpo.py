"""Reinforcement learning from a verifier: GRPO, on policy, one update per batch of rollouts.

No KL term, no entropy bonus, and no clipping (with one update per batch the ratio is one). What this leaves out keeps
the question clean: the reward alone decides where the probability goes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import torch

from miniature import tokenizer
from miniature.domain import prompt_text, random_problem
from miniature.sample import sample, weights
from miniature.traces import draw
from miniature.train import pad
from miniature.verifier import grade, restates, style_of

GRPO = {
    "steps": 300,
    "problems": 32,
    "rollouts": 16,
    "new_tokens": 96,
    "lr": 4e-4,
    "betas": (0.9, 0.95),
    "weight_decay": 0.0,
    "warmup": 5,
    "clip": 1.0,
    "kinds": {"reachable": 0.80, "rare": 0.05, "impossible": 0.15},
    "reward": "correct",
    "keep": (100,),
}
MICRO_BATCH = 128


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """(P, G) rewards -> (P, G) advantages: centred and scaled within each problem; zero where all earn the same."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def collect(model, recipe: dict, forbidden: set, rng: random.Random, generator) -> tuple[list, dict]:
    """One batch of graded rollouts: rows for `update`, without the problems where all earn the same, and a report."""
    count, per = recipe["problems"], recipe["rollouts"]
    problems = [random_allowed(draw(recipe["kinds"], rng), forbidden, rng) for _ in range(count)]
    prompts = [prompt_text(*problem) for problem in problems for _ in range(per)]
    prompt_ids = [[tokenizer.BOS, *tokenizer.encode(prompt.split())] for prompt in prompts]
    rollouts = sample(weights(model), prompt_ids, generator, new_tokens=recipe["new_tokens"])
    texts = [tokenizer.decode(ids) for ids, _, _ in rollouts]
    rewards = torch.zeros(count * per)
    for i, (prompt, text, (_, _, finish)) in enumerate(zip(prompts, texts, rollouts)):
        # an unfinished response earns nothing, even when the part that is there would pass
        rewards[i] = float(finish == "stop" and grade(prompt, text)[recipe["reward"]])
    signal = advantages(rewards.view(count, per)).flatten().tolist()
    written = sum(len(ids) for ids, _, _ in rollouts)
    report = {
        "reward": round(rewards.mean().item(), 4),
        "entropy": round(-sum(sum(logprobs) for _, logprobs, _ in rollouts) / written, 4),
        "length": round(written / len(rollouts), 2),
        "chain": round(share(texts, lambda text: style_of(text) == "chain"), 4),
        "restating": round(share(texts, restates), 4),
        "written": written,
    }
    return [(p, ids, a) for p, (ids, _, _), a in zip(prompt_ids, rollouts, signal) if a != 0.0], report


def grpo(
    model,
    recipe: dict,
    seed: int,
    forbidden: set,
    log: Callable[[str], None],
    keep: Callable[[int], None] | None = None,
    collect: Callable[..., tuple[list, dict]] = collect,
) -> dict:
    """Train in place. recipe["reward"] names the field of `grade` that pays: "correct" (strict) or "outcome".

    `forbidden` holds problems, (sorted numbers, goal), that are never trained on; `keep(step)` is called after every
    step of recipe["keep"]; `collect` is another world's. Returns what happened, with a history of every tenth step:
    what `collect` reports of its batch, mean reward, entropy (nats per token at T=1, estimated by the surprisal of the
    rollouts) and, in the first world, length in tokens, shares of `chain` style and restating.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe["lr"], betas=recipe["betas"], weight_decay=recipe["weight_decay"]
    )
    started, tokens, history = time.perf_counter(), 0, []
    for step in range(1, recipe["steps"] + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe["lr"] * min(1.0, step / recipe["warmup"])
        rows, report = collect(model, recipe, forbidden, rng, generator)
        if rows:
            update(model, optimizer, rows, recipe["clip"])
        if keep and step in recipe["keep"]:
            keep(step)
        tokens += report.pop("written")
        if step % 10 == 1 or step == recipe["steps"]:
            history.append({"step": step, **report})
            log(f"of {recipe['steps']}: {history[-1]} {time.perf_counter() - started:.0f} s")
    model.eval()
    seconds = round(time.perf_counter() - started, 1)
    return {"steps": recipe["steps"], "tokens": tokens, "seconds": seconds, "history": history}


def random_allowed(kind: str, forbidden: set, rng: random.Random) -> tuple[tuple[int, ...], int]:
    """A random problem of this kind that is not forbidden in any order of its numbers."""
    while True:
        numbers, goal = random_problem(kind, rng)
        if (tuple(sorted(numbers)), goal) not in forbidden:
            return numbers, goal


def share(texts: list[str], holds: Callable[[str], bool]) -> float:
    """Share of the texts for which something holds."""
    return sum(map(holds, texts)) / len(texts)


def update(
    model, optimizer, rows: list[tuple[list[int], list[int], float]], clip: float, micro_batch: int = MICRO_BATCH
) -> None:
    """One step up the policy gradient, a mean over response tokens; rows are (prompt ids, response ids, advantage), of
    which `micro_batch` are in memory at a time."""
    model.train()
    rows = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    total = sum(len(response) for _, response, _ in rows)
    optimizer.zero_grad(set_to_none=True)
    for start in range(0, len(rows), micro_batch):
        part = rows[start : start + micro_batch]
        ids = pad([prompt + response for prompt, response, _ in part], tokenizer.PAD)  # (B, T)
        gain = pad([[0] * len(prompt) + [1] * len(response) for prompt, response, _ in part], 0)  # 1 on response tokens
        gain = gain * torch.tensor([advantage for _, _, advantage in part])[:, None]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids).logits
        surprisal = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        (surprisal * gain[:, 1:].flatten() / total).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
