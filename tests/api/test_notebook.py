"""The Python interface: what it takes is read as files are, nothing prints, nothing stays changed, HTML is inert."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import analyzer
from analyzer.api import pipeline
from analyzer.dumps.convert import row
from analyzer.errors import DumpError, UsageError
from analyzer.records import Estimate, Result, Sampler, Verdict, display
from analyzer.runs.store import Run

EVIL = "</script><img src=x onerror=alert(1)>"


def rows(source: str | None = None, problems: int = 3, samples: int = 4) -> list[dict]:
    return [
        {
            "problem": f"p{p}",
            "sample": s,
            "prompt": f"numbers {p + 3} 4 make 9 think",
            "response": f"start {p + 3} . add {4 + s} get {p + 7 + s} . answer {p + 3} + {4 + s}",
            "correct": (s + p) % 2 == 0,
            "score": 0.5 * (s % 3),
        }
        | ({"source": source} if source else {})
        for p in range(problems)
        for s in range(samples)
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Four problems of the miniature, eight samples each of base and rlvr, scored under both models."""
    folder = tmp_path_factory.mktemp("small")
    dumps, models = analyzer.miniature() / "dumps", analyzer.miniature() / "models"
    data = {}
    for label in ("base", "rlvr"):
        frame = pd.read_json(dumps / f"{label}.jsonl.gz", lines=True)
        data[label] = (
            frame[frame["sample"] < 8]
            .groupby("problem")
            .filter(lambda g: g.name in ("n0000", "n0001", "n0002", "n0003"))
        )
    return analyzer.score(data, base=models / "base", policy={"rlvr": models / "rlvr"}, path=folder / "run")


@pytest.fixture(scope="module")
def found(small):
    return analyzer.analyze(small, "support", "boundary", "perplexity")


def content(run: Run) -> list[tuple]:
    """All that a reading decides, without where the rows lay."""
    return [tuple(v for k, v in row(t).items() if k != "meta") for t in run.traces()]


def test_tables_are_read_as_the_file_is(tmp_path):
    file = tmp_path / "base.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows()))
    want = analyzer.load(file, path=tmp_path / "file")
    frame = pd.DataFrame(rows())
    import pyarrow as pa

    kinds = {
        "rows": {"base": rows()},
        "frame": {"base": frame},
        "indexed": {"base": frame.set_index(["problem", "sample"])},
        "arrow": {"base": pa.Table.from_pandas(frame)},
        "generator": {"base": (r for r in rows())},
        "traces": [replace(t, meta={}) for t in want.traces()],
        "spec": f"base={file}",
        "specs": [str(file)],
        "by label": {"base": [file]},
    }
    for name, data in kinds.items():
        run = analyzer.load(data, path=tmp_path / name)
        assert content(run) == content(want), name
        ledger = pipeline.ledger(run)
        assert (ledger["rows"], ledger["rows_used"], ledger["traces"]) == (12, 12, 12), name
    file.write_text("".join(json.dumps(r) + "\n" for r in rows("base")))  # rows that name their source: canonical ones
    want = analyzer.load(file, path=tmp_path / "own file")
    assert content(analyzer.load(rows("base"), path=tmp_path / "own rows")) == content(want)


def test_the_same_rows_are_not_added_twice_and_new_ones_are(tmp_path):
    for _ in range(2):
        run = analyzer.load({"base": rows()}, path=tmp_path)
    assert len(run.manifest["inputs"]) == 1 and len(list((tmp_path / "inputs").rglob("*.jsonl"))) == 1
    run = analyzer.load({"rlvr": pd.DataFrame(rows())}, path=tmp_path)
    assert pipeline.ledger(run)["traces"] == 24 and run.manifest["settings"]["reference"] == "base"
    assert [t.origin.rsplit("/", 1)[1] for t in run.traces()][12] == "rlvr.jsonl:1"


def test_bad_rows_are_counted_and_kept(tmp_path):
    frame = pd.DataFrame(rows())
    frame.loc[2, "response"] = None
    with pytest.raises(DumpError, match=r"base\.jsonl:3.*response"):
        analyzer.load({"base": frame}, path=tmp_path / "strict")
    run = analyzer.load({"base": frame}, path=tmp_path / "mild", max_bad=0.1)
    ledger = pipeline.ledger(run)
    assert (ledger["rows"], ledger["rows_used"], ledger["rows_rejected"]) == (12, 11, 1)
    [rejected] = [json.loads(x) for x in (tmp_path / "mild" / "rejected.jsonl").read_text().splitlines()]
    assert rejected["line"] == 3


