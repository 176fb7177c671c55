"""What is to be known of the ids of a run before they are scored: those that may not be the model's own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analyzer import records
from analyzer.runs.manifests import made_by
from analyzer.scoring.encoding import encode, rebuilt
from analyzer.scoring.encoding.encode import EXAMPLES, OTHER_TEXT, Encoded
from analyzer.scoring.encoding.padding import PADDED
from analyzer.scoring.names import made_from, parts, split


def definitions(record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """By which versions of the rules a scorer's record says that text became ids, and ids numbers; None: by this
    program's."""
    if record is None:
        return {"encoding": encode.ENCODING, "columns": records.COLUMNS}
    return {"encoding": record.get("encoding"), "columns": record.get("columns", 1)}


def differing(record: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(what, in the record, in this program) of the definitions that are not this program's."""
    then, now = definitions(record), definitions()
    return [(what, "none" if then[what] is None else then[what], now[what]) for what in now if then[what] != now[what]]


def of_other_versions(scorers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on the scorers' records that tell no encoding, other definitions than this version's, or several
    versions, devices or paths."""
    out = []
    for label, record in scorers.items():
        if record.get("earlier"):
            out.append(_of_several(label, record))
        for what, then, now in differing(record):
            if what == "encoding" and then in ("none", 1):
                out += _of_the_first(label, record)
            elif what == "encoding" and then == 2:
                out += _of_the_second(label, record)
            else:
                out.append(
                    f"{label} was scored by another version, with {what} {then} (this one: {now}); its numbers are by "
                    "the definitions of then. Score the dumps again into another -o folder for this version's."
                )
    return out


def _of_several(label: str, record: Mapping[str, Any]) -> str:
    """In what the calls that scored a part each differ."""
    said: dict[str, list[str]] = {}
    for made in [*record["earlier"], made_by(record)]:
        for name, value in (made.get("versions", {}) | {n: v for n, v in made.items() if n != "versions"}).items():
            said.setdefault(name, []).extend([value] if value not in said.get(name, ()) else [])
    differ = ", ".join(f"{name} {', then '.join(values)}" for name, values in said.items() if len(values) > 1)
    return f"{label} was scored in several calls that differ in versions, path, dtype or device: {differ}."


def _of_the_first(label: str, record: Mapping[str, Any]) -> list[str]:
    counts: Counter[str] = Counter()
    for said, n in record.get("decisions", {}).items():
        counts["text" if said.startswith("response: text") else said] += n
    found = []
    if n := counts["text"]:
        found.append(f"responses given as text ({n:,}) were encoded apart from their prompts")
    if n := counts["response: ids from the dump"]:
        found.append(
            f"of responses given as ids ({n:,}), padding and tokens that a mask says the policy did not write were "
            "scored too, where there are any"
        )
    if not found:
        return []
    return [
        f"{label} was scored by an earlier version: {'; '.join(found)}. Score the dumps again into another -o folder "
        "for this version's numbers."
    ]


def _of_the_second(label: str, record: Mapping[str, Any]) -> list[str]:
    n = record.get("decisions", {}).get(PADDED["response", "end"], 0)
    if not n:
        return []
    return [
        f"{label} was scored by an earlier version: what is repeated at the end of recorded ids was taken for padding "
        f"behind any special token ({n:,} traces were cut). Score the dumps again into another -o folder for this "
        "version's numbers."
    ]


def examples(encoded: Sequence[Encoded]) -> dict[str, str]:
    """The first trace and its place, of each decision that wants one: the same in every shard."""
    first: dict[str, str] = {}
    for item in encoded:
        for said in item.decisions:
            if said.startswith(EXAMPLES):
                first.setdefault(said, f"{item.trace.key} ({item.trace.origin})")
    return dict(sorted(first.items()))


def of_tokenizer(encoded: Sequence[Encoded], loaded: Any) -> str | None:
    """See `rebuilt.differing`; None for a tokenizer that was not made from a GGUF file."""
    file = None if split(loaded.name) else made_from(parts(loaded.name))
    return None if file is None else rebuilt.differing(encoded, loaded.tokenizer, file)


def sentences(encoded: Sequence[Encoded]) -> Iterator[str]:
    """Sentences on ids that may not be the model's own words, with counts by source and the first trace."""

    compared = Counter(e.trace.source for e in encoded if e.trace.response and e.trace.response_ids is not None)
    first = examples(encoded)
    for said in first:
        counts = Counter(e.trace.source for e in encoded if said in e.decisions)
        listed = ", ".join(f"{n:,} of {source}" for source, n in counts.items())
        yield f"{said} ({listed}; first {first[said]})"
        if said == OTHER_TEXT:
            for source, n in counts.items():
                if n > compared[source] / 2:
                    yield (
                        f"{n:,} of the {compared[source]:,} traces of {source} with ids and text decode to another: "
                        "their ids seem to belong to another tokenizer; if so, every number of them is wrong"
                    )
