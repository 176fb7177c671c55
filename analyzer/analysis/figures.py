"""How figures look and how they are saved; what they show is drawn by the analyses, and no number is computed here.

A figure is drawn at its printed width on a canvas of its own: pyplot's state, the caller's rcParams and NumPy's global
generator are left as they were. The same input gives the same bytes in svg, pdf and csv.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import AnalyzerError, UsageError, nearest
from analyzer.records import Figure, Result, json_value
from analyzer.records.display import spreadsheet

if TYPE_CHECKING:
    import matplotlib.figure

# seaborn's "colorblind" colours without the two that are too pale on white, the best separated first.
COLORS = ("#0173b2", "#d55e00", "#029e73", "#cc78bc", "#de8f05", "#56b4e9", "#ca9161", "#949494")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
LINESTYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))
# inches, for one and two columns of the venue's page (half and full width where it has one column)
STYLES = {
    "icml": {1: (3.25, 2.5), 2: (6.75, 3.1)},
    "acl": {1: (3.03, 2.4), 2: (6.3, 3.0)},
    "neurips": {1: (2.7, 2.3), 2: (5.5, 2.8)},
}
STYLE = "icml"
CLOUD = 2000  # points of an axis beyond which they are rasterised: 10^5 vector points make a pdf of 1.5 MB
# of the verdict words on white, the same in figures and on pages; a page has lighter ones for its dark theme
WORD_COLORS = {
    "inside": "#006b4b",
    "sharpened": "#0b5cad",
    "reweighted": "#7b2d8e",
    "outside": "#a63c00",
    "undetermined": "#5a5500",
}
TICKS = 12  # values of k that an axis names one by one
_places: ContextVar[tuple[str, ...]] = ContextVar("places", default=())
INK, PAPER, RULE = "#262626", "#ffffff", "#cccccc"  # the three neutral colours that a page may replace by its own


@contextmanager
def one_look_each(labels: Iterable[str]) -> Iterator[None]:
    """Meanwhile a source has the look of its place in `labels` in every figure, whichever of them the figure shows."""
    token = _places.set(tuple(labels))
    try:
        yield
    finally:
        _places.reset(token)


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """label -> {color, marker, linestyle}, in the given order (the reference first) or that of `one_look_each`; no two
    of 360 labels look alike.

    The three lists have lengths without a common factor, so that a label is told apart without its colour too.
    """
    labels = list(dict.fromkeys(labels))
    places = {label: i for i, label in enumerate(dict.fromkeys([*_places.get(), *labels]))}
    return {
        label: {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINESTYLES[i % len(LINESTYLES)],
        }
        for label, i in ((label, places[label]) for label in labels)
    }


def theme() -> dict[str, Any]:
    """rcParams of every figure: seaborn's "ticks" at 8 pt, editable text in svg and pdf, no math parsing of labels."""
    import seaborn as sns
    from cycler import cycler

    sizes = {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.title_fontsize": 7,
        "figure.titlesize": 8,
    }
    lines = {
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "axes.linewidth": 0.7,
        "grid.linewidth": 0.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.minor.width": 0.5,
        "ytick.minor.width": 0.5,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
    }
    return {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper"),
        **sizes,
        **lines,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": RULE,
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=COLORS),
        "image.cmap": "cividis",
        "savefig.dpi": 300,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first ships with matplotlib
        "text.parse_math": False,  # a label from a dump may hold dollar signs
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
    }


class NothingToDraw(AnalyzerError):
    """A figure would be an empty frame."""


def draw(spec: Figure, result: Result, style: str = STYLE) -> matplotlib.figure.Figure:
    """The matplotlib Figure of `spec`, at its printed width in `style`; `save` calls it inside `theme()`.

    A drawing takes its intervals from the result: seaborn's own bootstrap is seeded by the operating system unless it
    gets `seed=`.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    sizes = check_style(style)
    if spec.width not in sizes:
        raise AnalyzerError(f"figure width {spec.width!r} is not a number of columns; allowed: {sorted(sizes)}")
    figure = Canvas(figsize=sizes[spec.width], layout="constrained")
    FigureCanvasAgg(figure)
    state = np.random.get_state()  # seaborn's jitter draws from the global generator
    np.random.seed(0)
    try:
        spec.draw(result, figure.add_subplot())
    finally:
        np.random.set_state(state)
    for ax in figure.axes:
        plain_log_ticks(ax)
        ticks_at_data(ax)
        clouds = [(artist, len(artist.get_offsets())) for artist in ax.collections if hasattr(artist, "get_offsets")]
        bare = [line for line in ax.lines if line.get_linestyle() in ("None", "none", " ", "")]
        clouds += [(line, len(line.get_xdata())) for line in bare]
        if sum(n for _, n in clouds) > CLOUD:
            for artist, n in clouds:
                artist.set_rasterized(n > 1)  # not the single points that stand for a legend
    return figure


def check_style(style: str) -> dict[int, tuple[float, float]]:
    """Inches by columns of a venue's page; raises UsageError for one that is not known."""
    if style not in STYLES:
        close = nearest(style, STYLES)
        allowed = "" if "allowed" in close else f"; allowed: {', '.join(STYLES)}"
        raise UsageError(f"figure style {style!r} is unknown{close}{allowed}")
    return STYLES[style]


