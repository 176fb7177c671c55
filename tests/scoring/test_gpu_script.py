"""The script for machines with a card runs to its end without one, and leaves the report of a card alone."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import torch


def test_it_runs_to_the_end_and_writes_nothing_without_a_card(root, tmp_path):
    out = tmp_path / "GPU.md"
    line = [sys.executable, root / "benchmarks" / "gpu.py", "--out", out]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)}
    done = subprocess.run(line, env=os.environ | hidden, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no card" in done.stdout and "No bar was missed." in done.stdout and not out.exists()
    assert ("kernel: logprob" if find_spec("triton") else "skipped, Triton is not installed") in done.stdout
    assert "| tiny | shared |" in done.stdout and torch.__version__ in done.stdout
