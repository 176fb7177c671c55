"""docs/validation.md and its figures: every check with its band, every mutant with its number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyzer import figures
from analyzer.records import Figure, Result, json_value
from analyzer.validate.checks import Gate, GateResult, band

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
    "V11": "verdicts on the miniature",
    "V12": "independent implementations",
}
WORDS = ("inside", "sharpened", "outside", "undetermined")


def draw_ecdf(result: Result, ax: Any) -> Any:
    """Empirical distribution of null p-values against the diagonal, with the pointwise binomial band of 99.99 %."""
    import seaborn as sns

    data = result.tables["ecdf"]
    runs = int(data["runs"].min())
    grid = np.unique(data["p"])
    ends = np.array([band(p, p, runs) if p < 1 else (1.0, 1.0) for p in grid])
    ax.fill_between(grid, ends[:, 0], ends[:, 1], color="0.88", linewidth=0)
    sns.lineplot(data=data, x="p", y="share", hue="test", style="test", ax=ax, errorbar=None, legend="full")
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.6)
    ax.set(xlim=(0, 0.3), ylim=(0, 0.6), xlabel="p", ylabel="share of p-values at most p")
    ax.legend(fontsize=5, ncols=2)
    return ax


def draw_power(result: Result, ax: Any) -> Any:
    """Power over the share of novel traces."""
    import seaborn as sns

    data = result.tables["power"]
    sns.lineplot(data=data, x="lambda", y="power", hue="test", style="test", markers=True, ax=ax, errorbar=None)
    ax.set(xlabel="share of the teacher's traces", ylabel="power", ylim=(-0.02, 1.02))
    ax.legend(fontsize=6)
    return ax


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
    import seaborn as sns

    data = result.tables["coverage"]
    sns.stripplot(data=data, x="coverage", y="interval", hue="setting", ax=ax, jitter=0.2, size=4)
    for x in (0.9, 0.95):
        ax.axvline(x, color="0.5", linewidth=0.7, linestyle=":")
    ax.set(
        xlabel="share of runs whose interval holds the truth",
        ylabel="",
        xlim=(min(0.8, data["coverage"].min() - 0.02), 1.01),
    )
    ax.legend(fontsize=5, ncols=2)
    return ax


def draw_confusion(result: Result, ax: Any) -> Any:
    """Share of the runs by source and word."""
    return _matrix(result.tables["confusion"], ax)


def draw_miniature(result: Result, ax: Any) -> Any:
    """Share of the resamplings by source and word, at the sequence level."""
    data = result.tables["miniature"]
    return _matrix(data[data["level"] == "sequence"], ax)


def _matrix(data: pd.DataFrame, ax: Any) -> Any:
    import seaborn as sns

    share = data.assign(share=data["count"] / data["runs"])
    table = share.pivot_table(index="source", columns="word", values="share", sort=False, fill_value=0.0)
    table = table.reindex(columns=WORDS, fill_value=0.0)
    sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cbar=False, cmap="Blues", ax=ax, annot_kws={"size": 7})
    ax.set(xlabel="", ylabel="")
    return ax


FIGURES = {
    "ecdf": (draw_ecdf, "p-values where the null holds, against the diagonal; grey: 99.99 % binomial band", 2),
    "power": (draw_power, "power of the tests of change and of novelty over the share of novel traces", 2),
    "reach": (draw_reach, "E_k: truth (lines), mean and middle 95 % of the estimates (points, bars)", 2),
    "coverage": (draw_coverage, "coverage of the 95 % intervals", 2),
    "confusion": (draw_confusion, "share of runs by source and word, sequence level", 2),
    "miniature": (draw_miniature, "share of resamplings of the miniature by source and word, sequence level", 2),
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
    """Write validation.md and validation/*.svg and *.csv below `out`; meta: seed, seconds, suite, versions, missing."""
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
    page.write_text("\n".join(_page(checks, shown, meta)) + "\n", encoding="utf-8")
    return [page, folder / "gates.csv", *made]


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
        f"seed {meta['seed']}, {meta['seconds']:.0f} s on {meta['workers']} cores. {versions}.",
        "",
        "A band is the claimed range widened by binomial noise at 1e-4 for this number of runs (5e-5 on each side), so "
        "a true claim fails a check with at most that probability; more runs narrow it. Simulated worlds: 30 problems, "
        "each a mixture of four Markov strategies over 12 tokens with lengths of 12 to 28, and a fifth, novel one that "
        "the base never uses; tilt b: Q ~ P exp(correct / b); temp T: tokens at that temperature; teacher l: a share "
        "l novel. V11 speaks of the miniature. The worlds test the statistics; that features see reasoning in long "
        "texts is not tested here.",
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
            cells = (c.what, c.claim, _number(c.measured), _band(c), f"{c.runs:,}", _yes(c.passed), *tail)
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
