"""What is odd in a model folder, a tokenizer, an id or the memory is said in a sentence, never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from analyzer.api import pipeline
from analyzer.cli import main as cli
from analyzer.errors import DumpError, ResourceError
from analyzer.records import Trace
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring.encoding.encode import encode
from analyzer.scoring.servers import server

CONFIGS = {
    "heads 0": {"num_attention_heads": 0},
    "key heads 0": {"num_key_value_heads": 0},
    "layers 0": {"num_hidden_layers": 0},
    "layers below 0": {"num_hidden_layers": -1},
    "vocabulary 0": {"vocab_size": 0},
    "context below 0": {"max_position_embeddings": -5},
    "text for a number": {"hidden_size": "many"},
    "a number as text": {"num_attention_heads": "4"},
    "text for an angle": {"rope_parameters": {"rope_theta": "a", "rope_type": "default"}},
    "text for the context": {"max_position_embeddings": "long"},
    "half a unit": {"hidden_size": 32.5},
    "odd heads": {"head_dim": 7},
    "nothing": {"intermediate_size": None},
    "text for the end": {"eos_token_id": "x"},
    "a number for the kind": {"model_type": 5},
    "a list": None,
}


@pytest.mark.parametrize("odd", CONFIGS)
def test_a_config_that_can_not_be_is_refused(tiny, tmp_path, odd):
    folder = shutil.copytree(tiny.name, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    change = CONFIGS[odd]
    (folder / "config.json").write_text(json.dumps([1] if change is None else config | change))
    with pytest.raises(ResourceError) as refused:
        scorers.load(str(folder))
    said = str(refused.value)
    assert len(said.splitlines()) == 1 and len(said) < 700 and "division" not in said
    if change:
        assert next(iter(change)) in said or "config.json" in said or "model type" in said


def test_a_config_that_can_not_be_is_refused_beside_a_server(tiny, tmp_path):
    folder = shutil.copytree(tiny.name, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))
    with pytest.raises(ResourceError, match="config.json: hidden_size is .many., expected a whole number"):
        server.connect(f"{folder}@http://127.0.0.1:9/v1")


def test_memory_that_runs_out_at_loading_is_said_as_such(tiny, monkeypatch, tmp_path, capsys):
    def none(*args, **options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")

    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", none)
    (tmp_path / "base.jsonl").write_text('{"prompt_ids": [1], "response_ids": [2], "response": "x", "prompt": "y"}\n')
    line = ["score", str(tmp_path / "base.jsonl"), "--base", tiny.name, "-o", str(tmp_path / "run")]
    assert cli.main(line) == 4
    assert "analyzer: out of memory: " in capsys.readouterr().err


def test_a_text_without_a_piece_in_the_vocabulary_is_named():
    """Tokenizers without an unknown token and without bytes raise bare exceptions."""
    own = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=None))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own)
    good = Trace("s", "p", 0, "ab", prompt="a", origin="f:1")
    assert encode(good, tokenizer, vocab_size=9).response_ids
    for trace in (
        Trace("s", "p", 0, "a€", prompt="a", origin="f:7"),
        Trace("s", "p", 0, "a", prompt="€", origin="f:7"),
    ):
        what = "prompt" if trace.prompt == "€" else "response"
        with pytest.raises(
            DumpError, match=rf"f:7: the tokenizer can't encode the {what} of s/p/0 .*leave the row out"
        ):
            encode(trace, tokenizer, vocab_size=9)


def test_a_nul_in_an_id_is_an_id_like_others(tiny, tmp_path):
    rows = [
        {"source": "base", "problem": f"p\0{i}", "sample": 0, "group": "g\0", "response": "r\0"}
        | {"prompt_ids": [3, i + 1], "response_ids": [5] * (70 * i + 3)}
        for i in range(2)
    ]
    (tmp_path / "base.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
    pipeline.score(run, base=tiny.name, on_overlong="window")  # the second in windows
    assert run.done("base") == {"base/p\0000/0": "ok", "base/p\0001/0": "ok"}


def test_memory_that_runs_out_while_reading_says_nothing_of_the_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "base.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])

    def none(*args, **options):
        raise pa.ArrowMemoryError("malloc of size 4096 failed")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", none)
    assert cli.main(["analyze", str(tmp_path / "run"), "boundary"]) == 4
    said = capsys.readouterr().err
    assert "out of memory: reading " in said and "damaged" not in said and "move it away" not in said
    table = pa.table({"prompt": ["a"], "response": ["b"]})
    pq.write_table(table, tmp_path / "dump.parquet")
    assert cli.main(["check", str(tmp_path / "dump.parquet")]) == 4
    said = capsys.readouterr().err
    assert "out of memory" in said and "damaged" not in said


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), PermissionError(13, "Permission denied")])
def test_what_the_system_refuses_says_nothing_of_the_file(tmp_path, monkeypatch, error):
    (tmp_path / "base.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])

    def refused(*args, **options):
        raise error

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refused)
    with pytest.raises(ResourceError, match=f"part-00000.parquet can't be read: {error.strerror}"):
        list(run.traces())
    assert Path(run.path / "traces" / "part-00000.parquet").exists()
