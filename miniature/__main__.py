"""python -m miniature build [--world first|second] [--out DIR] [--only STAGE ...] [--force]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from miniature import build, second

WORLDS = {"first": ("data/miniature", build.stages), "second": ("data/second", second.stages)}


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m miniature", description="The miniature world of trained tiny models."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "build", help="train and sample everything that is missing (about an hour on one core)"
    )
    command.add_argument("--world", choices=list(WORLDS), default="first", help="which world (default: %(default)s)")
    command.add_argument("--out", type=Path, help="folder to build in (default: data/miniature or data/second)")
    command.add_argument("--only", nargs="+", metavar="STAGE", help="only these stages")
    command.add_argument("--force", action="store_true", help="do a stage again although its output is there")
    chosen = parser.parse_args(arguments)
    folder, stages = WORLDS[chosen.world]
    table = stages()
    if unknown := set(chosen.only or []) - set(table):
        parser.error(f"no stage {sorted(unknown)[0]!r}; stages: {', '.join(table)}")
    build.build(
        chosen.out or Path(folder),
        lambda line: print(line, file=sys.stderr, flush=True),
        only=chosen.only,
        force=chosen.force,
        table=table,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
