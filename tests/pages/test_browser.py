"""The page in Chromium, opened from disk: no error, no request, every key and every address does what it says.

The made-up study has a hostile label and a hostile response; a script that ran would set `hacked` or open an alert.
"""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import quote

import numpy as np
import pytest

from analyzer.pages import write as report
from analyzer.records.options import ReportOptions

PANELS = 13


class Seen:
    """A page with everything that went wrong on it, and every address that it asked for."""

    def __init__(self, browser, path, *, address: str = "", **options) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("dialog", lambda d: (self.wrong.append(f"dialog {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.session = self.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(path.as_uri() + address)

    def cpu(self) -> float:
        """Seconds that the page's main thread has computed: a busy machine does not change them."""
        found = self.session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in found if m["name"] == "TaskDuration")

    def leaves(self) -> list[str]:
        return [u for u in self.asked[1:] if not u.startswith(("data:", "blob:"))]


@pytest.fixture
def open_page(browser, written):
    pages = []

    def go(path=None, **options):
        pages.append(Seen(browser, path or written.paths["index.html"], **options))
        return pages[-1]

    yield go
    for seen in pages:
        assert seen.wrong == [], seen.wrong
        assert seen.leaves() == []
        seen.context.close()


def viewer(page):
    page.locator("#viewer").scroll_into_view_if_needed()
    page.wait_for_selector("#traces .tokens span")
    return page.locator("#traces")


def key_of(page) -> str:
    return page.locator(".pane h4").first.inner_text().strip()


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_section_renders(open_page, theme, width):
    page = open_page(color_scheme=theme, viewport={"width": width, "height": 900}).page
    panels = page.locator(".panel")
    assert panels.count() == PANELS
    for details in page.locator(".panel > .folds > details").all():
        details.locator("summary").first.click()
    for i in range(PANELS):
        panels.nth(i).scroll_into_view_if_needed()
    page.wait_for_selector("#prefixes svg path", state="attached")
    for details in page.locator(".fold details").all():
        details.locator("summary").first.click()
    page.wait_for_selector("details[data-pack] table")
    for part in ("#map", "#compared", "#prefixes", "#traces"):
        assert page.locator(part).inner_text().strip(), part
    # nothing but tables and trees, which scroll by themselves, is wider than the screen
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_key_table_shows_its_last_column(open_page):
    page = open_page().page
    inner, outer = page.evaluate("(b => [b.scrollWidth, b.clientWidth])(document.querySelector('#key .wide'))")
    assert inner <= outer


def test_hostile_text_stays_text(open_page, fake):
    page = open_page(address="#/trace/rlvr/p0/1").page
    page.wait_for_selector(".pane .tokens .para")
    assert page.locator(".pane .tokens .para").first.inner_text() == f"start {fake.HOSTILE} end"
    assert page.locator("img, iframe, object").count() == 0 and page.evaluate("window.hacked") is None
    assert page.locator("#compared select").first.locator("option", has_text="<img").count() == 1


def test_hostile_problem_question_and_answer_stay_text(browser, fake, world, tmp_path):
    """Everything of a trace that the page shows: key, question, answer, finish; in the viewer, the tree, the tables."""
    made, bad = world.tables(["base", "rlvr"], problems=1, samples=3), fake.HOSTILE

    def renamed(frame):
        return frame.assign(key=[key.replace("/p0/", f"/{bad}/") for key in frame["key"]])

    frame = renamed(made.traces).assign(problem=bad, answer=bad, finish=bad)
    asked = {"question": bad, "prompt": bad}
    tables = dataclasses.replace(
        made,
        traces=frame,
        scores=renamed(made.scores).assign(problem=bad),
        tokens=lambda model, columns: map(renamed, made.tokens(model, columns)),
        texts=lambda columns: (renamed(part).assign(**asked) for part in made.texts(columns)),
    )
    paths = report.write(tmp_path, **fake.inputs() | {"figures": {}}, traces=tables)
    seen = Seen(browser, paths["index.html"], address=f"#/trace/rlvr/{quote(bad, safe='')}/1")
    page = seen.page
    page.wait_for_selector(".tokens span")
    assert key_of(page) == f"rlvr/{bad}/1" and f"answer {bad}" in page.locator(".pane .note").first.inner_text()
    page.locator("#tree summary").click()
    page.locator("#prefixes").scroll_into_view_if_needed()
    page.wait_for_selector("#prefixes svg path", state="attached")
    assert page.locator("#prefixes .prompt").inner_text() == bad
    assert page.locator("#compared td a", has_text="onerror").count() == 1
    assert page.locator("img, iframe, object").count() == 0 and seen.wrong == [] and seen.leaves() == []
    seen.context.close()


def test_odd_characters_are_cut_where_the_tokens_are(open_page):
    page = open_page(address="#/trace/rlvr/p1/1").page
    page.wait_for_selector(".tokens span")
    pieces = page.locator(".tokens span").evaluate_all("spans => spans.map(s => s.textContent)")
    assert pieces[0] == "a\U0001f600b\u4f60" and "".join(pieces).endswith("<b>bold</b> &amp; end")


def test_an_injected_script_does_not_run(open_page):
    """The policy is at work: an inline handler and an inline script are refused."""
    seen = open_page()
    seen.page.evaluate("""() => {
        const s = document.createElement("script"), i = document.createElement("img");
        s.textContent = "window.hacked = 1";
        i.setAttribute("onerror", "window.hacked = 2");
        i.src = "data:,";
        document.body.append(s, i);
    }""")
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("window.hacked") is None
    assert seen.page.evaluate("fetch('https://example.org/').then(() => 'went', () => 'refused')") == "refused"
    refused = [w for w in seen.wrong if "Content Security Policy" in w]
    assert len(refused) >= 3, seen.wrong
    seen.wrong.clear()
    seen.asked[1:] = []


def test_keys(open_page):
    page = open_page(address="#/trace/base/p0/1").page
    page.wait_for_selector(".tokens:focus")
    said = page.locator(".readout")
    assert "Token 1 of 30" in said.inner_text()
    for key, token in [("ArrowRight", 2), ("ArrowDown", 12), ("ArrowLeft", 11), ("End", 30), ("Home", 1)]:
        page.keyboard.press(key)
        assert f"Token {token} of 30" in said.inner_text(), key
    page.keyboard.press("n")
    first = int(re.search(r"Token (\d+)", said.inner_text())[1])
    assert 2 <= first <= 13 and "0.600" in said.inner_text()  # the alternatives stored there
    assert float(re.search(r": ([\d.]+) nats", said.inner_text())[1]) >= 3
    page.keyboard.press("n")
    second = int(re.search(r"Token (\d+)", said.inner_text())[1])
    assert second > first
    page.keyboard.press("p")
    assert f"Token {first} of 30" in said.inner_text()
    modes = []
    for _ in range(4):
        page.keyboard.press("c")
        modes.append(page.locator("#traces .legend").inner_text().partition(":")[0])
    assert len(set(modes)) == 4
    page.keyboard.press("j")
    page.wait_for_function("() => document.querySelector('.pane h4').textContent.includes('base/p0/2')")
    page.keyboard.press("k")  # the focus is on the new trace's tokens
    page.wait_for_function("() => document.querySelector('.pane h4').textContent.includes('base/p0/1')")
    page.locator(".list").press("?")
    assert page.locator(".help").is_visible()
    page.locator(".list").press("/")
    assert page.evaluate("document.activeElement.type") == "search"


def test_two_sources_side_by_side(open_page):
    page = open_page(address="#/trace/rlvr/p2/3").page
    page.wait_for_selector(".tokens:focus")
    page.keyboard.press("s")
    page.wait_for_selector('.pane[data-side="1"] .tokens span')
    right = page.locator('.pane[data-side="1"]')
    assert "base/p2/" in right.inner_text() and "tokens are the same" in right.inner_text()
    assert page.locator(".fork").count() >= 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("s")
    page.wait_for_function("() => document.querySelectorAll('.pane').length === 1")
    assert "Token 11 of 30" in page.locator(".readout").inner_text()  # place and focus are kept
    page.keyboard.press("s")
    page.wait_for_selector('.pane[data-side="1"] .tokens span')
    was = right.locator("h4").inner_text()
    page.locator(".list").press("]")
    page.wait_for_function("was => document.querySelectorAll('.pane h4')[1].innerText !== was", arg=was)
    page.locator('.pane[data-side="1"] .tokens').focus()
    page.keyboard.press("ArrowRight")
    assert page.locator('.pane[data-side="1"] .on').count() == 1
    page.locator(".list").press("s")
    page.wait_for_function("() => document.querySelectorAll('.pane').length === 1")


def test_filters_and_search(open_page, fake):
    page = open_page().page
    box = viewer(page)
    box.get_by_label("source", exact=True).select_option("cool")
    assert "24 of 120 traces" in box.inner_text()
    box.get_by_label("correct", exact=True).select_option("1")
    assert "10 of 120 traces" in box.inner_text()
    box.get_by_label("problem", exact=True).select_option("p1 · What is 1?")
    rows = box.locator(".row .key").all_inner_texts()
    assert rows == ["cool/p1/2", "cool/p1/4"]
    for name in ("source", "correct", "problem"):
        box.get_by_label(name, exact=True).select_option("")
    page.fill("input[type=search]", "alert(1)")
    assert "24 of 120 traces" in box.inner_text()  # those whose label, a part of the key, is hostile
    page.press("input[type=search]", "Enter")
    page.wait_for_function("() => document.querySelector('#traces .note').textContent.startsWith('1 of')")
    box.locator(".row").first.click()
    page.wait_for_selector(".hit")
    assert key_of(page) == "rlvr/p0/1"


@pytest.mark.parametrize("label", ["distill/v1 α", None])
def test_addresses(open_page, fake, label):
    label = label or fake.HOSTILE
    seen = open_page(address=f"#/trace/{quote(label, safe='')}/p3/4/base")
    page = seen.page
    page.wait_for_selector('.pane[data-side="1"] .tokens span')
    assert key_of(page) == f"{label}/p3/4"
    page.evaluate("location.hash = '#/trace/cool/p1/2'")
    page.wait_for_function("() => document.querySelector('.pane h4').textContent.includes('cool/p1/2')")
    page.evaluate("location.hash = '#/trace/cool/nowhere/2'")
    page.wait_for_selector("#traces [role=alert]")
    page.evaluate("location.hash = '#/trace/%E0%A4%A/x/y'")  # not an address at all
    page.evaluate("location.hash = '#/compare/cool/rlvr'")
    page.wait_for_function("() => document.querySelectorAll('#compared select')[1].value === 'rlvr'")
    page.evaluate("location.hash = '#/tree/p2/base/cool'")
    page.wait_for_function("() => document.querySelectorAll('#prefixes .tree').length === 2")
    assert [t.strip() for t in page.locator("#prefixes figcaption strong").all_inner_texts()] == ["base", "cool"]


def test_the_tree_says_what_is_shared(open_page):
    page = open_page(address="#/tree/p0/base/rlvr").page
    page.wait_for_selector("#prefixes svg path", state="attached")
    tree = page.locator("#prefixes .tree svg").first
    tree.focus()
    said = page.locator("#prefixes .said")
    assert "base 6" in said.inner_text() and "rlvr 6" in said.inner_text()
    page.keyboard.press("ArrowRight")
    assert "base 6" not in said.inner_text() and "under the base (probability" in said.inner_text()
    assert page.locator("#prefixes .edge.absent").count() > 0 and page.locator("#prefixes .end.right").count() > 0
    page.keyboard.press("Enter")
    page.wait_for_selector("#traces .tokens:focus")


def test_a_page_that_holds_a_part_says_over_which_traces_it_counts(browser, fake, world, tmp_path):
    """80 traces, room for about twenty: a search, the tree's counts and its dotted paths are over those alone."""
    tables = world.tables(["base", "rlvr"], problems=1, samples=40)
    how = ReportOptions(traces_max_mb=0.004)
    paths = report.write(tmp_path, **fake.inputs() | {"figures": {}}, traces=tables, how=how)
    seen = Seen(browser, paths["index.html"], address="#/tree/p0/base/rlvr")
    page = seen.page
    page.wait_for_selector("#prefixes svg path", state="attached")
    held = [
        re.search(r"(\d+) of 40 traces in the page", t) for t in page.locator("#prefixes figcaption").all_inner_texts()
    ]
    held = [int(found[1]) for found in held]
    assert 10 < sum(held) < 40
    lines = page.locator("#prefixes").inner_text()
    assert f"In the page with tokens: {held[0]} of 40 of base, {held[1]} of 40 of rlvr." in lines
    assert "The others may take any path: a dotted one is not known to be absent." in lines
    page.locator("#prefixes input[type=checkbox]").check()
    page.wait_for_function("() => document.querySelector('#prefixes').innerText.includes('correct ones alone')")
    assert "of 20 traces in the page" in page.locator("#prefixes figcaption").first.inner_text()  # 20 of 40 are correct
    page.fill("input[type=search]", " w")
    page.press("input[type=search]", "Enter")
    said = f"{sum(held)} of the {sum(held)} traces whose text is in the page (80 in all)"
    page.wait_for_function(
        "said => document.querySelector('#traces .note[role=status]').innerText.includes(said)", arg=said
    )
    page.fill("input[type=search]", "rlvr/p0")
    shown = page.locator("#traces .note[role=status]").inner_text()
    assert f"40 of 80 traces, {held[1]} of them in the page" in shown
    assert seen.wrong == []
    seen.context.close()


def test_the_tree_counts_the_traces_beside_the_paths_that_are_drawn(browser, fake, world, tmp_path):
    """60 traces a source, all different, of which 24 a source are drawn whole: the root is taken by all 60, and a path
    of one source is not absent from the other where one of its undrawn traces takes it."""
    tables = world.tables(["base", "rlvr"], problems=1, samples=60)
    paths = report.write(tmp_path, **fake.inputs() | {"figures": {}}, traces=tables)
    seen = Seen(browser, paths["index.html"], address="#/tree/p0/base/rlvr")
    page = seen.page
    page.wait_for_selector("#prefixes svg path", state="attached")
    assert "60 of 60 traces in the page" in page.locator("#prefixes figcaption").first.inner_text()
    page.locator("#prefixes .tree svg").first.focus()
    assert "base 60" in page.locator("#prefixes .said").inner_text()
    assert "48 of these traces have their whole path drawn, on 48 of 120" in page.locator("#prefixes").inner_text()
    assert "not known to be absent" not in page.locator("#prefixes").inner_text() and seen.wrong == []
    seen.context.close()


def test_points_lead_to_traces(open_page):
    page = open_page().page
    page.locator("#compare summary").click()
    canvas = page.locator("#compared canvas[role=application]")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert re.search(r"p0: base [\d.]+ \(n = \d\), rlvr", page.locator("#compared .said").inner_text())
    page.keyboard.press("Enter")
    page.wait_for_selector('.pane[data-side="1"] .tokens span')


def test_the_points_of_a_curve_are_read_out(open_page):
    page = open_page().page
    svg = page.locator("#a-boundary figure svg").first
    said = page.locator("#a-boundary figure .said").first
    svg.focus()
    page.keyboard.press("ArrowRight")
    assert said.inner_text() == "base, k = 1: 0.08 [0.03, 0.13], 64 problems"
    page.keyboard.press("ArrowRight")
    assert "k = 2: " in said.inner_text()
    marks = page.locator("#a-boundary figure svg [data-say]")
    assert marks.count() == 5 * 9  # sources and budgets
    svg.scroll_into_view_if_needed()
    box = marks.nth(44).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert said.inner_text().startswith("cool, k = 256: ")


def test_a_verdict_leads_to_its_flagged_traces(open_page, fake):
    page = open_page().page
    card = page.locator(".card", has_text="distill/v1 α")
    card.locator("summary").first.click()
    assert "3 of 4 flagged traces" in card.inner_text() and fake.HOSTILE in card.inner_text()
    card.locator(".look a").nth(2).click()
    page.wait_for_selector(".pane .tokens span")
    assert key_of(page) == "distill/v1 α/p0/0" and "flagged as novel" in page.locator(".pane .note").first.inner_text()
    page.locator("#traces").get_by_label("flagged", exact=True).select_option("flagged as novel")
    assert "5 of 120 traces" in page.locator("#traces").inner_text()  # all of them, not those of a short table
    card.locator(".look a").first.click()
    page.wait_for_function("() => document.querySelectorAll('#compared select')[1].value === 'distill/v1 α'")


def test_keys_in_tables_lead_to_the_viewer(open_page, fake):
    page = open_page().page
    for name in ("Hurdles", "Stretches", "Notes"):
        page.locator("#a-support > .folds > details > summary", has_text=name).click()
    page.locator("#a-support summary", has_text="flagged_windows").click()
    found = page.locator("#a-support > .folds > details")
    places = [found.nth(i).locator("td a[href^='#/trace/']").all_inner_texts() for i in (1, 2)]
    assert sum(map(len, places)) == 9 and places[0][0] == "rlvr/p0/0"  # hurdles and stretches
    links = page.locator("#a-support details details", has_text="flagged_windows").locator("td a[href^='#/trace/']")
    assert links.count() == 5 and links.first.inner_text() == f"{fake.HOSTILE}/p2/3"
    links.first.click()
    page.wait_for_selector(".pane .tokens span")
    assert key_of(page) == f"{fake.HOSTILE}/p2/3"


def test_the_map_says_what_is_not_on_it(open_page):
    page = open_page().page
    section = page.locator("#a-clusters")
    section.get_by_text("Map", exact=True).click()
    assert "120 of 200 clustered traces, evenly over the sources" in section.inner_text()
    assert "120 traces." in section.locator(".legend").inner_text()
    canvas = section.locator("canvas[role=application]")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    said = section.locator("#map .said").inner_text()
    assert re.search(r": .*cluster \d of its problem", said)
    page.keyboard.press("Enter")
    page.wait_for_selector(".tokens:focus")
    assert key_of(page) == said.partition(": ")[0]


def test_a_printed_page_holds_the_report_and_not_the_tools(open_page):
    page = open_page().page
    page.emulate_media(media="print")
    assert page.locator("#verdict .card").first.is_visible() and not page.locator("#traces").is_visible()
    bare = page.evaluate("""() => [...document.querySelectorAll("h1, h2, h3, h4, summary")].filter((e) => {
        const seen = (n) => n.getClientRects().length > 0;
        const box = e.closest("details, section, header, article");
        return seen(e) && ![...box.querySelectorAll("p, ul, table, svg, dl, pre")].some(seen);
    }).map((e) => e.textContent)""")
    assert bare == []  # nothing but its heading is left of a part that paper has no use for
    few = len(page.pdf())
    assert few > 50_000
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    assert len(page.pdf()) > few  # what is opened on the screen is printed too


def test_what_scrolls_on_a_phone_is_reached_by_the_keyboard(open_page):
    page = open_page(viewport={"width": 390, "height": 800}).page
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    page.wait_for_timeout(300)
    missed = page.evaluate("""() => [...document.querySelectorAll("main *")].filter((e) => {
        const scrolls = ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1;
        return scrolls && e.tabIndex < 0 && !e.querySelector("a[href], button, input, select, [tabindex='0']");
    }).map((e) => e.outerHTML.slice(0, 80))""")
    assert (
        missed == [] and page.locator("[role=region]").count() == 0
    )  # tables are groups: landmarks have one name each


def test_a_short_report_is_one_printed_page(open_page, fake, tmp_path):
    paths = report.write(tmp_path, **fake.inputs(), how=ReportOptions(short=True))
    page = open_page(paths["index.html"]).page
    assert page.locator("#key table").first.is_visible() and not page.locator("nav, .card, details:visible").count()
    assert page.locator(".first svg").count() >= 1
    dead = """() => [...document.querySelectorAll('a[href^="#"]')]
        .filter((a) => a.hash.length > 1 && !document.querySelector(a.hash)).length"""
    assert page.evaluate(dead) == 0
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(format="A4"))) == 1


