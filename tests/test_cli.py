"""The command line as scripts see it: exit codes, streams, full error texts, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from analyzer import cli
from analyzer.records import problem_id


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "analyzer", *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.fixture()
def dump(tmp_path):
    rows = [
        {"problem": f"p{i % 3}", "prompt": "Once upon", "response": f" a time {i}", "correct": i % 2 == 0}
        for i in range(12)
    ]
    file = tmp_path / "base.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return file


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["chek"], "analyzer: error: 'chek' is not a command; did you mean 'check'?\n"),
        (
            ["check", "x", "--treshold", "1"],
            "analyzer: error: --treshold is not known here; did you mean '--threshold'?\n",
        ),
        (["check", "x", "--sampler", "base"], "analyzer: --sampler 'base': expected NAME=VALUE\n"),
        (
            ["check", "x", "--sampler", "base=hot"],
            "analyzer: sampler 'hot': expected numbers T[,top_p[,top_k[,min_p]]], for example 0.6,0.95\n",
        ),
        (
            ["check", "x", "--sampler", "base=0"],
            "analyzer: sampler temperature 0.0 must be > 0 (greedy decoding has no sampling distribution)\n",
        ),
        (["report", "x", "--policy", "a=b", "-o", "y"], "analyzer: --policy: nothing is scored without --base MODEL\n"),
    ],
)
def test_usage_errors_name_what_is_allowed(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        raise SystemExit(cli.main(arguments))
    assert exit.value.code == 2
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("flags", [["--budget", "0"], ["--seed", "-1"], ["--budget", "many"]])
def test_impossible_numbers_are_usage_errors(flags, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["analyze", "run", *flags])
    assert exit.value.code == 2 and "is not a whole number of at least" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_a_resource_error(dump, tmp_path, stories):
    done = run("score", dump, "--base", stories, "--device", "cuda:7", "-o", tmp_path / "o")
    assert done.returncode == 4 and "Traceback" not in done.stderr


def test_broken_input_exits_3_with_its_place(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "respo\n')
    for command in (["check", file], ["report", file, "-o", tmp_path / "out"]):
        done = run(*command)
        assert done.returncode == 3 and done.stdout == ""
        assert f"{file}:2" in done.stderr and "--max-bad" in done.stderr and len(done.stderr.splitlines()) <= 3


def test_check_prints_json_on_stdout(dump):
    done = run("check", dump, "--json")
    assert done.returncode == 0, done.stderr
    assert "base" in json.dumps(json.loads(done.stdout))


def test_score_analyze_show_compare_and_report(dump, tmp_path, stories):
    other = tmp_path / "rl.jsonl"
    other.write_text(dump.read_text().replace(" a time", " a day"))
    out = tmp_path / "run"
    line = ["score", f"base={dump}", f"rl={other}", "--base", stories, "-o", out]
    dry = run(*line, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    plan = json.loads(dry.stdout)
    assert plan["traces_to_score"] == 24 and not (out / "scores").exists()
    scored = run(*line, "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["ledger"]["traces_scored"] == 24
    assert (
        "base: path shared (agrees with plain on the loaded model), float32; prompt: text, with BOS (24);"
        in scored.stderr
    )
    analysed = run("analyze", out, "perplexity", "--json")
    assert "base.ppl.median" in json.loads(analysed.stdout)["analyses"]["perplexity"]["estimates"], analysed.stderr
    key = "rl/{}/0".format(problem_id("p0"))  # a field named problem is the question's text
    shown = run("show", out, key, env=os.environ | {"NO_COLOR": "1"})
    assert shown.returncode == 0 and "\x1b" not in shown.stdout and "Most surprising" in shown.stdout
    assert f"did you mean {key!r}" in run("show", out, key + "0").stderr
    compared = run("compare", out, "rl", "base", "--json")
    assert json.loads(compared.stdout)["estimates"]["rl-base.nll_mean"]["n"] == 3, compared.stderr
    report = run("report", out, "-o", tmp_path / "report", "--json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["verdicts"]
    idle = run("report", out, "--threshold", "0.5", "-o", tmp_path / "report")
    assert idle.returncode == 2 and "--threshold: " in idle.stderr and "is a run" in idle.stderr
    gated = run("report", out, "-o", tmp_path / "report", "--fail-on", "undetermined")
    assert gated.returncode == 5 and gated.stderr.rstrip().endswith("--fail-on undetermined: rl")


def test_missing_things_have_their_own_exit_codes(dump, tmp_path):
    assert run("report", dump, "--base", tmp_path / "no-model", "-o", tmp_path / "o").returncode == 4
    done = run("analyze", tmp_path / "no-run")
    assert done.returncode == 3 and "is not a run" in done.stderr


def test_interrupt_saves_and_says_how_to_continue(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "check", interrupted)
    assert cli.main(["check", "x.jsonl"]) == 130
    assert "Continue with the same line:\n  analyzer check x.jsonl" in capsys.readouterr().err
