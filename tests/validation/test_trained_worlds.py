"""V11 on a corner of the miniature, once: that it runs. Its numbers are the full suite's, which takes minutes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analyzer.api import pipeline
from analyzer.runs.store import Run
from validation import miniature


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder, path = root / "data" / "miniature", tmp_path_factory.mktemp("corner") / "run"
    run = Run.create(path)
    sources = ("base", "base-again", "distill-plan")
    pipeline.ingest(run, [f"{s}={folder / 'dumps' / s}.jsonl.gz" for s in sources])
    models = {s: str(folder / "models" / miniature.POLICIES[s]) for s in sources[1:]}
    pipeline.score(run, base=str(folder / "models" / "base"), policy=models, score_at_most=6)
    return path


def test_the_gate_of_the_formats_runs(root, run):
    found = miniature.gate_formats(np.random.default_rng(0), 1, run=run, folder=root / "data" / "miniature")
    assert found.checks and all(c.name == "V11" and math.isfinite(c.measured) for c in found.checks)