def test_missing_values_are_null_and_strange_ones_are_named(tmp_path):
    frame = pd.DataFrame(rows()).assign(
        step=[1.0] * 6 + [np.nan] * 6,
        ids=[np.arange(3)] * 12,
        when=pd.Timestamp("2026-01-02"),
        finish=pd.array(["stop"] * 11 + [pd.NA], "string"),
    )
    run = analyzer.load({"base": frame}, path=tmp_path, map={"meta.when": "when", "response_ids": "ids"})
    traces = list(run.traces())
    assert [t.step for t in traces] == [1] * 6 + [None] * 6
    assert traces[0].response_ids == (0, 1, 2) and traces[0].meta["when"].startswith("2026-01-02")
    assert [t.finish for t in traces] == ["stop"] * 11 + [None]
    with pytest.raises(UsageError, match=r"^row 1, response: can't be written as JSON \(set is none of its types\)$"):
        analyzer.load({"base": [rows()[0], rows()[1] | {"response": {1}}]})
    nan = [r | {"score": i / 12 if i % 3 else float("nan")} for i, r in enumerate(rows())]  # as in a file: refused
    with pytest.raises(DumpError, match="score = nan"):
        analyzer.load({"base": nan})


@pytest.mark.parametrize(
    "data, message",
    [
        (rows(), "these rows do not name their source; say it: {'base': rows}, or in a field `source` of every row"),
        ({"ba se": rows()}, "label 'ba se': expected letters, digits and . + - _ (it names the source)"),
        ({"base": 3}, "int is no dump; expected a path, a table, a list of dicts or Traces, or label -> these"),
        ({"base": [1]}, "row 0 is int: '1'; expected a dict by field, or a Trace"),
        ({"base": []}, "no rows in the data for 'base'"),
        (
            {"base": pd.DataFrame([[1, 2]], columns=["a", "a"])},
            "the columns of a table need names of their own that are text, got ['a', 'a']",
        ),
    ],
)
def test_what_is_no_dump_is_refused(data, message, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UsageError) as refused:
        analyzer.load(data)
    assert str(refused.value) == message
    assert not list(tmp_path.iterdir())  # a temporary run that came to nothing is not left behind