def test_without_script_the_report_reads(open_page):
    page = open_page(java_script_enabled=False).page
    assert "OUTSIDE" in page.locator("#verdict").inner_text()
    assert page.locator("noscript").count() == 4 and page.locator("#key table").first.is_visible()


def test_every_control_has_a_name_and_the_keyboard_gets_everywhere(open_page):
    page = open_page(address="#/trace/base/p0/1").page
    page.wait_for_selector(".tokens:focus")
    bare = page.evaluate("""() => {
        const controls = document.querySelectorAll("button, select, input, canvas[tabindex], svg, [role=listbox]");
        const named = (e) => e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length;
        return [...controls].filter((e) => !named(e)).map((e) => e.outerHTML);
    }""")
    assert bare == []
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.evaluate("""() => { window.reached = new Set();
        addEventListener("focusin", (e) => reached.add(e.target.closest("section")?.id)); }""")
    stops = 0
    for i in range(200):
        page.keyboard.press("Tab")
        stops = stops or i * page.evaluate("reached.has('viewer')")
    reached = set(page.evaluate("[...reached]"))
    assert 0 < stops <= 60  # before the traces
    assert {"verdict", "key", "a-boundary", "compare", "viewer", "tree", "methods"} <= reached


def test_a_large_report_is_a_folder_that_opens_from_disk(browser, fake, traces, tmp_path):
    inputs = fake.inputs() | {"figures": {}}
    paths = report.write(tmp_path, **inputs, traces=traces, how=ReportOptions(html_max_mb=0.001))
    packs = sorted(p.name for p in (tmp_path / "data").iterdir())
    assert packs == ["t0.js"] and "'self'" in paths["index.html"].read_text(encoding="utf-8")[:600]
    seen = Seen(browser, paths["index.html"], address="#/trace/cool/p1/2")
    seen.page.wait_for_selector(".tokens span")
    assert seen.wrong == [] and seen.leaves() == [(tmp_path / "data/t0.js").as_uri()]
    (tmp_path / "data/t0.js").unlink()
    lost = Seen(browser, paths["index.html"], address="#/trace/cool/p1/2")
    lost.page.wait_for_selector("#traces >> text=keep the folder data beside this page")
    for one in (seen, lost):
        one.context.close()


