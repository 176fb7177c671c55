"""Handover: the ids that the base goes on from, what is kept and continued, and the numbers made of it."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import shutil
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import orjson
import pandas as pd
import pytest
from fake_server import Fake, serving

import analyzer
from analyzer.analysis.data import tables
from analyzer.analysis.handover import run as analysis
from analyzer.api import handover as handing
from analyzer.errors import DumpError, UsageError
from analyzer.records.options import HandoverOptions, ModelOptions
from analyzer.runs import handover as kept
from analyzer.runs import lines
from analyzer.scoring.load import load
from analyzer.stats import handover as stats
from miniature.verifier import grade

WORLD = analyzer.miniature()
FEW = {"traces": 4, "cuts": 3, "n": 2, "batch": 16}


def correct(trace) -> bool:
    return grade(trace.prompt, trace.response)["correct"]


def rows(source: str, problems: int) -> list[dict]:
    """Correct traces of the first problems that have one, and one wrong trace."""
    with gzip.open(WORLD / "dumps" / f"{source}.jsonl.gz", "rt") as file:
        found = [json.loads(line) for line in islice(file, 1500)]
    right = list({r["problem"]: r for r in found if r["correct"]}.values())[:problems]
    return [*right, next(r for r in found if not r["correct"])]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, models = tmp_path_factory.mktemp("handover"), WORLD / "models"
    dumps = {source: rows(source, 5) for source in ("base", "rlvr")}
    return analyzer.score(dumps, base=models / "base", policy={"rlvr": models / "rlvr"}, path=folder / "run")


def drawn(run, source: str) -> list[dict]:
    """Rows with their texts."""
    return list(map(orjson.loads, kept.file(run.path, source).read_bytes().splitlines()[1:]))


@pytest.fixture(scope="module")
def handed(made):
    done = analyzer.handover(made, "rlvr", grader=correct, **FEW)
    return made, done


def test_prefixes_are_the_scored_ids_up_to_a_step(handed):
    run, done = handed
    found = drawn(run, "rlvr")
    scored = {key: ids for f in run.tokens("base", ["token"]) for key, ids in zip(f["key"], f["token"])}
    texts = {t.key: t.response for t in run.traces()}
    decode = load(str(WORLD / "models" / "base")).tokenizer.decode
    for row in found:
        prefix = decode(scored[row["key"]][: row["tokens"]].tolist())
        rest = texts[row["key"]][len(prefix) :].lstrip()
        assert texts[row["key"]].startswith(prefix) and rest.startswith(row["next"][:20].rstrip("…"))
        assert row["step"] == 0 or row["tokens"] > 0
        assert all(text.startswith(prefix.strip()) for text in row["responses"])
        assert row["n"] == len(row["responses"]) == FEW["n"]
    assert {row["by"] for row in found} == {"base", "policy"}
    assert done["sources"] == {"rlvr": 4, "base": 4} and done["prefixes"] == sum(
        len(kept.read(kept.file(run.path, s))[1]) for s in ("rlvr", "base")
    )


def test_counts_are_those_of_the_grader(handed):
    run, _ = handed
    traces = {t.key: t for t in run.traces()}
    for row in [*drawn(run, "rlvr"), *drawn(run, "base")]:
        prompt = traces[row["key"]].prompt
        assert row["correct"] == sum(grade(prompt, text)["correct"] for text in row["responses"])
        assert row["unread"] == 0


def test_a_killed_call_goes_on_to_the_same_bytes(handed):
    run, _ = handed
    path = kept.file(run.path, "rlvr")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # in the middle of a line
    done = analyzer.handover(run, "rlvr", grader=correct, **FEW)
    assert 0 < done["continued"] < done["prefixes"] and done["drawn"] == 2 * (done["prefixes"] - done["continued"])
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())
    path.write_bytes(whole + b'{"by": "base", "key": "torn')
    assert analyzer.handover(run, "rlvr", grader=correct, **FEW)["drawn"] == 0
    assert path.read_bytes() == whole


def test_other_settings_are_refused_and_nothing_changes(handed):
    run, _ = handed
    path = kept.file(run.path, "rlvr")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="was begun with n 2, now 3"):
        analyzer.handover(run, "rlvr", grader=correct, **FEW | {"n": 3})
    assert path.read_bytes() == before


def test_other_settings_than_the_control_s_are_refused_before_anything_is_drawn(handed, tmp_path):
    """Sources are compared with one control: a new source may not begin with other cuts than the reference has."""
    shutil.copytree(handed[0].path, tmp_path / "run")
    run = analyzer.Run.open(tmp_path / "run")
    kept.file(run.path, "rlvr").unlink()
    with pytest.raises(UsageError, match="base.jsonl was begun with cuts 3, now 2"):
        analyzer.handover(run, "rlvr", grader=correct, **FEW | {"cuts": 2})
    assert not kept.file(run.path, "rlvr").exists()


def test_the_limit_of_tokens_is_that_which_was_begun_with(handed, tmp_path):
    """The default follows the run's longest response, and a run may grow between two calls of the same line."""
    shutil.copytree(handed[0].path, tmp_path / "run")
    run = analyzer.Run.open(tmp_path / "run")
    for source in ("rlvr", "base"):
        path = kept.file(run.path, source)
        head, *rest = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([lines.line(lines.parsed(head) | {"max_tokens": 7}) + b"\n", *rest]))
    assert analyzer.handover(run, "rlvr", grader=correct, **FEW)["drawn"] == 0
    with pytest.raises(UsageError, match="max_tokens 7, now 8"):
        analyzer.handover(run, "rlvr", grader=correct, **FEW | {"max_tokens": 8})


