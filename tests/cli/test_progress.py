"""What a command says while it works: sparse lines off a terminal, one rewritten line on it, times at the end."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from analyzer.cli import progress
from analyzer.cli.progress import Progress
from analyzer.records.display import size, span


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture()
def clock(monkeypatch):
    """A clock that stands until it is moved: clock[0] += seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_sparse_off_a_terminal(clock, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with Progress() as show:
        for done in range(1, 601):  # a minute of scoring, ten traces a second
            clock[0] += 0.1
            show("base", done, 1200, 1000 * done)
        for n in range(9):
            clock[0] += 1
            show(f"analysis {n}", n, 9, 0)
            show(f"analysis {n}, left out", n + 1, 9, 0)
        clock[0] += 1
    lines = out.getvalue().splitlines()
    assert lines[0] == "base: 1/1,200 traces" and len(lines) <= 10
    assert lines[2].endswith("traces, 10,000 tokens/s, 1 min 40 s left")
    assert lines[-1] == "done in 70 s (base 61 s, analyses 9.0 s)"
    assert "\x1b" not in out.getvalue() and "\r" not in out.getvalue()


def test_a_total_that_nobody_knows_is_not_shown(clock, capsys):
    show = Progress()
    show("reading traces", 0, 0, 0)
    clock[0] += 10
    show("reading traces", 4096, 0, 0)
    assert capsys.readouterr().err == "reading traces: 0\nreading traces: 4,096\n"


def test_one_line_is_rewritten_on_a_terminal_and_taken_away(clock, monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    with pytest.raises(ValueError), Progress() as show:
        for done in range(1, 101):
            clock[0] += 0.05
            show("base", done, 100, 10 * done)
        raise ValueError
    assert out.getvalue().count("\n") == 0 and 30 <= out.getvalue().count("\r") <= 60
    assert out.getvalue().endswith("\r\x1b[K")  # an error message begins on an empty line, and nothing is "done"


@pytest.mark.parametrize(
    "seconds, text", [(0, "0.0 s"), (9.94, "9.9 s"), (38.2, "38 s"), (99.6, "1 min 40 s"), (18_630, "5 h 10 min")]
)
def test_times_for_people(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    "count, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (812_345, "812 kB"), (1.44e9, "1.4 GB"), (3e15, "3,000 TB")],
)
def test_sizes_for_people(count, text):
    assert size(count) == text


def test_what_the_library_logs_gets_a_line_of_its_own(capsys):
    with Progress() as shown:
        shown.tty = True
        shown("scoring", 1, 4, 0)
        logging.getLogger("analyzer.scoring.servers.server").warning("waiting 7 s")
    err = capsys.readouterr().err
    assert "\r\x1b[Kwaiting 7 s\n" in err and not logging.getLogger("analyzer").handlers
