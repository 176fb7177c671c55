"""Whether a model's weights are all there and all its own: what is missing would be random numbers, in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from analyzer.errors import ResourceError

PICKLED = (".bin", ".pt", ".pth")  # how weights are called that are no safetensors
WHY = 300  # characters of what others say of a model that can't be loaded
SMALL = 64  # values: a matrix of no more may be zero
NAMED = 3  # tensors, or files, that a message names
SETS = (  # one file or an index of shards, the first that is there
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
# buffers that older versions of transformers saved and that every model makes again: tables of positions, causal masks
BUFFERS = re.compile(
    r"(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|(attn|attention)\.(bias|masked_bias))$"
)
LORA = re.compile(r"\.lora_|\.base_layer\.|\.modules_to_save\.")
MERGE = "merge it (peft: model.merge_and_unload(), then save_pretrained), or save the adapter alone"


def files(folder: Path) -> list[Path] | None:
    """The files of weights that transformers loads of a model folder; None where none has a name that it knows. (Of
    safetensors and pickled ones the safetensors; of one file and shards the one file, see `refuse_two_sets`.)"""
    for one, index in _sets(folder):
        if (folder / one).is_file():
            return [folder / one]
        if (folder / index).is_file():
            return [folder / name for name in _indexed(folder / index) if (folder / name).is_file()] or None
    return None


def refuse_two_sets(name: str) -> None:
    """Raise ResourceError where the folder holds weights in one file and others as shards with an index: transformers
    would take the one file and say nothing of the others, which may be the newer ones."""
    folder = Path(name)
    for one, index in _sets(folder):
        single, several = (folder / one).is_file(), (folder / index).is_file()
        if single and several and (shards := _indexed(folder / index)) != [one]:
            others = f"{len(shards):,} files that {index} names ({_named(shards)})" if shards else index
            raise ResourceError(
                f"{name} holds two sets of weights: {one}, and {others}; which one is the model can't be told: remove "
                "the one that is not meant (the index with its shards, or the single file)"
            )
        if single or several:  # the others are not loaded
            return


def _sets(folder: Path) -> tuple[tuple[str, str], ...]:
    """(file, index) in the order in which they are looked for; one that config.json names is the only one."""
    try:
        named = json.loads((folder / "config.json").read_bytes()).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        named = None
    if isinstance(named, str) and named:
        return (("", named),) if named.endswith(".index.json") else ((named, ""),)
    return SETS


def _indexed(index: Path) -> list[str]:
    """The names of the shards in an index, sorted; none where it can't be read."""
    try:
        found = json.loads(index.read_bytes())["weight_map"].values()
        return sorted({name for name in found if isinstance(name, str) and "/" not in name})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def refuse_other_weights(name: str, model: Any, info: Mapping[str, Collection]) -> None:
    """Raise ResourceError, naming tensors, where a model was not loaded from exactly its own weights.

    info: what transformers tells with output_loading_info: missing_keys (tied ones left out), unexpected_keys (those
    that the architecture knows as harmless left out), mismatched_keys as (name, shape in the file, shape in the model).
    """
    missing = sorted(k for k in info["missing_keys"] if not BUFFERS.search(k))
    unexpected = sorted(k for k in info["unexpected_keys"] if not BUFFERS.search(k))
    mismatched = sorted(info["mismatched_keys"])
    zeros = _zeros(model)
    whole = [] if getattr(model.config, "quantization_config", None) else _integers(Path(name))
    said = []
    if missing:
        said.append(f"{len(missing):,} of its tensors missing ({_named(missing)})")
    if unexpected:
        said.append(f"{len(unexpected):,} that it does not have ({_named(unexpected)})")
    if mismatched:
        shapes = [f"{k} {tuple(have)} for {tuple(want)}" for k, have, want in mismatched]
        said.append(f"{len(mismatched):,} of another shape ({_named(shapes)})")
    if zeros:
        said.append(f"{len(zeros):,} of its matrices all zeros ({_named(zeros)})")
    if whole:
        said.append(f"{len(whole):,} stored as integers ({_named(whole)})")
    if said:
        raise ResourceError(
            f"the weights of {name} are not those of the model in its config.json: {'; '.join(said)}; "
            f"{_advice(missing, unexpected, mismatched, zeros, whole)}"
        )