def test_a_grader_that_reads_the_label_is_refused_at_once(made):
    """No continuation has a label, so that all of them would be unread."""
    with pytest.raises(UsageError, match="are not by this grader"):
        analyzer.handover(made, "rlvr", grader=lambda trace: trace.correct, **FEW)


def test_what_a_grader_prints_is_no_output(tmp_path, capsys):
    path = tmp_path / "loud.py"
    path.write_text("print('read')\ndef f(trace):\n    print('asked')\n    return True\n")
    with handing._grader(f"{path}:f") as (grade, _):
        assert grade(analyzer.Trace("s", "p", 0, "4")) is True
    assert capsys.readouterr() == ("", "read\nasked\n")


def test_more_traces_are_added_later_and_fewer_are_there(handed):
    run, before = handed
    done = analyzer.handover(run, "rlvr", grader=correct, **FEW | {"traces": 5})
    assert done["sources"] == {"rlvr": 5, "base": 5} and done["continued"] == before["prefixes"] and done["drawn"] > 0
    done = analyzer.handover(run, "rlvr", grader=correct, **FEW | {"traces": 3})
    assert done["sources"] == {"rlvr": 3, "base": 3} and done["drawn"] == 0


def test_a_base_that_moved_is_told_and_named(made, tmp_path):
    moved = analyzer.Run.open(made.path)
    moved.manifest["scorers"]["base"]["model"] = str(tmp_path / "gone")
    record = moved.manifest["scorers"]["base"]
    with pytest.raises(analyzer.AnalyzerError, match=r"gone does not exist \(--base MODEL gives"):
        handing._loaded(record["model"], HandoverOptions(), ModelOptions(), record, "base")


def test_a_server_draws_batch_after_batch(tmp_path):
    """Eight requests are on their way for one connection: one prefix of eight continuations at a time."""
    base = str(WORLD / "models" / "base")
    run = analyzer.score({"base": rows("base", 3), "rlvr": rows("rlvr", 3)}, base=base, path=tmp_path / "run")
    with serving(Fake(load(base).model)) as url:
        how = {"traces": 2, "cuts": 3, "n": 8, "max_tokens": 2, "concurrent": 1, "base": f"{base}@{url}"}
        done = analyzer.handover(run, "rlvr", grader=correct, **how)
    assert done["prefixes"] > 8 and done["drawn"] == 8 * done["prefixes"]


