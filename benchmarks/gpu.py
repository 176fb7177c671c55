"""Every CUDA path against float64, and how fast it is: one card, torch and Triton; made to fit eight minutes.

    python benchmarks/gpu.py [--out benchmarks/GPU.md] [--seconds 440]

Weights are made up at the shapes of real models, in bfloat16. On a card the report is written to --out; without one
everything runs to its end on the CPU at tiny shapes (the kernel by Triton's interpreter) and is printed only: such
numbers say that the script works, nothing else. Exits with 1 where a check is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")  # read when the kernel is made

import transformers

from analyzer.records import Sampler, Trace
from analyzer.scoring import local, plain, precision
from analyzer.scoring.columns import all_columns
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.fast import attention, head

ON_CARD = torch.cuda.is_available()
DEVICE = "cuda" if ON_CARD else "cpu"
SHAPES = (
    {
        "0.5B": (24, 896, 14, 2, 4864, 151_936, True),
        "1.5B": (28, 1536, 12, 2, 8960, 151_936, True),
        "7B": (28, 3584, 28, 4, 18_944, 152_064, False),
    }
    if ON_CARD
    else {"tiny": (2, 64, 4, 2, 96, 997, True)}
)
GROUPS, PROMPT, RESPONSES, LENGTH = (4, 512, 16, 512) if ON_CARD else (2, 16, 3, 12)
BATCH = 8  # of padded transformers
SAMPLER = Sampler(0.6, 0.95)
EXPONENTS = (0.9, 2.5)
NEAR = {"float32": 2e-5, "float16": 3e-3, "bfloat16": 2e-2}  # largest error of attention, standard normal inputs
LSE_NEAR = 1e-3  # ... of its log-sum-exp, which is float32 in every precision
LOGIT_NEAR = 5e-4  # nats: columns from the same bfloat16 states and weights, products summed in float32
lines: list[str] = []
missed: list[str] = []


def say(line: str = "") -> None:
    lines.append(line)
    print(line, flush=True)


def check(what: str, value: float, most: float) -> str:
    if not value <= most:
        missed.append(f"{what}: {value:.3g}, at most {most:.3g}")
    return f"| {what} | {value:.2g} | {most:.2g} |"


def seconds(run: Callable[[], object], rounds: int = 3) -> float:
    """Median time of a call after one to warm up."""
    run()
    took = []
    for _ in range(rounds):
        finish()
        begin = time.perf_counter()
        run()
        finish()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def finish() -> None:
    if ON_CARD:
        torch.cuda.synchronize()


def gemm_peak() -> float:
    """Measured bfloat16 products per second, in FLOP."""
    n = 8192 if ON_CARD else 256
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b, 10)


def attention_errors() -> None:
    """Output and log-sum-exp of each kernel that a device and dtype take, on rows computed in float64."""
    heads, width, queries, keys = (8, 128, 300, 1100) if ON_CARD else (2, 16, 20, 50)
    say("| attention: largest error against float64 | is | bar |\n|---|---|---|")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name, scale = str(dtype).removeprefix("torch."), width**-0.5
        for causal in (True, False):
            n = queries if causal else keys
            q = torch.randn(1, heads, queries, width, device=DEVICE).to(dtype)
            k, v = (torch.randn(1, heads, n, width, device=DEVICE).to(dtype) for _ in range(2))
            out, lse = attention._kernel(q, k, v, scale, causal=causal)
            scores = q.double() @ k.double().transpose(-1, -2) * scale
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
            want = scores.softmax(-1) @ v.double()
            what = f"{name}, {'causal' if causal else 'all keys'}"
            say(check(f"{what}: output", float((out.double() - want).abs().max()), NEAR[name]))
            say(check(f"{what}: log-sum-exp", float((lse.double() - scores.logsumexp(-1)).abs().max()), LSE_NEAR))
    say()


def head_errors(name: str, hidden: int, vocab: int) -> None:
    """All columns by the one-pass kernel and by the definition in float64, from the same states and weights."""
    rows = 64 if ON_CARD else 8
    torch.manual_seed(0)
    states = torch.randn(rows, hidden, device=DEVICE).to(torch.bfloat16)
    weight = (torch.randn(vocab, hidden, device=DEVICE) * 3 / hidden**0.5).to(torch.bfloat16)
    buffer = torch.empty(rows, vocab, device=DEVICE)
    work = head.Head(weight.t() if ON_CARD else weight.t().float(), None, 1.0, None, buffer, torch.empty(1, 3, vocab))
    logits = head._logits(states, work).clone()
    exact = states.double() @ weight.double().t()
    targets = logits.topk(40, -1).indices.gather(1, torch.randint(0, 40, (rows, 1), device=DEVICE))[:, 0]
    say(f"| head of {name}, {vocab:,} x {hidden:,}: largest error against float64 | is | bar |\n|---|---|---|")
    say(check("logits", float((logits.double() - exact).abs().max()), LOGIT_NEAR))
    want = all_columns(exact, targets, None, EXPONENTS)
    ways = {"definition": lambda: all_columns(logits, targets, SAMPLER, EXPONENTS)}
    if find_spec("triton") is None:
        say("| the one-pass kernel: skipped, Triton is not installed | | |")
    else:
        ways["kernel"] = lambda: head._columns_on_device(logits, targets, SAMPLER, EXPONENTS)
    for way, run in ways.items():
        got = run()
        for column in ("logprob", "entropy", "mass_above", "renyi_half", *(f"power_{a:g}" for a in EXPONENTS)):
            error = float((got[column].double() - want[column].double()).abs().max())
            say(check(f"{way}: {column}", error, LOGIT_NEAR))
        ranks = (logits > logits.gather(1, targets[:, None])).sum(-1) + 1
        say(check(f"{way}: ranks that differ from the logits'", int((got["rank"] != ranks).sum()), 0))
    say()


def made(shape: tuple) -> transformers.PreTrainedModel:
    """A Qwen2 of this shape with random weights in bfloat16, whose logits are neither flat nor a point."""
    layers, hidden, heads, keys, inner, vocab, tied = shape
    config = transformers.Qwen2Config(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=tied, max_position_embeddings=32_768,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3 / (0.02 * hidden**0.5))
    return model


def groups(vocab: int) -> list[Encoded]:
    rng, out = np.random.default_rng(0), []
    for g in range(GROUPS):
        prompt = tuple(rng.integers(0, vocab, PROMPT).tolist())
        for n in range(RESPONSES):
            ids = tuple(rng.integers(0, vocab, int(LENGTH * rng.uniform(0.5, 1))).tolist())
            out.append(Encoded(Trace("s", f"p{g}", n, ""), prompt, ids, np.full(len(ids), -1, np.int32)))
    return out


def padded(items: list[Encoded], model: transformers.PreTrainedModel) -> None:
    """Log-probs as transformers' users compute them: right-padded batches, all logits."""
    order = sorted(items, key=len)
    for at in range(0, len(order), BATCH):
        some = order[at : at + BATCH]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(i.prompt_ids + i.response_ids) for i in some], True)
        mask = (torch.arange(ids.shape[1]) < torch.tensor([len(i) for i in some])[:, None]).long()
        ids, mask = ids.to(DEVICE), mask.to(DEVICE)
        with torch.inference_mode():
            logits = model(ids, attention_mask=mask, use_cache=False).logits[:, PROMPT - 1 : -1]
            for row, wanted in zip(logits, ids[:, PROMPT:], strict=True):
                row.float().log_softmax(-1).gather(-1, wanted[:, None]).cpu()


