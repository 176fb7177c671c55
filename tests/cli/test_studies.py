"""Many studies at once, the index that compares them, the same again, a look at the first problems, dry runs."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path

import pytest

import analyzer
from analyzer.api import inputs as studies
from analyzer.api import pipeline, repeat
from analyzer.cli import main as cli
from analyzer.errors import AnalyzerError, DumpError, UsageError
from analyzer.pages import index
from analyzer.runs.store import Run


def write(file: Path, source: str, problems: int = 2, samples: int = 3, words: int = 1, **more) -> Path:
    rows = [
        {"source": source, "problem": f"p{p}", "sample": s, "prompt": f"Once {p}", "response": f" {source} {s}" * words}
        | {"correct": (s + p) % 2 == 0, **more}
        for p in range(problems)
        for s in range(samples)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return file


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """(folder, exit code) of a report on three studies, the second of which is broken."""
    folder = tmp_path_factory.mktemp("batch")
    for source in ("base", "rlvr"):
        write(folder / "dumps" / "one" / f"{source}.jsonl", source)
    broken = folder / "dumps" / "<b>broken" / "base.jsonl"
    broken.parent.mkdir()
    broken.write_text('{"prompt": "a", "respo\n')
    write(folder / "dumps" / "two" / "base.jsonl", "base")
    line = ["report", str(folder / "dumps" / "*/"), "-o", str(folder / "all"), "--no-robustness"]
    return folder, cli.main([*line, "--fail-on", "undetermined"])


# --- which inputs are studies ------------------------------------------------------------------------------------


def test_folders_are_studies_and_files_are_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x", "b/x", "b/y"):
        write(tmp_path / name / "base.jsonl", "base")
    assert studies.find(["a/x"]) is None  # as ever: one folder of dumps is one study
    assert studies.find(["a/x", "b/y"]) == {"x": "a/x", "y": "b/y"}
    assert studies.find(["b/*/"]) == {"x": "b/x/", "y": "b/y/"}
    assert studies.find(["a/*"]) == {"x": "a/x"}  # a pattern of folders asks for studies, also when it finds one
    assert studies.find(["*/x"]) == {"a-x": "a/x", "b-x": "b/x"}
    for one in (["a/x/*.jsonl"], ["a/x", "b/y/base.jsonl"], ["base=a/x", "rl=b/y"], ["nowhere/*"], ["-"]):
        assert studies.find(one) is None
    with pytest.raises(UsageError, match="b/x/ is given twice"):
        studies.find(["b/*/", "b/x"])


def test_a_folder_that_is_neither_run_nor_dumps_is_named(tmp_path):
    write(tmp_path / "dumps" / "base.jsonl", "base")
    Run.create(tmp_path / "report" / "run")
    (tmp_path / "old").mkdir()
    for name in ("results.json", "index.html"):
        (tmp_path / "old" / name).write_text("{}")
    (tmp_path / "empty").mkdir()
    for spec, error, said in (
        ("report", UsageError, "is the folder of a report; its run is .*run: give that one"),
        ("old", UsageError, "without its run"),
        ("empty", DumpError, r"neither a run \(it has no run.json\) nor a folder of dumps"),
        (".", UsageError, "it holds runs: .*report/run"),
    ):
        with pytest.raises(error, match=said):
            studies.refuse_other_folders([str(tmp_path / spec)], runs=True)
    studies.refuse_other_folders([str(tmp_path / "dumps"), str(tmp_path / "report" / "run"), "-"], runs=True)
    with pytest.raises(UsageError, match="is a run"):
        studies.refuse_other_folders([str(tmp_path / "report" / "run")], runs=False)


def test_the_worst_exit_code_counts():
    assert cli.worst([]) == 0 and cli.worst([0, 5]) == 5 and cli.worst([5, 3, 0]) == 3
    assert cli.worst([3, 4, 1]) == 1 and cli.worst([2, 3]) == 3


def test_an_interrupted_new_run_stays(tmp_path):
    with pytest.raises(KeyboardInterrupt), studies.begun(tmp_path / "run"):
        raise KeyboardInterrupt
    assert (tmp_path / "run" / "run.json").is_file()
    with pytest.raises(DumpError), studies.begun(tmp_path / "run"):
        raise DumpError("not a new one")
    assert (tmp_path / "run" / "run.json").is_file()


# --- the batch and its index -------------------------------------------------------------------------------------


def test_a_broken_study_stops_no_other(batch):
    folder, code = batch
    assert code == 3  # an input that was refused weighs more than the gate, which fired too
    found = json.loads((folder / "all" / "index.json").read_text())["studies"]
    assert [(s["study"], s["exit_code"], bool(s["report"])) for s in found] == [
        ("<b>broken", 3, False),
        ("one", 0, True),
        ("two", 0, True),
    ]
    assert "base.jsonl:1" in found[0]["error"] and not (folder / "all" / "<b>broken").exists()
    for s in found[1:]:
        own = json.loads((folder / "all" / s["study"] / "results.json").read_text())
        assert s["ledger"] == own["ledger"] and s["sources"] == own["sources"]
        assert [v["verdict"] for v in s["verdicts"]] == [v["verdict"] for v in own["verdicts"] if v["headline"]]


def test_the_index_is_a_safe_page_that_leads_to_the_reports(batch):
    folder, _ = batch
    text = (folder / "all" / "index.html").read_text()
    assert "default-src 'none'" in text and "<script" not in text and "<b>broken" not in text
    links = re.findall(r'href="([^"#:]+)"', text)
    assert set(links) == {"one/index.html", "two/index.html", "index.json"}
    assert all((folder / "all" / link).is_file() for link in links)
    assert "base.jsonl:1" in text and "&lt;b&gt;broken" in text and "UNDETERMINED" in text


def made_up(word: str) -> dict:
    verdict = {"source": "rl<i>", "reference": "base", "verdict": word, "level": "sequence", "budget": 64}
    verdict |= {"headline": True, "why": ["E_64 = 0.5", "more"], "needs": None}
    beyond = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "method": "", "note": ""}
    return {
        "ledger": {"rows": 9},
        "sources": {"rl<i>": {"traces": 9, "problems": 3, "tokens": 1, "correct": None}},
        "verdicts": [verdict],
        "analyses": {"support": {"estimates": {"rl<i>.beyond@64": beyond}}},
    }


def test_the_index_compares_what_the_studies_say():
    done = {"INSIDE": made_up("outside"), "y": made_up("inside"), "z": AnalyzerError("internal error: x")}
    found = index.build(done, version="1", command=["analyzer"])
    assert index.summary(found) == "3 studies, 2 sources judged: 1 inside, 1 outside; 1 failed (z)."
    one = {"studies": [s for s in found["studies"] if len(s["verdicts"]) == 1][:1]}
    assert index.summary(one).startswith("1 study, 1 source judged: ")
    assert index.matrix(found).rows == [["INSIDE", "OUTSIDE"], ["y", "INSIDE"], ["z", "–"]]
    row = index.table(found).rows[0]
    assert row[:7] == ["INSIDE", "rl<i>", "OUTSIDE", "sequence", "64", "0.50 [0.40, 0.60]", "–"]
    assert row[-1] == "reach@64 = 0.5" and found["studies"][2]["exit_code"] == 1
    verdict = found["studies"][0]["verdicts"][0]
    assert verdict["beyond"]["value"] == 0.5 and verdict["hurdle_share"] is verdict["reach"] is None
    page = index.page(found)
    chip = 'class="chip" style="--word: var(--outside)"'
    assert "<i>" not in page and page.count(chip) == 2  # the row, and what the verdicts mean
    assert '<a href="INSIDE/index.html">INSIDE</a>' in page


# --- the same again ----------------------------------------------------------------------------------------------


def test_a_report_is_made_again_from_its_run(batch, capsys):
    folder, _ = batch
    old = folder / "all" / "two"
    assert cli.main(["report", "--again", str(old / "run")]) == 0, capsys.readouterr().err
    new = files(folder / "all" / "two-again")
    for name, content in files(old).items():
        if name not in ("results.json", "report.md", "index.html", "run/run.json"):  # these hold the command
            assert new[name] == content, name
    one, other = (json.loads(text) for text in (files(old)["results.json"], new["results.json"]))
    assert {**one, "command": []} == {**other, "command": []}
    assert cli.main(["report", "--again", str(old / "run"), "-o", str(old)]) == 2


def test_scores_are_made_again_from_several_calls(tmp_path, stories, monkeypatch):
    """Dumps that were added later, settings, a model per source: all of it comes from run.json."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "base.jsonl", "base")
    write(tmp_path / "odd=name.jsonl", "x")
    template = tmp_path / "template.txt"
    template.write_text("Q: {question}\n")
    run = Run.create("run")
    pipeline.ingest(run, ["base.jsonl"], limit=1)
    for _ in range(2):
        pipeline.ingest(run, ["base.jsonl", "rl=odd=name.jsonl"], limit=1)
    pipeline.score(run, base=str(stories), score_at_most=2, template={"*": "template.txt"}, cross={"t": str(stories)})
    pipeline.score(run, base=str(stories), score_at_most=2, template={"*": "template.txt"})
    assert len(run.manifest["calls"]["ingest"]) == 2
    calls = repeat.calls(Run.open("run"))
    again = Run.create("again")
    for call in calls["ingest"]:
        pipeline.ingest(again, **call)
    pipeline.score(again, **calls["score"])
    assert again.scorers() == run.scorers() == ["base", "cross-t"]
    parts = [{n: b for n, b in files(r.path).items() if n.startswith("scores")} for r in (run, again)]
    assert parts[0] == parts[1] and len(parts[0]) == 4
    same = ("inputs", "settings", "samplers", "policies", "scorers", "calls", "input_notes")
    assert {k: run.manifest[k] for k in same} == {k: again.manifest[k] for k in same}
    for file in (template, tmp_path / "base.jsonl"):
        text = file.read_text()
        file.write_text(text + "\n")
        with pytest.raises(DumpError, match=f"{file.name} has changed since run run was made"):
            repeat.calls(run)
        file.unlink()
        with pytest.raises(DumpError, match=f"{file.name}, which run run was made from, is not there"):
            repeat.calls(run)
        file.write_text(text)
    run.manifest["scorers"]["base"]["fingerprint"] = "0" * 16
    with pytest.raises(DumpError, match="is not the one that run run was scored under as base"):
        repeat.calls(run)
    del run.manifest["calls"]["score"]
    with pytest.raises(DumpError, match="was cut off before it was complete"):
        repeat.calls(run)
    with pytest.raises(DumpError, match="does not say how the run was made"):
        repeat.calls(Run.create("bare"))


