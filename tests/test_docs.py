"""What README and docs say can be typed: commands and flags exist, blocks run.

The rule. Every line that begins with `analyzer` in a code block is parsed by the command line's own parser. Blocks
fenced as ```console (their `$` lines) and ```python are also run, page by page, in a folder that holds a small cut of
the miniature at data/miniature, and as base.jsonl, rlvr.jsonl ... and models/ of the user's own. Where a block can't be
run (a model of the hub, minutes of work) a line `<!-- not run: reason -->` stands before it. The notebook's cells run
like the blocks of a page.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from analyzer.cli import main as cli
from analyzer.cli.commands import build_parser

ROOT = Path(__file__).resolve().parent.parent
# decisions.md is left out: it tells what once was
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "decisions.md")]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
PROBLEMS, SAMPLES = 8, 8  # of each source in the folder that blocks run in
FOREIGN = re.compile(r"^\s*\$?\s*(pip|git|uv|python3?|make|jupyter)\b")  # lines whose flags are not ours


class Block(NamedTuple):
    kind: str  # of the fence; "" for an indented block
    text: str
    line: int
    runs: bool


def blocks(text: str) -> list[Block]:
    """Fenced and indented code blocks of a page."""
    found, lines, i = [], text.splitlines(), 0
    while i < len(lines):
        fence = re.match(r"```(\w*)\s*$", lines[i])
        start = i + 1
        if fence:
            end = next((j for j in range(start, len(lines)) if lines[j].startswith("```")), len(lines))
            runs = fence[1] in ("console", "python") and not re.match(r"<!-- not run: .+ -->$", lines[i - 1])
            found.append(Block(fence[1], "\n".join(lines[start:end]), start, runs))
            i = end + 1
        elif lines[i].startswith("    ") and (i == 0 or not lines[i - 1].strip()):
            end = next(
                (j for j in range(i, len(lines)) if lines[j].strip() and not lines[j].startswith("    ")), len(lines)
            )
            found.append(Block("", "\n".join(x[4:] for x in lines[i:end]), start, False))
            i = end
        else:
            i += 1
    return found


def commands(block: Block) -> list[list[str]]:
    """The words after `analyzer` of every such command; what follows a pipe, a semicolon or > is the shell's."""
    if block.kind not in ("", "console", "bash", "sh"):
        return []
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.kind == "console" and not line.startswith("$ "):
            continue
        line = line.removeprefix("$ ")
        words = (
            shlex.split(line, comments=True)
            if re.match(r"([A-Z_]+=\S+ )*(analyzer|python3? -m analyzer) ", line)
            else []
        )
        if words:
            words = words[words.index("analyzer") + 1 :]
            found.append(
                words[: next((i for i, w in enumerate(words) if w in ("|", "&&", ";", ">", "2>")), len(words))]
            )
    return found


def parsers() -> dict[str, argparse.ArgumentParser]:
    [sub] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(sub.choices)


