"""Valid reasoning: the column of a dump, a sheet that a person fills in, and what the report says of both."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import analyzer
from analyzer.cli.main import main
from analyzer.errors import DumpError, UsageError
from analyzer.runs import review

PROBLEMS, N = 12, 8


def valid(source: str, p: int, i: int) -> bool:
    """Of rl every third correct chain is valid, of the base every one."""
    return source == "base" or (p + i) % 3 == 0


def rows(source: str, votes=lambda source, p, i: valid(source, p, i)):
    for p in range(PROBLEMS):
        for i in range(N):
            row = {"source": source, "problem": f"p{p}", "sample": i, "question": f"what is {p}?"}
            row |= {"response": f"=it is {p}, {source} says, {i} times", "correct": i < (5 if source == "rl" else 2)}
            if row["correct"] and votes:
                row["valid"] = votes(source, p, i)
            yield row


def dumps(folder, **votes):
    for source in ("base", "rl"):
        text = "".join(json.dumps(r) + "\n" for r in rows(source, **votes))
        (folder / f"{source}.jsonl").write_text(text)
    return [str(folder / f"{source}.jsonl") for source in ("base", "rl")]


def filled(sheet, answer):
    with sheet.open(encoding="utf-8-sig", newline="") as stream:
        found = list(csv.DictReader(stream))
    for row in found:
        row["valid"] = answer(row)
    with sheet.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return found


def truth(row) -> str:
    told = row["response"].lstrip("'=").replace(",", "").split()
    return str(valid(told[3], int(told[2]), int(told[5]))).lower()


def test_a_column_valid_gives_cot_pass_at_k(tmp_path):
    found = analyzer.analyze(analyzer.load(dumps(tmp_path)), "chains")["chains"]
    assert {name.partition(".")[2] for name in found.estimates} == {"valid_share", "cot_pass@1", "cot_pass@8"}
    # of each problem 5 of 8 draws are correct, 1 or 2 of them valid: 20 of 60 in all
    assert found.estimates["rl.valid_share"].value == pytest.approx(1 / 3)
    assert found.estimates["rl.cot_pass@1"].value == pytest.approx(20 / 96)
    assert found.estimates["base.cot_pass@1"].value == pytest.approx(2 / 8)
    assert found.estimates["rl.cot_pass@8"].value == 1 and "errors are in it" in found.estimates["rl.cot_pass@8"].note
    table = found.tables["chains"]
    assert set(table["rule"]) == {"correct", "majority"}  # one vote each: no band of rules
    plain = table[(table["source"] == "rl") & (table["rule"] == "correct") & (table["k"] == 1)]
    assert plain["value"].item() == pytest.approx(5 / 8)
    assert any("a person has read 0" in note for note in found.notes)


def test_votes_give_a_band_and_round_trip(tmp_path):
    votes = lambda source, p, i: [valid(source, p, i), 1, None, False]  # noqa: E731
    paths = dumps(tmp_path, votes=votes)
    for ending in ("jsonl", "parquet"):
        out = tmp_path / f"all.{ending}"
        assert main(["convert", *paths, "-o", str(out)]) in (0, None)
        found = analyzer.analyze(analyzer.load(str(out)), "chains")["chains"].tables["chains"]
        at = found[(found["source"] == "rl") & (found["k"] == 1)].set_index("rule")["value"]
        assert at["any"] == pytest.approx(5 / 8) and at["all"] == 0 and at["majority"] == pytest.approx(20 / 96)


def test_without_verdicts_there_is_no_section_and_the_analysis_says_what_is_missing(tmp_path):
    run = analyzer.load(dumps(tmp_path, votes=None))
    assert "chains" not in analyzer.analyze(run)
    with pytest.raises(UsageError, match="column valid in the dump, or analyzer sample-for-review"):
        analyzer.analyze(run, "chains")


def test_a_problem_with_an_unjudged_correct_draw_is_left_out_and_said(tmp_path):
    votes = lambda source, p, i: None if (p, i) == (0, 0) else valid(source, p, i)  # noqa: E731
    found = analyzer.analyze(analyzer.load(dumps(tmp_path, votes=votes)), "chains")["chains"]
    assert set(found.tables["chains"]["problems"]) == {PROBLEMS - 1}
    assert any("rl: 1 problem with an unjudged correct trace left out" in note for note in found.notes)


def test_a_column_named_valid_without_a_label_beside_it_is_no_verdict_on_reasoning(tmp_path):
    lines = [{"question": f"what is {i}?", "response": f"it is {i}", "valid": i > 3} for i in range(6)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    (trace, *_) = analyzer.read_dumps([str(tmp_path / "d.jsonl")])[0]
    assert "valid_votes" not in trace.meta and trace.meta["valid"] is False
    (trace, *_) = analyzer.read_dumps([str(tmp_path / "d.jsonl")], map={"valid": "valid"})[0]
    assert trace.meta["valid_votes"] == [False]


def test_votes_that_are_no_votes_reject_the_row(tmp_path):
    with pytest.raises(DumpError, match=r"base.jsonl:1: bad valid: valid = 0.5; expected true, false, 1, 0 or null"):
        analyzer.load(dumps(tmp_path, votes=lambda source, p, i: 0.5))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_sheet_is_blind_and_its_answers_come_back(tmp_path, capsys, ending):
    run = analyzer.load(dumps(tmp_path, votes=None), path=tmp_path / "run")
    sheet = tmp_path / f"sheet.{ending}"
    line = ["sample-for-review", str(run.path), str(sheet)]
    assert main([*line, "rl", "--traces", "20"]) == 0
    assert "20 of rl in" in capsys.readouterr().out
    assert b"rl/p" not in sheet.read_bytes()  # no key
    if ending == "csv":
        found = filled(sheet, truth)
        assert all(row["response"].startswith("'=") for row in found)  # no spreadsheet runs it
    else:
        found = [json.loads(x) for x in sheet.read_text().splitlines()]
        sheet.write_text("".join(json.dumps(row | {"valid": truth(row)}) + "\n" for row in found))
    assert len(found) == 20 and len({row["id"] for row in found}) == 20
    assert main([*line, "--read"]) == 0
    right = sum(truth(row) == "true" for row in found)
    assert f"20 answers ({right} valid, 20 new)" in capsys.readouterr().out
    assert main([*line, "--read"]) == 0 and "0 new" in capsys.readouterr().out  # twice changes nothing
    share = analyzer.analyze(run, "chains")["chains"].estimates["rl.valid_share"]
    assert share.value == pytest.approx(right / 20) and share.low < right / 20 < share.high
    kept = review.answers(run.path)
    assert {row["key"].split("/")[0] for row in kept} == {"rl"} and {row["picked"] for row in kept} == {"all"}
    assert main([*line[:2], str(tmp_path / "more.csv"), "rl"]) == 0  # the 40 that nobody has read
    assert "40 of rl in" in capsys.readouterr().out


def test_a_judge_who_was_read_has_its_errors_taken_out(tmp_path):
    """The judge calls every second invalid chain valid: a third of rl's are valid, two thirds are called so."""
    votes = lambda source, p, i: valid(source, p, i) or (p + i) % 3 == 1  # noqa: E731
    run = analyzer.load(dumps(tmp_path, votes=votes), path=tmp_path / "run")
    before = analyzer.analyze(run, "chains")["chains"].estimates
    assert before["rl.cot_pass@1"].value == pytest.approx(40 / 96, abs=0.02)
    analyzer.sample_for_review(run, tmp_path / "sheet.csv", "rl", traces=60)
    filled(tmp_path / "sheet.csv", truth)
    analyzer.read_review(run, tmp_path / "sheet.csv")
    result = analyzer.analyze(run, "chains")["chains"]
    found = result.estimates["rl.cot_pass@1"]
    assert found.value == pytest.approx(20 / 96, abs=1e-9) and found.low < found.value < found.high
    assert any("20 of 20 valid ones valid and 20 of 40 invalid ones invalid" in note for note in result.notes)
    assert set(result.tables["chains"]["rule"]) == {"correct", "majority", "corrected"}
    assert "CoT-Pass@k" in result._repr_html_() or result.notes


