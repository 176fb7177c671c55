"""Labels for traces that have a reference answer and no label, by math-verify (extra `math-verify`).

The answer is taken from the response and compared in a process of its own, with a limit on its time and memory: text of
a trace can make a parser hang or crash, and neither may pass for a wrong answer. `python -m analyzer.dumps.grading` is
that process; it reads one {"gold", "response"} per line and answers {"reason"}.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from analyzer.errors import ResourceError, UsageError
from analyzer.records import Trace

# reason -> label; the reasons of None stay apart from a wrong answer
LABELS: dict[str, bool | None] = {
    "equal": True,
    "different": False,
    "nothing found": None,  # no answer could be taken from the response
    "reference not read": None,  # the reference answer could not be parsed
    "crashed": None,
    "timed out": None,
}
WHY_NOT = {"has a label": "with a label", "no reference": "without a reference answer", "no text": "without text"}
REMEMBERED = 4096  # answers to equal responses
SECONDS = 5.0
START_SECONDS = 120.0  # loading sympy on a busy machine
MEMORY = 4 << 30  # bytes of address space of the process
COMMAND = (sys.executable, "-m", "analyzer.dumps.grading")


def grade(
    traces: Iterable[Trace], counts: Counter[str], *, seconds: float = SECONDS, command: Sequence[str] = COMMAND
) -> Iterator[Trace]:
    """Fill `correct` where it is None and there is a reference answer (meta.gold) and a text.

    Yields all traces; those graded carry meta.graded, the reason. counts: filled with the number of traces by reason:
    those of LABELS, and "has a label", "no reference", "no text". seconds: the limit per response. command: what to
    start as the judging process. Raises ResourceError where math-verify is not installed or the process can't be
    started.
    """
    known: dict[tuple[str, str], str] = {}
    with judging(seconds, command) as judge:
        for t in traces:
            gold = t.meta.get("gold")
            if t.correct is not None or gold is None or not t.response.strip():
                counts["has a label" if t.correct is not None else "no reference" if gold is None else "no text"] += 1
                yield t
                continue
            pair = (gold if isinstance(gold, str) else json.dumps(gold), t.response)
            if pair not in known:
                if len(known) >= REMEMBERED:
                    known.clear()
                known[pair] = judge(gold, t.response)
            reason = known[pair]
            counts[reason] += 1
            yield replace(t, correct=LABELS[reason], meta={**t.meta, "graded": reason})


@contextlib.contextmanager
def judging(seconds: float = SECONDS, command: Sequence[str] = COMMAND) -> Iterator[Judge]:
    """A judging process that ends with the block. Raises ResourceError where math-verify is not installed."""
    if command == COMMAND and importlib.util.find_spec("math_verify") is None:
        raise ResourceError("grading needs math-verify; install it: pip install 'reasoning-path-analyzer[math-verify]'")
    judge = Judge(command, seconds)
    try:
        yield judge
    finally:
        judge.stop()


def said(counts: Mapping[str, int]) -> str:
    """One sentence about what grading found."""
    graded = {reason: counts[reason] for reason in LABELS if counts.get(reason)}
    rest = {reason: n for reason, n in counts.items() if reason not in LABELS}
    left = ", ".join(f"{n:,} {WHY_NOT[reason]}" for reason, n in rest.items())
    if not graded:
        return f"Grading found nothing to do: {left}."
    return (
        f"Graded with math-verify: {', '.join(f'{n:,} {reason}' for reason, n in graded.items())}; equal counts as "
        "correct, different as wrong, anything else has no label" + (f" ({left}, left as they are)." if left else ".")
    )


class Judge:
    """The judging process: started when needed, killed when it takes too long, started again after it died."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self.command, self.seconds = list(command), seconds
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, gold: Any, response: str) -> str:
        process = self.process or self._start()
        try:
            process.stdin.write(json.dumps({"gold": gold, "response": response}).encode() + b"\n")
            process.stdin.flush()
            answer = _line(process, self.seconds)
        except (BrokenPipeError, EOFError):
            self.stop()
            return "crashed"
        except TimeoutError:
            self.stop()
            return "timed out"
        reason = json.loads(answer).get("reason")
        return reason if reason in LABELS else "crashed"

    def _start(self) -> subprocess.Popen[bytes]:
        if os.name != "posix":
            raise UsageError("--grade bounds memory and time of each answer as Linux and macOS alone can; leave it out")
        try:
            # in a session of its own: a Ctrl-C in the terminal is for the parent, which ends this process
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            _line(self.process, START_SECONDS)
        except (OSError, EOFError, TimeoutError) as e:
            self.stop()
            raise ResourceError(f"the grading process does not start ({' '.join(self.command)}): {e!r}") from None
        return self.process

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next line that the process writes. Raises TimeoutError, and EOFError where it ended."""
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise TimeoutError(f"no answer within {seconds:g} s")
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the process ended")
    return line


def judged(gold: Any, response: str, parse: Callable[..., Any], verify: Callable[..., bool]) -> str:
    """A reason of LABELS for one response. parse, verify: those of math_verify, whose own limits are off here."""
    wanted = _parsed_gold(gold, parse)
    if not wanted:
        return "reference not read"
    found = parse(response, parsing_timeout=None, raise_on_error=True)
    if not found:
        return "nothing found"
    same = verify(wanted, found, timeout_seconds=None, raise_on_error=True)
    return "equal" if same else "different"


def _parsed_gold(gold: Any, parse: Callable[..., Any]) -> Any:
    """The reference answer: of a list its only element; of GSM8K's solutions what stands after ####; LaTeX without
    delimiters is given some."""
    while isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, (list, dict)):
        return None
    text = str(gold).rsplit("####", 1)[-1].strip()
    delimited = any(mark in text for mark in ("$", "\\boxed", "\\(", "\\["))
    return parse(text if delimited else f"${text}$", parsing_timeout=None, raise_on_error=True)


def serve(lines: Iterable[str]) -> None:
    """The judging process: one answer per line. A Python error of the parser is a crash of its own response only."""
    import logging
    import resource

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    say = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may pass for an answer

    def answer(reason: str) -> None:
        say.write(json.dumps({"reason": reason}) + "\n")
        say.flush()

    answer("ready")
    for line in lines:
        task = json.loads(line)
        try:
            answer(judged(task["gold"], task["response"], parse, verify))
        except (Exception, RecursionError):
            answer("crashed")


if __name__ == "__main__":
    serve(sys.stdin)
