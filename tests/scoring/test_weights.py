"""Models whose weights are not all there, or not all theirs, and numbers that are no log-probs: never scored."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from analyzer.api import pipeline
from analyzer.errors import AnalyzerError, DumpError, ResourceError
from analyzer.records import Scored, Trace
from analyzer.runs.store import Run
from analyzer.scoring import identity
from analyzer.scoring import load as scorers
from analyzer.scoring.identity import fingerprint

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture()
def model(tiny, tmp_path):
    """A copy of the tiny model, and what writes other weights into it."""
    shutil.copytree(tiny.name, tmp_path / "model")

    def change(make, **config):
        file = tmp_path / "model" / "model.safetensors"
        save_file(make(dict(load_file(file))), file, metadata={"format": "pt"})
        text = tmp_path / "model" / "config.json"
        text.write_text(json.dumps(json.loads(text.read_text()) | config))
        return str(tmp_path / "model")

    return change


def lora(w):
    base = w.pop(f"{Q}.weight")
    parts = {"base_layer": base, "lora_A.default": base[:2].clone(), "lora_B.default": base[:, :2].contiguous()}
    return w | {f"{Q}.{name}.weight": values for name, values in parts.items()}


WRONG = {
    "fsdp": (lambda w: {f"_fsdp_wrapped_module.{k}": v for k, v in w.items()}, "begin with '_fsdp_wrapped_module.'"),
    "module": (lambda w: {f"module.{k}": v for k, v in w.items()}, "begin with 'module.'"),
    "peft": (lambda w: {f"base_model.model.{k}": v for k, v in w.items()}, "begin with 'base_model.model.'"),
    "layer": (
        lambda w: {k: v for k, v in w.items() if ".layers.1." not in k},
        r"9 of its tensors missing \(model.layers.1.input_layernorm.weight, .*, \.\.\.\)",
    ),
    "head": (
        lambda w: {k: v for k, v in w.items() if "lm_head" not in k},
        r"1 of its tensors missing \(lm_head.weight\).* tie_word_embeddings",
    ),
    "lora": (lora, rf"3 that it does not have \({Q}.base_layer.weight, .*merge_and_unload"),
    "shape": (
        lambda w: w | {f"{Q}.weight": w[f"{Q}.weight"][:-1].contiguous()},
        rf"1 of another shape \({Q}.weight \(31, 32\) for \(32, 32\)\)",
    ),
    "extra": (lambda w: w | {"value_head.weight": torch.zeros(2, 2)}, r"1 that it does not have \(value_head.weight\)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_weights_that_are_not_the_models_are_refused_by_name(model, kind):
    make, said = WRONG[kind]
    with pytest.raises(ResourceError, match=said):
        scorers.load(model(make))


def buffers(w):
    rotary = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(2)}
    return w | rotary | {"model.embed_tokens.position_ids": torch.arange(64)}


def tied(w):
    return {k: v for k, v in w.items() if "lm_head" not in k}


@pytest.mark.parametrize("make, config", [(buffers, {}), (tied, {"tie_word_embeddings": True}), (dict, {})])
def test_good_weights_are_not(model, tiny, make, config):
    found = scorers.load(model(make, **config)).model
    want = tiny.model.state_dict()
    mine = found.state_dict()
    assert all(torch.equal(mine[k], want[k]) for k in want if k != "lm_head.weight")
    assert torch.equal(mine["lm_head.weight"], want["model.embed_tokens.weight" if config else "lm_head.weight"])


@pytest.mark.parametrize("kind", ["GPT2", "GPTNeoX"])
def test_masks_that_older_versions_saved_are_no_weights(tmp_path, kind):
    import transformers as t

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(t, f"{kind}Config")(**sizes, bos_token_id=0, eos_token_id=0)
    getattr(t, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(config).save_pretrained(tmp_path)
    file, block = tmp_path / "model.safetensors", "h.0.attn" if kind == "GPT2" else "layers.0.attention"
    w = dict(load_file(file))
    root = next(k for k in w if f"{block}." in k).partition(block)[0]
    mask = {f"{root}{block}.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool)}
    save_file(w | mask | {f"{root}{block}.masked_bias": torch.tensor(-1e4)}, file, metadata={"format": "pt"})
    assert scorers.load(str(tmp_path)).vocab_size == 64


def run_of(tmp_path, responses):
    run = Run.create(tmp_path / "run")
    ids = {"prompt_ids": (1, 2), "origin": "d:1"}
    run.append_traces([Trace("base", "p", n, "", response_ids=r, **ids) for n, r in enumerate(responses)])
    run.manifest |= {"samplers": {"base": None}, "settings": {"reference": "base"}}
    run.save()
    return run


@pytest.mark.parametrize("path", ["local", "cached", "plain"])
def test_a_trace_without_finite_log_probs_is_counted_and_never_scored(model, tmp_path, path):
    def holed(w):
        w["model.embed_tokens.weight"][7] = float("nan")
        return w

    run = run_of(tmp_path, [(7, 8, 9), (8, 9, 10), (9, 8)])
    pipeline.score(run, base=model(holed), scorer=path)
    status = run.done("base")
    assert status.pop("base/p/0").startswith("log-probabilities that are not finite") and {*status.values()} == {"ok"}
    assert sum(run.manifest["scorers"]["base"]["decisions"].values()) == 2 * 2
    found = next(run.tokens("base", ["logprob"]))
    assert found["key"].tolist() == ["base/p/1", "base/p/2"]
    pipeline.score(run, base=str(tmp_path / "model"), scorer=path)
    assert sum(run.manifest["scorers"]["base"]["decisions"].values()) == 2 * 2
    account = pipeline.ledger(run)
    assert (account["traces_scored"], account["traces_rejected"]) == (2, 1)


def test_a_model_of_nan_is_said_before_anything_is_scored(model, tmp_path):
    run = run_of(tmp_path, [(8, 9)])
    with pytest.raises(ResourceError, match="only NaN: its weights hold NaN.*--dtype float32"):
        pipeline.score(run, base=model(lambda w: {k: v * float("nan") for k, v in w.items()}))
    assert not run.scorers()


@pytest.mark.parametrize("value, said", [(0.01, "a logprob of 0.01"), (np.nan, "not finite"), (-np.inf, "not finite")])
def test_numbers_that_are_no_log_probs_are_neither_written_nor_read(tiny, tmp_path, value, said):
    run = run_of(tmp_path, [(8, 9)])
    trace = next(run.traces())
    pipeline.score(run, base=tiny.name)
    part = next((tmp_path / "run" / "scores" / "base").glob("part-*"))
    table = pq.read_table(part)
    good = next(run.tokens("base", ["token", "logprob", "rank"]))
    columns = {n: good[n].iloc[0] for n in ("token", "logprob", "rank")}
    bad = columns["logprob"].copy()
    bad[1] = value
    with pytest.raises(AnalyzerError, match=f"scores under other would hold .*{said}"):
        run.append_scores("other", [(trace, (1, 2), Scored(trace.key, columns | {"logprob": bad}))])
    assert run.scorers() == ["base"]
    at = table.schema.get_field_index("logprob")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array([bad.tolist()], pa.list_(pa.float32()))), part)
    for read in (lambda: list(run.tokens("base", ["logprob"])), lambda: list(run.score_batches("base", ["logprob"]))):
        with pytest.raises(DumpError, match=f"{part} holds .*{said}.*run the same line again"):
            read()
    bad[1] = 5e-4  # rounding
    run.append_scores("other", [(trace, (1, 2), Scored(trace.key, columns | {"logprob": bad}))])
    assert run.scorers() == ["base", "other"]


def shards(folder, values, n=2, stem="model"):
    """Weights in n files and their index, as save_pretrained writes them."""
    names = sorted(values)
    of = {name: f"{stem}-{1 + i * n // len(names):05d}-of-{n:05d}.safetensors" for i, name in enumerate(names)}
    for file in set(of.values()):
        save_file({k: values[k] for k in names if of[k] == file}, folder / file, metadata={"format": "pt"})
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))


def test_two_sets_of_weights_in_a_folder_are_refused(model, tiny, tmp_path):
    """transformers takes model.safetensors and says nothing of shards beside it: the merged ones, or stale ones."""
    folder = tmp_path / "model"
    held = dict(load_file(folder / "model.safetensors"))
    shards(folder, {k: v * 2 for k, v in held.items()})
    said = (
        r"holds two sets of weights: model.safetensors, and 2 files that model.safetensors.index.json names "
        r"\(model-00001-of-00002.safetensors, model-00002-of-00002.safetensors\); .* remove the one that is not meant"
    )
    with pytest.raises(ResourceError, match=said):
        scorers.load(str(folder))
    (folder / "model.safetensors").unlink()
    scorers.load(str(folder))
    # an index that names the one file is no second set, nor are weights that transformers never looks at
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(held, "model.safetensors")}))
    scorers.load(str(folder))
    for broken in ("{", '{"weight_map": 3}'):
        index.write_text(broken)
        with pytest.raises(ResourceError, match="two sets of weights"):
            scorers.load(str(folder))


def test_a_model_is_known_by_the_weights_that_are_loaded(model, tmp_path):
    folder = tmp_path / "model"
    held = dict(load_file(folder / "model.safetensors"))
    alone = fingerprint(str(folder))
    save_file({"x": torch.ones(4)}, folder / "consolidated.safetensors")  # as Mistral's folders have
    (folder / "pytorch_model.bin").write_bytes(b"older")
    assert fingerprint(str(folder)) == alone
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.safetensors"):
        (folder / name).unlink()
    # a file that config.json names in place of them
    config = json.loads((folder / "config.json").read_text())
    save_file({k: v * 3 for k, v in held.items()}, folder / "other.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "other.safetensors"}))
    named = fingerprint(str(folder))
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"no part of it")
    assert fingerprint(str(folder)) == named != alone
    head = scorers.load(str(folder)).model.get_output_embeddings().weight
    assert torch.equal(head, held["lm_head.weight"] * 3)
    (folder / "other.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    # two saves of one name, of which the index names one
    shards(folder, held)
    one = fingerprint(str(folder))
    first = (folder / "model.safetensors.index.json").read_text()
    shards(folder, {k: v * 2 for k, v in held.items()}, n=3)
    two = fingerprint(str(folder))
    assert len({alone, one, two}) == 3
    (folder / "model.safetensors.index.json").write_text(first)
    assert fingerprint(str(folder)) == one
    logits = scorers.load(str(folder)).model.get_output_embeddings().weight
    assert torch.equal(logits, held["lm_head.weight"])


def test_runs_that_were_identified_by_all_files_go_on(model, tmp_path):
    folder = tmp_path / "model"
    save_file({"x": torch.ones(4)}, folder / "consolidated.safetensors")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name == "config.json" or path.suffix == ".safetensors":
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
            data = path.read_bytes()
            for offset, length in identity._places(path):
                digest.update(data[offset : offset + length])
    earlier = digest.hexdigest()[:16]
    assert earlier != fingerprint(str(folder)) and identity.is_model(earlier, str(folder))
    assert not identity.is_model("0" * 16, str(folder))


def test_weights_that_are_all_zero_are_refused_by_name(model):
    """A file that was made at its size and never filled has holes, which read as zeros: every word is as likely."""

    def holes(w):
        return {k: torch.zeros_like(v) if ".layers.1." in k and v.ndim == 2 else v for k, v in w.items()}

    said = r"7 of its matrices all zeros \(model.layers.1.mlp.down_proj.weight, .*copy .* again"
    with pytest.raises(ResourceError, match=said):
        scorers.load(model(holes))


def test_biases_of_zeros_are_none(tiny, tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = Qwen2ForCausalLM(Qwen2Config(vocab_size=32, num_key_value_heads=2, **sizes))
    assert not any(p.any() for name, p in made.named_parameters() if name.endswith("bias"))
    made.save_pretrained(tmp_path / "q")
    scorers.load(str(tmp_path / "q"))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32])
def test_weights_that_are_integers_without_a_scale_are_refused(model, kind):
    def whole(w):
        return w | {f"{Q}.weight": (w[f"{Q}.weight"] * 127).to(kind)}

    with pytest.raises(ResourceError, match=rf"1 stored as integers \({Q}.weight\).*quantization_config"):
        scorers.load(model(whole))
