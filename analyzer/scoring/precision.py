"""A model computed in another precision than its own, without a copy of it: the weights of one module at a time.

What differs in float32 between two ways through a model is the way; what differs only in the model's own precision is
rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from analyzer.scoring.trunk import Unsupported


def own(model: Any) -> str:
    """The precision of a model's weights: "float32", "bfloat16", "float16" ..."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def is_lower(model: Any) -> bool:
    """Whether a model's own precision is below float32."""
    return own(model) in ("bfloat16", "float16")


@contextlib.contextmanager
def computed_in(model: Any, dtype: str = "float32") -> Iterator[None]:
    """Inside, the modules of a model compute in `dtype`, with their weights rounded to that for as long as they run.

    What follows from it is what a copy `model.to(dtype)` would give. Raises Unsupported where weights are not at hand
    as numbers (on disk, packed).
    """
    import torch

    wanted, floats = getattr(torch, dtype), (torch.float32, torch.bfloat16, torch.float16)
    if any(p.is_meta or p.dtype not in floats for p in model.parameters()):
        raise Unsupported(f"weights that can't be computed in {dtype} as they lie")
    before: dict[Any, list[tuple[dict, str, Any]]] = {}

    def cast(module: Any, *given: Any) -> None:
        # buffers are left alone on the way down, as in loading: frequencies of positions stay float32
        tables = (module._parameters, module._buffers) if dtype == "float32" else (module._parameters,)
        held = before[module] = []
        for table in tables:
            for name, value in table.items():
                if value is not None and value.dtype in floats and value.dtype != wanted:
                    held.append((table, name, value))
                    changed = value.detach().to(wanted)
                    table[name] = (
                        torch.nn.Parameter(changed, requires_grad=False) if table is module._parameters else changed
                    )

    def restore(module: Any, *given: Any) -> None:
        for table, name, value in before.pop(module, ()):
            table[name] = value

    hooks = []
    try:
        for module in model.modules():
            if module._parameters or module._buffers:
                hooks += [
                    module.register_forward_pre_hook(cast),
                    module.register_forward_hook(restore, always_call=True),
                ]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(before):
            restore(module)