def _advice(
    missing: list[str], unexpected: list[str], mismatched: list[Any], zeros: list[str], whole: list[str]
) -> str:
    if any(map(LORA.search, unexpected)):
        return f"an adapter is not merged into them: {MERGE}"
    if prefix := _prefix(unexpected, missing):
        return f"the names in the files begin with {prefix!r}: save the weights without it"
    if mismatched:
        return "config.json or weights are of another model: copy both from one place"
    if missing and all(k.startswith(("lm_head.", "embed_out.")) for k in missing):
        return "copy the output layer too; where it is the embedding, config.json must say tie_word_embeddings: true"
    if whole and not (missing or unexpected):
        return "quantized weights need the quantization_config that says how to read them; save it, or save floats"
    if zeros and not (missing or unexpected):
        return "the file was not copied to its end (what was never written reads as zeros): copy the weights again"
    if missing:
        return "copy or convert all of them; missing ones would be random numbers"
    return "a head or layers that the model does not have would be left out: save the causal LM alone"


def _zeros(model: Any) -> list[str]:
    """Names of the matrices that are all zeros. One that is so in every layer was made so (a residual branch switched
    off); a file that was not copied to its end has them in its last layers, or in the embedding and the head."""
    found: dict[str, dict[str, bool]] = {}
    for name, values in model.named_parameters():
        if values.ndim > 1 and values.numel() > SMALL:
            found.setdefault(re.sub(r"\.\d+\.", ".#.", name), {})[name] = _is_zero(values)
    return sorted(
        name
        for kind, of in found.items()
        for name, zero in of.items()
        if zero and not ("#" in kind and all(of.values()))
    )


def _is_zero(values: Any) -> bool:
    if values.is_meta or not values.is_floating_point():
        return False
    some = values.detach().flatten()
    return not (bool(some[:SMALL].any()) or bool(some.any()))  # nearly always told by the first few


def _integers(folder: Path) -> list[str]:
    """The weights that the files of a folder hold as integers, by the heads of its safetensors."""
    found = []
    for path in files(folder) or ():
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            kinds = {k: v["dtype"] for k, v in head.items() if k != "__metadata__"}
            found += [k for k, kind in kinds.items() if k.endswith(".weight") and kind[0] in "IU"]
    return sorted(found)


def _prefix(unexpected: list[str], missing: list[str]) -> str | None:
    """What stands before the names in the files, where all that is missing is there under such a name."""
    wanted = set(missing)
    for name in unexpected[:1]:
        for want in wanted:
            prefix = name.removesuffix(want)
            if prefix != name and all(k.startswith(prefix) for k in unexpected):
                return prefix
    return None


def refusal(name: str, error: Exception, trust_remote_code: bool, allow_pickle: bool) -> ResourceError:
    """Why a model can't be loaded, and the flag that would allow it where there is one."""
    from safetensors import SafetensorError

    said, files = str(error), list(Path(name).iterdir()) if Path(name).is_dir() else []
    if isinstance(error, SafetensorError):
        return ResourceError(f"{_damaged(name, files)} is damaged or cut short ({said}); copy it again")
    if not trust_remote_code and "trust_remote_code" in said:
        return ResourceError(
            f"model {name!r} brings Python code of its own, which would run here; read it, and if you trust it add "
            "--trust-remote-code"
        )
    kinds = {f.suffix for f in files} if Path(name).is_dir() else set(PICKLED)
    if not kinds & {".safetensors", *PICKLED}:
        return ResourceError(f"model {name!r} has no weights: no *.safetensors in that folder; copy them there")
    if not allow_pickle and "safetensors" in said and kinds & {*PICKLED}:
        return ResourceError(
            f"model {name!r} has no weights as safetensors; pickled weights (.bin) can run code when they are loaded: "
            "convert them, or if you trust them add --allow-pickle"
        )
    why = " ".join(said.split("\n\n")[0].split())[:WHY] or type(error).__name__
    if not isinstance(error, (OSError, ValueError)) and files:
        why = f"{why} ({type(error).__name__}: is a value in its config.json wrong?)"
    return ResourceError(
        f"model {name!r} can't be loaded as a causal LM: {why}; "
        "expected a folder with config.json and weights, a whole GGUF file, or a hub name with network access"
    )


def _damaged(name: str, files: list[Path]) -> str:
    """The first file that can't be opened as safetensors; the model's name where that can't be told."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(f for f in files if f.suffix == ".safetensors"):
        try:
            with safe_open(file, "numpy"):
                pass
        except SafetensorError:
            return str(file)
    return f"a file of the weights of {name}"


def _named(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
