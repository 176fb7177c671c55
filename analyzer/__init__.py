"""Does training put probability where the base model had practically none, or only sharpen what it already did?

    run = analyzer.score({"base": rows, "rlvr": "rlvr.jsonl"}, base="MODEL", policy={"rlvr": "RL_MODEL"})
    found = analyzer.analyze(run)
    analyzer.plot(found["support"], "reach")
    analyzer.report(run, "reports/mine")

Public names load on first use: `import analyzer` imports neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "load": "api.notebook",
    "score": "api.notebook",
    "analyze": "api.notebook",
    "compare": "api.notebook",
    "plot": "api.notebook",
    "report": "api.notebook",
    "sample": "api.notebook",
    "handover": "api.notebook",
    "sample_for_review": "api.notebook",
    "read_review": "api.notebook",
    "studies": "api.notebook",
    "reproduce": "api.notebook",
    "estimate": "api.notebook",
    "logprobs": "scoring.logprobs",
    "agree": "scoring.agree",
    "miniature": "records.shipped",
    "Results": "api.notebook",
    "Trace": "records",
    "Sampler": "records",
    "Scored": "records",
    "Estimate": "records",
    "Result": "records",
    "Verdict": "records",
    "AnalyzerError": "errors",
    "Run": "runs.store",
    "read_dumps": "dumps.read",
    "decide": "analysis.verdict.decide",
    "ANALYSES": "analysis.questions",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"analyzer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'analyzer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
