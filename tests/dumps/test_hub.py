"""Addresses on the hub, read through a file system in memory that stands in for it."""

import json
from types import SimpleNamespace

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from huggingface_hub import constants

from analyzer.dumps import read as dumps
from analyzer.errors import DumpError, UsageError

COMMIT = "0123456789" * 4


class Hub(MemoryFileSystem):
    """A data set in memory; a file is asked for at the commit that wrote it."""

    protocol = "hf"
    store, pseudo_dirs, fetched = {}, [""], []

    def info(self, path, **kwargs):
        found = super().info(path.replace(f"@{COMMIT}", ""), **kwargs)
        return found | ({"last_commit": SimpleNamespace(oid=COMMIT)} if kwargs.get("expand_info") else {})

    def get_file(self, rpath, lpath, **kwargs):
        self.fetched.append(rpath)
        with open(lpath, "wb") as out:
            out.write(self.cat_file(rpath.replace(f"@{COMMIT}", "")))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(_registry, "hf", Hub)
    Hub.store, Hub.fetched = {}, []
    fs = Hub()
    for name in ("runs/base.jsonl", "runs/rl.jsonl", "README.md"):
        row = {"question": "q", "response": name, "correct": True}
        fs.pipe_file(f"/datasets/org/traces/{name}", (json.dumps(row) + "\n").encode())
    return fs


def read(*specs):
    traces, ledger = dumps.read_dumps(list(specs))
    return {t.source: t.response for t in traces}, [f["path"] for f in ledger.files]


@pytest.mark.parametrize(
    "address", ["hf://datasets/org/traces", "hf://datasets/org/traces/runs", "hf://datasets/org/traces/runs/*.jsonl"]
)
def test_a_folder_and_a_pattern_are_read_and_pinned(hub, address):
    found, paths = read(address)
    assert found == {"base": "runs/base.jsonl", "rl": "runs/rl.jsonl"}
    assert paths == [f"hf://datasets/org/traces@{COMMIT}/runs/{name}.jsonl" for name in ("base", "rl")]


def test_a_file_is_fetched_once_and_read_offline_by_its_pinned_address(hub, monkeypatch):
    found, (pinned,) = read("mine=hf://datasets/org/traces/runs/rl.jsonl")
    assert found == {"mine": "runs/rl.jsonl"} and len(Hub.fetched) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert read(pinned)[0] == {"rl": "runs/rl.jsonl"} and len(Hub.fetched) == 1
    with pytest.raises(DumpError, match=r"HF_HUB_OFFLINE is set, and the file is not in the cache; unset it, or fetch"):
        read("hf://datasets/org/traces/runs/rl.jsonl")


def test_what_is_not_there_is_said(hub):
    with pytest.raises(DumpError, match=r"hf://datasets/org/traces/none.jsonl: no dump there; check the name"):
        read("hf://datasets/org/traces/none.jsonl")
    for other in ("hf://models/org/traces/a.jsonl", "hf://org/traces", "hf://datasets/org"):
        with pytest.raises(UsageError, match=r"expected hf://datasets/OWNER/NAME/PATH"):
            read(other)
    with pytest.raises(UsageError, match=r"has no '\.\.'"):
        read(f"hf://datasets/org/traces@{COMMIT}/../../x.jsonl")


def test_a_network_that_fails_is_said_with_what_to_try(hub, monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(Hub, "isdir", fails)
    with pytest.raises(DumpError, match=r"can't be fetched \(Name or service not known\); check the network, or fetch"):
        read("hf://datasets/org/traces/runs/rl.jsonl")


def test_a_download_that_breaks_leaves_nothing(hub, monkeypatch, tmp_path):
    def breaks(self, rpath, lpath, **_):
        with open(lpath, "wb") as out:
            out.write(b"{")
        raise OSError("connection reset")

    monkeypatch.setattr(Hub, "get_file", breaks)
    with pytest.raises(DumpError, match="connection reset"):
        read("hf://datasets/org/traces/runs/rl.jsonl")
    assert [p for p in (tmp_path / "assets").rglob("*") if p.is_file()] == []
