"""Would the verdicts stand? The same rules on altered data: one word per variation, source and level.

Not redone is what a variation cannot touch. Copied tokens, the closing token and the engine floor belong to the
sequence level: the levels are read from texts, answers and `correct`. Another seed moves no answer test, which has
nothing random. The checks before the tests are those of the run; another seed runs them again, A/A with it.
`clusters` certifies nothing and is left out; of `strategy` only what certifies is tested, without the tests of change.
Skeletons and classes are made once; groups are found and tested again on the traces of each variation.

What would need scoring again (BOS, template, precision) has a row that says so, with the command.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from analyzer.analysis import primary, variations
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.contained import run as contained
from analyzer.analysis.preflight import run as preflight
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import run as support
from analyzer.analysis.variations import AS_RUN, NAMES, Case
from analyzer.analysis.verdict.decide import decide
from analyzer.errors import UsageError
from analyzer.records import BUDGET, LEVELS, METHOD, OUTCOME, TAU, Estimate, Figure, Result, Tables, Verdict
from analyzer.stats.bootstrap import DRAWS

__all__ = ["FIGURES", "QUESTION", "draw", "run"]

QUESTION = "Would the words stand under another choice of traces, tokens, seed or tolerance?"
READ = ("preflight", "support", "strategy", "contained", "boundary")  # of what `decide` reads; clusters makes no word
NOT_CHECKED = "not checked"
ANALYSIS = {  # what a level reads
    "sequence": {"support"},
    **dict.fromkeys(METHOD, {"strategy", "contained"}),
    **dict.fromkeys(OUTCOME, {"boundary", "contained"}),
}
LOOK = {"inside": "o", "sharpened": "^", "reweighted": "P", "outside": "D", "undetermined": "x"}  # word -> marker
HEADS = ["variation", "source", "word", "level", "main", "main_level", "differs", "traces", "note"]
COLUMNS = ["variation", "source", "level", "word", "main", "differs", "own", "headline", "traces", "kept"]
COLUMNS += ["quantity", "value", "low", "high", "p", "numbers"]


def run(
    tables: Tables,
    results: Mapping[str, Result],
    verdicts: Sequence[Verdict],
    *,
    budget: int = BUDGET,
    seed: int = 0,
    draws: int = DRAWS,
    progress: Callable[[str, int, int, int], None] | None = None,
) -> Result:
    """Decide again under every variation; `results` and `verdicts` are those of the run, with its budget and seed.

    Tables: headlines (one row per variation and source: word and level of the headline, those of the run, whether the
    word differs; a variation that was not checked has one row, no source and the reason), levels (the same by level,
    with `own`, the word by this level's numbers alone; kept: share of the source's traces in it; the number that
    decides with its interval, and p of the primary endpoint), cases (traces and meaning of each variation).
    Estimates: `<s>.words_kept`, the share of the checked variations with the headline's word (no interval: variations
    are no sample). Raises UsageError where the reference is the only source.
    """
    main = {name: results[name] for name in READ if name in results}
    sources = [s for s in tables.sources if s != tables.reference]
    if not sources:
        raise UsageError("there is one source: no verdict that could be decided again")
    whole = variations.last(tables)
    skeletons = strategy.skeletons(whole) if "strategy" in main else None
    classes = contained.classes(whole) if "contained" in main else None
    total = tables.traces.groupby("source").size() if len(tables.traces) else pd.Series(dtype=int)
    heads: list[dict[str, Any]] = []
    levels: list[dict[str, Any]] = []
    cases: list[dict[str, Any]] = []
    before = {(v.source, v.level): v.word for v in verdicts}
    options = {"sources": sources, "reference": tables.reference, "budget": budget}
    for done, case in enumerate(variations.cases(tables, main, seed)):
        if progress is not None:
            progress("robustness", done, len(NAMES), 0)
        row = {"variation": case.name, "checked": case.tables is not None, "traces": 0, "note": case.note}
        if case.tables is None:
            none = {"variation": case.name, "source": "", "word": NOT_CHECKED, "traces": 0, "note": case.note}
            heads.append(dict.fromkeys(HEADS) | none)
        else:
            found = _redone(case, main, skeletons, classes, budget=budget, draws=draws)
            row["traces"] = len(case.tables.traces)
            rows = _rows(case, found, before, total, levels[: len(LEVELS) * len(sources)], options)
            levels += rows
            heads += [_head(case, rows, source, verdicts) for source in sources]
        cases.append(row)
    frames = {
        "headlines": pd.DataFrame(heads, columns=HEADS),
        "levels": pd.DataFrame(levels, columns=COLUMNS),
        "cases": pd.DataFrame(cases, columns=["variation", "checked", "traces", "note"]),
    }
    estimates = {f"{s}.words_kept": _kept(frames["headlines"], s) for s in sources}
    params = {"budget": budget, "draws": draws, "tail": variations.TAIL, "tau": TAU}
    return Result("robustness", QUESTION, estimates, frames, tuple(_notes(frames)), params, seed)


def _redone(
    case: Case,
    main: dict[str, Result],
    skeletons: strategy.Skeletons | None,
    classes: contained.Classes | None,
    *,
    budget: int,
    draws: int,
) -> dict[str, Result]:
    """What `decide` reads, with the analyses that the case touches on its tables."""
    options = {"budget": budget, "draws": draws, "seed": case.seed}
    again = {
        "preflight": lambda: preflight.run(case.tables, **options),
        "support": lambda: support.run(case.tables, **options),
        "strategy": lambda: strategy.certifying(case.tables, skeletons, [budget], case.seed),
        "contained": lambda: contained.bounds(case.tables, classes, budget),
        "boundary": lambda: boundary.certifying(case.tables, budget),
    }
    as_run = {name: result for name, result in main.items() if name not in case.drop}
    return as_run | {name: again[name]() for name in case.redo if name in main}


def _rows(
    case: Case,
    found: dict[str, Result],
    before: dict[tuple[str, str], str],
    total: pd.Series,
    as_run: list[dict[str, Any]],
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Rows of `levels` of one variation; before: the run's words, as_run: the rows of the first variation, or none."""
    size = case.tables.traces.groupby("source").size()
    reference = options["reference"]
    own = {(row["source"], row["level"]): row["own"] for row in as_run}
    for branch in (("sequence",), METHOD, OUTCOME):  # what is as in the run has the run's word
        names = {"preflight", *ANALYSIS[branch[0]]}
        if names & {*case.redo, *case.drop} or not as_run or case.tau != TAU:
            alone = {n: r for n, r in found.items() if n in names}
            own |= {(v.source, v.level): v.word for v in decide(alone, tau=case.tau, **options) if v.level in branch}
    ends = {source: primary.endpoints(found, source, options["budget"]) for source in options["sources"]}
    out = []
    for v in decide(found, tau=case.tau, **options):
        n = int(size.get(v.source, 0))
        row = {"variation": case.name, "source": v.source, "level": v.level, "word": v.word, "headline": v.headline}
        row |= {"main": before.get((v.source, v.level)), "own": own[v.source, v.level], "traces": n}
        row |= {"kept": n / total[v.source], "p": ends[v.source][v.level].p, "numbers": "; ".join(v.why[:2])}
        row |= _number(found.get("support"), v)
        if not n or not size.get(reference, 0):
            none = f"no trace of {v.source if not n else reference} is left"
            row |= {"word": NOT_CHECKED, "own": NOT_CHECKED, "numbers": none}
        elif ANALYSIS[v.level] & {*case.drop}:
            row |= {"own": NOT_CHECKED, "numbers": "not asked here"}
            if v.word == "undetermined":
                row["word"] = NOT_CHECKED
        row["differs"] = None if row["word"] == NOT_CHECKED else row["word"] != row["main"]
        out.append(row)
    return out


