"""python -m analyzer.lab build [--out DIR] [--only STAGE ...] [--force]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analyzer.lab.build import build, stages


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m analyzer.lab", description="The miniature world of trained tiny models."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "build", help="train and sample everything that is missing (about an hour on one core)"
    )
    command.add_argument(
        "--out", type=Path, default=Path("data/miniature"), help="folder to build in (default: %(default)s)"
    )
    command.add_argument(
        "--only", nargs="+", choices=list(stages()), metavar="STAGE", help=f"only these: {', '.join(stages())}"
    )
    command.add_argument("--force", action="store_true", help="do a stage again although its output is there")
    chosen = parser.parse_args(arguments)
    build(chosen.out, lambda line: print(line, file=sys.stderr, flush=True), only=chosen.only, force=chosen.force)
    return 0


if __name__ == "__main__":
    sys.exit(main())