def test_a_reference_that_is_never_right_is_no_control(tmp_path):
    dumps = {"base": rows("base", 1)[-1:], "rlvr": rows("rlvr", 3)}
    run = analyzer.score(dumps, base=WORLD / "models" / "base", path=tmp_path / "run")
    said: list[str] = []
    done = analyzer.handover(run, grader=correct, tell=said.append, **FEW)
    assert done["sources"] == {"rlvr": 3} and "no scored trace of base is known to be correct" in said[0]
    with pytest.raises(UsageError, match="no scored trace of base"):
        analyzer.handover(run, "base", grader=correct, **FEW)


def test_only_scored_traces_are_chosen(tmp_path):
    with gzip.open(WORLD / "dumps" / "base.jsonl.gz", "rt") as file:
        found = [row for row in map(json.loads, islice(file, 1500)) if row["correct"]]
    run = analyzer.score({"base": found}, base=WORLD / "models" / "base", score_at_most=1, path=tmp_path / "run")
    scored = {key for key, status in run.done("base").items() if status == "ok"}
    chosen = set(handing._chosen(run, ["base"], 200)["base"])
    assert chosen == scored and len(scored) < len(found)


def test_requests_at_a_time_are_a_server_s(made):
    with pytest.raises(UsageError, match="--concurrent: requests at a time are made to a server alone"):
        analyzer.handover(made, "rlvr", grader=correct, concurrent=3, **FEW)


GRADERS = {
    "exits.py": ("import sys\nsys.exit(3)\ndef f(t): ...", "SystemExit: 3"),
    "quits.py": ("def f(t): raise SystemExit", "rlvr/.*SystemExit: .*return None for what can't be read"),
    "reward.py": ("def f(t): return 1.0", r"expected True, False or None \(not read\), got 1.0 .* return reward > 0"),
    "wrong.py": ("def f(t: return True", "SyntaxError"),
    "fine.py": ("def f(t):\n    import beside\n    return beside.no", "4 of 4 traces"),
}


@pytest.mark.parametrize("name", GRADERS)
def test_graders_from_a_file(made, tmp_path, name):
    text, said = GRADERS[name]
    (tmp_path / name).write_text(text)
    (tmp_path / "beside.py").write_text("no = False")
    before = list(sys.path)
    with pytest.raises(UsageError, match=said):
        analyzer.handover(made, "rlvr", grader=f"{tmp_path / name}:f", **FEW)
    assert sys.path == before


def test_a_grader_that_contradicts_the_dump_is_refused(made):
    with pytest.raises(UsageError, match="4 of 4 traces of rlvr that the dump calls correct are not"):
        analyzer.handover(made, "rlvr", grader=lambda trace: False, **FEW)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"grader": "no.py:f"}, "expected FILE.py:FUNCTION"),
        ({"cuts": 1}, "--cuts 1 is not a whole number of at least 2"),
        ({"base": str(WORLD / "models" / "rlvr"), "grader": correct}, "is another model than the one that scored"),
    ],
)
def test_wrong_options_are_told(made, given, said):
    with pytest.raises(UsageError, match=said):
        analyzer.handover(made, "rlvr", **FEW | given)


def test_a_base_that_never_solves_leaves_the_source_s_model_as_control(tmp_path):
    """The reference has no correct trace, and the handover goes on and says so."""
    models = WORLD / "models"
    dumps = {"base": [r for r in rows("base", 3) if not r["correct"]], "rlvr": rows("rlvr", 3)}
    run = analyzer.score(dumps, base=models / "base", policy={"rlvr": models / "rlvr"}, path=tmp_path / "run")
    said: list[str] = []
    done = analyzer.handover(run, grader=correct, tell=said.append, **FEW)
    assert done["sources"] == {"rlvr": 3} and any("left out as control" in text for text in said)
    note = analysis.run(tables.build(run)).estimates["rlvr.handover_cliff"].note
    assert "with its own model on these traces" in note
    with pytest.raises(UsageError, match="no scored trace of base is known to be correct"):
        analyzer.handover(run, "base", grader=correct, **FEW)


