"""Does training put probability where the base model had practically none, or only sharpen what it already did?

Public names load on first use: `import analyzer` imports neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Trace": "records",
    "Sampler": "records",
    "Scored": "records",
    "Estimate": "records",
    "Result": "records",
    "Verdict": "records",
    "AnalyzerError": "errors",
    "Run": "store",
    "read_dumps": "dumps",
    "decide": "verdict",
    "ANALYSES": "analyses",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"analyzer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'analyzer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
