"""How fast and how lean scoring is, against other scorers and against the floor that no scorer can pass.

    python benchmarks/bench_score.py [--rounds 7] [--only shapes statistics memory tries short store]

Model of the shapes: random, 4 layers of 384, vocabulary 32,000; logits scaled to a median entropy of about 0.3 nats,
responses sampled from the model. Timings are medians of interleaved rounds. The floor is the model's own layers over
the same unique tokens (each sequence over itself only: attention to the prompt is not even in it) and the bare product
with the head, without any statistics. Prints Markdown; `make bench` writes it to RESULTS.md. Exits with 1 where a bar
is missed.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import others
import torch

from analyzer.dumps import read as dumps
from analyzer.records import Sampler, Trace
from analyzer.scoring import load as scorers
from analyzer.scoring import local
from analyzer.scoring.encoding.encode import Encoded, encode
from analyzer.scoring.fast import head, shared
from analyzer.scoring.plan import packs, shared_tokens

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {"P=512, 32 x ~64": (512, 32, 64), "P=128, 16 x ~200": (128, 16, 200)}
SAMPLER = Sampler(0.6, 0.95)
ENTROPY = 0.3  # nats, median
# other scorer -> at least so many times slower than (core, all columns) at the two shapes
SLOWER = {
    "padded transformers, batch 8": ((10, 7), (3.5, 2.5)),
    "lm-eval, log-prob only": ((9, 6), (2, 1.5)),
    "minicons, log-prob only": ((20, 0), (6, 0)),
}
OVER_FLOOR = (1.3, 1.9)  # core, all
STATISTICS = (0.20, 0.45)  # of the head product
MEMORY = {8192: 600, 32_768: 4000}  # tokens of one trace -> MB above the weights
TOKENS = 1.18, 1.06  # forwarded over distinct trie tokens: where no trie is built, where one is
SHORT, STORE = 0.60, 0.03
missed: list[str] = []


def row(what: str, value: str, bar: str, held: bool) -> None:
    """One line of a table; a missed bar is remembered."""
    print(f"| {what} | {value} | {bar} | {'held' if held else '**missed**'} |", flush=True)
    if not held:
        missed.append(what)


def table(title: str) -> None:
    print(f"\n## {title}\n\n| what | measured | bar | |\n|---|---|---|---|")


def random_model(vocab: int = 32_000, width: int = 384, layers: int = 4):
    """A random Llama whose head is scaled to the median entropy of a trained model's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=65_536,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        logits, low, high = model(torch.randint(0, vocab, (1, 32))).logits[0], 0.01, 1000.0
        for _ in range(20):
            middle = (low * high) ** 0.5
            entropy = torch.distributions.Categorical(logits=logits * middle).entropy().median()
            low, high = (middle, high) if entropy > ENTROPY else (low, middle)
        model.lm_head.weight.mul_(low)
    return model


def sampled(model, prompt: int, count: int, length: int, seed: int = 0) -> list[Encoded]:
    """`count` responses of about `length` tokens, drawn from the model after one prompt."""
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, model.config.vocab_size, prompt))[None]
    torch.manual_seed(seed)
    with torch.no_grad():
        out = model.generate(
            ids.expand(count, -1),
            attention_mask=torch.ones(count, prompt, dtype=torch.long),
            do_sample=True,
            top_k=0,
            max_new_tokens=int(length * 1.25),
            min_new_tokens=int(length * 1.25),
            eos_token_id=None,
            pad_token_id=0,
        )
    sizes = rng.integers(int(length * 0.75), int(length * 1.25) + 1, count).tolist()
    return [
        made(n, tuple(ids[0].tolist()), tuple(r[:size]))
        for n, (r, size) in enumerate(zip(out[:, prompt:].tolist(), sizes))
    ]


def made(n: int, prompt: tuple[int, ...], response: tuple[int, ...]) -> Encoded:
    return Encoded(Trace("s", "p", n, ""), prompt, response, np.full(len(response), -1, np.int32))


def ours(model, items: list[Encoded], sampler: Sampler | None) -> None:
    """The scorer itself, all the way to Scored records."""
    for _ in local.score(items, model, sampler):
        pass


