"""What a command says on stderr while it works: progress, warnings counted, how long each step took."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from analyzer.records.display import one_line, span, visible

EVERY = {True: 0.1, False: 10.0}  # seconds between lines, on a terminal and elsewhere
WARNINGS = 5  # kinds of warnings that are shown; the others are counted


def put(text: str, *, colour: bool = False) -> None:
    """What a command was asked for, on stdout; its lines are the command's own (`display.one_line`)."""
    sys.stdout.write(visible(text, colour=colour) + "\n")


def say(*lines: str) -> None:
    """Lines on stderr, at once; a line break inside one is of a name or a text, and written out."""
    sys.stderr.write("".join(f"{one_line(text)}\n" for text in lines))
    sys.stderr.flush()


def _rewrite(text: str = "") -> None:
    """Write over the terminal's last line."""
    sys.stderr.write(f"\r\x1b[K{one_line(text)}")
    sys.stderr.flush()


class Progress:
    """Progress on stderr: one line rewritten on a terminal, a plain line every ten seconds elsewhere.

    Called with what is done, how many of how many (0 where nobody knows), and tokens so far (0 where none are counted).
    As a context manager
    it says at the end how long each step took; after an error it only clears its line. `within` stands before each
    line: the study, where there are several.
    """

    def __init__(self) -> None:
        self.tty, self.within, self.told = sys.stderr.isatty(), "", ""
        self.begin = self.changed = self.since = time.monotonic()
        self.what, self.step, self.first, self.last = "", "", (0, 0), 0.0
        self.spent: Counter[str] = Counter()

    def __call__(self, what: str, done: int, total: int, tokens: int) -> None:
        now, step = time.monotonic(), "analyses" if what.startswith("analysis ") else what
        if step != self.step or self.within != self.told:
            self._book(now, step)
            self.last, self.told = 0.0, self.within
        if what != self.what:
            self.what, self.since, self.first = what, now, (done, tokens)
        if now - self.last < EVERY[self.tty] and (done < total or not tokens):
            return
        self.last = now
        text = f"{self.within}{what}: {done:,}" + (f"/{total:,}" if total else "")
        if tokens:
            # traces come in bursts, one per pass: over the first second a rate says nothing
            spent, here, more = now - self.since, done - self.first[0], tokens - self.first[1]
            text += f" traces, {more / spent:,.0f} tokens/s" if spent > 1 else " traces"
            text += f", {span((total - done) * spent / here)} left" if spent > 1 and here and done < total else ""
        if self.tty:
            _rewrite(text[: shutil.get_terminal_size().columns - 1])
        else:
            say(text)

    def __enter__(self) -> Progress:
        self.handler = logging.Handler()  # what the library logs (a server that lets us wait) gets lines of its own
        self.handler.emit = lambda record: self.tell(record.getMessage())
        logging.getLogger("analyzer").addHandler(self.handler)
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        logging.getLogger("analyzer").removeHandler(self.handler)
        self.clear()
        if kind is None:
            self._book(time.monotonic(), "")
            steps = ", ".join(f"{step} {span(t)}" for step, t in self.spent.items() if t >= 0.1)
            say(f"done in {span(self.changed - self.begin)}" + (f" ({steps})" if steps else ""))

    def clear(self) -> None:
        """Take the rewritten line away, so that something else can be printed."""
        if self.tty and self.what:
            _rewrite()

    def tell(self, text: str) -> None:
        """A line of its own between those of progress."""
        self.clear()
        say(text)

    def callbacks(self) -> dict[str, Any]:
        """The callbacks of a step of the library."""
        return {"progress": self, "tell": self.tell}

    def study(self, name: str, number: int, of: int) -> None:
        self.within = f"{name} ({number} of {of}), "

    def _book(self, now: float, step: str) -> None:
        """The step that ends gets the time since the one before it ended."""
        if self.step:
            self.spent[self.step] += now - self.changed
        self.step, self.changed = step, now


@contextlib.contextmanager
def counted_warnings() -> Iterator[None]:
    """Python's warnings inside are counted by their place in the code and summed up on stderr, never one per row."""
    counts: Counter[tuple[str, int]] = Counter()
    texts: dict[tuple[str, int], str] = {}

    def count(message: Any, category: type, filename: str, lineno: int, *more: Any, **others: Any) -> None:
        counts[filename, lineno] += 1
        texts.setdefault((filename, lineno), f"{category.__name__}: {str(message).strip().partition(chr(10))[0]}")

    with warnings.catch_warnings():
        for kind in (RuntimeWarning, UserWarning):
            warnings.simplefilter("always", kind)
        warnings.showwarning = count
        try:
            yield
        finally:
            for place, n in counts.most_common(WARNINGS):
                say(f"warning: {texts[place]}" + (f" ({n:,} times)" if n > 1 else ""))
            if len(counts) > WARNINGS:
                say(f"warning: and {len(counts) - WARNINGS} further kinds")
