"""The models of the second world: pretraining, GRPO paid by the strict verdict, distillation.

The optimiser loops, the sampler and the policy update are those of the first world.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from miniature import grid
from miniature.build import load_model, load_problems

SEEDS = {"base": 2201, "rlvr": 2202, "distill": 2203}
NEW_TOKENS = 72
ADAM = {"batch": 64, "betas": (0.9, 0.98), "clip": 1.0}
PRETRAIN = ADAM | {"steps": 1700, "lr": 4e-3, "weight_decay": 0.05, "warmup": 100, "floor": 0.03}
DISTILL = ADAM | {"steps": 400, "lr": 2e-3, "weight_decay": 0.01, "warmup": 30, "floor": 0.05, "walled": 0.5}
GRPO = {"steps": 140, "problems": 32, "rollouts": 16, "lr": 6e-4, "betas": (0.9, 0.95), "clip": 1.0, "walled": 0.15}
STEADY = {"weight_decay": 0.0, "warmup": 1, "keep": ()}  # no warm-up, no checkpoints


def random_allowed(walled: float, forbidden: set[str], rng: random.Random) -> grid.Problem:
    """A random problem whose question is not forbidden; walled with this probability."""
    while True:
        problem = grid.random_problem("walled" if rng.random() < walled else "open", rng)
        if grid.prompt_text(problem) not in forbidden:
            return problem


def new_model(seed: int):
    """An untrained Llama (hidden 64, 4 layers, 4 heads, tied embeddings), float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(grid.SPECIAL) + len(grid.CHARACTERS),
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=160,
            tie_word_embeddings=True,
            max_position_embeddings=96,
            rope_theta=10000.0,
            bos_token_id=grid.BOS,
            eos_token_id=grid.EOS,
            pad_token_id=grid.PAD,
        )
    )


def train_base(folder: Path, log: Callable[[str], None]):
    """Pretraining from nothing, loss on every token."""
    from miniature.train import batches, fit

    model, rng = new_model(SEEDS["base"]), random.Random(SEEDS["base"])

    def one() -> tuple[list[int], int]:
        return [grid.BOS, *grid.encode(grid.document(rng)), grid.EOS], 1

    return model, fit(model, batches(one, PRETRAIN["batch"], rng), PRETRAIN, log)


def train_distill(folder: Path, log: Callable[[str], None]):
    """Fine-tuning from the base on the solver's shortest paths, jumps included; loss on the response alone."""
    from miniature.train import batches, fit

    model, rng, forbidden = load_model(folder, "base"), random.Random(SEEDS["distill"]), questions(folder)

    def one() -> tuple[list[int], int]:
        problem = random_allowed(DISTILL["walled"], forbidden, rng)
        prompt = [grid.BOS, *grid.encode(grid.prompt_text(problem))]
        return [*prompt, *grid.encode(grid.teacher(problem, rng)), grid.EOS], len(prompt)

    return model, fit(model, batches(one, DISTILL["batch"], rng), DISTILL, log)


def train_rlvr(folder: Path, log: Callable[[str], None]):
    """GRPO from the base, paid by the strict verdict."""
    from miniature.grpo import grpo

    model = load_model(folder, "base")
    return model, grpo(model, GRPO | STEADY, SEEDS["rlvr"], questions(folder), log, collect=collect)


def collect(model, recipe: dict, forbidden: set[str], rng: random.Random, generator) -> tuple[list, dict]:
    """One batch of graded rollouts, as `grpo.collect`."""
    import torch

    from miniature.grpo import advantages
    from miniature.sample import sample, weights

    problems = [random_allowed(recipe["walled"], forbidden, rng) for _ in range(recipe["problems"])]
    prompts = [grid.prompt_text(problem) for problem in problems for _ in range(recipe["rollouts"])]
    ids = [[grid.BOS, *grid.encode(prompt)] for prompt in prompts]
    rollouts = sample(weights(model), ids, generator, new_tokens=NEW_TOKENS)
    paid = [
        float(end == "stop" and grid.grade(prompt, grid.decode(response))["correct"])
        for prompt, (response, _, end) in zip(prompts, rollouts)
    ]
    signal = advantages(torch.tensor(paid).view(-1, recipe["rollouts"])).flatten().tolist()
    rows = [(p, response, a) for p, (response, _, _), a in zip(ids, rollouts, signal) if a != 0.0]
    written = sum(len(response) for response, _, _ in rollouts)
    entropy = -sum(sum(logprobs) for _, logprobs, _ in rollouts) / written
    return rows, {"reward": round(sum(paid) / len(paid), 4), "entropy": round(float(entropy), 4), "written": written}


MODELS = {"base": train_base, "rlvr": train_rlvr, "distill": train_distill}


def questions(folder: Path) -> set[str]:
    """The evaluation set's questions, for leaving them out of training."""
    return {problem["prompt"] for problem in load_problems(folder)}
