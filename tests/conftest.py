"""Shared fixtures: where the real dumps and models lie, and the tiny real model that everything is scored with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: two test runs may share a machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real dumps and models beside the checkout; missing, a test skips, and in CI it fails."""
    folder = ROOT.parent / "shared"
    if not (folder / "dumps").is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder} is missing, and CI must not skip the tests on real data")
        pytest.skip(f"{folder} is missing")
    return folder


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
