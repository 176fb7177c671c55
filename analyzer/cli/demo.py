"""The inputs of `analyzer demo`: the embedded miniature, by names relative to the data folder."""

from __future__ import annotations

from typing import Any

SOURCES = ("base", "base-again", "cool", "rlvr", "distill", "teacher")
DUMPS = [f"{source}=miniature/dumps/{source}.jsonl.gz" for source in SOURCES]
BASE = "miniature/models/base"
OPTIONS: dict[str, Any] = {
    "reference": "base",
    "sampler": {"base": "1", "base-again": "1", "cool": "0.6,0.95", "rlvr": "1", "distill": "1"},
    "base": BASE,
    "policy": {
        "base-again": BASE,
        "cool": BASE,
        "rlvr": "miniature/models/rlvr",
        "distill": "miniature/models/distill",
    },
    "score_at_most": 64,
    "traces_max_mb": 1.0,  # traces to look at, of 24,576: the committed report stays small
}
