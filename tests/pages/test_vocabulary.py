"""Tokens that no trace holds get their text from the model's tokenizer, if it is the one that cut the traces."""

from __future__ import annotations

import dataclasses

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from analyzer.analysis.figures import styles
from analyzer.pages import embed, vocabulary

WORDS = ["Ġthe", "Ġcat", "Ġsat", "on", "mat", "Ġno", "é"]


@pytest.fixture
def model(tmp_path):
    """A folder with a byte-level vocabulary in which blanks belong to the following word, as in most models."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="on"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path)


def test_text_comes_with_its_blank(model):
    assert vocabulary.texts(model, {1, 3, 5}, {0: " the", 4: "mat"}) == {1: " cat", 3: "on", 5: " no"}
    assert vocabulary.texts(model, {1}, {0: "the", 4: "mat "}) == {1: " cat"}  # blanks may be counted elsewhere


def test_the_embedded_models_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert vocabulary._file("miniature/models/base").is_file() and vocabulary._file("miniature/models/none") is None


def test_an_id_beyond_the_vocabulary_stays_unknown(model):
    assert vocabulary.texts(model, {2, 700}, {0: " the"}) == {2: " sat"}


@pytest.mark.parametrize(
    ("name", "known"),
    [(None, {0: " the"}), ("no/such-model", {0: " the"}), ("gone", {0: " the"}), ("model", {}), ("model", {0: " dog"})],
)
def test_without_an_agreeing_tokenizer_nothing_is_said(model, name, known):
    assert vocabulary.texts(model if name == "model" else name, {1, 2}, known) == {}


def test_a_broken_file_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    assert vocabulary.texts(str(tmp_path), {1}, {0: " the"}) == {}


def test_alternatives_are_shown_as_text(model, world, unpack):
    tables = world.tables(["a"], texts={"a/p0/0": " cat" * 30}, problems=1, samples=1)
    cats = lambda m, columns: (p.assign(token=[[1] * len(t) for t in p["token"]]) for p in tables.tokens(m, columns))  # noqa: E731
    plain, named = (
        unpack(embed.build(dataclasses.replace(tables, tokens=cats, engines=e), {}, styles(["a"])).packs[0])
        for e in ({}, {"base": {"model": model}})
    )
    assert plain["traces"][0]["top"][0][1] == [" cat", "#2", "#3"]
    assert named["traces"][0]["top"][0][1] == [" cat", " sat", "on"]
