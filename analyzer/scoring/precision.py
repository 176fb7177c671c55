"""A model computed with other numbers than its own, without a copy of it: one module's weights at a time.

What differs in float32 between two ways through a model is the way; what differs only in the model's own precision is
rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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

    What follows from it is what a copy in that dtype would give. Raises Unsupported where weights are not at hand as
    numbers (on disk, packed).
    """
    import torch

    wanted = getattr(torch, dtype)

    def change(module: Any, name: str, value: Any) -> Any:
        # buffers are left alone on the way down, as in loading: frequencies of positions stay float32
        return value.to(wanted) if dtype == "float32" or name in module._parameters else value

    with replaced(model, change):
        yield


@contextlib.contextmanager
def replaced(model: Any, change: Callable[[Any, str, Any], Any]) -> Iterator[None]:
    """Inside, each module of a model runs with change(module, name, tensor) in place of its floating-point tensors."""
    import torch

    floats = (torch.float32, torch.bfloat16, torch.float16)
    if any(p.is_meta or p.dtype not in floats for p in model.parameters()):
        raise Unsupported("weights that are not at hand as numbers")
    before: dict[Any, list[tuple[dict, str, Any]]] = {}

    def put_in(module: Any, *given: Any) -> None:
        held = before[module] = []
        for table in (module._parameters, module._buffers):
            for name, value in table.items():
                if value is None or value.dtype not in floats:
                    continue
                new = change(module, name, value.detach())
                if new.dtype != value.dtype or new.data_ptr() != value.data_ptr():
                    held.append((table, name, value))
                    is_parameter = table is module._parameters
                    table[name] = torch.nn.Parameter(new, requires_grad=False) if is_parameter else new

    def restore(module: Any, *given: Any) -> None:
        for table, name, value in before.pop(module, ()):
            table[name] = value

    hooks = []
    try:
        for module in model.modules():
            if module._parameters or module._buffers:
                hooks.append(module.register_forward_pre_hook(put_in))
                hooks.append(module.register_forward_hook(restore, always_call=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(before):
            restore(module)