def test_a_source_that_is_not_there(made):
    with pytest.raises(UsageError, match="no source 'rvlr'.*did you mean 'rlvr'"):
        analyzer.handover(made, "rvlr", grader=correct)


def test_what_a_report_reads(handed):
    run, _ = handed
    found = analysis.run(tables.build(run))
    table = found.tables["handover"]
    assert set(zip(table["source"], table["by"])) == {("base", "base"), ("rlvr", "base"), ("rlvr", "policy")}
    assert (table.loc[table["cut"] == 1, "success"] == 1).all()
    _, rows_, _ = kept.read(kept.file(run.path, "rlvr"))
    first = [r for r in rows_ if r["by"] == "base" and 0 in r["cuts"]]
    value = found.estimates["rlvr.handover_start"].value
    assert value == pytest.approx(np.mean([r["correct"] / r["n"] for r in first]))
    assert set(found.estimates) == {f"rlvr.handover_{name}" for name in ("start", "half", "entrance", "cliff")}
    assert "handover" in analyzer.analyze(run)


def test_nothing_handed_over_is_no_section(tmp_path):
    run = analyzer.load({"base": rows("base", 2)}, path=tmp_path / "run")
    assert tables.build(run).handovers() is None
    with pytest.raises(UsageError, match="nothing was handed over"):
        analyzer.analyze(run, "handover")
    assert "handover" not in str(analyzer.analyze(run).left_out)


def test_another_base_than_the_run_s_is_refused(handed, tmp_path):
    run, _ = handed
    path = kept.file(tmp_path, "rlvr")
    path.parent.mkdir()
    path.write_bytes(kept.file(run.path, "rlvr").read_bytes())
    found = list(kept.rows(tmp_path, run.manifest["scorers"]["base"]["fingerprint"], {}))
    assert [row["cut"] for row in found] == [cut for row in drawn(run, "rlvr") for cut in row["cuts"]]
    assert {row["cuts"] for row in found} == {FEW["cuts"]}
    with pytest.raises(analyzer.AnalyzerError, match="another base model than the run's"):
        list(kept.rows(tmp_path, "another", {}))


def test_a_second_source_shares_the_control(made):
    """What is chosen of the reference does not depend on which sources are asked for."""
    for sources in (["rlvr", "base"], ["base"]):
        assert handing._chosen(made, sources, 3)["base"] == handing._chosen(made, ["base"], 3)["base"]


def test_names_of_sources_are_no_paths(tmp_path):
    assert kept.file(tmp_path, "../a/b").parent == tmp_path / "handover"


@pytest.mark.parametrize(
    ("offsets", "mask"), [([0, -1, -1, 5], None), ([0, 2, 4, 6], [1, 0, 1, 1]), ([0, 2, 4, 6], None)]
)
def test_what_can_not_be_cut_is_left_out_and_told(offsets, mask):
    ids, meta = (1, 2, 3, 4), {} if mask is None else {"response_mask": mask}
    trace = analyzer.Trace("s", "p", 0, "Add two. So 4", response_ids=ids, meta=meta)
    frame = {"key": [trace.key], "prompt": ["h"], "token": [np.array(ids)], "offset": [np.array(offsets)]}
    run = SimpleNamespace(
        prompts=lambda label: {"h": np.array([9])}, tokens=lambda label, columns: [pd.DataFrame(frame)]
    )
    said: list[str] = []
    found = handing._jobs(run, "base", {trace.key: trace}, 2, 5, said.append)
    whole = offsets == [0, 2, 4, 6] and mask is None
    assert bool(found) == whole and bool(said) != whole
    assert handing._jobs(run, "base", {trace.key: trace}, 2, 4, said.append) == []  # beyond the context
    assert "1 of 1 trace can't be handed over" in said[-1]


