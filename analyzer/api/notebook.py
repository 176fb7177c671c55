"""The way through the house by calls: load -> score -> analyze -> report, and what goes with them; `import analyzer`
names them. The options of each are keyword arguments, by the names of the command line's flags (`records.options`).

Each takes what people have: paths, globs, folders, LABEL=PATH, tables of rows, lists of Traces, a Run or its folder.
Tables are written as JSON lines into the run and read by the one reader, with its rules and its ledger. Nothing prints,
nothing stays changed: rcParams, random state, warnings, environment and transformers' logging are as they were.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from analyzer import __version__
from analyzer.api import inputs, making, pipeline
from analyzer.dumps import benchmarks
from analyzer.errors import UsageError, nearest
from analyzer.records import Result, Verdict, display
from analyzer.records.options import ReadOptions
from analyzer.records.steps import signed, taken
from analyzer.runs.store import Run
from analyzer.scoring.parts import Progress, quiet

CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"  # set by `scoring.load.load`


class Results(dict[str, Result]):
    """Analysis name -> Result; shown as the report's key table.

    verdicts: one per source and level; empty where single analyses were asked for, since a verdict needs them all.
    left_out: analyses that could not run, with the reason. paths: what `report` wrote, by name.
    """

    def __init__(
        self,
        found: Mapping[str, Result],
        *,
        verdicts: Sequence[Verdict],
        left_out: Sequence[dict[str, str]],
        ledger: Mapping[str, Any],
        sources: Mapping[str, Any],
        paths: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__(found)
        self.verdicts, self.left_out = list(verdicts), list(left_out)
        self.ledger, self.sources, self.paths = dict(ledger), dict(sources), dict(paths or {})

    def as_json(self) -> dict[str, Any]:
        """The content of results.json, without the command."""
        from analyzer.pages.write import build_results

        return build_results(
            results=self,
            verdicts=self.verdicts,
            ledger=self.ledger,
            sources=self.sources,
            version=__version__,
            command=[],
        )

    def __repr__(self) -> str:
        from analyzer.pages.write import summary

        if not self.verdicts:
            return f"Results({', '.join(self)}; left out: {', '.join(x['analysis'] for x in self.left_out) or 'none'})"
        return summary(self.as_json(), directory=str(self.paths["index.html"].parent) if self.paths else "")

    def _repr_html_(self) -> str:
        from analyzer.pages import content, key, ledgers

        data = self.as_json()
        shown = key.tables(data, budget=content.budget(data, {}))
        parts = [display.verdicts(v for v in self.verdicts if v.headline)] if self.verdicts else []
        parts += [display.table(grid.columns, grid.rows) for _, grid in shown]
        lines = [*key.basis(data, {}), *ledgers.sentences(data["ledger"])]
        lines += [f"{name}: {found.question}" for name, found in self.items()]
        lines += [f"Left out: {x['analysis']}: {x['why']}" for x in self.left_out]
        parts.append(display.paragraphs(*lines))
        if self.paths:
            page = os.path.relpath(self.paths["index.html"])
            parts.append(Markup('<p>Report: <a href="{}" target="_blank">{}</a></p>').format(quote(page), page))
        return "".join(parts)


@signed("load")
def load(data: Any, *, path: str | Path | None = None, **options: Any) -> Run:
    """Read dumps or tables into a run, which is a folder; rows that it already has are not added twice.

    data: a path, glob, folder or LABEL=PATH; a list of them; a table (pandas, anything that gives an Arrow stream, a
    list of dicts); a list of Traces; or label -> any of these. A Run, or the folder of one, comes back as it is.
    path: the run's folder, new or to be added to. Without it the run lies in a new temporary folder that `run.path`
    names; it is not removed, so that no scores are lost with a kernel. options: those of reading, by the names of the
    command line's flags (`records.options.ReadOptions`); sampler: source -> Sampler or its text
    "T[,top_p[,top_k[,min_p]]]".

    A table is written to RUN/inputs and read from there: fields by name or `map`, bad rows counted, origin file:line
    with row 0 on line 1. A missing value of a frame (NaN, NA, NaT) is null; a named index becomes columns. Raises
    UsageError (a table that names no source, labels, settings) and DumpError (rows that can't be used).
    """
    taken("load", options)
    with making.opened(data, path, options) as run:
        return run


@signed("score")
def score(
    data: Any,
    *,
    path: str | Path | None = None,
    progress: Progress = quiet,
    tell: making.Tell = making.silent,
    **options: Any,
) -> Run:
    """Score what is not scored yet, and return the run; the same call again continues where a killed one was.

    data, path: as `load`. options: those of `load` and of scoring, by the names of the command line's flags
    (`records.options`, ScoreOptions and ModelOptions): base, the base model by its name; policy: source ->
    the model that produced it; cross: label -> a further model for all sources; template: a name or file that renders
    bare questions, or source -> one. progress(what, done, total, tokens) is called as it goes, tell(sentence) with what
    is to be known.
    """
    read, how, model = taken("score", options)
    inputs.refuse_wrong(read, how, model, inputs.paths(data))
    with making.opened(data, path, options, progress=progress, tell=tell) as run, _as_before():
        making.scored(run, vars(how) | vars(model), progress, tell)
    return run


@signed("estimate")
def estimate(
    data: Any,
    *,
    path: str | Path | None = None,
    progress: Progress = quiet,
    tell: making.Tell = making.silent,
    **options: Any,
) -> dict[str, Any]:
    """What `score` with the same arguments would cost: exact tokens, peak memory, disk, and time from a sample. Nothing
    is written; what a run at `path` holds already is not counted. Keys: see `scoring.estimate.dry_run`."""
    with _as_before():
        return making.estimate(data, path, options, making.Told((), progress, tell))


@signed("sample")
def sample(
    specs: Sequence[str | Path],
    out: str | Path,
    *,
    progress: Progress = quiet,
    account: Callable[[Any], None] = lambda ledger: None,
    tell: making.Tell = making.silent,
    **options: Any,
) -> dict[str, Any]:
    """Draw responses to the problems of dumps, or of files of questions, and write them as a dump; see
    `scoring.sample.sample`. options: `records.options.SampleOptions`, and how the model is loaded."""
    from analyzer.scoring import sample as sampling

    named = [os.fspath(spec) for spec in ([specs] if isinstance(specs, (str, os.PathLike)) else specs)]
    read, how, model = taken("sample", options)
    with _as_before():
        return sampling.sample(named, out, read, how, model, progress=progress, account=account, tell=tell)


@signed("handover")
def handover(
    data: Any, *sources: str, progress: Progress = quiet, tell: making.Tell = making.silent, **options: Any
) -> dict[str, Any]:
    """Let the base go on from growing prefixes of the sources' correct traces, and keep in the run what came; see
    `api.handover.handover`. options: `records.options.HandoverOptions`, and how the model is loaded."""
    from analyzer.api import handover as handing

    how, model = taken("handover", options)
    run = _run(data)
    with _as_before():
        return handing.handover(run, sources, how, model, progress=progress, tell=tell)


@signed("sample-for-review")
def sample_for_review(data: Any, sheet: str | Path, *sources: str, **options: Any) -> dict[str, Any]:
    """Write a blind sheet of correct traces for a person to read; see `api.review.write_sheet`. options:
    `records.options.ReviewOptions`."""
    from analyzer.api import review

    (how,) = taken("sample-for-review", options)
    return review.write_sheet(_run(data), Path(sheet), sources, how)


def read_review(data: Any, sheet: str | Path) -> dict[str, Any]:
    """Keep the answers of a sheet in the run; see `api.review.read_sheet`."""
    from analyzer.api import review

    return review.read_sheet(_run(data), Path(sheet))


def _run(data: Any) -> Run:
    if not isinstance(data, (Run, str, os.PathLike)):
        raise UsageError(f"expected a run or its folder, got {type(data).__name__}; analyzer.score(...) makes one")
    return data if isinstance(data, Run) else inputs.opened(Path(data))


@signed("analyze")
def analyze(data: Any, *names: str, progress: Progress = quiet, **options: Any) -> Results:
    """Run analyses (all, or those named) on a run, or on anything that `load` takes.

    budget: reference samples that support is asked for. An analysis that can't run is left out with its reason, unless
    it was named: then it raises its UsageError.
    """
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.support import prompts
    from analyzer.analysis.verdict.decide import decide

    [how] = taken("analyze", options)
    run = load(data)
    tables = tables_module.build(run)
    found, left_out = pipeline.analyze(run, names or None, progress=progress, tables=tables, **options)
    sources, reference = pipeline.sources(run), run.manifest["settings"]["reference"]
    verdicts = [] if names else decide(found, sources=list(sources), reference=reference, budget=how.budget)
    verdicts = prompts.told(verdicts, tables)
    return Results(found, verdicts=verdicts, left_out=left_out, ledger=pipeline.ledger(run), sources=sources)


@signed("compare")
def compare(data: Any, a: str, b: str, **options: Any) -> Result:
    """Sources a and b of a run, paired by problem: differences a - b with intervals (see `analysis.pairs.run`)."""
    taken("compare", options)  # told before anything is read
    return pipeline.compare(load(data), a, b, **options)


@signed("report")
def report(
    data: Any,
    directory: str | Path,
    *,
    progress: Progress = quiet,
    tell: making.Tell = making.silent,
    command: Sequence[str] | None = None,
    **options: Any,
) -> Results:
    """Do everything that is still missing of reading, scoring (where `base` is given) and analysing, and write the
    report into `directory`; the results say where (`paths`).

    Anything but a run is read first, into DIRECTORY/run. options: those of `load` and `score`, budget, seed, robustness
    (False: the verdicts are not decided again under variations), style ... (`records.options.ReportOptions`). command:
    what the report says that made it, by default this call.
    """
    at = os.path.relpath(directory) if Path(directory).is_absolute() else str(directory)
    to = making.Told(_call(data, at, options) if command is None else command, progress, tell)
    with _as_before(bool(options.get("base"))):
        return _results(making.one(data, directory, options, to))


def reproduce(
    run: Run | str | Path,
    directory: str | Path | None = None,
    *,
    progress: Progress = quiet,
    tell: making.Tell = making.silent,
    command: Sequence[str] | None = None,
) -> Results:
    """Make a run and its report again from its run.json, into `directory` (by default beside it, NAME-again). Raises
    DumpError where dumps, templates or models are missing or have changed."""
    run = run if isinstance(run, Run) else inputs.opened(run)
    call = ("python", "-c", f"import analyzer; analyzer.reproduce({os.path.relpath(run.path)!r})")
    with _as_before(bool(run.manifest["scorers"])):
        return _results(making.reproduce(run, directory, making.Told(command or call, progress, tell)))


@signed("report")
def studies(
    data: str | Path | Sequence[str | Path],
    directory: str | Path,
    *,
    progress: Progress = quiet,
    tell: making.Tell = making.silent,
    begins: Callable[[str, int, int], None] = lambda name, number, of: None,
    command: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A report per study and the index that compares them: the content of index.json.

    data: folders of dumps, runs, or study files (TOML: `dumps`, and options by name); a pattern that folders match; or
    one folder of files named by model and benchmark. options: as of `report`; they win over those of a study file. A
    study that fails is listed, with its error, and stops no other; the same call again makes what is missing.
    begins(name, number, of) is called before each.
    """
    specs = inputs.paths(data)
    found = inputs.studies(specs)
    if not found:
        raise UsageError(f"{', '.join(specs)}: one study; analyzer.report makes its report")
    for line in benchmarks.told(specs, {name: own["dumps"] for name, own in found.items()}):
        tell(line)
    call = ("python", "-c", f"import analyzer; analyzer.studies({specs!r}, {os.path.relpath(directory)!r})")
    with _as_before(any({**own, **options}.get("base") for own in found.values())):
        return making.many(found, directory, options, making.Told(command or call, progress, tell), begins)


def _call(data: Any, directory: str, options: Mapping[str, Any]) -> list[str]:
    """This call of report, as its page says it; data that are no path are in the run by then."""
    run = inputs.run_of(data)
    at = os.path.relpath(run.path) if run and run.path.is_absolute() else str(run.path) if run else f"{directory}/run"
    kept = {name: value for name, value in options.items() if name not in ReadOptions.__dataclass_fields__}
    more = "".join(f", {k}={str(v) if isinstance(v, Path) else v!r}" for k, v in kept.items())
    return ["python", "-c", f"import analyzer; analyzer.report({at!r}, {directory!r}{more})"]


def _results(done: pipeline.Written) -> Results:
    return Results(done.results, **{name: value for name, value in done._asdict().items() if name != "results"})


def plot(result: Result, name: str | None = None, ax: Any = None) -> Any:
    """Draw one figure of an analysis (the first, or by name) into `ax`, and return the Axes.

    Without `ax` it is drawn at its printed width, in the report's style, on a new figure of pyplot; into an `ax` it is
    drawn in the caller's style. Raises UsageError for a name that the analysis does not have.
    """
    import matplotlib
    import numpy as np

    from analyzer.analysis import figures
    from analyzer.analysis.questions import ANALYSES

    if result.name not in ANALYSES:
        raise UsageError(f"{result.name!r} has no figures; those with some: {', '.join(ANALYSES)}")
    known = ANALYSES[result.name].FIGURES
    name = name or next(iter(known))
    if name not in known:
        raise UsageError(f"{result.name} has no figure {name!r}{nearest(name, known)}")
    spec = known[name]
    if spec.table not in result.tables:
        raise UsageError(f"figure {name!r} shows the table {spec.table!r}, which these results do not have")
    style: Any = (
        figures.theme() if ax is None else {"text.parse_math": False}
    )  # a label from a dump may hold dollar signs
    state = np.random.get_state()  # seaborn's jitter draws from the global generator
    with matplotlib.rc_context(style):
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=figures.check_style(figures.STYLE)[spec.width], layout="constrained")
        np.random.seed(0)
        try:
            ax = spec.draw(result, ax)
        finally:
            np.random.set_state(state)
        figures.plain_log_ticks(ax)
    return ax


@contextlib.contextmanager
def _as_before(scores: bool = True) -> Iterator[None]:
    """Loading a model silences transformers and sets a variable for it; afterwards both are as they were. scores:
    whether a model may be loaded inside."""
    if not scores:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, on import in a bare notebook
        from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    had = CONVERSION in os.environ
    try:
        yield
    finally:
        logging.set_verbosity(level)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
        if not had:
            os.environ.pop(CONVERSION, None)
