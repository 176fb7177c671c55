"""docs/validation.md and its figures: every check with its band, every mutant with its number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis import figures
from analyzer.records import WORDS, Figure, Result, json_value
from validation.checks import Gate, GateResult, band

TITLES = {
    "V0": "closed forms",
    "V1": "size of the permutation tests",
    "V2": "unequal counts: correct traces only",
    "V3": "only reweighted: size and power",
    "V4": "reach E_k: bias and coverage",
    "V5": "conformal: size, false discoveries, power",
    "V6": "budgets: k-inflation and the e-value",
    "V7": "cluster reach",
    "V8": "A/A: the base against itself",
    "V9": "intervals of pass@k",
    "V10": "verdicts on simulated worlds",
    "V11": "verdicts and clusters on the two committed worlds",
    "V12": "independent implementations",
    "V13": "words at the lengths and entropies of real text",
    "V14": "words of the ladder from texts alone",
    "V15": "words at the lengths and numbers of large studies",
}


def draw_ecdf(result: Result, ax: Any) -> Any:
    """Empirical distribution of null p-values against the diagonal, with the pointwise binomial band of 99.99 %."""
    data = result.tables["ecdf"]
    runs = int(data["runs"].min())
    grid = np.unique(data["p"])
    ends = np.array([band(p, p, runs) if p < 1 else (1.0, 1.0) for p in grid])
    ax.fill_between(grid, ends[:, 0], ends[:, 1], color="0.88", linewidth=0)
    kinds = {test: _kind(test) for test in dict.fromkeys(data["test"])}
    looks = figures.styles(dict.fromkeys(kinds.values()))
    for test, part in data.groupby("test", sort=False):
        look = looks[kinds[test]]
        ax.plot(part["p"], part["share"], color=look["color"], linestyle=look["linestyle"], linewidth=0.9)
    for kind, look in looks.items():
        mine = [test for test in kinds if kinds[test] == kind]
        ax.plot([], [], color=look["color"], linestyle=look["linestyle"], label=f"{kind} ({len(mine)})")
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.6)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="p", ylabel="share of p-values at most p")
    return _aside(ax)


def _kind(test: str) -> str:
    if test in ("global permutation", "z as N(0, 1)"):
        return f"mutant: {test}"
    if "correct of" in test:
        return "only reweighted"
    return test if test == "e-value" else "conformal" if test.startswith("conformal") else "changed at all"


def _aside(ax: Any) -> Any:
    """The legend beside the plot: no line runs under it."""
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=6)
    return ax


def draw_power(result: Result, ax: Any) -> Any:
    """Power over the share of novel traces."""
    data = result.tables["power"]
    looks = figures.styles(data["test"])
    for test, part in data.groupby("test", sort=False):
        ax.plot(part["lambda"], part["power"], label=test, markersize=3, **looks[test])
    ax.axhline(0.05, color="0.5", linewidth=0.6)
    label = "power at .05; share of novel traces flagged"
    ax.set(xlabel="share of the teacher's traces", ylabel=label, ylim=(-0.02, 1.02))
    return _aside(ax)


def draw_reach(result: Result, ax: Any) -> Any:
    """True E_k as lines, the mean of the estimates as points, the middle 95 % of the estimates as bars."""
    data = result.tables["reach"]
    styles = figures.styles(data["world"])
    for world, part in data.groupby("world", sort=False):
        style = styles[world]
        ax.plot(part["k"], part["true"], color=style["color"], linestyle=style["linestyle"], label=world)
        error = np.maximum(0, [part["mean"] - part["low"], part["high"] - part["mean"]])
        ax.errorbar(
            part["k"], part["mean"], error, color=style["color"], marker=style["marker"], linestyle="", elinewidth=0.6
        )
    ax.set(xscale="log", xlabel="budget k", ylabel="E_k", ylim=(-0.02, 0.8))
    ax.legend(fontsize=5.5, ncols=2)
    return ax


def draw_coverage(result: Result, ax: Any) -> Any:
    """Coverage of the 95 % intervals by setting; dotted at .90 and .95."""
    data = result.tables["coverage"]
    looks, rows = figures.styles(data["setting"]), list(dict.fromkeys(data["interval"]))
    for setting, part in data.groupby("setting", sort=False):
        aside = (list(looks).index(setting) % 5 - 2) * 0.12  # apart from its neighbours
        y = [rows.index(name) + aside for name in part["interval"]]
        look = {"color": looks[setting]["color"], "marker": looks[setting]["marker"]}
        ax.plot(part["coverage"], y, linestyle="", label=setting, markersize=3, **look)
    for x in (0.9, 0.95):
        ax.axvline(x, color="0.5", linewidth=0.7, linestyle=":")
    ax.set_yticks(range(len(rows)), rows)
    least = min(0.88, data["coverage"].min() - 0.02)
    ax.set(xlabel="share of runs whose interval holds the truth", xlim=(least, 1.01), ylim=(len(rows) - 0.5, -0.5))
    return _aside(ax)


def draw_confusion(result: Result, ax: Any) -> Any:
    """Share of the runs by source and word."""
    return _matrix(result.tables["confusion"], ax)


def draw_miniature(result: Result, ax: Any) -> Any:
    """Share of the resamplings by source and word, at the sequence level."""
    return _world(result, ax, "miniature")


def draw_second(result: Result, ax: Any) -> Any:
    """The same on the second world."""
    return _world(result, ax, "second")


def _world(result: Result, ax: Any, name: str) -> Any:
    data = result.tables[name]
    return _matrix(data[data["level"] == "sequence"], ax)


def _matrix(data: pd.DataFrame, ax: Any) -> Any:
    import seaborn as sns

    share = data.assign(share=data["count"] / data["runs"])
    table = share.pivot_table(index="source", columns="word", values="share", sort=False, fill_value=0.0)
    table = table.reindex(columns=WORDS, fill_value=0.0)
    sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cbar=False, cmap="Blues", ax=ax, annot_kws={"size": 7})
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)
    return ax


FIGURES = {
    "ecdf": (
        draw_ecdf,
        "size at every level: p-values where the null holds, against the diagonal; grey: 99.99 % binomial band",
        2,
    ),
    "power": (
        draw_power,
        "power at .05 of the tests of change (energy ... surprisal; 30 problems, 16 traces per arm) and share of the "
        "novel traces that the novelty tests flag (mean ... e-value; 64 and 16), over the share of novel traces",
        2,
    ),
    "reach": (draw_reach, "E_k: truth (lines), mean and middle 95 % of the estimates (points, bars)", 2),
    "coverage": (
        draw_coverage,
        "coverage of the 95 % intervals (rare bound: one-sided, given problems). Far left, the price of zeros: a "
        "departure on one problem in thirty is not seen by thirty problems in a third of the samples",
        2,
    ),
    "confusion": (draw_confusion, "share of runs by source and word, sequence level", 2),
    "miniature": (draw_miniature, "share of resamplings of the miniature by source and word, sequence level", 2),
    "second": (draw_second, "share of resamplings of the second world by source and word, sequence level", 2),
}


def collected(gates: Iterable[Gate]) -> dict[str, pd.DataFrame]:
    """The curves of all gates by name."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for gate in gates:
        for name, more in gate.curves.items():
            rows.setdefault(name, []).extend(more)
    return {name: pd.DataFrame(found) for name, found in rows.items() if found}