@pytest.mark.parametrize("text", [b'{"base": "b", "cuts": 2}\nnonsense\n', b'{"by": "base"}\n', b"[1]\n"])
def test_a_file_of_somebody_else_is_refused(tmp_path, text):
    path = tmp_path / "rlvr.jsonl"
    path.write_bytes(text)
    with pytest.raises(analyzer.AnalyzerError, match="no line of a handover"):
        kept.read(path)


# ---- prefixes and numbers


def test_cuts_fall_on_steps_and_no_token_straddles_one():
    text = "First we add two numbers. Then we double them. So the answer is 8."
    cut = [0, 5, 8, 12, 16, 24, 25, 30, 45, 46, 50, 66]  # " Then" begins at the blank before its step
    offset_T = np.array(cut[:-1])
    found = list(handing._prefixes(text, np.arange(11), offset_T, (7,), 3))
    assert [(p.cuts, p.step, p.text) for p in found] == [
        ((0,), 0, ""),
        ((1,), 1, "First we add two numbers."),
        ((2,), 2, "First we add two numbers. Then we double them."),
    ]
    assert [p.prefix_ids for p in found] == [(), tuple(range(6)), tuple(range(9))]
    lines = list(
        handing._prefixes("Add one and two.\nDouble all of it.", np.arange(4), np.array([0, 16, 17, 24]), (), 2)
    )
    assert [p.prefix_ids for p in lines] == [(), (0, 1)]  # the break belongs to the step before it
    short = list(handing._prefixes("Four.", np.arange(2), np.array([0, 4]), (7,), 8))
    assert [(p.cuts, p.step, p.of) for p in short] == [(tuple(range(8)), 0, 1)]


def test_bytes_of_one_character_stay_together():
    """A step that begins with a character of three tokens, all of which stand at one place."""
    text = "First we add. 🙂 Then we go on."
    offset_T = np.array([0, 6, 14, 14, 14, 16])
    found = list(handing._prefixes(text, np.arange(6), offset_T, (7,), 2))
    assert found[1].prefix_ids == (0, 1) and found[1].text == "First we add. "


def test_the_text_of_a_prefix_goes_to_the_next_one():
    text = "One is first here.\nTwo is second here.\nThree is third here.\nFour is fourth here."
    found = list(handing._prefixes(text, np.arange(1), np.array([0]), (7,), 2))
    assert [p.next for p in found] == [
        "One is first here. Two is second here.",
        "Three is third here. Four is fourth here.",
    ]


def test_the_cliff_is_where_the_excess_is():
    """Closed form: a rise of .6 in the third stretch against none of the control."""
    own, control = np.tile([0.1, 0.1, 0.1, 0.7, 0.8, 1.0], (8, 1)), np.tile([0.6, 0.7, 0.8, 0.9, 0.9, 1.0], (8, 1))
    problem = np.repeat(np.arange(4), 2)
    for cliff in (stats.paired(own, control), stats.unpaired(own, problem, control, problem)):
        assert cliff.at == 2 and cliff.rise == pytest.approx(0.5) and cliff.p < 0.05
    assert stats.unpaired(own, problem, control, problem + 9) is None
    same = stats.paired(own, own)
    assert same.rise == 0 and same.p == 1


@pytest.mark.parametrize(("p", "where"), [(0.05, 0.5), (0.051, math.nan)])
def test_a_place_is_told_where_it_is_certified(p, where):
    cliff = {"against": "base", **stats.Cliff(2, 0.3, p)._asdict()}
    told = analysis._told(cliff | {"stretches": 4, "traces": 3, "control": 3, "problems": 3}, "", 3, "base")
    assert told.value == pytest.approx(where, nan_ok=True)
    assert ("not certified" in told.note) == math.isnan(where)


