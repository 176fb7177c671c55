"""What the tokens look like that no trace holds: the likelier alternatives, as text. Reads the disk only.

The tokenizer of the scored model is asked where it is still at hand and agrees with the tokens whose text the traces
give; else a token keeps its number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from analyzer.records.shipped import data_folder

AGREE = 0.9  # of the known tokens; the rest may be parts of a character, which a trace shows only together
SAMPLE = 500  # known tokens that are compared


def texts(model: str | None, ids: Collection[int], known: Mapping[int, str]) -> dict[int, str]:
    """id -> text of the `ids` under the tokenizer of `model` (a folder, or a hub name that is in the local cache).

    Empty when there is none, when it contradicts the `known` texts, or for an id that is beyond its vocabulary.
    """
    file = _file(model) if model and ids and known else None
    if file is None:
        return {}
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises bare Exception for a file that it can't read
        return {}
    sample = sorted(known)[:: max(1, len(known) // SAMPLE)]
    anchor = next((t for t in sample if known[t].strip().isascii() and known[t].strip().isalnum()), None)
    head = tokenizer.decode([] if anchor is None else [anchor])

    def text(token: int) -> str:  # behind another token: the first one of a text may lose its blank
        whole = tokenizer.decode([token] if anchor is None else [anchor, token], skip_special_tokens=False)
        return whole[len(head) :] if anchor is not None else whole

    same = [text(t).strip() == known[t].strip() for t in sample if "\ufffd" not in text(t)]
    if not same or sum(same) < AGREE * len(same):
        return {}
    return {t: found for t in ids if tokenizer.id_to_token(t) is not None and (found := text(t))}


def _file(model: str) -> Path | None:
    """tokenizer.json of a model's folder, or of the hub's cache; never from the network."""
    # a run of the embedded world names its models from that world's folder
    for folder in (Path(), data_folder() or Path()):
        if (folder / model / "tokenizer.json").is_file():
            return folder / model / "tokenizer.json"
    if Path(model).exists() or model.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
