"""Task horizon of a run: from a field of the rows, with the ratio to the reference, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import analyzer
from analyzer.cli.main import main
from analyzer.errors import UsageError

N, PROBLEMS = 16, 120


def dump(folder, source: str, shift: float, minutes=lambda p, m: m) -> str:
    """Tasks of 1 to 256 minutes; half is solved with one draw at 2^(4 + shift)."""
    rng = np.random.default_rng(len(source))
    lines = []
    for p in range(PROBLEMS):
        x = 8 * p / (PROBLEMS - 1)
        chance = 1 / (1 + np.exp(1.5 * (x - 4 - shift)))
        for i, ok in enumerate(rng.random(N) < chance):
            row = {"source": source, "problem": f"p{p}", "sample": i, "response": "so", "correct": bool(ok)}
            lines.append(json.dumps(row | {"meta": {"minutes": minutes(p, 2.0**x)}}) + "\n")
    (folder / f"{source}.jsonl").write_text("".join(lines))
    return str(folder / f"{source}.jsonl")


def test_the_horizon_and_its_ratio_to_the_base(tmp_path):
    """Half of the truth's logarithm to a tenth of a doubling: the standard error over 120 tasks is .03 to .08."""
    run = analyzer.load([dump(tmp_path, "base", 0.0), dump(tmp_path, "rl", 1.0)])
    found = analyzer.analyze(run, "task_horizon", difficulty="minutes")["task_horizon"]
    for source, want in (("base", 16.0), ("rl", 32.0)):
        e = found.estimates[f"{source}.task_horizon@1"]
        assert np.log2(e.value / want) == pytest.approx(0, abs=0.35) and e.low < want < e.high
        assert found.estimates[f"{source}.task_horizon@16"].value > 2 * e.value
    ratio = found.estimates["rl.task_horizon_ratio@1"]
    assert ratio.value == pytest.approx(2, rel=0.25) and ratio.low < 2 < ratio.high
    assert "base.task_horizon_ratio@1" not in found.estimates
    assert set(found.tables["horizons"]["k"]) == {1, 2, 4, 8, 16}
    assert {n.partition(".")[2] for n in found.estimates} == {
        *("task_horizon@1", "task_horizon@16", "task_horizon_ratio@1", "task_horizon_ratio@16")
    }


def test_it_is_in_the_report_where_a_field_is_named(tmp_path, capsys):
    paths = [dump(tmp_path, "base", 0.0), dump(tmp_path, "rl", 1.0)]
    line = ["report", *paths, "-o", str(tmp_path / "out"), "--no-robustness", "--difficulty", "minutes"]
    assert main(line) in (0, None)
    assert "Task horizon" in (tmp_path / "out" / "report.md").read_text()
    assert "task_horizon" in json.loads((tmp_path / "out" / "results.json").read_bytes())["analyses"]


def test_what_is_no_difficulty_is_refused(tmp_path):
    base = dump(tmp_path, "base", 0.0)
    run = analyzer.load([base])
    with pytest.raises(UsageError, match="--difficulty FIELD"):
        analyzer.analyze(run, "task_horizon")
    with pytest.raises(UsageError, match="no row has kept such a field; --map meta.hours=FIELD"):
        analyzer.analyze(run, "task_horizon", difficulty="hours")
    for minutes, said in (
        (lambda p, m: "long", "has 'long'; expected a number above 0"),
        (lambda p, m: 0, "has 0; expected a number above 0"),
        (lambda p, m: 5, "fewer than three different difficulties"),
        (lambda p, m: m if p < 5 else None, "fewer than 10 problems have both"),
    ):
        run = analyzer.load([dump(tmp_path, "base", 0.0, minutes)])
        with pytest.raises(UsageError, match=said):
            analyzer.analyze(run, "task_horizon", difficulty="minutes")
    text = (tmp_path / "base.jsonl").read_text().replace('"minutes": null', '"minutes": 3', 1)
    (tmp_path / "base.jsonl").write_text(text.replace('"minutes": 1.0', '"minutes": 2.0', 1))
    with pytest.raises(UsageError, match="problem p0 has 2 and 1"):
        analyzer.analyze(analyzer.load([base]), "task_horizon", difficulty="minutes")


def test_a_k_that_leaves_fewer_than_three_difficulties_is_left_out(tmp_path):
    """Twenty tasks, of which the only hard one was drawn once: at k = 2 two difficulties are left, at k = 1 three."""
    rows = [
        {"source": "base", "problem": f"p{p}", "sample": i, "response": "so", "correct": p % 2 == 0}
        | {"meta": {"minutes": 9 if p == 19 else 1 + p % 2}}
        for p in range(20)
        for i in range(1 if p == 19 else 2)
    ]
    found = analyzer.analyze(analyzer.load({"base": rows}), "task_horizon", difficulty="minutes")["task_horizon"]
    assert set(found.tables["horizons"]["k"]) == {1} and "base.task_horizon@1" in found.estimates