def model_row(name: str, shape: tuple, peak: float) -> None:
    model = made(shape)
    items = groups(shape[5])
    tokens = sum(len(i.response_ids) for i in items)
    computed = GROUPS * PROMPT + tokens
    path, why = local.choose(model, SAMPLER)
    few = items[:2]
    with precision.computed_in(model):
        exact = {s.key: s.columns["logprob"] for s in plain.score(few, model, None)}
    rounded = {s.key: s.columns["logprob"] for s in plain.score(few, model, None)}
    shared = {s.key: s.columns["logprob"] for s in local.score(few, model, None, path=path)}
    off = [np.concatenate([got[k] - exact[k] for k in exact]) for got in (rounded, shared)]
    plains, ours = (float(np.sqrt((d.astype(float) ** 2).mean())) for d in off)
    check(f"{name}: error of the path in bfloat16", ours, local.NOISE * plains + local.PROBE_TOLERANCE)
    took, memory = {}, {}
    weights = torch.cuda.memory_allocated() if ON_CARD else 0
    ways = {
        "core": lambda: list(local.score(items, model, None, path=path)),
        "all": lambda: list(local.score(items, model, SAMPLER, path=path, powers=EXPONENTS)),
        "padded": lambda: padded(items, model),
    }
    for way, run in ways.items():
        if ON_CARD:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            took[way] = seconds(run, 2)
        except torch.OutOfMemoryError:
            took[way] = float("nan")
        memory[way] = (torch.cuda.max_memory_allocated() - weights) / 1e9 if ON_CARD else float("nan")
    layers, hidden, vocab = shape[0], shape[1], shape[5]
    body = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n and "lm_head" not in n)
    attended = 4 * layers * hidden * tokens * (PROMPT + LENGTH / 2)
    flops = 2 * body * computed + attended + 2 * hidden * vocab * tokens
    speed = {way: tokens / took[way] for way in took}
    say(
        f"| {name} | {path} | {ours:.2g} / {plains:.2g} | {speed['core']:,.0f} | {speed['all']:,.0f} | "
        f"{speed['padded']:,.0f} | {speed['core'] / speed['padded']:.1f} | {flops / took['core'] / peak:.0%} | "
        f"{memory['core']:.1f} / {memory['all']:.1f} / {memory['padded']:.1f} |"
    )
    if path != "shared":
        missed.append(f"{name}: path {path} ({why})")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(Path(__file__).with_name("GPU.md")), metavar="FILE")
    parser.add_argument(
        "--seconds", type=float, default=440, help="no further model is begun after (default %(default)s)"
    )
    a = parser.parse_args(argv)
    begin = time.perf_counter()
    torch.manual_seed(0)
    card = torch.cuda.get_device_name(0) if ON_CARD else "no card: tiny shapes on the CPU, whose numbers mean nothing"
    triton = "missing"
    if find_spec("triton") is not None:
        import triton as module

        triton = module.__version__
    say(
        f"# Scoring on a GPU\n\n`make gpu` on {card}; torch {torch.__version__}, Triton {triton}, "
        "made-up weights, bfloat16.\n"
    )
    peak = gemm_peak()
    say(f"Measured peak of bfloat16 products: {peak / 1e12:,.0f} TFLOP/s.\n")
    attention_errors()
    for name, shape in SHAPES.items():
        head_errors(name, shape[1], shape[5])
    say(
        f"{GROUPS} prompts of {PROMPT} tokens, {RESPONSES} responses each of {LENGTH // 2} to {LENGTH}. Error: root "
        "mean square in nats against float32, of our path / of one trace at a time in bfloat16. Response tokens a "
        f"second: core columns, all (sampler, two powers), padded transformers (batch {BATCH}, log-prob only). Share: "
        "of the measured peak. Memory: GB above the weights, the same three.\n"
    )
    say(
        "| model | path | error | core | all | padded | times | share | memory |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, shape in SHAPES.items():
        if time.perf_counter() - begin > a.seconds:
            say(f"| {name} | not begun: {a.seconds:g} s were over | | | | | | | |")
            continue
        with contextlib.suppress(torch.OutOfMemoryError):
            model_row(name, shape, peak)
            continue
        say(f"| {name} | out of memory on this card | | | | | | | |")
    say(
        f"\n{time.perf_counter() - begin:,.0f} s in all. "
        + ("Missed: " + "; ".join(missed) if missed else "No bar was missed.")
    )
    if ON_CARD:
        Path(a.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