def save(figure_spec: Figure, result: Result, name: str, directory: Path, *, style: str = STYLE) -> dict[str, Path]:
    """Write directory/name.svg, .pdf and .csv (the table that the figure shows); returns {"svg", "pdf", "csv"} -> path.

    `style` is the venue whose column widths the figure has. Raises AnalyzerError when the result lacks the table, and
    NothingToDraw, which says why, in place of an empty frame.
    """
    import matplotlib

    if figure_spec.table not in result.tables:
        raise AnalyzerError(
            f"figure {name!r} shows the table {figure_spec.table!r}, which {result.name!r} does not have; "
            f"its tables: {', '.join(result.tables) or 'none'}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    paths = {suffix: directory / f"{name}.{suffix}" for suffix in ("svg", "pdf", "csv")}
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the svg keeps the text, a browser has the glyph
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(theme())
        matplotlib.rcParams["svg.hashsalt"] = name
        figure = draw(figure_spec, result, style)
        if not any(ax.has_data() for ax in figure.axes):
            raise NothingToDraw(" ".join(text.get_text() for ax in figure.axes for text in ax.texts))
        svg, pdf = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", dpi=200, metadata={"Date": None})  # dpi: of rasterised clouds
        figure.set_layout_engine("none")  # the svg's stays
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    paths["svg"].write_bytes(_CONTROL.sub("\ufffd", svg.getvalue().decode()).encode())
    paths["pdf"].write_bytes(pdf.getvalue())
    table = result.tables[figure_spec.table]
    write_csv(
        list(map(str, table.columns)),
        [list(map(json_value, row)) for row in table.itertuples(index=False)],
        paths["csv"],
    )
    return paths


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # not allowed in XML, whatever a label holds


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]], path: Path) -> None:
    """Write JSON values as csv: UTF-8, LF, empty for null, lists and dicts as JSON, text as `display.spreadsheet`. The
    only place that writes such a file."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (columns, *rows):
        cells = (json.dumps(v, ensure_ascii=False) if isinstance(v, (list, dict)) else v for v in row)
        writer.writerow("" if v is None else spreadsheet(v) if isinstance(v, str) else v for v in cells)
    path.write_bytes(out.getvalue().encode("utf-8", "backslashreplace"))


def safe_name(text: str) -> str:
    """A file name without slashes, spaces, case or non-ASCII; a name that had to change ends in a hash of the original,
    so that different names stay different."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.")[:80]
    return (
        name
        if name == text
        else f"{name}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}".lstrip("-")
    )


def curve_id(column: str, label: str) -> str:
    """The id in an svg of the curve of `label` that shows `column` of the figure's table over its column k."""
    return f"curve.{column}.{safe_name(label)}"


def plain_log_ticks(ax: Any) -> None:
    """Logarithmic axes label 0.001 ... 1000 as numbers and the rest as 10 with a superscript, without math text."""
    from matplotlib.ticker import Formatter, LogFormatter

    class Plain(Formatter):
        def __init__(self, old: Formatter) -> None:
            self.old = old

        def set_locs(self, locs: Any) -> None:
            self.old.set_locs(locs)

        def __call__(self, x: float, pos: int | None = None) -> str:
            return _power(x) if self.old(x, pos) else ""

    for axis in (ax.xaxis, ax.yaxis):
        for get, put in (
            (axis.get_major_formatter, axis.set_major_formatter),
            (axis.get_minor_formatter, axis.set_minor_formatter),
        ):
            old = get()
            if isinstance(old, LogFormatter):
                new = Plain(old)
                put(new)
                old.set_axis(axis)


def ticks_at_data(ax: Any) -> None:
    """Curves over k name the k that were computed; a logarithmic axis of less than a decade has even ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    lines = [line for line in ax.lines if str(line.get_gid()).startswith("curve.")]
    ks = sorted({float(x) for line in lines for x in line.get_xdata()})
    if 0 < len(ks) <= TICKS:
        ax.set_xticks(ks, [f"{k:g}" for k in ks])
        ax.xaxis.set_minor_locator(NullLocator())
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        if axis.get_scale() == "log" and 0 < high < 10 * low and not (axis is ax.xaxis and ks):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.set_minor_locator(NullLocator())


def _power(x: float) -> str:
    if x == 0 or 1e-3 <= abs(x) < 1e5:
        return f"{x:g}".replace("-", "\N{MINUS SIGN}")
    digits, exponent = f"{x:.3e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digits == "1" else f"{digits}·{power}".replace("-", "\N{MINUS SIGN}")
