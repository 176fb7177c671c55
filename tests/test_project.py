"""The project itself: floors, lazy imports, packages, the tree, no machine's paths."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer.cli import demo

HEAVY = ("torch", "transformers", "matplotlib", "pandas", "sklearn", "scipy", "pyarrow")


def python(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def test_floors_hold(root):
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", "setup.cfg", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_stats_needs_numpy_and_scipy_only(root):
    allowed = {"numpy", "scipy", "analyzer", "__future__", *sys.stdlib_module_names}
    for file in (root / "analyzer" / "stats").glob("*.py"):
        imported = set(re.findall(r"^\s*(?:from|import) ([a-zA-Z_]+)", file.read_text(), re.M))
        assert imported <= allowed, (file.name, imported - allowed)


@pytest.mark.parametrize(
    "statement", ["import analyzer", "import analyzer.cli.main; analyzer.cli.main.build_parser().format_help()"]
)
def test_importing_loads_nothing_heavy(statement):
    done = python("-c", f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_package_is_shipped(root):
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    on_disk = {".".join(p.parent.relative_to(root).parts) for p in (root / "analyzer").rglob("__init__.py")}
    assert listed == on_disk | {"analyzer.data"}


def test_the_wheel_holds_what_the_demo_reads(root):
    """And little else: models and dumps that only tests and the miniature's study need stay in the checkout."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    patterns = config["options.package_data"]["analyzer.data"].split()
    shipped = {file.relative_to(root / "data").as_posix() for p in patterns for file in (root / "data").glob(p)}
    models = {demo.BASE, *demo.OPTIONS["policy"].values()}
    needed = {spec.partition("=")[2] for spec in demo.DUMPS}
    needed |= {f"{model}/{name}" for model in models for name in ("config.json", "model.safetensors", "tokenizer.json")}
    assert needed <= shipped, needed - shipped
    assert sum((root / "data" / name).stat().st_size for name in shipped) < 10_000_000


def test_library_does_not_print(root):
    done = python("-m", "ruff", "check", "--no-cache", ".", cwd=root)
    assert done.returncode == 0, done.stdout


def test_the_tree_is_the_disk(root):
    """Every folder and module in the tree exists, and every top-level module of the package is in it."""
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", page, re.S).group(1)
    named: list[Path] = []
    stack: list[tuple[int, Path]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        while stack and stack[-1][0] >= indent:
            stack.pop()
        for name in re.match(r"\s*([^\s,]+(?:, [^\s,]+)*)", line)[1].split(", "):
            path = (stack[-1][1] if stack else Path()) / name
            named.append(path)
            assert (root / path).exists(), path
        stack.append((indent, path))
    for path in sorted((root / "analyzer").iterdir()):
        if path.name in ("__pycache__", "py.typed"):
            continue
        assert path.relative_to(root) in named, f"the tree lacks {path.relative_to(root)}"


def test_no_absolute_paths_or_secrets_of_a_machine(root):
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=root).stdout.decode().split("\0")
    if listed == [""]:
        pytest.skip("not a git checkout")
    hosts = re.compile(rb"/(?:home|root|Users|work)/[a-z0-9_.-]+/", re.I)
    for name in listed:
        file = root / name
        if (
            name
            and file.is_file()
            and file.suffix in (".py", ".md", ".json", ".cfg", ".toml", ".csv", ".html", ".svg", ".txt", "")
        ):
            found = hosts.search(file.read_bytes())
            assert not found, (name, found.group())
