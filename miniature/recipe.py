"""What the miniature is made from: samplers, problems, seeds, training that differs from the defaults, sources."""

from __future__ import annotations

UNTRUNCATED = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
COOL = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
COLD = {"temperature": 0.1, "top_p": 1.0, "top_k": 0, "min_p": 0.0}

COUNTS = {"reachable": 40, "rare": 12, "impossible": 12}
SEEDS = {"problems": 9041, "base": 2101, "rlvr": 2102, "distill": 2103, "rlvr-unfaithful": 2104, "distill-plan": 2105}
UNFAITHFUL = {"steps": 240, "reward": "outcome", "keep": ()}  # what differs from GRPO of `grpo`
DISTILL = {
    "steps": 400,
    "batch": 64,
    "lr": 2e-3,
    "betas": (0.9, 0.98),
    "weight_decay": 0.01,
    "warmup": 30,
    "floor": 0.05,
    "clip": 1.0,
    "kinds": {"reachable": 0.5, "rare": 0.2, "impossible": 0.3},
}
DISTILL_PLAN = DISTILL | {"steps": 800}

# source -> the model that writes it (None: the solver), draws per problem, sampler (None: log q is not known), seed.
# best_of: the kept row is the best of so many draws; rewrite: the draws are rewritten; new_tokens: the longest response
SOURCES = {
    "base": {"model": "base", "n": 256, "sampler": UNTRUNCATED, "seed": 3101},
    "base-again": {"model": "base", "n": 64, "sampler": UNTRUNCATED, "seed": 3102},
    "cool": {"model": "base", "n": 64, "sampler": COOL, "seed": 3103},
    "rlvr": {"model": "rlvr", "n": 256, "sampler": UNTRUNCATED, "seed": 3104},
    "distill": {"model": "distill", "n": 256, "sampler": UNTRUNCATED, "seed": 3105},
    "teacher": {"model": None, "n": 64, "sampler": None, "seed": 3106},
    "cold": {"model": "base", "n": 64, "sampler": COLD, "seed": 3107},
    "best-of-16": {"model": "base", "n": 64, "sampler": None, "seed": 3108, "best_of": 16},
    "rlvr-early": {"model": "rlvr-step100", "n": 64, "sampler": UNTRUNCATED, "seed": 3109},
    "rlvr-unfaithful": {"model": "rlvr-unfaithful", "n": 64, "sampler": UNTRUNCATED, "seed": 3110},
    "restyle-known": {"model": "base", "n": 64, "sampler": None, "seed": 3111, "rewrite": "known"},
    "restyle-foreign": {"model": "base", "n": 64, "sampler": None, "seed": 3112, "rewrite": "foreign"},
    "padded": {"model": "rlvr", "n": 64, "sampler": None, "seed": 3113, "rewrite": "pad"},
    "distill-plan": {"model": "distill-plan", "n": 64, "sampler": UNTRUNCATED, "seed": 3114, "new_tokens": 120},
}