def rows(gates: Iterable[Gate]) -> list[GateResult]:
    """All checks in the order of the gates' numbers."""
    return sorted((c for gate in gates for c in gate.checks), key=lambda c: int(c.name[1:]))


def write(gates: list[Gate], out: Path, *, meta: dict[str, Any]) -> list[Path]:
    """Write validation.md and validation/*.svg and *.csv below `out`.

    meta: seed, suite, versions, missing, spent (processor seconds by task). What was measured by hand, once,
    stands in validation/recorded.md and is taken over as it is.
    """
    folder = out / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    tables = collected(gates)
    made: list[Path] = []
    shown = []
    for name, (draw, caption, width) in FIGURES.items():
        if name in tables:
            result = Result("validation", "", {}, tables)
            spec = Figure(draw, name, lambda _, text=caption: text, width)
            paths = figures.save(spec, result, name, folder)
            paths["pdf"].unlink()
            made += [paths["svg"], paths["csv"]]
            shown.append((name, caption))
    checks = rows(gates)
    columns = [
        "gate",
        "what",
        "claim",
        "measured",
        "low",
        "high",
        "passed",
        "runs",
        "mutant",
        "mutant measured",
        "caught",
    ]
    cells = [[*map(json_value, c[:8]), *(map(json_value, c.mutant) if c.mutant else ("", None, None))] for c in checks]
    figures.write_csv(columns, cells, folder / "gates.csv")
    page = out / "validation.md"
    recorded = folder / "recorded.md"
    more = _words(tables) + (["", *recorded.read_text(encoding="utf-8").splitlines()] if recorded.is_file() else [])
    page.write_text("\n".join([*_page(checks, shown, meta), *more]).rstrip() + "\n", encoding="utf-8")
    return [page, folder / "gates.csv", *made]