def test_the_rule_finds_blocks_and_commands():
    """The finder itself: what it missed would never be run."""
    page = "a\n\n    $ analyzer check x \\\n        --strict | head\n    out\n\n"
    page += "<!-- not run: hub -->\n```console\n$ analyzer demo\nanalyzer said\n```\n"
    page += "```python\n1\n```\n```\nanalyzer show RUN KEY > file\n```\n"
    found = blocks(page)
    assert [(b.kind, b.runs) for b in found] == [("", False), ("console", False), ("python", True), ("", False)]
    assert [commands(b) for b in found] == [[["check", "x", "--strict"]], [["demo"]], [], [["show", "RUN", "KEY"]]]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_in_a_code_block_is_one(page):
    for block in blocks(page.read_text(encoding="utf-8")):
        for words in commands(block):
            try:
                build_parser().parse_args(words)
            except SystemExit as stop:
                assert stop.code == 0, f"{page.name}:{block.line}: analyzer {shlex.join(words)} is refused"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_flag_command_and_file_that_is_named_exists(page):
    known = {flag for p in [build_parser(), *parsers().values()] for a in p._actions for flag in a.option_strings}
    for module in ("miniature", "validation"):
        known |= set(re.findall(r'"(--[a-z-]+)"', (ROOT / module / "__main__.py").read_text(encoding="utf-8")))
    text = page.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{page.name}:{number}"
        if not FOREIGN.match(line):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", line):
                assert flag in known, f"{where}: {flag} is not a flag"
        for command in re.findall(r"`analyzer ([a-z]+)", line):
            assert command in parsers(), f"{where}: analyzer {command} is not a command"
        for module in re.findall(r"python -m ((?:analyzer|miniature|validation)[\w.]*)", line):
            assert importlib.util.find_spec(module), f"{where}: {module} is not a module"
        for target in re.findall(r"(?:`|\$ )make ([a-z]+)", line):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"{where}: make {target}"
        for link in re.findall(r"\]\(([^)#\s]+)", line):
            assert "://" in link or (page.parent / link).exists(), f"{where}: {link} is not there"
    heads = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in heads, f"{page.name}: no heading #{anchor}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a small cut of the miniature, and the same as a user's own files."""
    folder = tmp_path_factory.mktemp("docs")
    own, miniature = folder / "data" / "miniature", ROOT / "data" / "miniature"
    (own / "dumps").mkdir(parents=True)
    (own / "models").symlink_to(miniature / "models")
    (folder / "models").symlink_to(miniature / "models")
    for label in ("base", "cool", "rlvr", "distill", "teacher"):
        with gzip.open(miniature / "dumps" / f"{label}.jsonl.gz", "rt") as lines:
            rows = [json.loads(x) for x in lines]
        problems = list(dict.fromkeys(r["problem"] for r in rows))
        some = set(problems[:: len(problems) // PROBLEMS])
        kept = [r for r in rows if r["sample"] < SAMPLES and r["problem"] in some]
        assert len(kept) == PROBLEMS * SAMPLES
        text = "".join(json.dumps(r) + "\n" for r in kept)
        with gzip.open(own / "dumps" / f"{label}.jsonl.gz", "wt") as file:
            file.write(text)
        (folder / f"{label}.jsonl").write_text(text)
    return folder


@pytest.fixture()
def quick(monkeypatch):
    """One figure of each analysis: drawing them all is half of the time of a report, and has tests of its own."""
    from analyzer.analysis.questions import ANALYSES

    for module in ANALYSES.values():
        monkeypatch.setattr(module, "FIGURES", dict(list(module.FIGURES.items())[:1]))


RUNNING = [p for p in PAGES if any(b.runs for b in blocks(p.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("page", RUNNING, ids=lambda p: p.name)
def test_blocks_run(page, world, quick, tmp_path, monkeypatch, capsys):
    shutil.copytree(world, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"):  # main sets them: after the test they are as before
        monkeypatch.setenv(name, "PASSIVE" if name == "OMP_WAIT_POLICY" else "1")
    names: dict = {}
    for block in blocks(page.read_text(encoding="utf-8")):
        if not block.runs:
            continue
        where = f"{page.name}:{block.line}"
        if block.kind == "python":
            exec(compile(block.text, where, "exec"), names)
        for words in commands(block):
            # the variations of a report are as much work again, and have tests of their own
            code = cli.main([*words, *({"--no-robustness"} & parsers()[words[0]]._option_string_actions.keys())])
            assert code == 0, f"{where}: analyzer {shlex.join(words)} gave {code}: {capsys.readouterr().err}"
            assert capsys.readouterr().out.strip(), f"{where}: analyzer {shlex.join(words)} printed nothing"


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_every_cell_of_the_notebook_runs(world, quick, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    shutil.copytree(world, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    names: dict = {}
    for number, cell in enumerate(cells()):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, f"notebook.ipynb, cell {number}", "exec"), names)


def test_the_notebook_is_executed_small_and_of_no_machine():
    code = [c for c in cells() if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1)), "execute it again, from the top"
    outputs = [o for c in code for o in c["outputs"]]
    assert all(o["output_type"] in ("display_data", "execute_result") for o in outputs), "no errors, nothing printed"
    assert sum("image/png" in o["data"] for o in outputs) >= 2 and sum("text/html" in o["data"] for o in outputs) >= 3
    raw = NOTEBOOK.read_bytes()
    assert len(raw) < 300_000
    assert not re.search(rb"[\"' (](/[a-z]+/[a-z]|[A-Z]:\\\\)", raw), "an absolute path"
