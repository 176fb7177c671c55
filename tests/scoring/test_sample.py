"""What is drawn reads back as a dump, scores as recorded, and survives being killed."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import resource
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fake_server import Fake, serving
from made_tokenizers import build

import analyzer
from analyzer.api import pipeline
from analyzer.cli import main as cli
from analyzer.dumps.read import read_dumps
from analyzer.errors import DumpError, ResourceError, UsageError
from analyzer.records import Sampler
from analyzer.records.options import ReadOptions
from analyzer.runs.disk import sole_writer
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring import plain
from analyzer.scoring import sample as sampling
from analyzer.scoring.encoding import prompts as prompts_module
from analyzer.scoring.encoding import special
from analyzer.scoring.encoding.encode import encode

QUESTIONS = [{"question": f"What comes after {w}?", "answer": w, "id": f"id-{w}"} for w in ("one", "two", "six")]


@pytest.fixture
def prompts(tmp_path):
    """Three problems as ids, for the model without a tokenizer; their prompts have two lengths."""
    path = tmp_path / "prompts.jsonl"
    rows = [{"question": f"q{n}", "prompt_ids": [n + 1, 7, 9][n == 1 :], "gold": n} for n in range(3)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def unpacked(path):
    data = Path(path).read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(data).read() if path.suffix == ".zst" else data


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ending", sampling.ENDINGS)
def test_a_killed_call_goes_on_to_the_same_bytes(tiny, prompts, tmp_path, ending):
    """Cut at seeded places of the unfinished file, in its first line, in a row, between two rows, between two problems
    that were drawn together."""
    settings = {"model": tiny.name, "n": 3, "max_tokens": 8, "seed": 4, "batch": 6}
    whole, broken = tmp_path / f"whole{ending}", tmp_path / f"broken{ending}"
    assert analyzer.sample([prompts], whole, **settings)["continued"] == 0

    def kill(what, done, total, tokens):
        if done == total:
            raise Killed

    with pytest.raises(Killed):
        analyzer.sample([prompts], broken, progress=kill, **settings)
    part = tmp_path / f".{broken.name}.part"
    rows = part.read_bytes()
    assert not broken.exists() and rows.partition(b"\n")[2] == unpacked(whole)
    header = rows.index(b"\n") + 1
    places = [0, 5, header, len(rows), *np.random.default_rng(0).integers(header, len(rows), 4)]
    continued = set()
    if ending != ".jsonl":
        places = places[3:5]  # what differs by ending is the last step alone
    for place in places:
        part.write_bytes(rows[:place])
        continued.add(analyzer.sample([prompts], broken, **settings)["continued"])
        assert broken.read_bytes() == whole.read_bytes()
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([broken.name, whole.name, "prompts.jsonl"])
        broken.unlink()
    assert continued == ({0, 2, 3} if ending == ".jsonl" else {2, 3})
    if ending == ".jsonl":
        part.write_bytes(rows[: places[3] - 1])  # the last row is not whole; the rest by another batch
        assert analyzer.sample([prompts], broken, **settings | {"batch": 1})["continued"] == 2
        before, after = (read_dumps([str(p)])[0] for p in (whole, broken))
        assert [t.response_ids for t in before] == [t.response_ids for t in after]


def test_rows_name_the_version_that_drew_them(tiny, prompts, tmp_path, monkeypatch):
    """An output that another version goes on with holds rows of both, which is said."""
    settings, told = {"model": tiny.name, "n": 1, "max_tokens": 4, "batch": 1}, []

    def kill(what, done, total, tokens):
        if done == 2:
            raise Killed

    monkeypatch.setattr(sampling, "__version__", "0.0.1")
    with pytest.raises(Killed):
        analyzer.sample([prompts], tmp_path / "out.jsonl", progress=kill, **settings)
    monkeypatch.setattr(sampling, "__version__", "0.0.2")
    done = analyzer.sample([prompts], tmp_path / "out.jsonl", tell=told.append, **settings)
    assert done["continued"] == 2 and [t.meta["analyzer"] for t in read_dumps([str(tmp_path / "out.jsonl")])[0]] == [
        *["0.0.1"] * 2,
        "0.0.2",
    ]
    assert len(told) == 1 and "was begun by version 0.0.1 of this program, 0.0.2 goes on with it" in told[0]
    monkeypatch.setattr(sampling, "__version__", "0.0.3")
    assert analyzer.sample([prompts], tmp_path / "out.jsonl", **settings)["tokens"] == 0  # finished: nothing is mixed


def test_what_is_saved_is_said_where_something_is(tmp_path):
    """Of a batch of two rows that a server broke off at the first nothing would be kept."""
    for rows, more in ((1, ""), (2, "; what was finished is saved, the same line again continues")):
        gone = pytest.raises(ResourceError, match=f"^the server is gone{more}$")
        with gone, sampling._part(tmp_path / f"{rows}.jsonl", {"n": 1}, 2, 9) as (stream, *_):
            stream.write(b"{}\n" * rows)
            raise ResourceError("the server is gone")


def test_a_finished_output_is_recognised_and_another_is_not_written_over(tiny, prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    settings = {"model": tiny.name, "n": 2, "max_tokens": 4}
    analyzer.sample([prompts], out, **settings)
    before = out.read_bytes()
    assert analyzer.sample([prompts], out, **settings)["tokens"] == 0
    out.write_bytes(before[: before.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(DumpError, match="5 rows of this call, there should be 6; it was cut off"):
        analyzer.sample([prompts], out, **settings)
    out.write_bytes(before)
    for other in ({"seed": 1}, {"n": 3}, {"temperature": 0.5}, {"max_tokens": 5}):
        with pytest.raises(UsageError, match="is there already, made with other settings"):
            analyzer.sample([prompts], out, **settings | other)
    assert out.read_bytes() == before
    part = tmp_path / ".new.jsonl.part"
    with pytest.raises(Killed):
        analyzer.sample(
            [prompts], tmp_path / "new.jsonl", progress=lambda *a: (_ for _ in ()).throw(Killed), **settings
        )
    with pytest.raises(UsageError, match="begun with seed 0, now 1"):
        analyzer.sample([prompts], tmp_path / "new.jsonl", **settings | {"seed": 1})
    before = part.read_bytes()
    busy = f"new.jsonl is being written by process {os.getpid()} on .*, or use another -o"
    with sole_writer(tmp_path, "new.jsonl"), pytest.raises(ResourceError, match=busy):
        analyzer.sample([prompts], tmp_path / "new.jsonl", **settings)
    assert part.read_bytes() == before
    analyzer.sample([prompts], tmp_path / "new.jsonl", **settings)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.jsonl", "out.jsonl", "prompts.jsonl"]


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(0.7, 0.9), Sampler(1.0, 1.0, 8)], ids=str)
def test_what_is_drawn_scores_as_recorded_and_lies_inside_its_sampler(stories, tmp_path, sampler):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    out = tmp_path / "drawn.jsonl.zst"
    how = {"n": 5, "max_tokens": 40, "template": "none", "label": "base"}
    analyzer.sample([str(path)], out, model=str(stories), **how, **vars(sampler))
    traces, ledger = read_dumps([str(out)])
    assert ledger.files[0]["format"] == "canonical" and not ledger.rows_rejected and len(traces) == 15
    for t in traces:
        assert t.source == "base" and t.sampler == sampler and t.finish in ("stop", "length")
        assert t.question in {q["question"] for q in QUESTIONS} and t.meta["id"] == f"id-{t.meta['gold']}"
        assert t.logprobs_temperature == 1.0 and t.meta["seed"] == 0 and t.meta["max_tokens"] == 40
    here = scorers.load(str(stories))
    encoded = [encode(t, here.tokenizer, vocab_size=here.vocab_size) for t in traces]
    assert all((e.offset_T >= 0).all() for e in encoded)
    got = {s.key: s.columns for s in scorers.score(encoded, here, path="shared", sampler=sampler, limit=None)}
    for t in traces:
        assert np.abs(got[t.key]["logprob"] - t.response_logprobs).max() < 1e-4
        assert np.isfinite(got[t.key]["logprob_s"]).all()  # never a token that the sampler could not draw


def test_problems_come_from_dumps_and_from_files_of_questions(tmp_path):
    def rows(name, values):
        (tmp_path / name).write_text("".join(json.dumps(v) + "\n" for v in values))
        return str(tmp_path / name)

    def problems(specs, map=None):
        return sampling.read_problems(specs, ReadOptions(map=map))[0]

    bare = problems([rows("bare.jsonl", QUESTIONS)])
    assert [(t.question, t.meta["gold"], t.response) for t in bare] == [
        (q["question"], q["answer"], "") for q in QUESTIONS
    ]
    dump = rows("dump.jsonl", [{**q, "response": f"r{n}"} for q in QUESTIONS for n in range(3)])
    assert [t.problem for t in problems([dump])] == [t.problem for t in bare]
    [prompt] = problems([rows("prompt.jsonl", [{"prompt": "Once upon a time"}])])
    assert (prompt.prompt, prompt.question) == ("Once upon a time", None)
    mapped = problems([rows("odd.jsonl", [{"ask": {"text": "2 + 2?"}}])], {"question": "ask.text"})
    assert [t.question for t in mapped] == ["2 + 2?"]
    nothing = r"no field looks like a sampled response .* nor like a question or a prompt; .*--map question=FIELD"
    with pytest.raises(DumpError, match=nothing):
        problems([rows("none.jsonl", [{"height": 3}])])
    with pytest.raises(DumpError):
        problems([str(tmp_path / "missing.jsonl")])


def test_questions_that_are_not_used_are_accounted_for(tmp_path):
    """Broken rows, rows without a question and repeated questions: counted, and called by what they lack."""
    path = tmp_path / "questions.jsonl"
    lines = [json.dumps({"question": f"What is {n}?"}) for n in (0, 1, 2, 1, 1)]
    path.write_text("\n".join([*lines, '{"quest', '{"height": 3}']) + "\n")
    found, ledger = sampling.read_problems([str(path)], ReadOptions(max_bad=0.5))
    assert len(found) == 3 and (ledger.rows, ledger.rows_used, ledger.rows_rejected) == (7, 5, 2)
    assert ledger.by_reason == {"broken JSON": 1, "no question": 1}
    assert ledger.notes == ["2 of 5 rows repeat the question of another; each is sampled once."]
    with pytest.raises(DumpError, match=r"2 of 7 rows can't be used .*1 x no question.*--max-bad 0.286") as error:
        sampling.read_problems([str(path)])
    assert "response" not in str(error.value)
    path.write_text('{"question": "q", "height": 3}\n' + '{"height": 3}\n' * 199)
    with pytest.raises(DumpError, match="the row has no question"):
        sampling.read_problems([str(path)])
    dump = tmp_path / "dump.jsonl"
    dump.write_text("".join(json.dumps(QUESTIONS[0] | {"response": f"r{n}"}) + "\n" for n in range(3)))
    assert sampling.read_problems([str(dump)])[1].notes == []  # samples of a problem repeat it by nature


@pytest.mark.parametrize("head", ["garbage", "[]", "5", '{"half": '])
def test_unfinished_rows_that_begin_with_something_else_are_refused(tmp_path, head):
    (tmp_path / ".out.jsonl.part").write_text(f"{head}\n{{}}\n")
    refused = pytest.raises(DumpError, match=r"\.out\.jsonl\.part:1: this is no line of settings")
    with refused, sampling._part(tmp_path / "out.jsonl", {"n": 1}, 1, 1):
        pass
    assert (tmp_path / ".out.jsonl.part").read_text() == f"{head}\n{{}}\n"


@pytest.mark.parametrize("flushed", [False, True])
def test_a_disk_that_refuses_unfinished_rows_is_said(tmp_path, flushed):
    """Closing the file flushes it, and is refused as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = pytest.raises(ResourceError, match=r"\.out\.jsonl\.part can't be written: File too large")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with refused, sampling._part(tmp_path / "out.jsonl", {"n": 1}, 1, 1) as (stream, *_):
            stream.write(b"x" * 1000)
            if flushed:
                stream.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_can_not_be_sampled_is_said(tiny, stories, prompts, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(QUESTIONS[0]) + "\n")
    with pytest.raises(DumpError, match="--template"):
        analyzer.sample([str(path)], tmp_path / "a.jsonl", model=str(stories))
    with pytest.raises(UsageError, match="the ending says how to write"):
        analyzer.sample([prompts], tmp_path / "a.csv", model=tiny.name)
    for label in ("a/b", "a=b", "", "_x"):
        with pytest.raises(UsageError, match=f"--label '{label}'" + (": expected letters" if label else " is empty")):
            analyzer.sample([prompts], tmp_path / "a.jsonl", model=tiny.name, label=label)
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"question": "q", "prompt_ids": [3] * 64}) + "\n")
    with pytest.raises(DumpError, match="no room for a response"):
        analyzer.sample([str(long)], tmp_path / "a.jsonl", model=tiny.name)
    assert not list(tmp_path.glob("*a.jsonl*"))


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_server_draws_what_scores_as_recorded_whatever_goes_wrong(tiny, prompts, tmp_path, kind, monkeypatch):
    from analyzer.scoring.servers import client as server_client

    monkeypatch.setattr(server_client, "FIRST_WAIT", 0.001)
    settings = {"model": tiny.name, "n": 4, "max_tokens": 6, "concurrent": 3}
    faults, asked, outs = ("500", "cut", "garbage", "html", "empty"), set(), []

    def first_time(n, body):
        again = body["seed"] in asked
        asked.add(body["seed"])
        return None if again or n == 0 else faults[n % 5]

    for name, fault in (("calm", None), ("rough", first_time)):
        with serving(Fake(tiny.model, kind, fault=fault)) as url:
            outs.append(tmp_path / f"{name}.jsonl")
            analyzer.sample([prompts], outs[-1], server=url, **settings)
    calm, rough = (read_dumps([str(o)])[0] for o in outs)
    assert [t.response_ids for t in calm] == [t.response_ids for t in rough]
    assert len({t.response_ids for t in calm}) > 5
    encoded = [encode(t, None, vocab_size=64) for t in calm]
    for t, s in zip(calm, plain.score(encoded, tiny.model, None)):
        assert np.abs(s.columns["logprob"] - t.response_logprobs).max() < 1e-4
        assert t.finish == ("stop" if t.response_ids[-1] == 0 else "length")
    with serving(Fake(tiny.model, kind)) as url:
        analyzer.sample([prompts], tmp_path / "hot.jsonl", server=url, temperature=1.3, **settings)
    assert all(t.response_logprobs is None for t in read_dumps([str(tmp_path / "hot.jsonl")])[0])