def test_size_of_the_cliff_test():
    """Two draws of one law: p <= .05 in at most 5 % of 400 runs (42 or more of 400 come with chance < 1e-5)."""
    rng, hits = np.random.default_rng(0), np.zeros(2)
    problem = np.repeat(np.arange(6), 3)
    for run in range(400):
        p = rng.beta(2, 2, (6, 5))[problem]
        one, other = (np.c_[rng.binomial(4, p) / 4, np.ones(18)] for _ in range(2))
        hits[0] += stats.paired(one, other, seed=run, permutations=199).p <= 0.05
        hits[1] += stats.unpaired(one, problem, other, problem, seed=run, permutations=199).p <= 0.05
    assert hits.max() <= 41


def test_half_is_the_first_cut_that_has_it():
    cut = np.arange(5) / 4
    assert stats.first_at_least(cut, np.array([0.1, 0.2, 0.5, 0.4, 1]), np.full(5, 0.45)) == 0.5
    assert math.isnan(stats.first_at_least(cut, np.zeros(5), np.full(5, 0.45)))


def test_the_largest_rise_of_a_trace_is_listed_with_its_step():
    frame = pd.DataFrame(
        [
            {"source": "rl", "by": "base", "key": key, "problem": key, "cut": cut, "cuts": 2, "step": cut, "of": 2}
            | {"tokens": 3 * cut, "next": f"step {cut}", "n": 4, "correct": c, "unread": 0, "cut_off": 0}
            for key, counts in (("a", (0, 4)), ("b", (1, 2)))
            for cut, c in enumerate(counts)
        ]
    )
    found = analysis._steps(frame, "rl", analysis._arm(frame, "rl", "base"))
    assert found[["key", "step", "before", "after", "text"]].values.tolist() == [
        ["a", 0, 0.0, 1.0, "step 0"],
        ["b", 1, 0.5, 1.0, "step 1"],
    ]


def line(**given) -> dict:
    """A row of a handover."""
    row = {"source": "rl", "by": "base", "key": "a", "problem": "a", "cuts": [0], "step": 0, "of": 4, "tokens": 0}
    return row | {"next": "step", "n": 4, "correct": 2, "unread": 0, "cut_off": 0} | given


def test_a_flipped_bit_is_refused_or_changes_no_number(handed, tmp_path):
    """Rows have sums of their own; the end of the last row is known by the count in run.json."""
    run = analyzer.Run.open(shutil.copytree(handed[0].path, tmp_path / "run"))
    want = tables.build(run).handovers()
    rng = np.random.default_rng(0)
    for path in (kept.file(run.path, source) for source in ("base", "rlvr")):
        data = path.read_bytes()
        for at in [*rng.integers(0, len(data), 60).tolist(), len(data) - 1]:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
            try:
                pd.testing.assert_frame_equal(tables.build(run).handovers()[want.columns], want)
            except DumpError as error:
                assert str(path) in str(error)
        path.write_bytes(data)


@pytest.mark.parametrize("harm", ["nonsense", "rows", "file"])
def test_a_damaged_handover_costs_a_report_no_other_analysis(handed, tmp_path, harm):
    run = analyzer.Run.open(shutil.copytree(handed[0].path, tmp_path / "run"))
    path = kept.file(run.path, "rlvr")
    lines = path.read_bytes().splitlines(keepends=True)
    if harm == "file":
        path.unlink()
    else:
        path.write_bytes(b"".join(lines[:-1] + ([b"nonsense\n"] if harm == "nonsense" else [])))
    with pytest.raises(UsageError, match="hand over again"):
        analyzer.analyze(run, "handover")
    if harm == "nonsense":
        found = analyzer.report(run, tmp_path / "report", robustness=False)
        why = {left["analysis"]: left["why"] for left in found.left_out}["handover"]
        assert str(path) in why and "hand over again" in why and "boundary" in found
        assert path.name in (tmp_path / "report" / "report.md").read_text()
    else:  # the same call makes it whole again
        analyzer.handover(run, "rlvr", grader=correct, **FEW | {"traces": 5})  # as many as any test has asked for
        assert set(lines) <= {*path.read_bytes().splitlines(keepends=True)}
        assert "handover" in analyzer.analyze(run)


