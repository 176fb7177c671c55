"""Where the committed miniature lies, and one thread for everything that runs a model."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def miniature():
    folder = Path(__file__).parents[2] / "data" / "miniature"
    if not (folder / "card.md").exists():
        pytest.skip("the miniature is not built: python -m miniature build")
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads that wait for each other on a busy machine are a hundred times slower than one on these sizes."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
