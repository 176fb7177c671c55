"""Other people's ids, texts, file and folder names: nothing of them reaches the terminal as a command, or report.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer import errors
from analyzer.cli import main as cli
from analyzer.pages import index, markdown
from analyzer.records.display import visible

# clears the screen, writes the clipboard (OSC 52), a C1 sequence, rewrites a line, turns the direction of writing
EVIL = "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\r\u202egnp\u2066\u200f\x7f"
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
NAME = EVIL.replace("/", "")


def write_dump(path: Path, source: str = "base", **more) -> Path:
    rows = [
        {"source": source, "problem": f"{EVIL}{p}", "group": EVIL, "prompt": f"One {EVIL}", "answer": f"{EVIL}{s}"}
        | {"sample": s, "response": f" day {s} {EVIL}", "correct": s % 2 == 0}
        | more
        for p in range(2)
        for s in range(3)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture()
def command(capsys):
    """Run a command: (exit code, all that it printed); nothing in it may be hidden."""

    def run(*words) -> tuple[int, str]:
        try:
            code = cli.main([str(w) for w in words])
        except SystemExit as ended:
            code = ended.code
        printed = "".join(capsys.readouterr())
        assert not HIDDEN.search(printed), repr(printed)
        return code, printed

    return run


def test_what_a_terminal_obeys_is_written_out():
    assert visible(f"a{EVIL}\tb\n") == (
        "a\\x1b[2J\\x1b]52;c;ZXZpbA==\\x07\\u009b31m\\x0d\\u202egnp\\u2066\\u200f\\u007f\tb\n"
    )
    assert visible("a\tb\nc", line=True) == "a\\x09b\\x0ac"
    assert visible("\x1b[1;31mred\x1b[0m\x1b[2J", colour=True) == "\x1b[1;31mred\x1b[0m\\x1b[2J"
    assert visible("\x1b[1;31mred") == "\\x1b[1;31mred"
    plain = "naïve 数学 👩‍🔬 می‌خواهم"  # joiners are part of writing, and hide nothing
    assert visible(plain) == plain


def test_commands_print_no_commands(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    dump = write_dump(Path(f"{NAME}.jsonl"))
    write_dump(Path("rlvr.jsonl"), "rlvr")
    assert command("check", dump, "rlvr.jsonl")[0] == 0
    assert command("check", dump, "--json")[0] == 0
    (tmp_path / f"{NAME}-bad.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"x\n')
    assert command("check", f"{NAME}-bad.jsonl")[0] == 3
    assert command("convert", dump, "-o", f"{NAME}.txt")[0] == 2
    assert command("convert", dump, "-o", f"{NAME}-2.jsonl")[0] == 0
    code, said = command("report", dump, "rlvr.jsonl", "-o", f"{NAME}-out", "--no-robustness")
    assert code == 0 and "\\x1b[2J" in said
    assert not HIDDEN.search((tmp_path / f"{NAME}-out" / "report.md").read_text())
    run = f"{NAME}-out/run"
    assert command("analyze", run)[0] == 0
    assert command("compare", run, "base", "rlvr")[0] == 0
    assert command("compare", run, "base", EVIL)[0] == 2
    assert command("analyze", run, EVIL)[0] == 2
    assert command("show", run, EVIL)[0] == 2
    assert command("show", f"{EVIL}-no", "x")[0] == 3
    assert command("report", run, "-o", f"{NAME}-out", "--base", f"./{EVIL}")[0] == 4
    assert command("report", f"./{EVIL}", "-o", "x")[0] == 3
    assert command("report", dump, "-o", ".")[0] == 2
    assert command("check", dump, f"--{EVIL}")[0] == 2
    assert command(f"{EVIL}")[0] == 2
    assert command("check", dump, "--map", f"response={EVIL}")[0] == 2
    assert command("merge", run, "-o", f"{EVIL}")[0] == 2


def test_batches_print_no_commands_and_their_links_lead_to_the_reports(tmp_path, monkeypatch, command):
    monkeypatch.setattr("analyzer.analysis.questions.ANALYSES", {})
    monkeypatch.chdir(tmp_path)
    names = [NAME, "50% #1?", "javascript:x"]
    for name in names:
        write_dump(Path("dumps") / name / "base.jsonl")
    assert command("report", *(f"dumps/{n}" for n in names), "-o", "all", "--no-robustness")[0] == 0
    page = (tmp_path / "all" / "index.html").read_text()
    found = re.findall(r'<a href="([^"]+)/index.html"', page)
    assert len(found) >= len(names) and not [h for h in found if re.search(r"[^\w%.~-]", h)]
    from urllib.parse import unquote

    assert {unquote(h) for h in found} == {*names} and all((tmp_path / "all" / unquote(h)).is_dir() for h in found)
    assert index.quote("a b/index.html") == "a%20b/index.html"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are no UTF-8")
def test_a_name_that_is_no_text_is_refused_in_words(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"dumps/bad\xff.jsonl")
    write_dump(Path(name))
    for words in (
        ["check", name],
        ["check", "dumps"],
        ["report", name, "-o", "out"],
        ["convert", name, "-o", "o.jsonl"],
    ):
        code, said = command(*words)
        assert code == 3 and "bad\\udcff.jsonl: the name holds bytes that are no UTF-8" in said and len(said) < 200
    assert [p.name for p in tmp_path.iterdir()] == ["dumps"]
    out, good = os.fsdecode(b"o\xff"), write_dump(Path("good.jsonl"))
    for words in (["report", good, "-o", out], ["convert", good, "-o", f"{out}.jsonl"], ["report", out, "-o", "x"]):
        code, said = command(*words)
        assert code in (2, 3) and "o\\udcff" in said and len(said) < 200, said
    Path(out, "traces").mkdir(parents=True)
    Path(out, "run.json").write_text("{}")
    assert command("analyze", out)[0] == 2


def test_report_md_hides_nothing():
    assert not HIDDEN.search(markdown.esc(EVIL)) and not HIDDEN.search(markdown._code(EVIL))
    assert "\\\\x1b" in markdown.esc(EVIL)


def test_a_fault_of_the_program_prints_no_commands(tmp_path):
    """The traceback of an error that nobody expected may quote a dump."""
    code = (
        "import sys; from analyzer.cli import main as cli; from analyzer.dumps import check as checks\n"
        "def fails(*a): raise KeyError(type('K', (), {'__repr__': lambda s: '\\x1b[2J'})())\n"
        "cli.COMMANDS['check'] = fails; sys.argv = ['analyzer', 'check', 'x']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1 and "KeyError: \\x1b[2J" in done.stderr and not HIDDEN.search(done.stderr)


def test_suggestions_are_few_and_short():
    assert errors.nearest("x", [f"q{i:02}" for i in range(40)]) == "; allowed: q00, q01, q02 and 37 more"
    assert errors.nearest("x", list("abcd")) == "; allowed: a, b, c, d"
    long = "q" * 1000
    assert len(errors.nearest(long + "x", [long])) < 120 and len(errors.nearest("x", [long] * 9)) < 300


FORGED = "FORGED: all is well"
LINES = f"a\n{FORGED}\tb\u2028{FORGED}"


def test_no_name_or_id_begins_a_line_of_its_own(tmp_path, monkeypatch, capsys):
    """File and folder names, ids and labels of a dump with line breaks: on the terminal and in report.md."""
    monkeypatch.chdir(tmp_path)
    dump = write_dump(Path(LINES) / f"{LINES}.jsonl", problem=LINES, group=LINES, answer=LINES)
    other = write_dump(Path(LINES) / "rlvr.jsonl", "rlvr", problem=LINES)
    bad = Path(f"{LINES}-bad.jsonl")
    bad.write_text('{"prompt": "a", "response": "b"}\n{"x\n')
    run = f"{LINES}-out/run"
    for code, *words in (
        (0, "check", dump, other),
        (3, "check", bad),
        (3, "check", f"{LINES}-no"),
        (2, "convert", dump, "-o", f"{LINES}.txt"),
        (0, "convert", dump, "-o", f"{LINES}-2.jsonl"),
        (0, "report", dump, other, "-o", f"{LINES}-out", "--no-robustness"),
        (2, "report", dump, other, "-o", f"{LINES}-out", "--reference", LINES),
        (0, "report", Path(LINES), "-o", f"{LINES}-folder", "--no-robustness"),
        (3, "report", f"{LINES}.toml", "-o", "x"),
        (2, "report", dump, "-o", "."),
        (4, "report", run, "-o", f"{LINES}-out", "--base", f"./{LINES}"),
        (0, "report", f"{LINES}", f"{LINES}-d2", "-o", f"{LINES}-all", "--no-robustness"),
        (0, "analyze", run),
        (0, "compare", run, "base", "rlvr"),
        (2, "compare", run, "base", LINES),
        (2, "analyze", run, LINES),
        (2, "show", run, LINES),
        (0, "show", run, f"base/{LINES}/0"),
        (3, "show", f"{LINES}-no", "x"),
        (2, "check", dump, "--map", f"response={LINES}"),
        (3, "check", dump, f"--{LINES}"),
        (2, LINES),
        (2, "merge", run, "-o", LINES),
    ):
        if words[0] == "report" and f"{LINES}-d2" in words:
            write_dump(Path(f"{LINES}-d2") / "base.jsonl")
        try:
            found = cli.main([str(w) for w in words])
        except SystemExit as ended:
            found = ended.code
        printed = "".join(capsys.readouterr())
        assert found == code, (words, printed)
        assert not [line for line in printed.splitlines() if line.startswith(FORGED)], (words, printed)
    pages = [*tmp_path.rglob("report.md")]
    assert len(pages) >= 4 and not any(line.startswith(FORGED) for p in pages for line in p.read_text().splitlines())