def test_a_trace_of_32000_tokens_stands_at_once(browser, fake, world, tmp_path):
    labels = ["base", "rlvr", "distill/v1 α", fake.HOSTILE, "cool"]
    tables = world.tables(labels, problems=1, samples=2, long=32_000)
    paths = report.write(tmp_path, **fake.inputs() | {"figures": {}}, traces=tables)
    seen = Seen(browser, paths["index.html"], address="#/trace/base/p0/1")
    page = seen.page
    page.wait_for_selector(".tokens span")
    before = seen.cpu()
    page.evaluate("""async () => {
        location.hash = "#/trace/base/p0/0";
        while (document.querySelectorAll(".tokens span").length < 500) await new Promise(requestAnimationFrame);
    }""")
    took = seen.cpu() - before
    page.wait_for_function("() => document.querySelectorAll('.tokens span').length === 32000")
    page.locator(".tokens").first.press("End")
    assert "Token 32,000 of 32,000" in page.locator(".readout").inner_text()
    assert page.locator(".tokens").evaluate("e => e.scrollTop") > 1000
    assert took < 0.5, took  # measured 0.09 s
    assert seen.wrong == []
    seen.context.close()


def test_100_000_traces_open_quickly(browser, fake, world, tmp_path):
    """The index is read, no trace is decoded; the list holds only the rows in sight; a map of 20,000 points moves."""
    labels = ["base", "rlvr", "distill/v1 α", fake.HOSTILE, "cool"]
    tables, inputs = world.many(labels, 100_000), fake.inputs() | {"figures": {}}
    members = tables.traces[["key"]].iloc[::5].assign(cluster=0, x=np.arange(20_000) % 141, y=np.arange(20_000) / 141)
    inputs["results"]["clusters"].tables["members"] = members
    paths = report.write(tmp_path, **inputs, traces=tables)
    assert paths["index.html"].stat().st_size < 25e6
    seen = Seen(browser, paths["index.html"])
    seen.page.wait_for_selector("#traces .row", state="attached")
    took = seen.cpu()
    assert "100,000 of 100,000 traces" in seen.page.locator("#traces").inner_text()
    assert seen.page.locator("#traces .row").count() < 60
    assert took < 2, took  # measured 0.46 s
    seen.page.locator("#a-clusters").get_by_text("Map", exact=True).click()
    canvas = seen.page.locator("#map canvas[role=application]")
    canvas.focus()
    seen.page.wait_for_timeout(500)
    before = seen.cpu()
    seen.page.evaluate(
        """n => { const c = document.querySelector("#map canvas[role=application]");
        for (let i = 0; i < n; i++) c.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); }""",
        20,
    )
    took = (seen.cpu() - before) / 20
    assert took < 0.05, took  # seconds for a step of the cursor, measured 0.0005
    assert "20,000 traces." in seen.page.locator("#map .legend").inner_text()
    seen.context.close()
