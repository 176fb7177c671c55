"""What a model may bring: code of its own and pickled weights are refused by name unless the user says otherwise."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from analyzer.errors import ResourceError
from analyzer.scoring import load as scorers

CODE = """
import os, pathlib
pathlib.Path(__file__).with_name("ran").touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OddConfig(LlamaConfig):
    model_type = "odd"
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


@pytest.fixture()
def model(tmp_path, stories):
    shutil.copytree(stories, tmp_path / "model")
    return tmp_path / "model"


def test_code_of_a_model_runs_only_when_asked_for(model, monkeypatch, tmp_path):
    config = json.loads((model / "config.json").read_text())
    maps = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    (model / "config.json").write_text(json.dumps(config | {"model_type": "odd", "auto_map": maps}))
    (model / "odd.py").write_text(CODE.replace("__file__", repr(str(tmp_path / "here"))))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("a question was asked"))
    with pytest.raises(ResourceError, match="brings Python code of its own.*--trust-remote-code"):
        scorers.load(str(model))
    assert not (tmp_path / "ran").exists()
    assert scorers.load(str(model), trust_remote_code=True).vocab_size == 512
    assert (tmp_path / "ran").exists()


def test_end_tokens_are_those_that_any_place_declares(model):
    tokenizer = scorers.load(str(model)).tokenizer.eos_token_id
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"eos_token_id": [2, 5]}))
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    assert scorers.load(str(model)).eos_ids == tuple(sorted({2, 5, 9, tokenizer} - {None}))


def test_pickled_weights_are_read_only_when_asked_for(model):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    safe = scorers.load(str(model)).model.state_dict()  # where both are there, the safe ones are taken
    (model / "model.safetensors").unlink()
    with pytest.raises(ResourceError, match="no weights as safetensors.*--allow-pickle"):
        scorers.load(str(model))
    pickled = scorers.load(str(model), allow_pickle=True).model.state_dict()
    assert all(torch.equal(safe[name], pickled[name]) for name in safe)


@pytest.mark.parametrize("left", [0, 5, 5000, -1])
def test_a_cut_file_of_weights_is_named(model, left):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ResourceError, match=rf"{file} is damaged or cut short \(.*\); copy it again"):
        scorers.load(str(model))


def test_weights_that_are_not_there_are_not_taken_for_pickled_ones(model):
    file = model / "model.safetensors"
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    file.unlink()
    with pytest.raises(ResourceError, match=r"has no weights: no \*.safetensors in that folder"):
        scorers.load(str(model))
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model-00002-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(ResourceError, match="can't be loaded as a causal LM.*model-00001-of-00001.safetensors"):
        scorers.load(str(model))


def test_the_fingerprint_knows_config_code_and_weights(model):
    seen = {scorers.fingerprint(str(model))}
    for name, text in (("config.json", " "), ("odd.py", "x = 1"), ("model.safetensors", "x"), ("odd.py", "x = 2")):
        with (model / name).open("a") as f:
            f.write(text)
        seen.add(scorers.fingerprint(str(model)))
    assert len(seen) == 5
