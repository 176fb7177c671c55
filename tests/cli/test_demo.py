"""The demo as a user gets it: from a built wheel, in an empty folder; then compared with the committed report.

One run serves all tests here. The comparison is the contract of reports/miniature: verdict words and counts equal,
every estimate within 1e-3 of its interval's width.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def demo(root, tmp_path_factory):
    """(folder it ran in, its stdout) of `analyzer demo -o reports/miniature` from the wheel."""
    folder = tmp_path_factory.mktemp("demo")
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            folder / "wheel",
            root,
        ],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = (folder / "wheel").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    empty = folder / "empty"
    empty.mkdir()
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "analyzer", "demo", "-o", "reports/miniature"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return empty, done.stdout


@pytest.fixture(scope="module")
def results(demo):
    return json.loads((demo[0] / "reports" / "miniature" / "results.json").read_text(encoding="utf-8"))


def headline(results) -> dict[str, str]:
    return {v["source"]: v["verdict"] for v in results["verdicts"] if v["headline"]}


def test_the_known_truths_come_out(results):
    words = headline(results)
    assert words["base-again"] != "outside" and words["cool"] != "outside"
    assert words["distill"] == "outside" and words["teacher"] == "outside"
    assert words["rlvr"] != "outside"
    only_rlvr = results["analyses"]["boundary"]["estimates"]["rlvr.coverage.source_only"]
    assert only_rlvr["value"] == 0 and only_rlvr["n"] == 64


def test_nothing_is_left_out_of_the_ledger(results):
    ledger = results["ledger"]
    assert ledger["rows"] == ledger["rows_used"] + ledger["rows_rejected"] and ledger["rows_rejected"] == 0
    assert ledger["traces"] == ledger["traces_scored"] + ledger["traces_rejected"]
    assert sum(ledger["by_reason"].values()) == ledger["traces_rejected"]
    assert set(results["analyses"]) == {
        "preflight",
        "perplexity",
        "support",
        "contained",
        "strategy",
        "boundary",
        "clusters",
        "reliability",
        "tokens",
        "paired",
        "robustness",
    }


def test_words_stand_under_variations(results):
    table = results["analyses"]["robustness"]["tables"]["levels"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    word = {(r["variation"], r["source"], r["level"]): r["word"] for r in rows}
    assert not any(r["differs"] for r in rows if r["variation"] == "as run")
    for (variation, source, level), got in word.items():
        if source in ("base-again", "cool"):
            assert got == "inside", (variation, source, level)
    for variation in ("longest tenth dropped", "shortest tenth dropped", "another seed"):
        assert word[variation, "distill", "sequence"] == "outside"


def test_the_terminal_names_verdicts_and_the_report(demo):
    lines = demo[1].splitlines()
    assert lines[-1].startswith("Report: reports/miniature/index.html")
    for source in ("base-again", "cool", "rlvr", "distill", "teacher"):
        assert any(line.startswith(f"{source} is ") for line in lines)


def test_the_report_names_no_place_on_this_machine(demo):
    folder = demo[0]
    for file in sorted((folder / "reports" / "miniature").rglob("*")):
        if file.is_file() and "run" not in file.relative_to(folder / "reports" / "miniature").parts:
            text = file.read_bytes()
            assert str(folder).encode() not in text and str(Path.home()).encode() + b"/" not in text, file


def test_the_committed_report_is_this_one(results, root):
    committed = json.loads((root / "reports" / "miniature" / "results.json").read_text(encoding="utf-8"))
    assert headline(results) == headline(committed)
    assert [(v["source"], v["level"], v["verdict"]) for v in results["verdicts"]] == [
        (v["source"], v["level"], v["verdict"]) for v in committed["verdicts"]
    ]
    for part in ("ledger", "sources", "command"):
        assert results[part] == committed[part], part
    for name, analysis in committed["analyses"].items():
        fresh = results["analyses"][name]["estimates"]
        assert set(fresh) == set(analysis["estimates"]), name
        for key, old in analysis["estimates"].items():
            new = fresh[key]
            assert new["n"] == old["n"], key
            for field in ("value", "low", "high"):
                assert (new[field] is None) == (old[field] is None), (key, field)
                if old[field] is not None:
                    width = (old["high"] - old["low"]) if None not in (old["high"], old["low"]) else 0
                    # exact counts have no width; floats summed in another order still differ in the last digits
                    # and the engine floor measures just those digits: exp(5e-5) here
                    digits = 1e-4 if key == "k_min" else 1e-6
                    allowed = max(1e-3 * width, digits * max(1, abs(old[field])))
                    assert math.isclose(new[field], old[field], rel_tol=0, abs_tol=allowed), (
                        key,
                        field,
                        new[field],
                        old[field],
                    )


def test_a_second_call_scores_nothing_again(demo):
    """The same line again finds everything scored; killing and restarting is tested in test_pipeline."""
    folder = demo[0]
    parts = sorted((folder / "reports" / "miniature" / "run").rglob("*.parquet"))
    before = [(p, p.stat().st_mtime_ns) for p in parts]
    environment = os.environ | {"PYTHONPATH": str(folder.parent / "site"), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "analyzer", "analyze", "reports/miniature/run", "boundary"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert before == [
        (p, p.stat().st_mtime_ns) for p in sorted((folder / "reports" / "miniature" / "run").rglob("*.parquet"))
    ]
