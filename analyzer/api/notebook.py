"""The way through the house in five calls: load -> score -> analyze -> report, and plot; `import analyzer` names them.

Each takes what people have: paths, globs, folders, LABEL=PATH, tables of rows, lists of Traces, a Run or its folder.
Tables are written as JSON lines into the run and read by the one reader, with its rules and its ledger. Nothing prints,
nothing stays changed: rcParams, random state, warnings, environment and transformers' logging are as they were.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from analyzer import __version__
from analyzer.api import pipeline
from analyzer.dumps import frames
from analyzer.errors import ResourceError, UsageError, nearest
from analyzer.records import Result, Sampler, Verdict, display
from analyzer.runs import outputs
from analyzer.runs.store import Run
from analyzer.scoring.run import Progress, quiet

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
        from analyzer.pages import content, key

        data = self.as_json()
        shown = key.tables(data, budget=content.budget(data, {}))
        parts = [display.verdicts(v for v in self.verdicts if v.headline)] if self.verdicts else []
        parts += [display.table(grid.columns, grid.rows) for _, grid in shown]
        lines = [*key.basis(data, {}), *content.ledger_lines(data["ledger"])]
        lines += [f"{name}: {found.question}" for name, found in self.items()]
        lines += [f"Left out: {x['analysis']}: {x['why']}" for x in self.left_out]
        parts.append(display.paragraphs(*lines))
        if self.paths:
            page = os.path.relpath(self.paths["index.html"])
            parts.append(Markup('<p>Report: <a href="{}" target="_blank">{}</a></p>').format(quote(page), page))
        return "".join(parts)


def load(
    data: Any,
    *,
    path: str | Path | None = None,
    reference: str | None = None,
    field_map: Mapping[str, str] | None = None,
    threshold: float = 1.0,
    samplers: Mapping[str, Sampler | str] | None = None,
    max_bad: float = 0.01,
) -> Run:
    """Read dumps or tables into a run, which is a folder; rows that it already has are not added twice.

    data: a path, glob, folder or LABEL=PATH; a list of them; a table (pandas, anything that gives an Arrow stream, a
    list of dicts); a list of Traces; or label -> any of these. A Run, or the folder of one, comes back as it is.
    path: the run's folder, new or to be added to. Without it the run lies in a new temporary folder that `run.path`
    names; it is not removed, so that no scores are lost with a kernel. samplers: source -> Sampler or its text
    "T[,top_p[,top_k[,min_p]]]". The others as `pipeline.ingest`.

    A table is written to RUN/inputs and read from there: fields by name or `field_map`, bad rows counted, origin
    file:line with row 0 on line 1. A missing value of a frame (NaN, NA, NaT) is null; a named index becomes columns.
    Raises UsageError (a table that names no source, labels, settings) and DumpError (rows that can't be used).
    """
    if isinstance(data, (str, os.PathLike)) and (Path(data) / "run.json").is_file():
        data = Run.open(data)
    if isinstance(data, Run):
        if path is not None and Path(path) != data.path:
            raise UsageError(f"path={str(path)!r}: the data is the run {data.path} already")
        if reference or field_map or samplers or (threshold, max_bad) != (1.0, 0.01):
            raise UsageError(
                f"{data.path} is a run, its dumps have been read already; read them again with another path"
            )
        return data
    reading = {
        "field_map": dict(field_map or {}),
        "threshold": threshold,
        "samplers": {k: Sampler.parse(s) if isinstance(s, str) else s for k, s in (samplers or {}).items()},
        "max_bad": max_bad,
    }
    run = Run.create(tempfile.mkdtemp(prefix="analyzer-run-") if path is None else path)
    try:
        specs = frames.specs(data, run.path / "inputs")
        frames.refuse_unnamed(specs, reading)
        pipeline.ingest(run, specs, reference=reference, **reading)
    except BaseException:
        if path is None:
            shutil.rmtree(run.path)
        raise
    return run


def score(
    data: Any,
    *,
    base: str | Path,
    policies: Mapping[str, str | Path] | None = None,
    cross: Mapping[str, str | Path] | None = None,
    templates: Mapping[str, str] | str | None = None,
    path: str | Path | None = None,
    progress: Progress = quiet,
    **settings: Any,
) -> Run:
    """Score what is not scored yet, and return the run; the same call again continues where a killed one was.

    data, path: as `load`. base: the base model, a folder or hub name. policies: source -> the model that produced it.
    cross: label -> a further model for all sources. templates: a name or file that renders bare questions, or source ->
    one. settings: as `run.score` (prompt_of, eos, on_overlong, dtype, device, at_most, ...). progress(what, done,
    total, tokens) is called as it goes.
    """
    run = load(data, path=path)
    with _transformers_as_before():
        pipeline.score(
            run,
            base=os.fspath(base),
            policies={k: os.fspath(m) for k, m in (policies or {}).items()},
            cross={k: os.fspath(m) for k, m in (cross or {}).items()},
            templates={"*": templates} if isinstance(templates, str) else templates,
            progress=progress,
            **settings,
        )
    return run


def analyze(
    data: Any, *names: str, budget: int = pipeline.BUDGET, seed: int = 0, progress: Progress = quiet
) -> Results:
    """Run analyses (all, or those named) on a run, or on anything that `load` takes.

    budget: reference samples that support is asked for. An analysis that can't run is left out with its reason, unless
    it was named: then it raises its UsageError.
    """
    from analyzer.analysis.data import tables as tables_module
    from analyzer.analysis.support import prompts
    from analyzer.analysis.verdict.decide import decide

    run = load(data)
    tables = tables_module.build(run)
    found, left_out = pipeline.analyze(run, names or None, budget=budget, seed=seed, progress=progress, tables=tables)
    sources, reference = pipeline.sources(run), run.manifest["settings"]["reference"]
    verdicts = [] if names else decide(found, sources=list(sources), reference=reference, budget=budget)
    verdicts = prompts.told(verdicts, tables)
    return Results(found, verdicts=verdicts, left_out=left_out, ledger=pipeline.ledger(run), sources=sources)


def compare(data: Any, a: str, b: str, *, budget: int = pipeline.BUDGET, seed: int = 0) -> Result:
    """Sources a and b of a run, paired by problem: differences a - b with intervals (see `analysis.pairs.run`)."""
    return pipeline.compare(load(data), a, b, budget=budget, seed=seed)


def report(
    data: Any,
    directory: str | Path,
    *,
    budget: int = pipeline.BUDGET,
    seed: int = 0,
    progress: Progress = quiet,
    **options: Any,
) -> Results:
    """Run every analysis that can run and write the report into `directory`; the results say where (`paths`).

    Anything but a run is read first, into DIRECTORY/run. options: as `pipeline.report` (vary, style ...).
    """
    is_run = isinstance(data, Run) or (isinstance(data, (str, os.PathLike)) and (Path(data) / "run.json").is_file())
    outputs.refuse(directory)
    run = load(data, path=None if is_run else Path(directory) / "run")
    here = [os.path.relpath(p) if Path(p).is_absolute() else str(p) for p in (run.path, directory)]
    call = f"import analyzer; analyzer.report({here[0]!r}, {here[1]!r}, budget={budget}, seed={seed})"
    done = pipeline.report(
        run, directory, budget=budget, seed=seed, command=["python", "-c", call], progress=progress, **options
    )
    return Results(
        done.results,
        verdicts=done.verdicts,
        left_out=done.left_out,
        ledger=pipeline.ledger(run),
        sources=pipeline.sources(run),
        paths=done.paths,
    )


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
    style = figures.theme() if ax is None else {"text.parse_math": False}  # a label from a dump may hold dollar signs
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


def miniature() -> Path:
    """The folder of the embedded small world: dumps/*.jsonl.gz, models/, card.md."""
    package = Path(__file__).resolve().parents[1]
    found = [f / "data" / "miniature" for f in (package, package.parent) if (f / "data" / "miniature").is_dir()]
    if not found:
        raise ResourceError("the miniature's data is not installed; rebuild it: python -m miniature build")
    return found[0]


@contextlib.contextmanager
def _transformers_as_before() -> Iterator[None]:
    """Loading a model silences transformers and sets a variable for it; afterwards both are as they were."""
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