def test_a_server_is_asked_for_several_problems_at_once(tiny, prompts, tmp_path):
    """The server answers none of three requests, one of each problem, before it has all three."""
    all_here, calls = threading.Barrier(3, timeout=10), itertools.count()

    def answer(rows):
        if next(calls):  # the first is the probe
            all_here.wait()
        return rows

    with serving(Fake(tiny.model, lie=answer)) as url:
        settings = {"model": tiny.name, "n": 1, "max_tokens": 1, "concurrent": 3, "server": url}
        assert analyzer.sample([prompts], tmp_path / "out.jsonl", **settings)["tokens"] == 3


DATED = "{{ strftime_now('%d %b %Y') }} {% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture()
def dated(tmp_path):
    """A model whose chat template writes the day; and questions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words, folder = build("bytes", chat=DATED), tmp_path / "model"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    words.save_pretrained(folder)
    rows = [{"question": f"{n} + 3?"} for n in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(tmp_path / "q.jsonl"), {"model": str(folder), "template": "chat", "n": 2, "max_tokens": 3, "batch": 2}


def on(monkeypatch, day):
    class Day(date):
        @classmethod
        def today(cls):
            return date.fromisoformat(day)

    monkeypatch.setattr(prompts_module, "Date", Day)


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_day_that_a_template_writes_is_kept_with_the_samples(dated, tmp_path, monkeypatch):
    asked, settings = dated
    on(monkeypatch, "2024-07-26")
    whole = analyzer.sample([asked], tmp_path / "whole.jsonl", **settings)
    assert whole["template_date"] == "2024-07-26"
    rows = rows_of(tmp_path / "whole.jsonl")
    assert {r["meta"]["template_date"] for r in rows} == {"2024-07-26"}
    # killed before midnight, gone on with after it: the same bytes; and the same call again is known
    stop = iter(range(3))
    with pytest.raises(Killed):
        analyzer.sample(
            [asked],
            tmp_path / "cut.jsonl",
            progress=lambda *a: next(stop, None) or (_ for _ in ()).throw(Killed),
            **settings,
        )
    on(monkeypatch, "2024-07-27")
    assert analyzer.sample([asked], tmp_path / "cut.jsonl", **settings)["template_date"] == "2024-07-26"
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert analyzer.sample([asked], tmp_path / "cut.jsonl", **settings)["tokens"] == 0
    assert analyzer.sample([asked], tmp_path / "new.jsonl", **settings)["template_date"] == "2024-07-27"
    # another day that is asked for is another call
    with pytest.raises(UsageError, match="made with other settings"):
        analyzer.sample([asked], tmp_path / "cut.jsonl", template_date="2020-02-29", **settings)
    with pytest.raises(UsageError, match="expected a day as YYYY-MM-DD"):
        analyzer.sample([asked], tmp_path / "x.jsonl", template_date="29.2.2020", **settings)
    again = analyzer.sample([asked], tmp_path / "flag.jsonl", template_date="2024-07-26", **settings)
    assert again["template_date"] == "2024-07-26"
    assert (tmp_path / "flag.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_samples_are_scored_after_the_very_prompts_that_they_were_drawn_after(dated, tmp_path, monkeypatch):
    asked, settings = dated
    analyzer.sample([asked], tmp_path / "base.jsonl", label="base", template_date="2024-07-26", **settings)
    drawn = {r["problem"]: r["prompt_ids"] for r in rows_of(tmp_path / "base.jsonl")}
    bare = [
        {k: v for k, v in r.items() if "_ids" not in k and "logprobs" not in k}
        for r in rows_of(tmp_path / "base.jsonl")
    ]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(r) + "\n" for r in bare))
    on(monkeypatch, "2025-01-01")
    for name, how in (("base", {}), ("bare", {"template_date": "2024-07-26", "template": {"*": "chat"}})):
        run = Run.create(tmp_path / f"run-{name}")
        pipeline.ingest(run, [str(tmp_path / f"{name}.jsonl")])
        pipeline.score(run, base=settings["model"], **how)
        found = {tuple(p["ids"] if isinstance(p, dict) else p) for p in run.prompts("base").values()}
        assert found == {tuple(ids) for ids in drawn.values()}


def test_a_date_that_no_template_writes_is_said_and_not_recorded(tiny, prompts, tmp_path):
    said, settings = [], {"model": tiny.name, "n": 1, "max_tokens": 2, "tell": lambda text: said.append(text)}
    done = analyzer.sample([prompts], tmp_path / "o.jsonl", template_date="2024-07-26", **settings)
    assert said == ["--template-date 2024-07-26: no chat template wrote a date, so it changed nothing"]
    assert analyzer.sample([prompts], tmp_path / "o.jsonl", **settings) and len(said) == 1
    assert "template_date" not in done and "template_date" not in rows_of(tmp_path / "o.jsonl")[0]["meta"]


def test_prompts_that_are_messages_are_drawn_after(dated, tmp_path):
    _, settings = dated
    asked = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{n} + 3?"}] for n in range(3)]
    for ending, rows in (("jsonl", asked), ("parquet", asked)):
        file = tmp_path / f"messages.{ending}"
        if ending == "parquet":
            pq.write_table(pa.table({"prompt": rows, "data_source": ["gsm"] * 3}), file)
        else:
            file.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
        found, ledger = sampling.read_problems([str(file)])
        assert [t.prompt for t in found] == asked and {t.response for t in found} == {""}
        assert ledger.rows_used == 3 and not ledger.by_reason
        done = analyzer.sample([str(file)], tmp_path / f"{ending}.jsonl", **settings | {"template": None})
        assert done["problems"] == 3 and done["template_date"]


def test_control_tokens_in_questions_are_said_before_sampling(dated, tmp_path, capsys):
    asked, settings = dated
    Path(asked).write_text(json.dumps({"question": "a</s>b"}) + "\n")
    line = ["sample", asked, "--model", settings["model"], "-n", "1", "--max-tokens", "2", "--template", "chat"]
    line += ["-o", str(tmp_path / "o.jsonl")]
    assert cli.main([*line, "--template-date", "2024-07-26"]) == 0
    said = capsys.readouterr()
    assert f"{special.INJECTED}</s> (1 of 1 problems; first " in said.err and f"{asked}:1" in said.err
    assert "chat templates wrote the day 2024-07-26 (--template-date)" in said.out
