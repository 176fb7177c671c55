"""A written report on a made-up study, once per session."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from analyzer import report


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_study", Path(__file__).with_name("fake.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def written(fake, tmp_path_factory) -> SimpleNamespace:
    """folder, paths, data (results.json), html, markdown; the hostile text in every place that takes text."""
    folder = tmp_path_factory.mktemp("report")
    paths = report.write(folder, **fake.inputs())
    data = json.loads(paths["results.json"].read_bytes())
    return SimpleNamespace(
        folder=folder,
        paths=paths,
        data=data,
        html=paths["index.html"].read_text(encoding="utf-8"),
        markdown=paths["report.md"].read_text(encoding="utf-8"),
    )
