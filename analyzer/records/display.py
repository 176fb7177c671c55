"""How text and numbers are shown: numbers with their interval, times, sizes, what a terminal would obey written out;
results, verdicts and runs as small HTML for notebooks, every word escaped, no script, no network.

The functions read attributes only and know no type of the package, so that the types themselves can call them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

ROWS = 60  # of a table; what is left out is counted below it
LONG = 900  # characters of a cell that a page shows; the csv holds all of them
# of the words, here and on the page: a word never stands on its colour alone
MARKS = {"inside": "●", "sharpened": "▲", "reweighted": "✚", "outside": "◆", "undetermined": "?"}
NONE = "–"
NEUTRAL = {"top_p": 1, "top_k": 0, "min_p": 0}  # of a sampler: what truncates nothing
_HIDDEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
COLOUR = r"\x1b\[[0-9;]*m"
HIDDEN, ONE_LINE = (re.compile(rf"{COLOUR}|[{_HIDDEN}{more}]") for more in ("", r"\t\n"))


def visible(text: str, *, line: bool = False, colour: bool = False) -> str:
    """Text with what a terminal obeys or hides written out: control characters as \\x1b, those that turn the direction
    of writing as \\u202e. All that is printed goes through here: ids, file names and texts are other people's.

    line: tabs and line breaks too. colour: the terminal's colours are ours and stay.
    """
    pattern = ONE_LINE if line else HIDDEN
    return pattern.sub(lambda m: m[0] if colour and len(m[0]) > 1 else _escape(m[0][0]) + m[0][1:], text)


def one_line(text: Any) -> str:
    """Text as (a part of) one line: no name or id in it begins another."""
    return visible(str(text), line=True)


def spreadsheet(text: str) -> str:
    """Text as a cell of a csv file: what hides is written out, and what a spreadsheet would compute (it begins as a
    formula and is no number) has an apostrophe before it, by which spreadsheets know text."""
    text = visible(text)
    return f"'{text}" if FORMULA.match(text) and not _is_float(text) else text


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escape(hidden: str) -> str:
    return f"\\x{ord(hidden):02x}" if hidden < " " else f"\\u{ord(hidden):04x}"


def markup(text: Any) -> Markup:
    """Text as HTML that shows it as it is: what hides is written out, no character of it is markup."""
    return text if isinstance(text, Markup) else escape(visible(str(text)))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    at_most: int = ROWS,
    about: Mapping[str, str] | None = None,
) -> Markup:
    """The HTML table of every view: numbers to the right, their intervals on a line of their own. `about`: by what
    stands before its @, the meaning of a column or of a row, which a pointer shows."""
    rows = [[c if isinstance(c, str) else str(c) for c in row] for row in rows]
    shown = rows[:at_most]
    side = [Markup(' class="r"') if right else "" for right in numbers(shown, len(columns))]

    def line(tag: str, more: str, cells: Iterable[Any]) -> Markup:
        cell = Markup(f"<{tag}{more}{{}}>{{}}</{tag}>")
        cells = Markup("").join(cell.format(s, c) for s, c in zip(side, cells, strict=True))
        return Markup("<tr>{}</tr>\n").format(cells)

    def named(text: str) -> Markup:
        meaning = (about or {}).get(text.partition("@")[0].partition(" (")[0].replace("_", " "))
        return Markup('<abbr title="{}">{}</abbr>').format(meaning, markup(text)) if meaning else markup(text)

    head = line("th", ' scope="col"', map(named, columns))
    body = Markup("").join(line("td", "", [named(row[0]), *map(_split, row[1:])]) for row in shown)
    more = Markup("<p>{:,} more rows.</p>").format(len(rows) - at_most) if len(rows) > at_most else ""
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>{}").format(head, body, more)


def _split(text: str) -> Markup:
    """A number with its interval, and its n, on lines of their own, which keeps wide tables narrow."""
    value, space, rest = markup(text).partition(" [")
    if not space or not numeric(text):
        return markup(text)
    within, _, n = rest.partition("] (")
    small = Markup("{} <small>[{}]</small>").format(value, within.removesuffix("]"))
    return small + Markup(" <small>({}</small>").format(n) if n else small


def numeric(text: str) -> bool:
    """Whether a cell is a number (with an interval or not) or the sign for none, to be set to the right."""
    return text == NONE or bool(re.fullmatch(r"[-−+]?[\d.][\d.,e+-]*( \[.*\])?( \([kn] = [\d,]+\))?", text))


def numbers(rows: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """Which columns are numbers; the first one names the row."""
    return [i > 0 and all(numeric(row[i]) for row in rows) for i in range(columns)]


def counted(n: int, what: str) -> str:
    """1 row, 1,234 rows."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def possessive(label: str) -> str:
    """base's, atlas'."""
    return f"{label}'" if label.endswith("s") else f"{label}'s"


