"""docs/contracts.md says what the code and the committed report do."""

from __future__ import annotations

import json
import re

import pytest

from analyzer import errors
from analyzer.records import LEVELS, WORDS
from analyzer.runs import rows


@pytest.fixture(scope="module")
def page(root):
    return (root / "docs" / "contracts.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(root):
    return json.loads((root / "reports" / "miniature" / "results.json").read_text(encoding="utf-8"))


def patterns(page: str) -> dict[str, list[re.Pattern]]:
    """analysis -> one pattern per key of the table of estimates."""
    found: dict[str, list[re.Pattern]] = {}
    name = ""
    for first, keys in re.findall(r"^\| (`\w+` |)\| (`.*?) \|", page.partition("## Estimate keys")[2], re.M):
        name = first.strip("` ") or name
        for key in re.findall(r"`([^`]+)`", keys):
            text = re.escape(key).replace("L", "[^.]+", 1) if key.startswith("L.") else re.escape(key)
            text = text.replace("@k", r"@\d+").replace(r"\^k", r"\^\d+").replace("LEVEL", f"({'|'.join(LEVELS)})")
            found.setdefault(name, []).append(re.compile(text.replace("A\\-B", "[^.]+").replace("MEASURE", r"[\w@]+")))
    return found


def test_every_key_of_the_committed_report_is_named_and_every_name_occurs(page, results):
    named = patterns(page)
    named.pop("handover")  # the demo hands nothing over; its keys: tests/api/test_handover.py
    named.pop("task_horizon")  # nor a difficulty named: tests/analysis/test_task_horizon.py
    named.pop("chains")  # nor is a chain judged there: tests/analysis/test_chains.py
    assert set(named) == set(results["analyses"])
    for analysis, allowed in named.items():
        keys = list(results["analyses"][analysis]["estimates"])
        unnamed = [key for key in keys if not any(p.fullmatch(key) for p in allowed)]
        assert not unnamed, (analysis, unnamed[:5])
        unused = [p.pattern for p in allowed if not any(p.fullmatch(key) for key in keys)]
        assert not unused, (analysis, unused)


def test_the_shape_of_results_is_the_one_written(page, results):
    block = re.search(r'    \{"schema": 2.*?\n\n', page, re.S).group()
    written = set(re.findall(r'"(\w+)"', block))
    for part in (results, results["ledger"], results["sources"]["rlvr"], results["verdicts"][0]):
        assert set(part) <= written, set(part) - written
    one = next(iter(results["analyses"].values()))
    assert set(one) <= written and set(next(iter(one["estimates"].values()))) <= written
    assert {v["verdict"] for v in results["verdicts"]} <= set(WORDS)
    assert all(f"`{word}`" in page for word in (*WORDS, *LEVELS))


def test_exit_codes_are_those_of_the_errors(page):
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)}
    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.AnalyzerError)]
    assert {kind.exit_code for kind in kinds} | {0, 130} == listed


def test_every_stored_column_is_named(page):
    run = page.partition("## A run")[2].partition("## A report")[0]
    named = set(re.findall(r"`(\w+)`", run))
    columns = [n for n in (*rows.TRACES.names, *rows.SCORES.names) if not n.startswith("power_")]
    assert set(columns) <= named, set(columns) - named