def test_a_dump_that_grew_is_made_again_as_it_is_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, contents = Run.create("run"), []
    for samples in (3, 4):
        contents.append(write(tmp_path / "base.jsonl", "base", samples=samples).read_bytes())
        pipeline.ingest(run, ["base.jsonl"])
    again = Run.create("again")
    for call in repeat.calls(Run.open("run"))["ingest"]:
        pipeline.ingest(again, **call)
    assert {t.key for t in again.traces()} == {t.key for t in run.traces()} and again.trace_count() == 8
    assert len(repeat.calls(again)["ingest"]) == 1
    (tmp_path / "base.jsonl").write_bytes(contents[0])  # what the run held before it grew is not this run
    with pytest.raises(DumpError, match="base.jsonl has changed since run run was made"):
        repeat.calls(run)


# --- a look at the first problems --------------------------------------------------------------------------------


def test_a_limit_keeps_the_reference_s_first_problems(tmp_path):
    """All samples of all sources, whichever file comes first; the ledger counts the rest, the notes say it."""
    row = {"prompt": "x", "response": "r", "source": "rl"}
    rows = [row | {"problem": f"p{p}", "sample": s} for p in (3, 1, 0) for s in (0, 1)]
    (tmp_path / "rl.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    base = write(tmp_path / "base.jsonl", "base", problems=3)
    run = Run.create(tmp_path / "run")
    for _ in range(2):  # the same line again adds nothing
        pipeline.ingest(run, [str(tmp_path / "rl.jsonl"), str(base)], limit=2)
    frame = run.trace_table()
    order = list(dict.fromkeys(frame["problem"][frame["source"] == "base"]))
    assert len(order) == 2 and set(frame["problem"]) == set(order)
    assert frame.groupby("source").size().to_dict() == {"base": 6, "rl": 4}
    found = pipeline.ledger(run)
    assert (found["rows"], found["rows_used"], found["by_reason"]) == (15, 10, {"of problems beyond --limit 2": 5})
    assert any(n.startswith("A LOOK ONLY: --limit 2") for n in run.manifest["input_notes"])
    for limit in (3, None):
        with pytest.raises(UsageError, match="made with limit=2"):
            pipeline.ingest(run, [str(base)], limit=limit)
    whole = Run.create(tmp_path / "whole")
    pipeline.ingest(whole, [str(base)], limit=3)
    assert pipeline.ledger(whole)["rows_used"] == 9 and not whole.manifest["input_notes"][0].startswith("A LOOK")
    with pytest.raises(UsageError, match="standard input"):
        pipeline.ingest(Run.create(tmp_path / "stdin"), ["base=-"], limit=3)


# --- dry runs ----------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_counts_what_is_left(tmp_path, stories):
    dumps = [str(write(tmp_path / f"{s}.jsonl", s)) for s in ("base", "rlvr")]
    how = {"path": tmp_path / "run", "base": str(stories), "score_at_most": 2}
    plan = analyzer.estimate(dumps, policy={"rlvr": str(stories)}, **how)
    assert not (tmp_path / "run").exists() and plan["traces_over_the_limit"] == 4
    run = analyzer.score(dumps[:1], **how)
    before = files(run.path)
    plan = analyzer.estimate(dumps, **how)
    assert files(run.path) == before
    assert (plan["traces_scored"], plan["traces_to_score"]) == (4, 4)
    with pytest.raises(UsageError) as refused:
        analyzer.estimate(dumps, threshold=0.5, **how)
    assert str(run.path) in str(refused.value) and "analyzer-" not in str(refused.value)


def test_a_dry_run_counts_the_tokens_that_go_through_the_model(tmp_path, stories):
    """Against a count at the embedding layer while the same traces are scored."""
    import torch

    dumps = [str(write(tmp_path / f"{s}.jsonl", s, problems=5, samples=4, words=20)) for s in ("base", "rlvr")]
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, dumps)
    plan = analyzer.estimate(run, base=str(stories))["models"]["base"]
    seen = []

    def count(module, given):
        if isinstance(module, torch.nn.Embedding):
            seen.append(given[0].numel())

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        pipeline.score(run, base=str(stories))
    finally:
        hook.remove()
    assert plan["computed_tokens"] in accumulate(reversed(seen))  # the last passes; the first are the made-up group's
    scored = sum(len(t) for part in run.tokens("base", ["token"]) for t in part["token"])
    assert plan["response_tokens"] == scored
    size = sum(f.stat().st_size for f in (run.path / "scores" / "base").iterdir())
    assert plan["disk_bytes"] == pytest.approx(size, rel=0.3)