def floor(model, items: list[Encoded]) -> None:
    """Layers over the unique tokens, responses as rows of one mean length, and the bare head product."""
    weight = model.lm_head.weight.t()
    buffer = torch.empty(head.ROW_BLOCK["cpu"], weight.shape[1])
    with torch.inference_mode():
        for prompt in {i.prompt_ids for i in items}:
            model.base_model(torch.tensor([prompt]), use_cache=False)
        flat = torch.tensor([t for i in items for t in i.response_ids])
        length = len(flat) // len(items)
        whole = flat[: len(flat) // length * length].view(-1, length)
        for batch in whole.split(max(1, local.TOKEN_BUDGET["cpu"] // length)):
            hidden = model.base_model(batch, use_cache=False).last_hidden_state.flatten(0, 1)
            for rows in hidden.split(head.ROW_BLOCK["cpu"]):
                torch.mm(rows, weight, out=buffer[: len(rows)])


def interleaved(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of every function, run in turn; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if n:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def shapes(rounds: int) -> None:
    """One group at two shapes, against everything else."""
    model = random_model()
    libraries = {"lm-eval, log-prob only": others.lm_eval(model), "minicons, log-prob only": others.minicons(model)}
    for number, (title, (prompt, count, length)) in enumerate(SHAPES.items()):
        items = sampled(model, prompt, count, length)
        runs = {
            "floor": lambda items=items: floor(model, items),
            "core": lambda items=items: ours(model, items, None),
            "all": lambda items=items: ours(model, items, SAMPLER),
            "padded transformers, batch 8": lambda items=items: others.padded(model, items),
        }
        runs |= {n: (lambda items=items, f=f: f(items)) for n, f in libraries.items() if f is not None}
        found = interleaved(runs, rounds)
        tokens = sum(len(i.response_ids) for i in items)
        table(f"{title}: {tokens:,} tokens, medians of {rounds}")
        for name, bar in zip(("core", "all"), OVER_FLOOR, strict=True):
            over = found[name] / found["floor"]
            value = f"{over:.2f} x floor ({found[name]:.3f} s, {tokens / found[name]:,.0f} tokens/s)"
            row(f"{name} columns over the floor", value, f"<= {bar} x", over <= bar)
        for name in SLOWER:
            if name not in found:
                print(f"| {name} | not installed | | not run |")
                continue
            core, both = found[name] / found["core"], found[name] / found["all"]
            least = SLOWER[name][number]
            bare = found[name] / found["floor"]
            value = f"{core:.1f} x core, {both:.1f} x all ({found[name]:.2f} s; {bare:.1f} x the bare floor)"
            bar = f">= {least[0]} x" + (f", >= {least[1]} x" if least[1] else "")
            row(f"{name}: slower by", value, bar, core >= least[0] and both >= least[1])
        where_time_goes(model, items, rounds, found["floor"])


def where_time_goes(model, items: list[Encoded], rounds: int, whole: float) -> None:
    """Print the median seconds of the scorer's steps (core columns), as shares of the bare floor's."""
    steps = {
        "layers": (shared, "_forward"),
        "head product": (head, "_logits"),
        "statistics": (head, "_columns_by_threads"),
        "alternatives": (head, "top_alternatives"),
    }
    spent: dict[str, list[float]] = {name: [] for name in (*steps, "all")}
    real = {name: getattr(*where) for name, where in steps.items()}

    def timed(name: str) -> Callable:
        def call(*given, **more):
            start = time.perf_counter()
            try:
                return real[name](*given, **more)
            finally:
                spent[name][-1] += time.perf_counter() - start

        return call

    try:
        for name, where in steps.items():
            setattr(*where, timed(name))
        for _ in range(rounds):
            for values in spent.values():
                values.append(0.0)
            start = time.perf_counter()
            ours(model, items, None)
            spent["all"][-1] = time.perf_counter() - start
    finally:
        for name, where in steps.items():
            setattr(*where, real[name])
    found = {name: statistics.median(values) / whole for name, values in spent.items()}
    found["planning and records"] = found.pop("all") - sum(found.values())
    print("\nOf the floor's time: " + ", ".join(f"{name} {share:.0%}" for name, share in found.items()))


def statistic(rounds: int) -> None:
    """Statistics against the head product at hidden 896, vocabulary 152k."""
    torch.manual_seed(0)
    weight, hidden = torch.randn(151_936, 896), torch.randn(110, 896)
    logits = torch.empty(110, 151_936)
    low, high = 1e-4, 1.0
    probe = hidden[:16] @ weight.t()
    for _ in range(20):  # to the median entropy of a trained model
        middle = (low * high) ** 0.5
        entropy = torch.distributions.Categorical(logits=probe * middle).entropy().median()
        low, high = (middle, high) if entropy > ENTROPY else (low, middle)
    weight *= low
    torch.mm(hidden, weight.t(), out=logits)
    targets = torch.distributions.Categorical(logits=logits).sample()
    work = torch.empty(torch.get_num_threads(), 3, max(1, head.CACHE_CELLS // 151_936) * 151_936)
    found = interleaved(
        {
            "product": lambda: torch.mm(hidden, weight.t(), out=logits),
            "core": lambda: head._columns_by_threads(logits, targets, work, None),
            "all": lambda: head._columns_by_threads(logits, targets, work, SAMPLER),
        },
        rounds,
    )
    table("Statistics over the head product, hidden 896, vocabulary 151,936")
    for name, bar in zip(("core", "all"), STATISTICS, strict=True):
        share = found[name] / found["product"]
        row(f"{name} columns", f"{share:.1%} of the product's {found['product']:.2f} s", f"<= {bar:.0%}", share <= bar)


def memory(rounds: int) -> None:
    """Peak memory of one long trace above that of the loaded model and a short trace, in processes of their own."""
    table("Peak memory above the weights, one trace, hidden 896, 2 layers, vocabulary 151,936")
    for tokens, bar in MEMORY.items():
        code = f"import bench_score as b; b.one_trace({tokens})"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True
        )
        more, seconds = done.stdout.split()
        row(f"{tokens:,} tokens", f"{float(more):.0f} MB ({float(seconds):.0f} s)", f"<= {bar} MB", float(more) <= bar)


def one_trace(tokens: int) -> None:
    """Print the growth of peak memory in MB and the seconds of scoring one trace of so many tokens."""
    model = random_model(151_936, 896, 2)
    ids = np.random.default_rng(0).integers(0, 151_936, tokens).tolist()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again: making the model had one of its own
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    ours(model, [made(0, tuple(ids[:64]), tuple(ids[64:]))], SAMPLER)
    print((_kilobytes("VmHWM") - before) / 1024, time.perf_counter() - start)


def _kilobytes(name: str) -> int:
    """A line of /proc/self/status: VmRSS, memory in use; VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def tries(rounds: int) -> None:
    """Tokens that go through the model, over the distinct tokens of the dumps' tries."""
    from transformers import AutoTokenizer

    shared = ROOT.parent / "shared"
    if not shared.is_dir():
        print("\nTries: the real dumps are not beside the project; not run")
        return
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "qwen2-tokenizer")
    table("Tokens forwarded over distinct tokens of the trie")
    for name in ("reasoning-gym-rl", "tot-game24"):
        for file in sorted((shared / "dumps" / name).glob("*.json*")):
            traces, _ = dumps.read_dumps([str(file)])
            # problems stand for prompts where a dump has none: what counts here is which responses begin alike
            pairs = {
                (
                    tuple(tokenizer(str(t.prompt or t.question or t.problem))["input_ids"]),
                    tuple(tokenizer(t.response)["input_ids"]),
                )
                for t in traces
                if t.response
            }
            distinct, before = 0, ()
            for prompt, response in sorted(pairs):
                ids = (*prompt, -1, *response)  # -1: two prompts never share a response's beginning
                distinct += len(ids) - shared_tokens(before, ids) - (shared_tokens(before, ids) <= len(prompt))
                before = ids
            flat = sum(len(p.ids_N) for p in packs(list(pairs), 4096, segment_cost=math.inf))
            tree = sum(len(p.ids_N) for p in packs(list(pairs), 4096))
            built = tree < flat
            ratio, bar = tree / distinct, TOKENS[built]
            value = f"{ratio:.3f} ({tree:,} of {sum(len(p) + len(r) for p, r in pairs):,} tokens)"
            row(f"{name}/{file.name}, {'trie' if built else 'prompts only'}", value, f"<= {bar}", ratio <= bar)


def miniature() -> tuple[scorers.Loaded, list[Encoded]]:
    """The miniature's base model and its own traces."""
    folder = ROOT / "data" / "miniature"
    loaded = scorers.load(str(folder / "models" / "base"))
    traces, _ = dumps.read_dumps([str(folder / "dumps" / "base.jsonl.gz")])
    return loaded, [
        encode(t, loaded.tokenizer, vocab_size=loaded.vocab_size, template=None, eos=None) for t in traces[: 64 * 64]
    ]


def short(rounds: int) -> None:
    """Many short traces under a tiny model: what Python costs."""
    loaded, items = miniature()
    distinct = list({(i.prompt_ids, i.response_ids): i for i in items}.values())
    found = interleaved(
        {"floor": lambda: floor(loaded.model, distinct), "ours": lambda: ours(loaded.model, distinct, None)}, rounds
    )
    table(f"Short traces: {len(distinct):,} distinct of the miniature's first {len(items):,}")
    share = found["floor"] / found["ours"]
    tokens = sum(len(i.response_ids) for i in distinct)
    value = f"{share:.0%} of the floor's throughput ({tokens / found['ours']:,.0f} tokens/s)"
    row("core columns", value, f">= {SHORT:.0%}", share >= SHORT)


def store(rounds: int) -> None:
    """What writing costs, and how many bytes a scored token takes on disk."""
    import pyarrow.parquet as pq

    from analyzer.runs.store import Run

    loaded, items = miniature()
    table("Store: the miniature's base traces")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        scored = list(scorers.score(items, loaded, path="shared", sampler=None, limit=None))
        scoring = time.perf_counter() - start
        by_key = {i.trace.key: i for i in items}
        found = [(by_key[s.key].trace, by_key[s.key].prompt_ids, s) for s in scored]
        times = []
        for n in range(rounds + 1):  # the first warms up
            run = Run.create(Path(folder) / f"run{n}")
            start = time.perf_counter()
            for at in range(0, len(found), 2000):
                run.append_scores("base", found[at : at + 2000])
            times.append(time.perf_counter() - start)
        writing = statistics.median(times[1:])
        tokens = sum(len(s) for s in scored)
        size = dict.fromkeys(("logprob", "rank", "mass_above", "entropy"), 0)
        for part in (run.path / "scores" / "base").glob("part-*"):
            for name, compressed in _column_sizes(pq.ParquetFile(part).metadata):
                if name in size:
                    size[name] += compressed
    share = writing / (writing + scoring)
    value = f"{share:.1%} of the run ({writing:.2f} s beside {scoring:.2f} s, in a thread of its own)"
    row("writing", value, f"<= {STORE:.0%}", share <= STORE)
    each = {name: bytes_ / tokens for name, bytes_ in size.items()}
    value = f"{sum(each.values()):.2f} ({', '.join(f'{n} {v:.2f}' for n, v in each.items())})"
    row("bytes per token of four core statistics", value, "<= 8", sum(each.values()) <= 8)


def _column_sizes(metadata) -> Iterator[tuple[str, int]]:
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            found = metadata.row_group(group).column(column)
            yield found.path_in_schema.partition(".")[0], found.total_compressed_size


PARTS = {"shapes": shapes, "statistics": statistic, "memory": memory, "tries": tries, "short": short, "store": store}


def machine() -> str:
    """One line that names the machine."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next((x.partition(":")[2].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), name)
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads, CUDA " + (
        torch.cuda.get_device_name() if torch.cuda.is_available() else "not run: no GPU"
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    given = options.parse_args()
    print(f"# Scoring\n\n{machine()}")
    for part in given.only:
        PARTS[part](given.rounds)
    print(f"\n{'All bars held.' if not missed else 'Missed: ' + '; '.join(missed)}")
    sys.exit(bool(missed))
