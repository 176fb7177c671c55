"""A model that is ready to score, wherever its weights are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from analyzer.errors import ResourceError

SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    "max_position_embeddings",
)  # of a config: none makes sense below 1


@dataclass(frozen=True)
class Loaded:
    """A causal LM ready to score: what it is, and where it came from."""

    name: str  # as the user gave it
    fingerprint: str  # of config and weights
    model: Any  # None where it is loaded elsewhere (see `cluster`)
    tokenizer: Any  # None when the folder has none
    vocab_size: int
    context: int | None  # longest sequence the config declares
    dtype: str
    device: str
    parameters: int = 0
    eos_ids: tuple[int, ...] = ()  # the model's end tokens as far as it declares them; none on a server


def described(model: Any, tokenizer: Any, name: str, fingerprint: str) -> Loaded:
    """The record of a transformers causal LM that is in memory."""
    return Loaded(
        name,
        fingerprint,
        model,
        tokenizer,
        model.get_output_embeddings().weight.shape[0],
        getattr(model.config.get_text_config(), "max_position_embeddings", None),
        str(model.dtype).removeprefix("torch."),
        str(model.device),
        sum(p.numel() for p in model.parameters()),
        tuple(sorted(_eos_ids(model, tokenizer))),
    )


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    """The end tokens that generation config, config and tokenizer declare; each names none, one or several."""
    places = (getattr(model, "generation_config", None), model.config, model.config.get_text_config(), tokenizer)
    said = [getattr(place, "eos_token_id", None) for place in places]
    found = chain.from_iterable(ids if isinstance(ids, (list, tuple)) else [ids] for ids in said)
    return {int(i) for i in found if i is not None}


def refuse_sizes(name: str) -> None:
    """Raise ResourceError for a model folder whose config has a size that can't be one."""
    file = Path(name) / "config.json"
    try:
        config = json.loads(file.read_bytes())
        texts = [config, *(v for k, v in config.items() if k.endswith("text_config") and isinstance(v, dict))]
    except (OSError, ValueError, AttributeError):  # no folder, or said at loading
        return
    for size, found in [(size, text.get(size)) for text in texts for size in SIZES]:
        if isinstance(found, (str, float, bool)) or (isinstance(found, int) and found < 1):
            raise ResourceError(
                f"{file}: {size} is {json.dumps(found)}, expected a whole number from 1; copy the model again"
            )