# --- many studies: one model, on where it was, by the names of benchmarks ----------------------------------------


def test_many_studies_load_the_base_once_and_go_on_where_they_were(tmp_path, stories, monkeypatch, capsys):
    import transformers

    loads, real = [], transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *given, **more: loads.append(given) or real(*given, **more),
    )
    for name in ("a", "b", "c"):
        write(tmp_path / "dumps" / name / "base.jsonl", "base")
    (tmp_path / "dumps" / "b" / "base.jsonl").write_text('{"prompt": "a", "respo\n')
    line = ["report", f"{tmp_path}/dumps/*/", "-o", str(tmp_path / "all"), "--no-robustness", "--base", str(stories)]
    assert cli.main(line) == 3 and len(loads) == 1
    assert "(3 of 3)" in capsys.readouterr().err
    first = (tmp_path / "all" / "a" / "results.json").stat().st_mtime_ns
    write(tmp_path / "dumps" / "b" / "base.jsonl", "base")  # mended: the others are kept as they are
    assert cli.main(line) == 0 and len(loads) == 2
    said = capsys.readouterr().err
    assert "a (1 of 3): made before by this line of the same files, kept" in said and "b (2 of 3): made" not in said
    assert (tmp_path / "all" / "a" / "results.json").stat().st_mtime_ns == first
    found = json.loads((tmp_path / "all" / "index.json").read_text())["studies"]
    assert [(s["study"], s["exit_code"]) for s in found] == [("a", 0), ("b", 0), ("c", 0)]
    write(tmp_path / "dumps" / "a" / "base.jsonl", "base", samples=4)  # another file, another study
    write(tmp_path / "dumps" / "c" / "rl.jsonl", "rl")
    cli.main(line)
    said = capsys.readouterr().err
    assert "b (2 of 3): made before" in said and "a (1 of 3): made" not in said and "c (3 of 3): made" not in said