def number(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """ "0.31 [0.25, 0.37]", with no more digits than the interval supports (two of its width); an end that is not known
    is open, and a number without both ends stands alone. NONE without a value."""
    if value is None or math.isnan(value):
        return NONE
    if all(x is None or math.isnan(x) for x in (low, high)):
        return cell(float(value))
    known = [x for x in (value, low, high) if x is not None and math.isfinite(x)]
    width = max(known, default=0) - min(known, default=0)
    digits = 0 if all(float(x).is_integer() for x in known) else 4
    if width > 0:
        digits = min(6, max(0, 1 - math.floor(math.log10(width))))
        digits -= digits > 4  # one digit of a very narrow interval, which keeps tables narrow

    def text(x: float | None, open_: str) -> str:
        return f"{x:.{digits}f}" if x is not None and math.isfinite(x) else open_

    return f"{text(value, '∞')} [{text(low, '−∞')}, {text(high, '∞')}]".replace("-", "−")


def cell(value: Any) -> str:
    """One JSON value of a table as text: four significant digits, long text cut with its length said."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        text = ", ".join(map(cell, value))
    elif isinstance(value, Mapping):
        text = ", ".join(f"{k}: {cell(v)}" for k, v in value.items())
    else:
        text = str(value)
    return text if len(text) <= LONG else f"{text[:LONG]} … ({len(text)} characters)"


def paragraphs(*lines: str, bold: str = "") -> Markup:
    """Lines as paragraphs, `bold` at the beginning of the first."""
    head = Markup("<b>{}</b>").format(markup(bold)) if bold else Markup("")
    shown = [head + markup(lines[0]), *map(markup, lines[1:])] if lines else []
    return Markup("").join(Markup("<p>{}</p>").format(line) for line in shown)


def result(found: Any) -> str:
    """A Result: its question, its estimates, the names and sizes of its tables, its notes."""
    rows = [(k, number(e.value, e.low, e.high), f"{e.n:,}", e.note) for k, e in found.estimates.items()]
    sizes = "; ".join(f"{name} ({len(t):,} rows)" for name, t in found.tables.items())
    head = paragraphs(f": {found.question}", bold=found.name)
    shown = table(["estimate", "value [95 %]", "n", "note"], rows) if rows else ""
    return head + shown + paragraphs(*([f"tables: {sizes}"] if sizes else []), *found.notes)


def verdicts(found: Iterable[Any]) -> str:
    """Verdicts as a table: word and level, budget, the first reason, what would decide."""
    rows = [
        (
            v.source,
            f"{MARKS[v.word]} {v.word}",
            v.level if v.prompt_of is None else f"{v.level} (prompts of {v.prompt_of})",
            f"{v.budget} draws of {v.reference}",
            v.why[0].replace(f"E_{v.budget} =", f"reach@{v.budget} =") if v.why else NONE,
            v.needs or NONE,
        )
        for v in found
    ]
    return table(["source", "verdict", "level", "budget", "because", "what would decide"], rows)


def run(path: Any, manifest: dict[str, Any]) -> str:
    """A Run: where it lies, how its inputs were read, its samplers, what it was scored under; nothing else is read."""
    files = [
        (
            ", ".join(f["sources"]) or NONE,
            f["path"],
            f["format"],
            f"{f['rows_used']:,} of {f['rows']:,}",
            f"{f['traces']:,}",
            ", ".join(k if k == v else f"{k} = {v}" for k, v in f["mapping"].items()),
        )
        for f in manifest["inputs"]
    ]
    reference = manifest.get("settings", {}).get("reference")
    samplers = [
        (s, ", ".join(f"{k} {x:g}" for k, x in v.items() if x != NEUTRAL.get(k)) if v else "unknown")
        for s, v in manifest.get("samplers", {}).items()
    ]
    models = [
        (label, record["model"], record["dtype"], record["path"]) for label, record in manifest["scorers"].items()
    ]
    parts = [paragraphs(f" in {path}{f'; reference: {reference}' if reference else ''}", bold="Run")]
    parts += [
        table(columns, rows)
        for columns, rows in (
            (["source", "file", "read as", "rows used", "traces", "fields"], files),
            (["source", "sampler"], samplers),
            (["scored under", "model", "dtype", "path"], models),
        )
        if rows
    ]
    unscored = [] if models else ["Nothing is scored yet."]
    return Markup("").join(parts) + paragraphs(*unscored, *manifest.get("input_notes", []))


def span(seconds: float) -> str:
    """A length of time for people: 0.4 s, 38 s, 3 min 20 s, 5 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours:,} h {left} min" if hours else f"{minutes} min {rest} s"


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: 812 kB, 1.4 GB."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 999.5:
            break
        count, unit = count / 1000, larger
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "B" else f"{count:,.0f} {unit}"