def test_another_grader_grades_what_was_drawn_anew(handed, tmp_path):
    """No continuation is drawn again, also of a source that this call does not name; rows of traces that the grader
    does not call correct are gone, as if it had graded from the first."""
    run = analyzer.Run.open(shutil.copytree(handed[0].path, tmp_path / "run"))
    before = {source: drawn(run, source) for source in ("base", "rlvr")}
    told: list[str] = []

    def lenient(trace) -> bool | None:
        return correct(trace) or (None if len(trace.response) % 2 else trace.finish == "length")

    with pytest.raises(UsageError, match="that the dump calls correct are not by this grader"):
        analyzer.handover(run, "rlvr", grader=lambda trace: False, **FEW | {"traces": 5})
    assert {source: drawn(run, source) for source in before} == before
    done = analyzer.handover(run, "base", grader=lenient, tell=told.append, **FEW | {"traces": 5})
    assert done["drawn"] <= 2 * FEW["cuts"]  # where no test before asked for five traces
    assert any("what was drawn is graded again" in text and "lenient" in text for text in told)
    traces = {t.key: t for t in run.traces()}
    for source, rows_ in before.items():
        now = {(r["by"], r["key"], r["step"]): r for r in drawn(run, source)}
        for row in rows_:
            again = now[row["by"], row["key"], row["step"]]
            found = [
                lenient(dataclasses.replace(traces[row["key"]], response=text, finish=finish, correct=None))
                for text, finish in zip(row["responses"], row["finishes"], strict=True)
            ]
            assert again["responses"] == row["responses"] and again["cut_off"] == row["cut_off"]
            assert (again["correct"], again["unread"]) == (found.count(True), found.count(None))
    assert {begun["grader"] for begun in kept.settings(run.path).values()} == {lenient.__qualname__}
    with pytest.raises(UsageError, match="was begun with n 2, now 3"):
        analyzer.handover(run, "rlvr", grader=correct, **FEW | {"n": 3})


def test_a_source_with_a_long_name_has_a_file(tmp_path):
    """A letter of another script is nine bytes of a file's name."""
    names = ["策略" * 60 + end for end in ("", "a", "b")] + ["../../x", "a/b"]
    paths = [kept.file(tmp_path, name) for name in names]
    for path in paths:
        with kept.adding(path, {"base": "b", "cuts": 2}) as (_, writer):
            writer.write(line())
    assert kept.files(tmp_path) == sorted(set(paths)) and len(set(paths)) == 5
    assert kept.counts(tmp_path) == {path.name: 1 for path in paths}


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [orjson.dumps({"base": "b", "cuts": 2}), orjson.dumps(line()), b'{"by": "ba']
    path.write_bytes(b"\n".join(lines))
    settings, found, end = kept.read(path)
    assert settings == {"base": "b", "cuts": 2} and found == [line()] and end == len(b"\n".join(lines[:2])) + 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([{"by": "base"}], ":2: no line of a handover"),
        ([line(), line(step=1), line()], ":4: this prefix was there before; remove the file, or this line and all"),
        ([line(), {"base": "b", "cuts": 2}], ":3: no line of a handover"),
    ],
)
def test_rows_without_their_fields_and_rows_that_stand_twice_are_refused(tmp_path, more, said):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in [{"base": "b", "cuts": 2}, *more]))
    with pytest.raises(analyzer.AnalyzerError, match=said):
        kept.read(path)


def cut_up(lines: list[dict], cuts: int) -> pd.DataFrame:
    """Rows as the analyses get them: one for each cut."""
    return pd.DataFrame([row | {"cut": cut, "cuts": cuts} for row in lines for cut in row["cuts"]])


def test_traces_that_a_killed_call_left_half_are_no_part_of_a_curve():
    """Also where no trace at all got farther."""
    first = [line(), line(cuts=[1], step=1)]
    assert analysis._arm(cut_up(first, 4), "rl", "base") is None
    whole = [line(cuts=[j], step=j, key="b") for j in range(4)]
    arm = analysis._arm(cut_up([*first, *whole], 4), "rl", "base")
    assert arm.success.index.tolist() == [("b", "a")] and arm.success.shape == (1, 5)
    assert arm.share_NF.tolist() == [[0, 0.25, 0.5, 0.75, 1]] and arm.steps_N.tolist() == [4]


