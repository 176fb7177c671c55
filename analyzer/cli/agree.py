"""`analyzer agree A B`: two engines on the same tokens."""

from __future__ import annotations

import argparse
import json
from typing import Any

from analyzer.errors import GateError

EXAMPLES = """examples:
  analyzer agree MODEL rollouts.jsonl                      stored log-probs against the model that wrote them
  analyzer agree MODEL MODEL:bfloat16 --on rollouts.jsonl  what a precision costs
  analyzer agree MODEL MODEL@http://localhost:8000/v1 --on rollouts.jsonl --fail-on 0.05
"""


def add(commands: Any) -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "agree",
        help="do two engines, dtypes or revisions give the same tokens the same log-probs, and if not, why",
        allow_abbrev=False,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in "AB":
        parser.add_argument(
            name.lower(), metavar=name, help="MODEL[:DTYPE], MODEL@URL, a dump with log-probs, or RUN[:LABEL]"
        )
    parser.add_argument(
        "--on", metavar="DUMP", help="where the ids come from (default: the side that is a dump or run)"
    )
    parser.add_argument("--traces", type=int, default=64, metavar="N", help="that are compared (default %(default)s)")
    parser.add_argument("--template", metavar="FILE|NAME", help="renders bare questions into prompts, as for score")
    parser.add_argument("--device", default="auto", metavar="NAME", help="as for score (default %(default)s)")
    parser.add_argument(
        "--fail-on",
        type=float,
        metavar="SIZE",
        help="exit 5 when the mean difference of a token exceeds so many nats, or one side calls a token impossible",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(a: argparse.Namespace) -> int:
    """Compare, and print what was found. Raises GateError when --fail-on asks for it."""
    from analyzer.cli.progress import put
    from analyzer.scoring.agree import agree

    found = agree(a.a, a.b, on=a.on, traces=a.traces, template=a.template, device=a.device)
    put(json.dumps(found.as_json()) if a.json else str(found))
    if a.fail_on is not None and found.beyond(a.fail_on):
        raise GateError(
            f"--fail-on {a.fail_on:g}: mean difference {found.mean:.3g} nats, {found.impossible} impossible"
        )
    return 0
