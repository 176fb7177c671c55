"""A folder of dumps of several models on several benchmarks, told by its names alone: one study per benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from analyzer.dumps.labels import label_of, stem_of
from analyzer.dumps.specs import LABEL, expand
from analyzer.errors import DumpError

BENCHMARK = re.compile(
    r"(?:aime|amc|math|gsm|hmmt|cmimc|brumo|olympiad|olympiadbench|minerva|minerva_math|omni_math|countdown|polaris|deepscaler"
    r"|humaneval|mbpp|livecodebench|lcb|apps|codeforces|gpqa|gpqa_diamond|mmlu|mmlu_pro|arc|arc_challenge|bbh|ifeval"
    r"|svamp|asdiv|mawps|game24|zebra|knights_knaves|drop|hotpotqa|triviaqa|nq|mgsm|aqua|multiarith|tabmwp|strategyqa"
    r"|crux|cruxeval|bigcodebench|swe_?bench|alpaca_?eval|mt_?bench|zebra[-_]grid|truthfulqa|agieval|musr|simpleqa|hle"
    r"|supergpqa|folio|prontoqa|proofwriter|commonsenseqa|boolq|hellaswag)"
    r"[-_]?(?:\d{1,4}k?|20\d\d|plus|hard|test|l\d|lite|verified)?",
    re.I,
)


def benchmarks(specs: Sequence[str]) -> dict[str, list[str]] | None:
    """Benchmark -> MODEL=PATH of every dump, where one folder holds MODEL_BENCHMARK (or BENCHMARK_MODEL) files,
    BENCHMARK/MODEL or MODEL/BENCHMARK (files or folders) of several models on several benchmarks; None where the names
    do not tell so unmistakably: every file, in one order, by the name of a known benchmark, and each benchmark with two
    models."""
    if len(specs) != 1 or not Path(specs[0]).is_dir() or (Path(specs[0]) / "run.json").is_file():
        return None
    root = Path(specs[0])
    try:
        paths = [path.relative_to(root) for _, path, _ in expand(specs)[0] if path is not None]
    except DumpError:
        return None
    for order in (1, -1):
        found: dict[str, dict[str, str]] = {}
        for path in paths:
            place = root.joinpath(*path.parts[:2])
            bench, model = max(_named(path, order), key=lambda pair: len(pair[0]), default=("", ""))
            if not bench or found.setdefault(bench, {}).setdefault(model, str(place)) != str(place):
                break
        else:
            if len(found) > 1 and all(len(models) > 1 for models in found.values()):
                return {
                    bench: [f"{model}={place}" for model, place in models.items()] for bench, models in found.items()
                }
    return None


def _named(path: Path, order: int) -> Iterator[tuple[str, str]]:
    """The ways to read a file's place in the folder as (benchmark, model): the model first where `order` is 1, last
    where it is -1."""
    stem = stem_of(Path(path.parts[min(1, len(path.parts) - 1)]))
    cuts = [(path.parts[0], stem)] if len(path.parts) > 1 else [
        (stem[: cut.start()], stem[cut.end() :]) for cut in re.finditer(r"[-_.]+", stem)
    ]  # fmt: skip
    for model, bench in (cut[::order] for cut in cuts):
        if BENCHMARK.fullmatch(bench) and LABEL.match(label := label_of(model)) and not BENCHMARK.fullmatch(model):
            yield bench, label


def told(specs: Sequence[str], found: Mapping[str, Sequence[str]]) -> list[str]:
    """What is to be said where names alone made several studies of one folder."""
    if len(specs) != 1 or not Path(specs[0]).is_dir() or not all("=" in spec for own in found.values() for spec in own):
        return []
    folder = specs[0].rstrip("/")
    return [
        f"{specs[0]}: its files are named by model and benchmark, one study each: {', '.join(found)}; to read them as "
        f"one study, give the files: '{folder}/**/*.*'"
    ]
