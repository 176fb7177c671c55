"""What every path needs of a model: hidden states of a forward pass, and up to which length they are all alike."""

from __future__ import annotations

from typing import Any


class Unsupported(Exception):
    """The model asks for something that a path can't give exactly; another path must be taken."""


def embedding_layer(model: Any) -> int:
    """Index into hidden_states (0 = input embeddings) of the late-middle layer whose mean is a trace's embedding."""
    return max(1, round(model.config.get_text_config().num_hidden_layers * 2 / 3))


def forward(model: Any, ids_BT: Any, **options: Any) -> tuple[Any, Any, Any]:
    """(last hidden states [B, T, H] after the final norm, those of the embedding layer [B, T, H], the model's output).

    Only two layers' states are ever held, not those of all. Raises Unsupported where the layers can't be found.
    """
    import torch

    layers, wanted = model.config.get_text_config().num_hidden_layers, embedding_layer(model)
    lists = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layers]
    if wanted < layers and not lists:
        raise Unsupported("the layers are not in one list")
    seen: list[Any] = []
    hook = None
    if wanted < layers:
        hook = lists[0][wanted - 1].register_forward_hook(lambda module, given, out: seen.append(out))
    try:
        forget_lengths(model)
        out = model.base_model(ids_BT, **options)
    finally:
        if hook is not None:
            hook.remove()
    last = out.last_hidden_state
    if not seen:
        return last, last, out
    return last, seen[0][0] if isinstance(seen[0], tuple) else seen[0], out


def window(model: Any) -> int | None:
    """The shortest attention window of the model's layers in tokens, None where every layer sees all."""
    config = model.config.get_text_config()
    length = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    used = getattr(config, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds)
    return int(length) if length and used else None


def rope_limit(model: Any) -> int | None:
    """Length up to which the positions' frequencies do not depend on a sequence's length (dynamic and longrope RoPE).

    transformers chooses them by the longest sequence of a batch, so that traces on the two sides of this length must
    not meet in one forward pass, nor a long one go on from a short one's keys. None where they never depend on it.
    """
    config = model.config.get_text_config()
    given = getattr(config, "rope_parameters", None) or {}
    kinds = [v for v in given.values() if isinstance(v, dict)] or [given]
    limits = [config.max_position_embeddings for k in kinds if "dynamic" in str(k.get("rope_type"))]
    limits += [k["original_max_position_embeddings"] for k in kinds if k.get("rope_type") == "longrope"]
    return min(limits, default=None)


def forget_lengths(model: Any) -> None:
    """Undo what dynamic RoPE remembers of longer sequences, so that a score depends on its own trace alone."""
    if rope_limit(model) is None:
        return
    for module in model.modules():
        if hasattr(module, "original_max_seq_len") and hasattr(module, "max_seq_len_cached"):
            for name in [n for n in vars(module) if n.endswith("max_seq_len_cached")]:
                setattr(module, name, module.original_max_seq_len)
            for name in [n for n, _ in module.named_buffers(recurse=False) if n.endswith("inv_freq")]:
                prefix = name.removesuffix("inv_freq")
                original = getattr(module, f"{prefix}original_inv_freq", None)
                if original is not None and not prefix.endswith("original_"):
                    getattr(module, name).copy_(original)