def _words(tables: dict[str, pd.DataFrame]) -> list[str]:
    """The confusion matrices of V11: every source and level of both worlds."""
    out = []
    for world in ("miniature", "second"):
        if world not in tables:
            continue
        data = tables[world]
        runs = int(data["runs"].max())
        out += ["", f"## Words on {world}, of resamplings", ""]
        out += [f"Of {runs} resamplings (fewer at the coarser levels: `of`); bold: not what the truth allows.", ""]
        out += [f"| source | level | truth | all traces | {' | '.join(WORDS)} | of |", f"|{'---|' * (len(WORDS) + 5)}"]
        for (source, level), part in data.groupby(["source", "level"], sort=False):
            truth, whole = part["truth"].iloc[0], part["whole"].iloc[0]
            allowed, count = truth.split(" or "), dict(zip(part["word"], part["count"], strict=True))
            cells = [_marked(str(count.get(w, "")), w in allowed or w not in count) for w in WORDS]
            cells = [source, level, truth, _marked(whole, whole in allowed), *cells, str(part["runs"].iloc[0])]
            out.append(f"| {' | '.join(cells)} |")
    return out + _long(tables)


def _long(tables: dict[str, pd.DataFrame]) -> list[str]:
    """V13: the exact numbers of every world and the words of its small samples."""
    if "words" not in tables:
        return []
    data = tables["words"]
    out = ["", "## Words at the lengths of real text", ""]
    out += [
        "Exact bigram worlds of 17 to 2,000 tokens, .5 to 2 nats a token; 30 problems x 16 traces a sample. Truth: the "
        "words that the exact numbers allow, from 100 traces a problem against the thresholds without a bound (two "
        "where a number lies within a fifth of its threshold). E: whole traces beyond 64, against the kindest law that "
        "counts; every: against all laws at once; A: share of traces with a hurdle, at span 1 and 4; s: share of the "
        "divergence that a temperature explains; drop: entropy less surprisal, nats a token. Bold: another word.",
        "",
        f"| world | truth | E | every | A 1 | A 4 | s | drop | {' | '.join(WORDS)} | of |",
        f"|{'---|' * (len(WORDS) + 9)}",
    ]
    for r in data.to_dict("records"):
        allowed = [*r["truth"].split(" or "), "undetermined"]
        numbers = [_number(float(r[k])) for k in ("inside_value", "every_value", "share1", "share4", "s", "drop")]
        words = [_marked(str(r[w] or ""), w in allowed or not r[w]) for w in WORDS]
        out.append(f"| {' | '.join([r['world'], r['truth'], *numbers, *words, str(r['runs'])])} |")
    return out


def _marked(text: str, right: bool) -> str:
    return text if right else f"**{text}**"