def test_a_loaded_model_stays_only_inside_a_batch(stories):
    from analyzer.scoring import load

    with load.kept():
        one = load.load(str(stories))
        assert load.load(str(stories)) is one
        other = load.load(str(stories), dtype="bfloat16")
        assert other is not one and load.load(str(stories)) is not one
    assert load.load(str(stories)) is not load.load(str(stories))


@pytest.mark.parametrize(
    "names",
    [
        ["base_aime24", "base_gsm8k", "rl_aime24", "rl_gsm8k"],
        ["Qwen2.5-7B_math500", "Qwen2.5-7B_aime2024", "Qwen2.5-7B-rl_math500", "Qwen2.5-7B-rl_aime2024"],
        ["qwen2.5-math_math", "qwen2.5-math_amc23", "base_math", "base_amc23"],
        ["gsm8k-base", "gsm8k-rl", "amc23-base", "amc23-rl"],
    ],
)
def test_dumps_named_by_model_and_benchmark_are_a_study_each(tmp_path, names):
    for name in names:
        write(tmp_path / "d" / f"{name}.jsonl", "x")
    found = studies.benchmarks([str(tmp_path / "d")])
    assert found is not None and len(found) == 2 and all(len(specs) == 2 for specs in found.values())
    assert {p for specs in found.values() for p in specs} == {
        f"{re.sub(f'[-_]?{bench}[-_]?', '', name) if not name.startswith('qwen2.5-math') else 'qwen2.5-math'}"
        f"={tmp_path}/d/{name}.jsonl"
        for name in names
        for bench in found
        if name.startswith(bench) or name.endswith(bench)
    }