def test_a_run_without_a_path_says_where_it_is_and_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = analyzer.load({"base": rows()}, sampler={"base": "0.6,0.95"})
    assert run.path.parent == tmp_path and str(run.path) in repr(run) and str(run.path) in run._repr_html_()
    assert analyzer.load(run) is run and analyzer.load(str(run.path)).manifest == run.manifest
    assert run.manifest["samplers"]["base"] == {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
    with pytest.raises(UsageError, match="is the run .* already"):
        analyzer.load(run, path=tmp_path / "other")
    with pytest.raises(UsageError, match="is a run, its dumps have been read already"):
        analyzer.load(run, sampler={"base": Sampler()})


def test_scores_and_results_are_those_of_the_pipeline(small, found):
    assert small.manifest["policies"] == {"base": "base", "rlvr": "policy-rlvr"}
    assert pipeline.ledger(small)["traces_scored"] == 64
    want, _ = pipeline.analyze(small, ["support"])
    assert found["support"].as_json() == want["support"].as_json()
    assert found.verdicts == [] and set(found) == {"support", "boundary", "perplexity"}
    assert set(found.as_json()["sources"]) == {"base", "rlvr"}
    paired = analyzer.compare(small, "rlvr", "base")
    assert paired.as_json() == pipeline.compare(small, "rlvr", "base").as_json()
    again = analyzer.score(
        str(small.path),
        base=analyzer.miniature() / "models" / "base",
        policy={"rlvr": analyzer.miniature() / "models" / "rlvr"},
    )
    assert again.path == small.path


def state() -> dict:
    import logging
    import random

    import matplotlib
    import sklearn.cluster  # noqa: F401  what a library does when it is imported is its own affair
    from transformers.utils import logging as transformers_logging

    return {
        "rcParams": dict(matplotlib.rcParams),
        "backend": matplotlib.get_backend(),
        "numpy": [repr(x) for x in np.random.get_state()],
        "random": random.getstate(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "numpy errors": np.geterr(),
        "pandas": pd.get_option("display.max_rows"),
        "transformers": (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()),
        "handlers": (logging.getLogger().level, list(logging.getLogger().handlers)),
    }


def test_nothing_prints_and_nothing_stays_changed(small, found, tmp_path, capfd):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    np.random.seed(11)
    with matplotlib.rc_context({"font.size": 13, "svg.hashsalt": "mine"}):
        before = state()
        run = analyzer.score({"base": rows()}, base=analyzer.miniature() / "models" / "base", path=tmp_path / "run")
        results = analyzer.analyze(run)
        assert {x["analysis"] for x in results.left_out} | set(results) >= {"support", "boundary", "clusters"}
        repr(results), results._repr_html_()
        numbers = plt.get_fignums()
        _, ax = plt.subplots()
        for name in analyzer.ANALYSES["support"].FIGURES:
            analyzer.plot(found["support"], name, ax=ax.figure.add_subplot())
        assert len(plt.get_fignums()) == len(numbers) + 1  # the test's own
        analyzer.plot(found["boundary"])
        assert state() == before
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_plot_draws_into_the_given_axes_and_returns_them(found):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert analyzer.plot(found["support"], "reach", ax=ax) is ax and ax.lines and ax.get_xlabel()
    own = analyzer.plot(found["boundary"])
    assert own is not ax and own.figure.get_size_inches()[0] == pytest.approx(3.25)
    own.figure.canvas.draw()
    with pytest.raises(UsageError, match="support has no figure 'raech'; did you mean 'reach'"):
        analyzer.plot(found["support"], "raech")
    with pytest.raises(UsageError, match="'a against b' has no figures"):
        analyzer.plot(Result("a against b", "?"))
    with pytest.raises(UsageError, match="shows the table"):
        analyzer.plot(Result("support", "?"))


def test_a_report_is_written_and_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = analyzer.report({"base": rows(), "rlvr": pd.DataFrame(rows())}, "here", budget=4, seed=1, robustness=False)
    data = json.loads((tmp_path / "here" / "results.json").read_text())
    own = done.as_json()
    assert own.pop("command") == [] and data.pop("command") == [
        "python",
        "-c",
        "import analyzer; analyzer.report('here/run', 'here', budget=4, seed=1, robustness=False)",
    ]
    assert own == data and (tmp_path / "here" / "run" / "run.json").is_file()
    assert [v["source"] for v in data["verdicts"]] == ["rlvr"] * 6 and len(done.verdicts) == 6
    html = done._repr_html_()
    assert 'href="here/index.html"' in html and len(html) < 50_000 and "? undetermined" in html
    assert Tags(html).seen <= {"p", "b", "a", *TABLE}
    assert repr(done).endswith("tables/)")
    assert "Whether rlvr goes beyond the reference is not decided by these draws" in repr(done)


TABLE = ("table", "thead", "tbody", "tr", "th", "td", "small")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.seen = [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.seen.add(tag)
        assert all(name in ("href", "target", "scope", "class") for name, _ in attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_closed_small_and_inert():
    frame = pd.DataFrame({EVIL: [EVIL]})
    estimates = {EVIL: Estimate(0.5, 0.4, 0.6, 3, note=EVIL), "none": Estimate(float("nan"), note="no value")}
    estimates |= {f"k{i}": Estimate(float(i), n=i) for i in range(200)}
    result = Result(EVIL, EVIL, estimates, {EVIL: frame}, (EVIL,))
    verdict = Verdict(EVIL, EVIL, "sequence", 64, "inside", True, (EVIL,), EVIL)
    manifest = {
        "inputs": [
            {
                "sources": [EVIL],
                "path": EVIL,
                "format": EVIL,
                "rows": 1,
                "rows_used": 1,
                "traces": 1,
                "mapping": {EVIL: EVIL},
            }
        ],
        "settings": {"reference": EVIL},
        "samplers": {EVIL: None},
        "scorers": {EVIL: {"model": EVIL, "dtype": EVIL, "path": EVIL}},
        "input_notes": [EVIL],
    }
    for text in (result._repr_html_(), verdict._repr_html_(), Run("x", manifest)._repr_html_()):
        assert "<img" not in text and "<script" not in text and "&lt;img" in text and len(text) < 50_000
        assert Tags(text).seen <= {"p", "b", *TABLE}
    assert "142 more rows" in result._repr_html_()


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((float("nan"),), "–"),
        ((0.123456,), "0.1235"),
        ((0.832, 0.809, 0.855), "0.832 [0.809, 0.855]"),
        ((12.3456, 8.0, 18.0), "12 [8, 18]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((0.5, 0.5, 0.5), "0.5000 [0.5000, 0.5000]"),
        ((2.0, float("-inf"), 3.0), "2.0 [−∞, 3.0]"),
        ((float("inf"), 1.0, float("inf")), "∞ [1, ∞]"),
    ],
)
def test_numbers_have_no_more_digits_than_their_interval(numbers, text):
    assert display.number(*numbers) == text


def test_every_public_name_is_there():
    assert set(analyzer.__all__) <= set(dir(analyzer))
    assert all(getattr(analyzer, name) is not None for name in analyzer.__all__)