def _page(checks: list[GateResult], shown: list[tuple[str, str]], meta: dict[str, Any]) -> list[str]:
    failed = [c for c in checks if not c.passed]
    escaped = [c for c in checks if c.mutant and not c.mutant.caught]
    versions = ", ".join(f"{k} {v}" for k, v in meta["versions"].items())
    out = [
        "# Validation",
        "",
        "What the tests claim, measured on worlds whose truth is known, and for every gate a wrong method in the place "
        "of the right one that the same band has to turn away.",
        "",
        f"    {meta['command']}",
        "",
        f"{len(checks)} checks, {len(checks) - len(failed)} passed; "
        f"{sum(c.mutant is not None for c in checks)} mutants, {len(escaped)} escaped. Suite: {meta['suite']}, "
        f"seed {meta['seed']}. {versions}.",
        "",
        f"{sum(meta['spent'].values()):,.0f} processor seconds, of which "
        + ", ".join(f"{name} {s:.0f}" for name, s in sorted(meta["spent"].items(), key=lambda x: -x[1]))
        + ".",
        "",
        "A band is the claimed range widened by binomial noise at 1e-4 for this number of runs (5e-5 on each side), so "
        "a true claim fails a check with at most that probability; more runs narrow it. `yes (noise)`: inside the "
        "band, but short of the claim. Simulated worlds: 30 problems, "
        "each a mixture of four Markov strategies over 12 tokens with lengths of 12 to 28, and a fifth, novel one that "
        "the base never uses; tilt b: Q ~ P exp(correct / b); temp T: tokens at that temperature; teacher l: a share "
        "l novel. V11 speaks of the committed dumps of two small trained worlds; no threshold was set on the second. "
        "The worlds test the statistics; that features see reasoning in long texts is not tested here. V13, V15 have "
        "worlds of their own, described with their words below. V14: texts of 150 to 1,500 words, each a method (a "
        "sequence of formulas) in the wording of one of four styles; a problem's base is a mixture of up to seven.",
        "",
        "An interval of E_k speaks of problems such as these (resampled), with one exception: where no trace exceeds "
        "the budget, its bound is exact for the given problems and says nothing about new ones (`docs/method.md`).",
        "",
    ]
    for line in meta["missing"]:
        out += [f"**Not run:** {line}", ""]
    if failed or escaped:
        out += ["## Failed", ""]
        out += [f"- {c.name}: {c.what}: {_number(c.measured)}, band {_band(c)}" for c in failed]
        out += [
            f"- {c.name}: mutant '{c.mutant.what}' escaped: {_number(c.mutant.measured)}" for c in escaped if c.mutant
        ]
        out.append("")
    for name, title in TITLES.items():
        mine = [c for c in checks if c.name == name]
        if not mine:
            continue
        out += [f"## {name}: {title}", ""]
        out += ["| what | claim | measured | band | runs | passed | mutant | its number | caught |"]
        out += ["|---|---|---|---|---|---|---|---|---|"]
        for c in mine:
            tail = (
                ("", "", "") if c.mutant is None else (c.mutant.what, _number(c.mutant.measured), _yes(c.mutant.caught))
            )
            cells = (
                c.what,
                c.claim,
                _number(c.measured),
                _band(c),
                f"{c.runs:,}",
                _yes(c.passed) + " (noise)" * c.noise,
                *tail,
            )
            out.append("| " + " | ".join(str(x).replace("|", "\\|") for x in cells) + " |")
        out.append("")
    if shown:
        out += ["## Figures", ""]
        for name, caption in shown:
            out += [
                f"![{caption}](validation/{name}.svg)",
                "",
                f"{caption}. Numbers: [csv](validation/{name}.csv).",
                "",
            ]
    return out[:-1]


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _band(c: GateResult) -> str:
    return f"[{_number(c.low)}, {_number(c.high)}]"


def _number(x: float) -> str:
    if math.isnan(x):
        return "-"
    if x != 0 and abs(x) < 1e-3:
        return f"{x:.1e}"
    return f"{x:.3f}".rstrip("0").rstrip(".") if abs(x) < 100 else f"{x:.0f}"
