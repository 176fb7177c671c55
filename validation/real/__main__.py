"""python -m validation.real [--out reports/smollm2] [--work DIR] [--seed S] [--problems N] [--draws N] ..."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Do every stage whose output is missing, print the bars; 0 when all passed, 1 when one missed, 2 when refused."""
    from analyzer.errors import AnalyzerError
    from validation.real.sources import Size

    parser = argparse.ArgumentParser("python -m validation.real", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("reports/smollm2"), help="what is published (%(default)s)")
    parser.add_argument("--work", type=Path, help="models, dumps, runs, 3 GB (default: OUT/run)")
    for name, value in Size()._asdict().items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value, help="default: %(default)s")
    given = vars(parser.parse_args(arguments))
    out, work = given.pop("out"), given.pop("work")
    try:
        return _run(out, work or out / "run", Size(**given))
    except AnalyzerError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _run(out: Path, work: Path, size) -> int:
    import json

    from analyzer.errors import UsageError
    from miniature.build import build
    from validation.real import bars, sources

    work.mkdir(parents=True, exist_ok=True)
    settings = work / "size.json"
    if settings.exists() and json.loads(settings.read_text()) != size._asdict():
        raise UsageError(f"{settings} holds another size, {settings.read_text().strip()}; give it, or another --work")
    settings.write_text(json.dumps(size._asdict()) + "\n")

    def log(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        with (work / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")

    build(work, log, table=sources.stages(size))
    text = (work / "log.txt").read_text(encoding="utf-8")
    times = dict(re.findall(r"^(.+): done in (\d+) s$", text, re.M))
    found = bars.publish(work, out, size, [f"{name} {seconds} s" for name, seconds in times.items()])
    sys.stdout.write((out / "bars.md").read_text(encoding="utf-8"))
    return 0 if {line.source for line in found} == set(bars.BARS) and all(line.passed for line in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