def test_rare_problems_alone_are_said_to_be_that(tmp_path):
    run = analyzer.load(dumps(tmp_path, votes=None), path=tmp_path / "run")
    analyzer.sample_for_review(run, tmp_path / "rare.csv", "base", accuracy=0.3)
    filled(tmp_path / "rare.csv", lambda row: "" if "what is 3" in row["question"] else "true")
    done = analyzer.read_review(run, tmp_path / "rare.csv")
    assert (done["answers"], done["open"], done["valid"]) == (22, 2, 22)
    result = analyzer.analyze(run, "chains")["chains"]
    assert np.isnan(result.estimates["base.valid_share"].value)  # it is no share of all correct traces
    assert any("of problems with accuracy <= 0.3) and called 22 valid; 11 of 11 problems" in n for n in result.notes)
    with pytest.raises(UsageError, match="no correct trace of rl is left to read on problems solved in at most 0.3"):
        analyzer.sample_for_review(run, tmp_path / "none.csv", "rl", accuracy=0.3)


def test_what_no_sheet_says_is_refused_and_nothing_kept(tmp_path):
    run = analyzer.load(dumps(tmp_path, votes=None), path=tmp_path / "run")
    sheet = tmp_path / "sheet.csv"
    analyzer.sample_for_review(run, sheet, "rl", traces=5)
    with pytest.raises(UsageError, match="is there already and may hold answers"):
        analyzer.sample_for_review(run, sheet, "rl")
    with pytest.raises(UsageError, match="no source 'r'; did you mean 'rl'"):
        analyzer.sample_for_review(run, tmp_path / "b.csv", "r")
    with pytest.raises(UsageError, match="expected a name that ends in .csv or .jsonl"):
        analyzer.sample_for_review(run, tmp_path / "b.xlsx", "rl")
    good = sheet.read_text("utf-8-sig")
    for change, said in (
        (lambda row: "perhaps", r"sheet.csv:2: valid = 'perhaps'; expected true"),
        (lambda row: row.update(id="0") or "true", r"sheet.csv:2: id '0' is no trace"),
    ):
        filled(sheet, change)
        with pytest.raises(DumpError, match=said):
            analyzer.read_review(run, sheet)
        sheet.write_text(good)
    sheet.write_text(good.replace("id,", "name,", 1))
    with pytest.raises(DumpError, match="has no column id"):
        analyzer.read_review(run, sheet)
    assert not (run.path / review.FILE).exists()
    sheet.write_text(good)
    filled(sheet, lambda row: "true")
    analyzer.read_review(run, sheet)
    filled(sheet, lambda row: "false")
    with pytest.raises(UsageError, match="was called valid in an earlier sheet"):
        analyzer.read_review(run, sheet)
    (run.path / review.FILE).write_text("{}\n")
    with pytest.raises(UsageError, match=r"review.jsonl:1: no answer of a review"):
        analyzer.analyze(run, "chains")
    found = analyzer.report(run, tmp_path / "report", robustness=False)
    assert "boundary" in found and "review.jsonl:1" in {x["analysis"]: x["why"] for x in found.left_out}["chains"]


def test_a_flipped_bit_in_an_answer_is_named(tmp_path):
    """Of a key's digits: another trace would have been read."""
    rows = [{"key": f"rl/p{i}/0", "valid": True, "picked": "all"} for i in range(3)]
    assert review.add(tmp_path, rows) == 3 and review.answers(tmp_path) == rows
    data = (tmp_path / review.FILE).read_bytes()
    for at in range(0, len(data), 3):
        (tmp_path / review.FILE).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            assert [{name: row[name] for name in rows[0]} for row in review.answers(tmp_path)] == rows
        except DumpError as error:
            assert "no answer of a review" in str(error)


def test_the_report_has_a_section(tmp_path):
    votes = lambda source, p, i: [valid(source, p, i), True, False]  # noqa: E731
    assert main(["report", *dumps(tmp_path, votes=votes), "-o", str(tmp_path / "out"), "--no-robustness"]) in (0, None)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Valid reasoning" in page and "Share of correct traces whose reasoning is valid" in page
    estimates = json.loads((tmp_path / "out" / "results.json").read_bytes())["analyses"]["chains"]["estimates"]
    assert estimates["rl.valid_share"]["value"] == pytest.approx(1 / 3)