def _number(support_: Result | None, v: Verdict) -> dict[str, Any]:
    """The number that decides at the sequence level: whole traces beyond the budget, without log q by e-values."""
    nothing = {"quantity": "", "value": math.nan, "low": math.nan, "high": math.nan}
    if v.level != "sequence" or support_ is None:
        return nothing
    for name in (f"beyond@{v.budget}", f"novel_mass@{max(primary.CERTIFY, v.budget)}"):
        e = support_.estimates.get(f"{v.source}.{name}")
        if e is not None and math.isfinite(e.value):
            return {"quantity": name, "value": e.value, "low": e.low, "high": e.high}
    return nothing


def _head(case: Case, rows: list[dict[str, Any]], source: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The row of `headlines` of one source."""
    mine = next(r for r in rows if r["source"] == source and r["headline"])
    before = next((v for v in verdicts if v.source == source and v.headline), None)
    out = {"variation": case.name, "source": source, "word": mine["word"], "level": mine["level"]}
    out |= {"main": before.word if before else None, "main_level": before.level if before else None}
    out |= {"differs": mine["differs"] if before is None else mine["word"] != before.word}
    out |= {"traces": mine["traces"], "note": ""}
    if mine["word"] == NOT_CHECKED:
        out |= {"differs": None, "note": mine["numbers"]}
    elif before is not None and out["differs"] and ANALYSIS[before.level] & {*case.drop}:
        out |= {"differs": None, "note": f"the run's word rests on the {before.level} level, which is not asked here"}
    return out


def _kept(heads: pd.DataFrame, source: str) -> Estimate:
    """Share of the checked variations whose headline has the run's word."""
    mine = heads[(heads["source"] == source) & heads["differs"].notna() & (heads["variation"] != AS_RUN)]
    other = [f"{r['variation']}: {r['word']}" for r in mine[mine["differs"].eq(True)].to_dict("records")]
    if mine.empty:
        return Estimate(math.nan, note="no variation could be checked")
    value = 1 - len(other) / len(mine)
    return Estimate(value, n=len(mine), method="share of variations, no sample", note="; ".join(other))


def _notes(frames: dict[str, pd.DataFrame]) -> list[str]:
    heads, cases = frames["headlines"], frames["cases"]
    changed = heads[heads["differs"].eq(True)]
    open_ = cases[~cases["checked"]]
    done = int(cases["checked"].sum()) - int((cases["variation"] == AS_RUN).sum())
    by_source = changed.groupby("source", sort=False)
    said = [
        f"{source}: {', '.join(f'{r.word} ({r.variation})' for r in part.itertuples())}" for source, part in by_source
    ]
    heads_of = set(zip(changed["variation"], changed["source"]))
    below = [
        f"{r.source}, {r.level}: {r.word} ({r.variation})"
        for r in frames["levels"].query("differs == True").itertuples()
        if (r.variation, r.source) not in heads_of
    ]
    notes = [
        f"{done} variations decided by the same rules; "
        + (f"headlines with another word: {'; '.join(said)}." if said else "no headline has another word.")
    ]
    if below:
        notes.append(f"Under a headline that stands, other words at single levels: {'; '.join(below)}.")
    notes += [
        f"Not checked: {', '.join(part)} ({note})." for note, part in open_.groupby("note", sort=False)["variation"]
    ]
    notes += [
        "A word that differs is a warning and no second test; words that agree prove little, as the variations share "
        "most of their traces. Nothing is corrected for the number of variations.",
        "Keeping a share s of a source's traces by what they are (correct, short) is a selection: a p-value of the "
        "novelty test can come out too small by up to 1 / s (column kept).",
        "The checks before the tests are those of the run, but for another seed, which runs them again.",
    ]
    return notes


def draw(result: Result, ax: Any) -> Any:
    """The word of every headline: variations down, sources across; a ring where the word is not the run's."""
    from analyzer.analysis.figures import WORD_COLORS

    heads = result.tables["headlines"]
    shown = heads[heads["word"].isin(LOOK)]
    names, sources = list(dict.fromkeys(shown["variation"])), list(dict.fromkeys(shown["source"]))
    x, y = shown["source"].map(sources.index), shown["variation"].map(names.index)
    ring = shown["differs"].eq(True)
    if ring.any():
        ax.plot(x[ring], y[ring], "o", markersize=9, markerfacecolor="none", color="0.4", label="another word")
    for word, marker in LOOK.items():
        at = shown["word"] == word
        if at.any():
            ax.plot(x[at], y[at], marker=marker, markersize=4, linestyle="none", color=WORD_COLORS[word], label=word)
    ax.set_xticks(range(len(sources)), sources, rotation=30 if len(sources) > 4 else 0)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(-0.6, len(sources) - 0.4), ylim=(len(names) - 0.4, -0.6), xlabel="", ylabel="")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return ax


def caption(result: Result) -> str:
    heads = result.tables["headlines"]
    shown = heads[heads["word"].isin(LOOK) & (heads["variation"] != AS_RUN)]
    changed = shown[shown["differs"].eq(True)]
    where = ", ".join(f"{r.source} under {r.variation}" for r in changed.itertuples())
    return (
        f"The headline verdict of every source (columns) decided again under {shown['variation'].nunique()} "
        f"variations (rows) (n = {len(shown)} verdicts); {len(changed)} differ from the run's"
        + (f": {where}." if where else ".")
    )


FIGURES = {"words": Figure(draw, "headlines", caption, 2)}
