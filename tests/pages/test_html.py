"""index.html: text stays text, nothing leaves the page, colours can be read, ids are unique."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from analyzer.analysis import figures
from analyzer.analysis.figures import curve_id
from analyzer.pages import content, document, html, markdown, methods, parts, render, sequences, wording
from analyzer.pages import write as report
from analyzer.records import Estimate, Result, display

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags with attributes, the text outside of style and script, and unclosed elements."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not (self.open and self.open[-1] == "style"):
            self.text.append(data)


@pytest.fixture(scope="session")
def page(written) -> Page:
    parsed = Page(written.html)
    assert parsed.open == []
    return parsed


def test_hostile_text_stays_text(page, written, fake):
    tags = [t for t, _ in page.tags]
    assert "img" not in tags and "iframe" not in tags
    kinds = [a.get("type") for t, a in page.tags if t == "script"]
    assert kinds.count(None) == 1 and set(kinds) == {None, "text/plain"}
    for kind, text in zip(kinds, page.scripts, strict=True):
        assert text == html.script() if kind is None else re.fullmatch("[A-Za-z0-9+/]+=*", text)
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    text = "".join(page.text)
    # the label, the ledger's reason, the note, the table cell, the decision, the left-out reason, the command
    for place in (
        "{} is UNDETERMINED",
        "broken JSON {}",
        "here {}.",
        "{} then 3 * (4 + 5)",
        "BOS once; {}",
        "no step column {}",
        "odd={}",
    ):
        assert place.format(fake.HOSTILE) in text, place
    labels = [a["aria-label"] for t, a in page.tags if t == "svg"]
    assert any(fake.HOSTILE in label for label in labels) and len(labels) == 8


def test_nothing_leaves_the_page(page, written):
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(html.script().encode()).digest()).decode()
    rules = ("default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}';", "img-src data:")
    assert all(rule in policy for rule in rules), policy
    # the namespaces of elements that the script makes are names, not addresses
    outside = re.sub(r'"http://www\.w3\.org/(2000/svg|1999/xhtml)"', "", written.html)
    for tag, attrs in page.tags:
        for name in ("href", "src", "action", "data", "poster", "xlink:href", "srcset"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:", "figures/", "tables/")), (tag, name, value)
        assert "http" not in (attrs.get("style") or "") and "@import" not in (attrs.get("style") or "")
    assert "http:" not in outside and "https:" not in outside
    assert "url(" not in render.asset("report.css") and "@import" not in render.asset("report.css")
    for word in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("):
        assert word not in html.script()


def test_ids_are_unique_and_references_resolve(page, traces):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = {u for _, a in page.tags for v in a.values() for u in re.findall(r"url\(#([^)]+)\)", v or "")}
    used |= {a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")}
    routes = {u for u in used if u.startswith("/")}
    assert used - routes and used - routes <= set(ids)
    keys, labels = set(traces.traces["key"]), set(traces.sources)
    for route in routes:
        kind, *words = map(unquote, route[1:].split("/"))
        assert kind == "trace" and "/".join(words) in keys or kind == "compare" and set(words) <= labels, route
    assert {r.split("/")[1] for r in routes} == {"trace", "compare"}
    assert any(i.startswith("perplexity-ecdf-") for i in used) and any(i.startswith("perplexity-again-") for i in used)


def test_figures_follow_the_theme(written):
    svgs = re.findall(r"<svg.*?</svg>", written.html, re.S)
    for svg in svgs:
        assert "currentColor" in svg and "#262626" not in svg and "#ffffff" not in svg
        assert "<style" not in svg and "<metadata" not in svg and 'role="img"' in svg


def test_order_of_the_page(page, written):
    heads = re.findall(r"<h2[^>]*>([^<]+)</h2>", written.html)
    assert len(heads) == 4 and heads[0].startswith("Could 64 draws of base have given what rlvr, distill/v1 α, ")
    assert heads[1:] == ["Evidence", "Traces", "How this was made"]
    panels = re.findall(r'<section class="panel".*?<h3[^>]*>([^<]+)</h3>', written.html, re.S)
    assert panels == [
        "Key numbers",
        "Likelihood under the base",
        "Support: sequences",
        "Support: tokens",
        "pass@k and coverage",
        "Clusters",
        "Robustness",
        "Viewer",
        "Compare two sources",
        "Tree of prefixes",
        "Ledger",
        "Left out, and why",
        "Methods",
    ]
    assert [t for t, _ in page.tags if t in ("h1", "h2", "h3")][:2] == ["h1", "h2"]
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch("h[1-6]", t)]
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))  # no level is skipped
    assert next(a for t, a in page.tags if t == "a") == {"class": "skip", "href": "#main"}


def test_long_tables_say_how_much_is_shown(written, unpack):
    at = written.html.index('data-pack="tables-support-curve"')
    part = written.html[at : written.html.index("</details>", at)]
    assert '200 shown of 300, the whole table in <a href="tables/support-curve.csv">' in part and "<tr>" not in part
    table = unpack(re.search('id="pack-tables-support-curve">([^<]+)<', part)[1])
    assert len(table["rows"]) == 200 and table["columns"] == ["source", "k", "reach", "log_ratio"]
    assert table["rows"][0] == ["base", "0", "0", "–"] and table["right"] == [False, True, True, True]


def test_numbers_of_the_page_are_those_of_the_file(page, written):
    e = written.data["analyses"]["support"]["estimates"]["rlvr.reach@64"]
    assert (e["value"], e["low"], e["high"]) == pytest.approx((0.3012, 0.3, 0.3345))
    assert "0.301 [0.300, 0.335]" in "".join(page.text)


def test_the_section_on_sequences_shows_where_a_source_leaves(written, fake):
    """Steps in numbers, hurdles with their places, stretches and laws are folded, in this order, below the finding."""
    at = written.html.index('<section class="panel" id="a-support"')
    section = written.html[at : written.html.index("</section>", at)]
    order = ["Steps in numbers", "Hurdles", "Stretches", "Laws of the base", "Notes, intervals, tables"]
    places = [section.index(f"<summary>{text}</summary>") for text in order]
    assert section.index("beyond 64 times") < places[0] and places == sorted(places)
    assert written.html.index("support-prefix") < at  # on the first screen
    table = sequences.hurdles(written.data)
    rows = {key: dict(zip(table.columns, (key, *rest), strict=True)) for key, *rest in table.rows}
    assert [key.rpartition("/p")[0] for key in rows].count("distill/v1 α") == sequences.PLACES
    first, second = rows["distill/v1 α/p0/0"], rows["distill/v1 α/p1/0"]
    assert first["p"] == "0" and second["p"] == "3.1e-07" and first["q"] == "0.90" and first["token"] == "' 17\\n'"
    assert (second["rank"], first["rank"]) == ("–", "41") and second["step (tokens)"] == "4"
    assert table.notes[1] == "distill/v1 α: 6 of 8 listed places" and table.notes[-1] == "no hurdle in cool"
    still = {"value": 0.0, "low": 0.0, "high": 0.0, "note": ""}
    data = copy.deepcopy(written.data)
    data["analyses"]["support"]["estimates"]["cool.hurdles@64"] = still
    assert sequences.numbers(data, 64).rows[-1] == ["cool", "0", *["–"] * 5]
    laws = sequences.laws(written.data, 64)
    assert laws.rows[0] == ["rlvr", "T=1", *["0.80 [0.70, 0.90]"] * 3, "0.750 to 0.850", "7.20", "yes", "64"]
    assert laws.rows[1][-3:] == ["–", "–", "64"] and "base" not in {row[0] for row in laws.rows}
    assert sequences.stretches(written.data).rows[0][-1].endswith("…")
    for text in (sequences.hurdle(64), sequences.STRETCHES, sequences.LAWS):
        assert display.markup(text) in section and markdown.esc(text) in written.markdown


def test_what_could_not_be_checked_is_a_doubt(written):
    data = copy.deepcopy(written.data)
    columns = ["check", "source", "passed"]
    rows = [["declared", "rlvr", None], ["declared", "cool", True]]
    data["analyses"]["preflight"] = {"tables": {"checks": {"columns": columns, "rows": rows}}}
    clause = "declared model and sampler could not be checked: rlvr"
    assert ("a-preflight", True, clause) in content.doubts(data)
    own = data["analyses"]["support"]["estimates"]["distill/v1 α.reach@64"]
    own["note"] = "from the log-probs that the rows bring"
    assert ("a-support", True, f"{clause}, distill/v1 α") in content.doubts(data)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme):
    css = render.asset("report.css")
    colors = {name: pair[theme] for name, *pair in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    tints, shades = [f"h{i}" for i in range(1, 6)], [f"p{i}" for i in range(5)]
    assert set(colors) == {"paper", "panel", "ink", "muted", "rule", "link", "heat", *tints, *shades, *wording.WORDS}
    for name in ("ink", "muted", "link", *wording.WORDS):
        for ground in ("paper", "panel"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for tint in tints:  # text on the background of a token
        assert contrast(colors["ink"], colors[tint]) >= 4.5, tint
    steps = [luminance(colors[name]) for name in ("paper", *tints)]
    assert steps == sorted(steps, reverse=theme == 0)  # a scale: each class is stronger than the last
    grey = [contrast(colors[name], colors["paper"]) for name in shades]
    assert grey == sorted(grey, reverse=True) and grey[-1] >= 1.8 and contrast(colors["heat"], colors["panel"]) >= 3
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    literal = [
        c
        for line in css.splitlines()
        if not line.lstrip().startswith("--")
        for c in re.findall(r"#[0-9a-f]{3,8}\b", line)
    ]
    assert literal == []  # every colour is one of the pairs


@pytest.mark.parametrize("theme", ["#ffffff", "#14171b"])
def test_the_first_sources_stand_out_in_figures(theme):
    from analyzer.analysis.figures import COLORS

    assert all(contrast(c, theme) >= 3 for c in COLORS[:3])
    assert all(contrast(c, theme) >= 2 for c in COLORS)


def test_what_hides_is_written_out_in_html_as_in_the_terminal():
    assert display.markup("a\x00\x1b[31m\u202e<b>") == "a\\x00\\x1b[31m\\u202e&lt;b&gt;"
    assert display.markup(display.markup("<b>")) == "&lt;b&gt;"  # once


def test_assets_are_small_and_without_constructs_newer_than_es2020():
    assert sum(len(render.asset(name).encode()) for name in (*html.ASSETS, "report.css")) <= 64_000
    for name in html.ASSETS:  # lines are joined without their indents: no literal may run over two
        assert all(line.count("`") % 2 == 0 for line in render.asset(name).splitlines()), name
    assert not re.search(
        r"\?\?=|\|\|=|&&=|\.at\(|\.replaceAll\(|#\w+\s*\(|\bstatic\b", "".join(map(render.asset, html.ASSETS))
    )


def test_robustness_and_pairs_stand_in_their_own_sections(fake, traces, tmp_path):
    inputs = fake.inputs(hostile="teacher") | {"figures": {}}
    found = {
        name: Result(name, f"What of {name}?", {f"rlvr.{name}": Estimate(0.5)}) for name in ("robustness", "paired")
    }
    inputs["results"] = inputs["results"] | found
    text = report.write(tmp_path, **inputs, traces=traces)["index.html"].read_text(encoding="utf-8")
    for name, section in (("robustness", "robustness"), ("paired", "a-paired")):
        at = text.index(f'<section class="panel" id="{section}"')
        assert f"What of {name}?" in text[at : text.index("</section>", at)] and text.count(f"What of {name}?") == 1
    assert "Not varied in this run" not in text and 'id="a-robustness"' not in text


def test_without_traces_there_is_no_viewer(fake, tmp_path):
    inputs = fake.inputs(hostile="teacher") | {"figures": {}}
    text = report.write(tmp_path, **inputs)["index.html"].read_text(encoding="utf-8")
    assert 'id="viewer"' not in text and 'id="compare"' not in text and 'id="pack-index"' not in text


def test_doubts_stand_on_the_first_screen_and_lead_to_their_sections(written, page):
    """Rows, checks and other choices, each as a warning or not; only what the run has."""
    data = copy.deepcopy(written.data)
    assert content.doubts(data) == [("ledger", True, "10 of 1,010 rows rejected, 10 of 2,000 traces not scored")]
    data["ledger"] |= {"rows_rejected": 0, "traces_rejected": 0}
    columns = ["check", "source", "passed"]
    checks = {"columns": columns, "rows": [["base", "", True], ["policy", "x", None], ["sampler", "x", False]]}
    data["analyses"]["preflight"] = {"tables": {"checks": checks}}
    kept = {"x.words_kept": {"value": 12 / 13, "n": 13}, "y.words_kept": {"value": 1.0, "n": 13}}
    data["analyses"]["robustness"] = {"estimates": kept}
    assert content.doubts(data) == [
        ("ledger", False, "every row used"),
        ("a-preflight", True, "1 of 3 checks passed, 1 not possible, failed: sampler"),
        ("robustness", True, "x: verdict unchanged in 12 of 13 sensitivity analyses"),
    ]
    checks["rows"] = [["base", "", True], ["prompts", "x", None]]
    unseen = "1 of 2 checks passed, 1 not possible, prompts not compared: x"
    assert content.doubts(data)[1] == ("a-preflight", True, unseen)
    kept["x.words_kept"]["value"] = 1.0
    assert content.doubts(data)[2] == ("robustness", False, "every verdict unchanged in 13 sensitivity analyses")
    head = written.html[: written.html.index('id="evidence"')]
    assert '<a href="#ledger">⚠ 10 of 1,010 rows rejected' in head


def test_an_empty_table_is_named(written):
    assert "Table: empty: without rows in this run" in written.html and "<summary>Table: empty" not in written.html


@pytest.mark.parametrize(
    ("caption", "short"),
    [
        (
            "Mass beyond k (E_k), at T = 1; dotted: the tolerance. At k = 64: a 0.1.",
            "Mass beyond k (E_k), at T = 1; dotted: the tolerance.",
        ),
        ("pass@k over the draws. base 0.080 at k = 1.", "pass@k over the draws."),
        (
            "Effective number, mean over problems: base 10.21 [9.95, 10.46] (n = 3).",
            "Effective number, mean over problems.",
        ),
        ("filled: p <= .05 after Holm; no intervals. n = 3.", "filled: p <= .05 after Holm; no intervals."),
        ("One sentence.", "One sentence."),
    ],
)
def test_a_caption_begins_with_what_is_drawn(caption, short):
    assert document.shortened(caption) == short


def test_the_glossary_is_that_of_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")
    table = text[text.index("| term | meaning |") :].split("\n\n")[0]
    told = dict(re.findall(r"^\| (.+?) \| (.+) \|$", table, re.M)[2:])
    plain = {
        term.replace("`", ""): re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", m).replace("`", "") for term, m in told.items()
    }
    assert plain == wording.GLOSSARY


def test_a_term_of_the_glossary_is_explained_on_hover(written):
    assert '<abbr title="E_k of whole traces at T = 1">reach@64 (at T = 1)</abbr>' in written.html
    assert written.html.count("<abbr") > 10


def test_every_word_has_one_colour_and_one_mark():
    css = render.asset("report.css")
    light = dict(re.findall(r"--(\w+): light-dark\((#\w{6}), #\w{6}\)", css))
    assert {word: light[word] for word in wording.WORDS} == figures.WORD_COLORS
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><path style="fill: #a63c00"/></svg>'
    assert "var(--outside)" in parts.inline_svg(svg, prefix="p", label="l")


def test_points_of_a_curve_are_those_of_its_last_step():
    columns = ["source", "step", "k", "pass", "low", "high", "problems"]
    rows = [["a/b", step, k, value, 0.0, 1.0, 9] for step in (1, 2) for k, value in ((1, 0.1 * step), (2, None))]
    said = parts.points({"columns": columns, "rows": rows})
    assert said[curve_id("pass", "a/b")] == ["a/b, k = 1: 0.2 [0.0, 1.0], 9 problems"]
    assert parts.points({"columns": ["x"], "rows": [[1.0]]}) == {}


def test_a_curve_whose_marks_do_not_match_its_table_says_nothing():
    use = '<use x="1" y="2"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><g id="curve.pass.a">{use * 2}</g></svg>'
    two, one = (parts.inline_svg(svg, prefix="p", label="l", say={"curve.pass.a": ["x"] * n}) for n in (2, 1))
    assert two.count('data-say="x"') == 2 and "data-say" not in one


def test_settings_have_a_row_for_the_plain_values_of_a_dict(written):
    meta = {"samplers": {"a": {"t": 1, "p": 0.5}, "b": None}, "inputs": [{"path": "x", "mapping": {"q": "r"}}]}
    rows = [row for row in methods.settings({**written.data, "analyses": {}}, meta).rows[2:]]
    assert rows == [
        ["inputs 1", "path = x"],
        ["inputs 1: mapping", "q = r"],
        ["samplers", "b = –"],
        ["samplers: a", "t = 1, p = 0.5"],
    ]