@pytest.mark.parametrize(
    "names",
    [
        ["base", "rl"],
        ["base_aime24", "rl_aime24"],  # one benchmark: one study, as ever
        ["base_aime24", "base_gsm8k"],  # one model
        ["base_aime24", "base_gsm8k", "rl_aime24"],  # a benchmark with one model
        ["base_one", "base_two", "rl_one", "rl_two"],  # what could be anything
        ["base_aime24", "base_gsm8k", "rl_aime24", "rl_gsm8k", "notes"],
        ["math_gsm8k", "gsm8k_math", "math_aime", "gsm8k_aime"],
    ],
)
def test_names_that_could_mean_another_thing_make_no_studies(tmp_path, names):
    for name in names:
        write(tmp_path / "d" / f"{name}.jsonl", "x")
    assert studies.benchmarks([str(tmp_path / "d")]) is None


def test_a_folder_by_benchmark_is_reported_study_by_study(tmp_path, capsys):
    for model in ("base", "rl"):
        for bench in ("aime24", "gsm8k"):
            write(tmp_path / "d" / f"{model}_{bench}.jsonl", model)
    assert cli.main(["report", str(tmp_path / "d"), "-o", str(tmp_path / "out"), "--no-robustness"]) == 0
    assert "named by model and benchmark, one study each: aime24, gsm8k" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "index.json").read_text())["studies"]
    assert [s["study"] for s in found] == ["aime24", "gsm8k"] and all(
        set(s["sources"]) == {"base", "rl"} for s in found
    )


@pytest.mark.parametrize("place", ["{model}/{bench}.jsonl", "{bench}/{model}.jsonl", "{bench}/{model}/part-0.jsonl"])
def test_folders_of_models_and_benchmarks_are_a_study_each(tmp_path, place):
    for bench in ("aime24", "MATH-500", "gsm8k"):
        for model in ("base", "rl-v1"):
            write(tmp_path / "d" / place.format(model=model, bench=bench), model)
    found = studies.benchmarks([str(tmp_path / "d")])
    own = place.format(model="base", bench="gsm8k").removesuffix("/part-0.jsonl")
    assert set(found) == {"aime24", "MATH-500", "gsm8k"} and f"base={tmp_path}/d/{own}" in found["gsm8k"]
    assert all(sorted(s.partition("=")[0] for s in specs) == ["base", "rl-v1"] for specs in found.values())
    write(tmp_path / "d" / "notes" / "base.jsonl", "x")
    assert studies.benchmarks([str(tmp_path / "d")]) is None


def test_a_model_at_a_host_is_called_by_a_label(tmp_path):
    for bench in ("crux", "math-l5"):
        for model in ("base", "rl@host"):
            write(tmp_path / "d" / bench / f"{model}.jsonl", model)
    found = studies.benchmarks([str(tmp_path / "d")])
    assert found is not None and f"rl-host={tmp_path}/d/crux/rl@host.jsonl" in found["crux"] and "math-l5" in found


def test_check_of_many_studies_is_one_table_and_one_code(tmp_path, capsys):
    for bench in ("aime24", "gsm8k", "amc23"):
        for model in ("base", "rl"):
            write(tmp_path / "d" / bench / f"{model}.jsonl", model)
    (tmp_path / "d" / "amc23" / "rl.jsonl").write_text("no dump\n")
    assert cli.main(["check", str(tmp_path / "d")]) == 3
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[1:6]] == [
        ["aime24", "base"], ["rl", "1"], ["amc23", "not"], ["gsm8k", "base"], ["rl", "1"],
    ]  # fmt: skip
    assert "amc23: " in out and "this is no JSON" in out and "FILES" not in out and "3 studies by the names" in out
    assert cli.main(["check", str(tmp_path / "d"), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)["studies"]
    assert told["aime24"]["sources"].keys() == {"base", "rl"} and "error" in told["amc23"]
