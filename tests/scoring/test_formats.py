"""Models in other forms than a folder: GGUF files, adapters over a base, revisions of a hub name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from analyzer.api.pipeline import score
from analyzer.errors import ResourceError, UsageError
from analyzer.records import Trace
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring import names
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.identity import fingerprint, tokenizer_fingerprint

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is missing (extra `test`)")
needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is missing (extra `test`)")


def items(seed=0):
    rng = np.random.default_rng(seed)
    ids = [tuple(rng.integers(0, 64, n).tolist()) for n in (5, 9, 14, 3)]
    return [Encoded(Trace("a", "p", n, ""), ids[0], r, np.full(len(r), -1, np.int32)) for n, r in enumerate(ids[1:])]


def logprobs(loaded):
    path, _ = scorers.choose_path(loaded, None, "local")
    got = {s.key: s for s in scorers.score(items(), loaded, path=path, sampler=None, limit=None)}
    return np.concatenate([got[i.trace.key].columns["logprob"] for i in items()])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("base") / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base):
    """The function that makes an adapter of the base with random weights: a folder."""

    def make(seed, **options):
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False}
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**given | options))
        folder = base.parent / f"adapter{seed}"
        model.save_pretrained(folder)
        return folder, model

    return make


def test_names_mean_what_they_say(tmp_path):
    assert names.parts("org/name@v2") == names.Parts("org/name", "v2")
    assert names.parts("org/name+org/lora") == names.Parts("org/name", adapter="org/lora")
    assert names.parts("org/name@v2+org/lora") == names.Parts("org/name", "v2", adapter="org/lora")
    assert names.parts("org/name@v2+org/lora").base == "org/name@v2"
    odd = tmp_path / "a+b@c"
    odd.mkdir()
    assert names.parts(str(odd)) == names.Parts(str(odd))
    (odd / "one.gguf").write_bytes(b"")
    assert names.parts(str(odd)) == names.Parts(str(odd), gguf=odd / "one.gguf") == names.parts(str(odd / "one.gguf"))
    (odd / "two.gguf").write_bytes(b"")
    with pytest.raises(ResourceError, match="holds 2 GGUF files; give one"):
        names.parts(str(odd))
    (odd / "model.safetensors").write_bytes(b"")
    assert names.parts(str(odd)).gguf is None
    assert fingerprint("org/name@v2") != fingerprint("org/name") != fingerprint("org/name+org/lora")


@needs_peft
@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["k_proj"], "modules_to_save": ["lm_head"]}],
)
def test_a_merged_adapter_scores_as_the_adapter_beside_its_base(base, adapter, options):
    folder, model = adapter(7, **options)
    model = model.eval()
    want = []
    with torch.inference_mode():
        for i in items():
            logits = model(torch.tensor([i.prompt_ids + i.response_ids])).logits[0, len(i.prompt_ids) - 1 : -1]
            want.append(logits.log_softmax(-1).gather(1, torch.tensor(i.response_ids)[:, None])[:, 0])
    before = logprobs(scorers.load(str(base)))
    for name in (str(folder), f"{base}+{folder}"):
        got = logprobs(scorers.load(name))
        assert np.abs(got - torch.cat(want).numpy()).max() < 1e-5 < 1e-2 < np.abs(got - before).max()


@needs_peft
def test_adapters_of_one_base_share_its_weights_which_come_back_bit_for_bit(base, adapter, monkeypatch):
    folders = [str(adapter(n, **({} if n < 13 else {"modules_to_save": ["lm_head"]}))[0]) for n in (11, 12, 13)]
    apart = [logprobs(scorers.load(name)) for name in (str(base), *folders)]
    loads = []
    known = scorers._loaded
    monkeypatch.setattr(scorers, "_loaded", lambda *a: loads.append(a) or known(*a))
    with scorers.kept():
        for name, want in zip((str(base), *folders, str(base)), (*apart, apart[0]), strict=True):
            loaded = scorers.load(name)
            assert loaded.name == name and loaded.fingerprint == fingerprint(name)
            np.testing.assert_array_equal(logprobs(loaded), want)
        assert len(loads) == 1
        scorers.load(str(base), dtype="bfloat16")
        assert len(loads) == 2
    assert len({fingerprint(name) for name in (str(base), *folders)}) == 4


@needs_peft
def test_a_run_loads_the_base_of_its_policies_once(base, adapter, tmp_path, monkeypatch):
    labels = ["base", "one", "two", "three"]
    run = Run.create(tmp_path / "run")
    run.append_traces(
        replace(i.trace, source=label, prompt_ids=i.prompt_ids, response_ids=i.response_ids, origin="d:1")
        for label in labels
        for i in items()
    )
    run.manifest |= {"samplers": dict.fromkeys(labels), "settings": {"reference": "base"}}
    run.save()
    policies = {label: str(adapter(31 + n)[0]) for n, label in enumerate(labels[1:])}
    policies["three"] = f"{base}+{policies['three']}"
    loads, known = [], scorers._loaded
    monkeypatch.setattr(scorers, "_loaded", lambda *a: loads.append(a) or known(*a))
    score(run, base=str(base), policy=policies)
    assert len(loads) == 1
    scorers_of = {"base": str(base)} | {f"policy-{k}": v for k, v in policies.items()}
    for label, name in scorers_of.items():
        assert run.manifest["scorers"][label]["fingerprint"] == fingerprint(name)
        want = logprobs(scorers.load(name))
        [frame] = list(run.tokens(label, ["logprob"]))
        mine = frame[frame["source"] == label.removeprefix("policy-")].sort_values("sample")
        assert np.abs(np.concatenate(list(mine["logprob"])) - want).max() < 1e-5
    score(run, base=str(base), policy=policies)  # again: nothing is left
    assert len(loads) == 5


@needs_peft
def test_an_adapter_that_is_not_of_its_base_is_refused_and_the_base_stays(base, adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = adapter(21)
    w = load_file(folder / "adapter_model.safetensors")
    first = next(iter(w))
    wrong = {
        "missing": {k: v for k, v in w.items() if k != first},
        "unknown": w | {first.replace("layers.0", "layers.9"): w[first].clone()},
        "shape": w | {first: torch.zeros(4, 5)},
        "Nan": w | {first: w[first] * torch.nan},
    }
    with scorers.kept():
        before = logprobs(scorers.load(str(base)))
        for said, values in wrong.items():
            save_file(values, folder / "adapter_model.safetensors")
            with pytest.raises(ResourceError, match=f"(?i){said}"):
                scorers.load(str(folder))
            np.testing.assert_array_equal(logprobs(scorers.load(str(base))), before)
    save_file(w, folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").rename(folder / "x")
    with pytest.raises(ResourceError, match="no adapter_model.safetensors.*--allow-pickle"):
        scorers.load(str(folder))
    (folder / "x").rename(folder / "adapter_model.safetensors")
    tied = tmp_path / "tied"
    torch.manual_seed(3)
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": True}
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(tied)
    alone, _ = adapter(22, target_modules=["embed_tokens"])
    with pytest.raises(ResourceError, match="gives other log-probs than beside them"):
        scorers.load(f"{tied}+{alone}")


def test_identity_covers_adapter_config_and_base(base, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    weights.write_bytes(b"one")
    seen = set()
    for model, alpha in ((base, 1), (base, 2), (other, 1)):
        file.write_text(json.dumps({"base_model_name_or_path": str(model), "alpha": alpha}))
        seen.add(fingerprint(str(folder)))
        assert fingerprint(str(folder)) == fingerprint(f"{model}+{folder}") != fingerprint(str(model))
        assert tokenizer_fingerprint(str(folder)) == tokenizer_fingerprint(str(model))
    weights.write_bytes(b"two")
    assert len(seen | {fingerprint(str(folder))}) == 4
    for said, content in (("names no model", {}), ("not here", {"base_model_name_or_path": "/not/here"})):
        file.write_text(json.dumps(content))
        with pytest.raises(ResourceError, match=said):
            scorers.load(str(folder))
    shutil.copy(base / "config.json", folder)
    with pytest.raises(ResourceError, match=r"an adapter \(adapter_config.json\) and a model.*remove"):
        scorers.load(str(folder))


@pytest.mark.parametrize("extra", ["gguf", "peft"])
def test_a_missing_extra_is_named(base, tmp_path, monkeypatch, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for module in (scorers, scorers.adapters):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    name = {"gguf": str(tmp_path / "m.gguf"), "peft": f"{base}+{tmp_path}"}[extra]
    with pytest.raises(UsageError, match=rf"pip install 'reasoning-path-analyzer\[{extra}\]'"):
        scorers.load(name)


@needs_gguf
def test_a_gguf_file_scores_as_the_folder_that_it_was_made_of(stories, root, tmp_path, capfd):
    file = tmp_path / "stories.gguf"
    writer = root / "tests" / "server" / "write_gguf.py"
    subprocess.run([sys.executable, writer, stories, file], check=True)
    want = logprobs(scorers.load(str(stories)))
    capfd.readouterr()
    for name in (str(file), str(tmp_path)):
        loaded = scorers.load(name)
        assert capfd.readouterr() == ("", "")
        assert np.abs(logprobs(loaded) - want).max() < 1e-5
        assert loaded.fingerprint == fingerprint(str(file)) != fingerprint(str(stories))
    before = tokenizer_fingerprint(name)
    shutil.copy(stories / "tokenizer.json", tmp_path)
    assert tokenizer_fingerprint(name) != before
    file.write_bytes(b"GGUF" + file.read_bytes()[4:2000])
    with pytest.raises(ResourceError, match="can't be loaded"):
        scorers.load(str(file))
    with pytest.raises(ResourceError, match="does not exist"):
        scorers.load(str(tmp_path / "none.gguf"))


def write_tokenizer(file, pre):
    """A GGUF file without tensors but one: a byte-level BPE that would merge "12" and a blank before a 1."""
    import gguf
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    blank = bytes_to_unicode()[32]
    tokens = [*bytes_to_unicode().values(), "12", f"{blank}1", f"{blank}12", "<|end|>"]
    writer = gguf.GGUFWriter(str(file), "llama")
    for add, value in (
        (writer.add_context_length, 64), (writer.add_embedding_length, 8), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 8), (writer.add_head_count, 1), (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_vocab_size, len(tokens)),
        (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, pre), (writer.add_token_list, tokens),
        (writer.add_token_types, [gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL]),
        (writer.add_token_merges, ["1 2", f"{blank} 1", f"{blank} 12"]), (writer.add_eos_token_id, len(tokens) - 1),
        (writer.add_bos_token_id, len(tokens) - 1),
    ):  # fmt: skip
        add(value)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tokens


@needs_gguf
def test_a_tokenizer_made_from_gguf_has_its_digit_splitter_and_is_checked_on_the_dumps_ids(tmp_path):
    from analyzer.scoring.encoding import rebuilt

    file = tmp_path / "m.gguf"
    tokens = write_tokenizer(file, "smollm")
    tokenizer = scorers._tokenizer(names.parts(str(file)), False)
    drawn = tuple(tokens.index(t) for t in ("a", bytes([32]).decode().replace(" ", "\u0120"), "1", "2"))
    assert tuple(tokenizer("a 12", add_special_tokens=False)["input_ids"]) == drawn
    trace = Trace("s", "p", 0, "a 12", response_ids=drawn, origin="d:1")
    encoded = [Encoded(trace, (tokens.index("b"),), drawn, np.full(4, -1, np.int32))]
    assert rebuilt.differing(encoded, tokenizer, file) is None
    write_tokenizer(file, "gpt-2")
    merging = scorers._tokenizer(names.parts(str(file)), False)
    said = rebuilt.differing(encoded, merging, file)
    assert "1 of 1 responses in other ids" in said and "1 of them at digits" in said and "s/p/0 (d:1), token 1" in said
