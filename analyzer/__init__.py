"""Does training put probability where the base model had practically none, or only sharpen what it already did?

    run = analyzer.score({"base": rows, "rlvr": "rlvr.jsonl"}, base="MODEL", policies={"rlvr": "RL_MODEL"})
    found = analyzer.analyze(run)
    analyzer.plot(found["support"], "reach")
    analyzer.report(run, "reports/mine")

Public names load on first use: `import analyzer` imports neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load": "notebook",
    "score": "notebook",
    "analyze": "notebook",
    "compare": "notebook",
    "plot": "notebook",
    "sample": "sampling",
    "miniature": "notebook",
    "Results": "notebook",
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
__all__ = ["__version__", "report", *_HOMES]


class _Package(ModuleType):
    """`analyzer.report` is a package and, called, the function: whoever imports the package first, it can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "report" and isinstance(value, ModuleType):
            value.__class__ = _Report
        super().__setattr__(name, value)


class _Report(ModuleType):
    def __call__(self, data: Any, directory: Any, *, budget: int = 64, seed: int = 0, **options: Any) -> Any:
        """Write the report on a run, or on anything that `load` takes, into `directory`: see `notebook.report`."""
        write = importlib.import_module("analyzer.notebook").report
        return write(data, directory, budget=budget, seed=seed, **options)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "report":
        return importlib.import_module("analyzer.report")
    if name in _HOMES:
        return getattr(importlib.import_module(f"analyzer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'analyzer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
