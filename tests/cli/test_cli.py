"""The command line as scripts see it: exit codes, streams, full error texts, JSON, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from analyzer.cli import main as cli
from analyzer.records import WORDS, problem_id


@pytest.fixture()
def run(capsys, monkeypatch):
    """run(*arguments) -> (exit code, stdout, stderr) of one command, in this process."""
    monkeypatch.setenv("NO_COLOR", "1")

    def command(*arguments):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as exit:  # argparse
            code = exit.code
        return code, *capsys.readouterr()

    return command


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
        (
            ["check", "x", "--limit", "3"],
            "analyzer: error: --limit is not known here; commands that have it: score, report\n",
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
        (["report", "x"], "analyzer: report needs -o DIR; see analyzer report --help\n"),
        (["report", "-o", "y"], "analyzer: report needs RUN or DUMP...; see analyzer report --help\n"),
        (["report", "x", "-o", "y", "--dry-run"], "analyzer: --dry-run: nothing is scored without --base MODEL\n"),
        (
            ["report", "--again", "x", "--base", "m"],
            "analyzer: --again takes dumps, models and settings from the run: give only -o, --json and --fail-on\n",
        ),
        (["report", "--again", "x", "--budget", "8"], "analyzer: --budget: --again takes this from the run\n"),
        (
            ["report", "x", "-o", "y", "--style", "nips"],
            "analyzer: --style 'nips' is unknown; did you mean 'neurips'?; allowed: icml, acl, neurips\n",
        ),
    ],
)
def test_usage_errors_name_what_is_allowed(run, arguments, message):
    assert run(*arguments) == (2, "", message)


@pytest.mark.parametrize("flags", [["--budget", "0"], ["--seed", "-1"], ["--budget", "many"]])
def test_impossible_numbers_are_usage_errors(run, flags):
    code, _, err = run("analyze", "run", *flags)
    assert code == 2 and "is not a whole number of at least" in err


def test_the_module_is_the_command(tmp_path):
    """Through a process: the exit code, stdout without a word, an error of at most three lines after the progress."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "respo\n')
    done = subprocess.run([sys.executable, "-m", "analyzer", "check", file], capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout == ""
    assert f"{file}:2" in done.stderr and "--max-bad" in done.stderr and len(done.stderr.splitlines()) <= 3


def test_a_refused_command_leaves_nothing_behind(run, tmp_path, dump, stories):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "respo\n')
    out = tmp_path / "some" / "where"
    refused = [
        (3, ["report", file, "-o", out]),
        (3, ["score", file, "--base", stories, "-o", out / "run"]),
        (2, ["score", dump, "--base", stories, "--policy", "rl=x", "-o", out / "run"]),
        (4, ["score", dump, "--base", stories, "--device", "cuda:7", "-o", out / "run"]),
        (4, ["report", dump, "--base", tmp_path / "no-model", "-o", out]),
    ]
    for code, arguments in refused:
        found, stdout, err = run(*arguments)
        assert (found, stdout) == (code, "") and "Traceback" not in err and "saved" not in err, (arguments, err)
        assert not out.parent.exists(), arguments
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    assert run("score", file, "--base", stories, "-o", out)[0] == 3
    assert [p.name for p in out.iterdir()] == ["notes.txt"]


def test_a_mistyped_model_folder_is_not_looked_up_on_the_hub(run, tmp_path, dump, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    for name, hint in (
        ("./modle", "did you mean 'models'?"),
        ("models/bse", "did you mean 'models/base'?"),
        ("models/zzz", "a hub name is ORG/NAME"),
        ("base.jsonl", "is a file"),
    ):
        for flag in ("--base", "--policy", "--cross"):
            models = ["--base", name] if flag == "--base" else ["--base", tmp_path, flag, f"base={name}"]
            code, _, err = run("score", dump, *models, "-o", "out")
            assert code == 4 and flag in err and hint in err, (name, flag, err)
    assert not (tmp_path / "out").exists()


def test_check_prints_json_on_stdout(run, dump):
    code, out, err = run("check", dump, "--json")
    assert code == 0 and "base" in json.loads(out)["sources"], err


def test_score_analyze_show_and_compare(run, dump, tmp_path, stories):
    other = tmp_path / "rl.jsonl"
    other.write_text(dump.read_text().replace(" a time", " a day"))
    out = tmp_path / "run"
    line = ["score", f"base={dump}", f"rl={other}", "--base", stories, "-o", out]
    code, plan, err = run(*line, "--dry-run", "--json")
    assert code == 0 and json.loads(plan)["traces_to_score"] == 24 and not out.exists(), err
    code, text, err = run(*line, "--json")
    assert code == 0 and json.loads(text)["ledger"]["traces_scored"] == 24, err
    assert "base: path shared (agrees with plain on the loaded model), float32; prompt: text, with BOS (24);" in err
    assert err.splitlines()[0] == "reading: 0/2" and err.splitlines()[-1].startswith("done in ")
    _, text, err = run("analyze", out, "perplexity", "--json")
    assert "base.ppl.median" in json.loads(text)["analyses"]["perplexity"]["estimates"], err
    key = "rl/{}/0".format(problem_id("p0"))  # a field named problem is the question's text
    code, text, _ = run("show", out, key)
    assert code == 0 and "\x1b" not in text and "⟦ ⟧: from 3 nats" in text.splitlines()[1]
    code, text, _ = run("show", out, key, "--json")
    found = json.loads(text)
    assert "".join(found["tokens"]["text"]) == found["response"] == " a day 0"
    assert len({len(column) for column in found["tokens"].values()}) == 1 and max(found["tokens"]["logprob"]) <= 0
    assert f"did you mean {key!r}" in run("show", out, key + "0")[2]
    code, text, err = run("compare", out, "rl", "base", "--json")
    assert code == 0 and json.loads(text)["estimates"]["rl-base.nll_mean"]["n"] == 3, err
    for flags, said in (
        (["--threshold", "0.5"], "--threshold: {out} is a run, its dumps have been read already"),
        (["--policy", "rl=x"], "--policy: nothing is scored without --base MODEL; {out} was scored under {stories}"),
    ):
        code, _, err = run("report", out, *flags, "-o", tmp_path / "report")
        assert code == 2 and said.format(out=out, stories=stories) in err
    code, _, err = run("score", out, "--base", stories, "-o", tmp_path / "other")
    assert code == 2 and f"{out} is a run" in err and not (tmp_path / "other").exists()


def test_a_trace_that_was_not_scored_is_its_text(run, dump, tmp_path):
    """Of a run without a model, and by the folder of its report."""
    code, _, err = run("report", f"base={dump}", "-o", tmp_path / "page")
    assert code == 0, err
    key = "base/{}/0".format(problem_id("p0"))
    for place in (tmp_path / "page", tmp_path / "page" / "run"):
        code, text, err = run("show", place, key)
        assert code == 0 and text == f"{key}: correct, not scored: no model was given\n\n a time 0\n", err
        code, text, _ = run("show", place, key, "--json")
        assert code == 0 and json.loads(text)["response"] == " a time 0" and "not_scored" in json.loads(text)
    code, text, err = run("show", tmp_path / "page", "zzz")
    assert code == 2 and len(err) < 600 and err.count("\n") == 1
    assert run("analyze", tmp_path / "page", "boundary")[0] == 0


def test_missing_things_have_their_own_exit_codes(run, tmp_path):
    code, _, err = run("analyze", tmp_path / "no-run")
    assert code == 3 and "is not a run" in err


def test_interrupt_saves_and_says_how_to_continue(run, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    for name in ("score", "check"):
        monkeypatch.setitem(cli.COMMANDS, name, interrupted)
    code, _, err = run("score", "my dump.jsonl", "--base", "m", "-o", "r")
    assert code == 130 and "Continue with the same line:\n  analyzer score 'my dump.jsonl' --base m -o r\n" in err
    for line in (["check", "x"], ["score", "x", "--base", "m", "-o", "r", "--dry-run"]):  # these save nothing
        assert run(*line) == (130, "", "\nanalyzer: interrupted\n")


def test_the_end_by_a_batch_system_saves_too(run, monkeypatch):
    """SIGTERM, sent twice as `timeout` does, is an interrupt; what stood there before stands there again."""
    saved = []

    def ended(arguments):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)
            saved.append("the work in hand")
            raise

    def own(*about):
        raise AssertionError("the handler of whoever called")

    before = signal.signal(signal.SIGTERM, own)
    try:
        monkeypatch.setitem(cli.COMMANDS, "score", ended)
        code, _, err = run("score", "x", "--base", "m", "-o", "r")
        assert code == 143 and saved and "what was finished is saved" in err
        assert signal.getsignal(signal.SIGTERM) is own
        codes = []
        monkeypatch.setitem(cli.COMMANDS, "check", lambda a: 0)
        thread = threading.Thread(target=lambda: codes.append(cli.main(["check", "x"])))  # may set no handler
        thread.start()
        thread.join()
        assert codes == [0]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_the_system_refuses_is_one_line(run, monkeypatch):
    def refused(arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/x")

    monkeypatch.setitem(cli.COMMANDS, "check", refused)
    said = "analyzer: out/x: No space left on device; check the disk, the path and its permissions\n"
    assert run("check", "x") == (4, "", said)


def test_settings_are_refused_before_anything_is_read(run, dump, tmp_path, stories):
    line = ["score", dump, "--base", stories, "-o", tmp_path / "run"]
    for wrong in (["--workers", "2"], ["--server", "here"], ["--score-at-most", "0"]):
        for more in ([], ["--dry-run"]):
            code, _, err = run(*line, *wrong, *more)
            assert code == 2 and "reading" not in err and len(err.splitlines()) == 1, (wrong, more, err)
    wrong = "--dtype float99|--device foo|--device cuda:99|--template nope|--template-date 2024-99-99|--scorer fused"
    wrong += "|--threshold nan|--max-bad 3|--map foo=bar|--map format=zz|--sampler zz=0.6|--reference zz|--prompt-of zz"
    wrong += f"|--policy zz={stories}|--template zz=none"
    for flags in wrong.split("|"):
        code, _, err = run("score", f"base={dump}", "--base", stories, "-o", tmp_path / "run", *flags.split())
        assert code == (4 if "cuda" in flags else 2) and "reading" not in err and err.count("\n") == 1, (flags, err)
        assert not (tmp_path / "run").exists()
    code, _, err = run("report", dump, "-o", tmp_path / "page", "--html-max-mb", "-1")
    assert code == 2 and "'-1' is not a number above 0" in err
    code, _, err = run("report", dump, "-o", dump)
    assert code == 2 and "base.jsonl is a file; the report is a folder" in err


def test_convert_says_what_it_leaves_out(run, tmp_path):
    file, out = tmp_path / "base.jsonl", tmp_path / "out.jsonl"
    rows = [{"question": f"q{i % 2}", "response": "the same answer"} for i in range(6)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"question": "q"}\n')
    code, said, err = run("convert", file, "-o", out, "--max-bad", "0.5")
    assert (code, said) == (0, f"6 traces from 6 of 7 rows in {out}\n")
    assert "input: 1 of 7 rows not used: 1 no response\n" in err
    _, described, _ = run("check", file, "--max-bad", "0.5", "--json")
    found = json.loads(described)["warnings"]
    assert found and all(f"input: {warning}\n" in err for warning in found)
    assert "reading traces: 0\n" in err


def test_sample_says_what_it_leaves_out(run, tmp_path, tiny):
    file = tmp_path / "q.jsonl"
    rows = [{"question": f"q{n}", "prompt_ids": [n + 1, 7]} for n in range(3)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows) + "{broken\n")
    line = ["sample", file, "--model", tiny.name, "-n", "1", "--max-tokens", "2", "-o", tmp_path / "out.jsonl"]
    for more in ([], ["--strict"]):
        code, _, err = run(*line, *more)
        assert code == 3 and "--max-bad 0.25 leaves them out" in err
    code, said, err = run(*line, "--max-bad", "0.25")
    assert code == 0 and said.startswith("3 responses to 3 problems")
    assert "input: 1 of 4 rows not used: 1 broken JSON\n" in err


def test_the_examples_of_the_help_are_lines_that_parse():
    parser = cli.build_parser()
    [commands] = [a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
    for name in ("score", "merge", "convert", "sample"):
        lines = [text.split() for text in commands.choices[name].epilog.splitlines() if text.startswith("  analyzer")]
        assert lines and all(parser.parse_args(words[1:]).command == name for words in lines)


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 9 GiB"), RuntimeError("CUDA out of memory.")])
def test_out_of_memory_names_the_next_flag(run, monkeypatch, error):
    def starved(arguments):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "analyze", starved)
    code, _, err = run("analyze", "run")
    assert code == 4 and str(error) in err and "--score-at-most" in err and "--limit" in err


def test_other_runtime_errors_stay_internal(monkeypatch):
    def broken(arguments):
        raise RuntimeError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "analyze", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["analyze", "run"])


def test_warnings_are_counted_not_repeated(run, monkeypatch):
    def noisy(arguments):
        for row in range(1000):
            warnings.warn(f"row {row} is odd", RuntimeWarning, stacklevel=1)
        warnings.warn("once", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setitem(cli.COMMANDS, "check", noisy)
    assert run("check", "x") == (
        0,
        "",
        "warning: RuntimeWarning: row 0 is odd (1,000 times)\nwarning: UserWarning: once\n",
    )


def test_text_that_a_terminal_cannot_show_stops_nothing(tmp_path, dump, stories):
    """Half a character in a dump, and a stdout of ASCII."""
    code = (
        "import sys; sys.stdout.reconfigure(encoding='ascii'); from analyzer.cli import main as cli\n"
        "cli.COMMANDS['check'] = lambda a: print('\\ud83d \\u27e6') or 0\n"
        "sys.exit(cli.main(['check', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\\ud83d \\u27e6\n"), done.stderr


def test_a_gate_can_be_every_word_but_inside(capsys):
    for word in WORDS:
        line = ["report", "x", "--fail-on", word]
        if word == "inside":
            with pytest.raises(SystemExit):
                cli.build_parser().parse_args(line)
            assert "invalid choice: 'inside'" in capsys.readouterr().err
        else:
            assert cli.build_parser().parse_args(line).fail_on == word


def test_every_command_has_a_parser_and_help():
    parser = cli.build_parser()
    [commands] = [a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
    assert set(commands.choices) == set(cli.COMMANDS)
    assert Path(cli.__file__).read_text().count("\n") < 400