def handed_over(rng, per_line: int, source: str) -> pd.DataFrame:
    """The base on traces of its own law, 8 to 11 lines each that settle it bit by bit, of which `per_line` make one."""
    out = []
    for problem, chance in enumerate(np.linspace(0.1, 0.7, 12)):
        for n in range(4):
            settled = np.cumsum(np.r_[0, rng.dirichlet(np.full(rng.integers(8, 12), 2.0))])
            at = [*range(0, len(settled) - 1, per_line)]
            for step in sorted({j * len(at) // 8 for j in range(8)}):
                cuts = [j for j in range(8) if j * len(at) // 8 == step]
                right = int(rng.binomial(8, chance ** (1 - settled[at[step]])))
                more = {"source": source, "key": f"{source}/{problem}/{n}", "problem": str(problem), "n": 8}
                out.append(line(**more, cuts=cuts, step=step, of=len(at), correct=right))
    return cut_up(out, 8)


@pytest.mark.parametrize("per_line", [2, 4, 12])
def test_lines_that_are_joined_are_no_cliff(per_line):
    """One law in fewer and longer steps. Compared cut by cut, 25 to 100 % of such runs had a cliff; now 20 or more of
    40 come with a chance below 1e-5 while the true rate is below .15."""
    rng, found = np.random.default_rng(0), 0
    for seed in range(40):
        arms = [analysis._arm(handed_over(rng, many, s), s, "base") for s, many in (("rl", per_line), ("base", 1))]
        cliff, why = analysis._cliff(arms[0], None, arms[1], seed)
        assert cliff or "one step" in why
        found += bool(cliff) and cliff["p"] <= 0.05
    assert found < 20


def test_a_curve_between_its_cuts():
    share = np.array([[0, 0, 0.5, 0.5, 1.0]])
    assert stats.at_shares(share, np.array([[0.2, 0.2, 0.6, 0.6, 1.0]]), 4) == pytest.approx(
        np.array([[0.2, 0.4, 0.6, 0.8, 1.0]])
    )


def test_continuations_that_were_cut_are_told_first():
    rows = pd.DataFrame({"n": [8, 8], "unread": [0, 0], "cut_off": [0, 2]})
    first = analysis._notes(rows, pd.DataFrame(columns=analysis.STEPS), [])[0]
    assert first.startswith("Of 16 continuations 0 had") and "too many: the success is understated" in first


def test_a_server_goes_on_from_the_very_prefixes(made, tmp_path):
    """The base on a server: the requests hold the prompt's and the trace's own ids."""
    where, few = WORLD / "models" / "base", FEW | {"traces": 1, "max_tokens": 8}
    base = load(str(where))
    shutil.copytree(made.path, tmp_path / "run", ignore=shutil.ignore_patterns("handover"))
    run = analyzer.Run.open(tmp_path / "run")
    fake = Fake(base.model, tokenizer=base.tokenizer)
    with serving(fake) as url:
        analyzer.handover(run, "rlvr", grader=correct, base=f"{where}@{url}", self_test=False, concurrent=2, **few)
    asked = {tuple(b["prompt"]) for b in fake.bodies if b["max_tokens"] == 8}
    scored = {key: ids.tolist() for f in run.tokens("base", ["token"]) for key, ids in zip(f["key"], f["token"])}
    prompts = {t.key: list(t.prompt_ids) for t in run.traces()}
    rows_ = [*drawn(run, "rlvr"), *drawn(run, "base")]
    assert {tuple(prompts[r["key"]] + scored[r["key"]][: r["tokens"]]) for r in rows_} == asked
    assert {r["by"] for r in rows_} == {"base"} and all(len(r["responses"]) == few["n"] for r in rows_)
