"""Settings of a draw that no Sampler has (penalties, beams, biases): their names, and the values at which they do not
count."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from analyzer.dumps.paths import show

SETTINGS: dict[str, Any] = {  # what shapes a draw, and the value at which it does not (vLLM, transformers, llama.cpp)
    **dict.fromkeys(("repetition_penalty", "typical_p", "tfs_z", "num_beams", "best_of", "do_sample"), 1),
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale", "num_beam_groups"), 1),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "diversity_penalty", "top_a", "top_n_sigma"), 0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), 0),
    **dict.fromkeys(("min_tokens", "min_new_tokens", "min_length"), 0),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "penalty_alpha", "mirostat", "dry_multiplier"), 0),
    **dict.fromkeys(("xtc_probability", "use_beam_search", "dynatemp_range", "smoothing_factor"), 0),
    **dict.fromkeys(("logit_bias", "bad_words", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"), 0),
    **dict.fromkeys(("allowed_token_ids", "guided_json", "guided_regex", "guided_choice", "guided_grammar"), 0),
}
MINUS_ONE_IS_OFF = frozenset(("top_n_sigma",))  # llama.cpp
INERT = frozenset(  # beside a sampler, of no effect on the law of a token
    ("seed", "n", "max_tokens", "max_new_tokens", "max_length", "stop", "stop_strings", "stop_token_ids", "logprobs")
    + ("prompt_logprobs", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output")
)
OBJECTS = (  # that rows keep their sampling settings in
    "sampling_params",  # vLLM, SGLang, verl
    "sampling",
    "generation_config",  # transformers
    "generation_kwargs",  # TRL
    "gen_kwargs",  # lm-eval
    "configs",  # ZeroEval
)
LONGEST = 200  # characters of a setting that is kept as it is


def inside(*names: str) -> tuple[str, ...]:
    """These names, and the paths at which a row may hold them in an object of its sampling settings."""
    return (*names, *(f"{held}.{name}" for held in OBJECTS for name in names))


def stating(keys: Iterable[str], mapped: Iterable[str]) -> list[str]:
    """Those of a row's keys that may state a setting; mapped: the paths that are read as something else."""
    return [k for k in keys if k in OBJECTS or (k in SETTINGS and k not in mapped)]


def of_row(record: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The settings that shape a draw which a row states under these keys: {} for nearly every row."""
    out: dict[str, Any] = {}
    for key in keys:
        value = record[key]
        if key in SETTINGS:
            out |= shaping({key: value})
        elif isinstance(value, dict):
            out = shaping(value) | out
    return out


def shaping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are settings and shape a draw."""
    return {k: v for k, v in values.items() if k in SETTINGS and _counts(k, v)}


def kept(value: Any) -> Any:
    """A setting as meta keeps it: as it is where it is small and JSON can write it, else its beginning as text."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        small = len(orjson.dumps(value)) <= LONGEST  # which takes NaN, but neither deep nesting nor long integers
    except (TypeError, ValueError, RecursionError):
        small = False
    return value if small else show(value, LONGEST).encode(errors="backslashreplace").decode()


def _counts(name: str, value: Any) -> bool:
    if value in (None, "", [], {}, SETTINGS[name]) or value != value:  # NaN: a cell of a table without a value
        return False
    return not (name in MINUS_ONE_IS_OFF and value == -1)
