"""Adapters (LoRA and others that peft can merge): put into a loaded model's weights, and taken out bit for bit.

Merged weights are what every path scores; nothing of the adapter stays beside the layers. Only the tensors that it
changes are held twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import AnalyzerError, ResourceError, UsageError
from analyzer.scoring import trunk

TOLERANCE = {True: 1e-3, False: 1.0}  # nats between the merged and the unmerged adapter: float32, lower precision
WHY = 200  # characters of what peft says


def check_installed(adapter: str) -> None:
    """Raise UsageError where peft is missing."""
    if find_spec("peft") is None:
        raise UsageError(f"{adapter} is an adapter, which needs peft: pip install 'reasoning-path-analyzer[peft]'")


def merge(model: Any, adapter: str, *, allow_pickle: bool = False) -> Callable[[], None]:
    """Merge an adapter into a model, in place; the function that is returned restores the model.

    Raises ResourceError where the adapter is of another model, lacks tensors or has others, is of a kind that can't be
    merged, or where the merged model gives other log-probs than the two beside each other; the model is then as before.
    """
    check_installed(adapter)
    if not allow_pickle and Path(adapter).is_dir() and not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise ResourceError(
            f"{adapter} has no adapter_model.safetensors; pickled weights (.bin) can run code when they are loaded: "
            "convert them, or if you trust them add --allow-pickle"
        )
    from peft import PeftConfig, PeftModel

    restore = _remembered(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they tell is refused below
            config = PeftConfig.from_pretrained(adapter)
            config.inference_mode = True
            if config.is_prompt_learning:
                raise ResourceError(f"{adapter} is an adapter of kind {config.peft_type}, which no weights can hold")
            joined = PeftModel(model, config)
            found = joined.load_adapter(adapter, "default")
            _refuse_other_tensors(adapter, found)
            apart = _logprobs(model)
            joined.merge_and_unload(safe_merge=True)
            for values in model.parameters():
                values.requires_grad_(False)
            _refuse_other_values(adapter, model, apart)
    except BaseException as error:
        restore()
        if isinstance(error, AnalyzerError) or not isinstance(error, Exception):
            raise
        raise ResourceError(
            f"adapter {adapter} can't be merged into {model.config.name_or_path or 'the model'}: "
            f"{' '.join(str(error).split())[:WHY] or type(error).__name__}; is it of this model?"
        ) from error
    return restore


def _remembered(model: Any) -> Callable[[], None]:
    """The function that gives a model its present modules and tensors again. A merge puts new tensors in the place of
    those that it changes; these stay as they are, and nothing is copied."""
    children = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    values = [(p, p.data, p.requires_grad) for p in model.parameters()]
    tied = getattr(model.config, "tie_word_embeddings", None)

    def restore() -> None:
        for parent, name, child in children:
            setattr(parent, name, child)
        for p, data, wanted in values:
            p.data = data
            p.requires_grad_(wanted)
        model.config.tie_word_embeddings = tied
        if hasattr(model, "peft_config"):
            del model.peft_config

    return restore


def _refuse_other_tensors(adapter: str, found: Any) -> None:
    wrong = [
        f"{len(names):,} of its tensors {what} ({', '.join(sorted(names)[:3])})"
        for what, names in (("missing", found.missing_keys), ("unknown to the model", found.unexpected_keys))
        if names
    ]
    if wrong:
        raise ResourceError(f"adapter {adapter} is not of this model: {'; '.join(wrong)}")


def _refuse_other_values(adapter: str, model: Any, apart: np.ndarray) -> None:
    import torch

    off = float(np.abs(_logprobs(model) - apart).max())
    if not off <= TOLERANCE[model.dtype == torch.float32]:
        raise ResourceError(
            f"adapter {adapter}: merged into the weights it gives other log-probs than beside them (off by {off:.2g} "
            "nats); an adapter of the embedding alone, where the head is the embedding, can't be merged"
        )


def _logprobs(model: Any) -> np.ndarray:
    """Log-probs [T, V] after a few made-up ids."""
    import torch

    rng = np.random.default_rng(0)
    ids_1T = torch.from_numpy(rng.integers(0, model.get_input_embeddings().weight.shape[0], (1, 8)))
    with torch.inference_mode():
        trunk.forget_lengths(model)
        return model(ids_1T.to(model.device), use_cache=False).logits[0].float().log_softmax(-1).cpu().numpy()
