"""Many studies, the same again and the dry run as Python calls, and as study files; refused before a dump is read."""

from __future__ import annotations

import json

import pytest

import analyzer
from analyzer.cli import main as cli
from analyzer.dumps import read as dumps
from analyzer.errors import DumpError, ResourceError, UsageError
from analyzer.runs.store import Run


def rows(source: str, samples: int = 3) -> list[dict]:
    return [
        {
            "problem": f"p{p}",
            "sample": s,
            "prompt": f"Once {p}",
            "response": f" {source} {s}",
            "correct": (s + p) % 2 == 0,
        }
        for p in range(2)
        for s in range(samples)
    ]


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    """A folder to work in, with base.jsonl and rl.jsonl."""
    monkeypatch.chdir(tmp_path)
    for source in ("base", "rl"):
        (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(source)))
    return tmp_path


def test_study_files_are_reports_and_the_line_wins(folder, capsys):
    (folder / "one.toml").write_text('dumps = ["base=base.jsonl", "rl=rl.jsonl"]\nbudget = 2\nrobustness = false\n')
    (folder / "two.toml").write_text('dumps = "base.jsonl"\nbudget = 4\nrobustness = false\nthreshold = 0.5')
    told: list[str] = []

    def made(**options) -> dict[str, int]:
        told.clear()
        found = analyzer.studies(["one.toml", "two.toml"], "all", tell=told.append, **options)
        assert [(s["study"], s["exit_code"]) for s in found["studies"]] == [("one", 0), ("two", 0)]
        assert found == json.loads((folder / "all" / "index.json").read_text())
        calls = {name: Run.open(folder / "all" / name / "run").manifest["calls"] for name in ("one", "two")}
        assert calls["two"]["ingest"][0]["threshold"] == 0.5 and not calls["one"]["report"]["vary"]
        return {name: call["report"]["budget"] for name, call in calls.items()}

    assert made() == {"one": 2, "two": 4} and not any("made before" in line for line in told)
    assert made() == {"one": 2, "two": 4} and sum("made before" in line for line in told) == 2
    (folder / "one.toml").write_text((folder / "one.toml").read_text().replace("budget = 2", "budget = 3"))
    assert made() == {"one": 3, "two": 4} and sum("made before" in line for line in told) == 1
    assert made(budget=5) == {"one": 5, "two": 5}
    assert cli.main(["report", "one.toml", "-o", "line", "--budget", "6"]) == 0, capsys.readouterr().err
    assert Run.open(folder / "line" / "one" / "run").manifest["calls"]["report"]["budget"] == 6


def test_a_study_that_can_not_be_is_told_before_any_is_made(folder, monkeypatch):
    monkeypatch.setattr(dumps, "stream", None)  # nothing is read
    (folder / "one.toml").write_text('dumps = ["base.jsonl"]\nbudget = 2')
    (folder / "two.toml").write_text('dumps = ["base.jsonl"]\nbudgte = 2')
    with pytest.raises(UsageError, match=r"two.toml: 'budgte' is no option of report; did you mean 'budget'\?"):
        analyzer.studies(["one.toml", "two.toml"], "all")
    (folder / "two.toml").write_text('dumps = ["base.jsonl"]\nbudget = 0')
    with pytest.raises(UsageError, match="^two.toml: --budget 0 is not a whole number"):
        analyzer.studies(["one.toml", "two.toml"], "all")
    (folder / "two.toml").write_text("dumps = [")
    with pytest.raises(DumpError, match="two.toml: this study file can't be read"):
        analyzer.studies(["two.toml"], "all")
    (folder / "two.toml").write_text('dumps = ["base=base.jsonl"]\nbase = "./nowhere"')
    with pytest.raises(ResourceError, match="^study two: --base: model folder ./nowhere does not exist"):
        analyzer.studies(["one.toml", "two.toml"], "all")
    (folder / "two.toml").write_text('dumps = ["base=base.jsonl"]\nreference = "bse"')
    with pytest.raises(
        UsageError, match="^study two: --reference 'bse': no source has that label; did you mean 'base'"
    ):
        analyzer.studies(["one.toml", "two.toml"], "all")
    with pytest.raises(UsageError, match="one.toml and a dump: study files stand alone"):
        analyzer.studies(["one.toml", "base.jsonl"], "all")
    with pytest.raises(UsageError, match="2 studies are called 'one'"):
        analyzer.studies(["one.toml", "./one.toml"], "all")
    with pytest.raises(UsageError, match="one study; analyzer.report makes its report"):
        analyzer.studies(["base.jsonl"], "all")
    assert not (folder / "all").exists()


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"base": "./nowhere"}, ResourceError, "--base: model folder ./nowhere does not exist"),
        ({"base": "m.gguf"}, ResourceError, "--base: the file m.gguf does not exist"),
        ({"policy": {"zz": "m"}, "base": "."}, UsageError, "--policy zz=...: no source has that label"),
        ({"prompt_of": "zz", "base": "."}, UsageError, "--prompt-of 'zz': no source has that label"),
        ({"reference": "zz"}, UsageError, "--reference 'zz': no source has that label"),
        ({"sampler": {"zz": "1"}}, UsageError, "--sampler zz=...: no source has that label"),
        ({"map": {"respnse": "x"}}, UsageError, "respnse"),
        ({"device": "cpu"}, UsageError, "--device: nothing is scored without --base MODEL"),
        ({"device": "foo", "base": "."}, UsageError, "--device 'foo' is unknown"),
        ({"template": "nope", "base": "."}, UsageError, "nope"),
        ({"style": "nips"}, UsageError, "--style 'nips' is unknown; did you mean 'neurips'?"),
    ],
)
def test_wrong_settings_are_told_before_a_dump_is_read(folder, monkeypatch, options, error, said):
    monkeypatch.setattr(dumps, "stream", None)
    data = {"base": "base.jsonl", "rl": "rl.jsonl"}
    with pytest.raises(error) as refused:
        analyzer.report(data, "out", **options)
    assert said in str(refused.value) and not (folder / "out").exists()
    if "style" in options or options == {"device": "cpu"}:
        return
    for step in (analyzer.score, analyzer.estimate):
        with pytest.raises(error) as refused:
            step(data, **{"base": ".", **options})
        assert said in str(refused.value)


def test_a_report_scores_first_where_the_base_is_given_and_can_be_reproduced(folder, stories):
    data = {"base": rows("base"), "rl": "rl.jsonl"}
    plan = analyzer.estimate(data, base=stories, score_at_most=2)
    assert (plan["traces_to_score"], plan["traces_over_the_limit"]) == (8, 4)
    assert sorted(p.name for p in folder.iterdir()) == ["base.jsonl", "rl.jsonl"]  # an estimate writes nothing
    told: list[str] = []
    done = analyzer.report(data, "out", base=stories, score_at_most=2, robustness=False, budget=2, tell=told.append)
    assert done.ledger["traces_scored"] == 8 and "perplexity" in done and any("base: path" in line for line in told)
    plan = analyzer.estimate("out/run", base=stories, score_at_most=2)
    assert (plan["traces_to_score"], plan["traces_scored"]) == (0, 8)
    with pytest.raises(UsageError, match="--threshold: out/run is a run, its dumps have been read already"):
        analyzer.estimate("out/run", base=stories, threshold=0.5)
    again = analyzer.reproduce("out")
    assert again.as_json() == done.as_json() and again.paths["index.html"].parent.name == "out-again"
    with pytest.raises(UsageError, match="the run .* lies there"):
        analyzer.reproduce("out", "out")
