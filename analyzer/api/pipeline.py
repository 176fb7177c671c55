"""The way through the house on a run: ingest -> score -> analyse -> report, each step resumable.

Nothing prints: progress goes to a callback. The options of a step are keyword arguments by name (`records.options`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import __version__
from analyzer.api import reading, repeat
from analyzer.api.look import ledger, one_trace, sources
from analyzer.errors import ResourceError, UsageError, nearest
from analyzer.records import Result, Tables, Verdict
from analyzer.records.options import ReportOptions
from analyzer.records.steps import signed, stored, taken
from analyzer.runs import outputs
from analyzer.runs.disk import saved
from analyzer.runs.store import Run
from analyzer.scoring import changes
from analyzer.scoring import run as scoring
from analyzer.scoring.parts import Progress, quiet

__all__ = ["analyze", "compare", "ingest", "ledger", "one_trace", "report", "score", "sources"]


@signed("load")
def ingest(run: Run, specs: Sequence[str], **options: Any) -> None:
    """Read dumps into the run; see `api.reading`."""
    reading.ingest(run, specs, *taken("load", options))


@signed("score_run")
def score(
    run: Run, *, progress: Progress = quiet, tell: Callable[[str], None] = lambda text: None, **options: Any
) -> None:
    """Score what is not scored yet; see `scoring.run`. The call is kept in run.json once it is through."""
    how, model = taken("score_run", options)
    settings = repeat.scoring(how, model)
    ended: BaseException | None = None
    try:
        scoring.score(run, how, model, progress=progress, tell=tell)
    except KeyboardInterrupt as error:  # what was done counts; a call that was refused does not
        ended = error
    except ResourceError as error:
        raise (saved(error) if any(run.path.glob("scores/*/part-*")) else error) from error.__cause__
    with run.writing():
        repeat.remember(run, "score", settings)
        run.save()
    if ended is not None:
        raise ended


@signed("analyze")
def analyze(
    run: Run,
    names: Sequence[str] | None = None,
    *,
    progress: Progress = quiet,
    tables: Tables | None = None,
    **options: Any,
) -> tuple[dict[str, Result], list[dict[str, str]]]:
    """Run analyses by name (all by default): results by name, and what was left out with the reason.

    An analysis that was asked for by name and can't run raises its UsageError; one that was not asked for is left out.
    """
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.questions import ANALYSES, of_report
    from analyzer.analysis.support import prompts

    [how] = taken("analyze", options)
    unknown = [n for n in names or () if n not in ANALYSES]
    if unknown:
        raise UsageError(f"analysis {unknown[0]!r} is unknown{nearest(unknown[0], ANALYSES)}")
    tables = tables or tables_module.build(run)
    if how.difficulty is not None:
        tables = replace(tables, difficulty=tables_module.difficulty(run, how.difficulty))
    results: dict[str, Result] = {}
    left_out: list[dict[str, str]] = []
    chosen = list(names or of_report(tables))
    for n, name in enumerate(chosen):
        progress(f"analysis {name}", n, len(chosen), 0)
        try:
            results[name] = prompts.named(ANALYSES[name].run(tables, budget=how.budget, seed=how.seed), tables)
        except UsageError as error:
            if names:
                raise
            left_out.append({"analysis": name, "why": str(error)})
            progress(f"analysis {name}, left out", n + 1, len(chosen), 0)
    return results, left_out


@signed("compare")
def compare(run: Run, a: str, b: str, **options: Any) -> Result:
    """Two sources paired by problem, at one budget: see `analysis.pairs.run`."""
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.pairs import run as paired
    from analyzer.analysis.support import prompts

    [how] = taken("compare", options)
    tables = tables_module.build(run)
    return prompts.named(paired.run(tables, a=a, b=b, budget=how.budget, seed=how.seed), tables)


class Written(NamedTuple):
    """What `report` found and wrote; `paths` by name (results.json, report.md, index.html, ...)."""

    verdicts: list[Verdict]
    results: dict[str, Result]
    left_out: list[dict[str, str]]
    ledger: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    paths: dict[str, Path]


@signed("report_run")
def report(
    run: Run, directory: str | Path, *, command: Sequence[str] = (), progress: Progress = quiet, **options: Any
) -> Written:
    """Run every analysis that can run, decide, and write the report into `directory`.

    robustness: decide again under variations, about as much work as the analyses themselves. command: what the report
    says that made it.
    An earlier report there is replaced at the end, at once. Raises UsageError where the folder is not empty and not a
    report's, ResourceError where another process reports into it.
    """
    [how] = taken("report_run", options)
    with outputs.replaced(directory) as folder:
        done = _report(run, folder, how, command, progress)
    paths = {name: Path(directory) / path.relative_to(folder) for name, path in done.paths.items()}
    with suppress(ResourceError), run.writing():  # a run that can't be written can be reported on
        repeat.remember(run, "report", stored(how))
        run.manifest["command"] = list(command)
        run.save()
    return done._replace(paths=paths)


def _report(run: Run, folder: Path, how: ReportOptions, command: Sequence[str], progress: Progress) -> Written:
    """The same into an empty folder."""
    from analyzer.analysis import robustness
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.pairs import compared
    from analyzer.analysis.pairs import run as paired
    from analyzer.analysis.questions import ANALYSES
    from analyzer.analysis.support import prompts
    from analyzer.analysis.verdict.decide import decide
    from analyzer.pages.write import write
    from analyzer.scoring.encoding import findings

    tables = tables_module.build(run)
    options: dict[str, Any] = {"budget": how.budget, "seed": how.seed}
    results, left_out = analyze(run, progress=progress, tables=tables, difficulty=how.difficulty, **options)
    labels, accounts = sources(run), ledger(run)
    reference = run.manifest["settings"]["reference"]
    verdicts = prompts.told(decide(results, sources=list(labels), reference=reference, budget=how.budget), tables)
    beside: dict[str, Callable[[], Result]] = {"paired": lambda: paired.run(tables, **options)}
    if how.robustness:
        beside["robustness"] = lambda: robustness.run(tables, results, verdicts, progress=progress, **options)
    else:
        left_out.append({"analysis": "robustness", "why": "it was not asked for (--no-robustness)"})
    for name, make in beside.items():
        try:
            results[name] = prompts.named(make(), tables)
        except UsageError as error:
            left_out.append({"analysis": name, "why": str(error)})
    with suppress(UsageError):  # the numbers of the analyses are over the same problems already
        results["compared"] = compared.run(tables, results, **options)
    modules = {**ANALYSES, "paired": paired, "robustness": robustness, "compared": compared}
    figures = {name: modules[name].FIGURES for name in results}
    progress("report", 0, 1, 0)
    keep = ("settings", "samplers", "scorers", "policies", "inputs")
    limit = run.manifest["settings"].get("limit")
    meta = {
        "version": __version__,
        "command": list(command),
        "reference": reference,
        **options,
        **{name: run.manifest.get(name, {}) for name in keep},
        "notes": [*run.manifest.get("input_notes", []), *findings.of_other_versions(run.manifest["scorers"])],
        **({"title": f"A look at the first {limit} problems only"} if limit else {}),
        "versions": changes.versions(),
        "left_out": left_out,
    }
    paths = write(
        folder,
        results=results,
        verdicts=verdicts,
        ledger=accounts,
        sources=labels,
        figures=figures,
        meta=meta,
        traces=None if how.short else tables,
        how=how,
    )
    return Written(verdicts, results, left_out, accounts, labels, paths)
