"""A written report on a made-up study, once per session, and a browser to open it in."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from analyzer.pages import write as report

LABELS = ["base", "rlvr", "distill/v1 α", "", "cool"]  # as in fake.inputs(); the fourth is the hostile text
ODD = "a\U0001f600b\u4f60\n\ttabs  and \u202e<b>bold</b> &amp; end"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"report_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    return _load("fake")


@pytest.fixture(scope="session")
def world() -> ModuleType:
    return _load("world")


@pytest.fixture(scope="session")
def traces(fake, world):
    """Tables of 120 traces with the hostile text as a label and as a response."""
    labels = [s or fake.HOSTILE for s in LABELS]
    texts = {"rlvr/p0/1": f"start {fake.HOSTILE} end", "rlvr/p1/1": ODD}
    return world.tables(labels, texts=texts)


@pytest.fixture(scope="session")
def written(fake, traces, tmp_path_factory) -> SimpleNamespace:
    """folder, paths, data (results.json), html, markdown; the hostile text in every place that takes text."""
    folder = tmp_path_factory.mktemp("report")
    paths = report.write(folder, **fake.inputs(), traces=traces)
    data = json.loads(paths["results.json"].read_bytes())
    return SimpleNamespace(
        folder=folder,
        paths=paths,
        data=data,
        html=paths["index.html"].read_text(encoding="utf-8"),
        markdown=paths["report.md"].read_text(encoding="utf-8"),
    )


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium, headless; where CI is set it must be there."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found, why = None, "playwright is not installed (pip install .[test])"
    else:
        why = "no Chromium on this machine (apt-get install chromium)"
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def unpack():
    """A pack's head with its arrays, read as embed.py describes it and not as it writes it."""

    def read(text: str) -> dict:
        data = gzip.decompress(base64.b64decode(text, validate=True))
        length = int.from_bytes(data[:4], "little")
        head = json.loads(data[4 : 4 + length])
        at = 4 + length
        for name, (kind, n) in head.pop("arrays").items():
            width = int(kind[1])
            planes = [data[at + k * n : at + (k + 1) * n] for k in range(width)]
            head[name] = np.frombuffer(bytes(b for row in zip(*planes) for b in row), f"<{kind}")
            at += width * n
        assert at == len(data)
        return head

    return read
