"""Where the committed miniature lies; tests of it are skipped in a checkout without its data."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def miniature():
    folder = Path(__file__).parents[2] / "data" / "miniature"
    if not (folder / "card.md").exists():
        pytest.skip("the miniature is not built: python -m analyzer.lab build")
    return folder
