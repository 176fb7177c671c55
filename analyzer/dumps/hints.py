"""The `--map` that a message proposes. It is a promise: only what reads the file's first records is proposed.

Names make the order in which proposals are tried; one is told where a trial reading of the records used them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from analyzer.dumps.automatic import first_values, is_reference
from analyzer.dumps.dialects import chats
from analyzer.dumps.names import RESPONSE, SYNONYMS
from analyzer.dumps.paths import get, known_paths
from analyzer.dumps.shapes import nested
from analyzer.dumps.texts import DEPTH, NO_TEXT, WHOLE, at, prose, sounds, texts_in

Given = dict[str, str]  # what --map takes: canonical field, rows or format -> path
TALK = re.compile(r"(^|[._])(conversations?|messages|turns|history|dialog(ue)?|chat)(\[\]|$|\.)")
FIELD = re.compile(r"\w[\w-]*(\[\])?")  # the name of a field
TAKEN_OUT = re.compile(  # of what the model wrote, or a reference by the side
    r"(^|[._])(filtered|extracted|parsed|preds?|predicted|answer|rationale|explanation)"
)
MADE_OF = re.compile(r"(^|[._])(sql|code|program|patch|diff)$")  # of an answer, never a question
ASKED = tuple(k for f in ("question", "prompt") for k in SYNONYMS[f])
BESIDE = ("reasoning", "finish", "correct", "score")
PAIR = re.compile(r"content|message|conv|dialog|chat|turn|pair")
TRIED = 12  # responses that are tried
DRAW = re.compile(r"trial|attempt|repeat|rollout|run|iter|draw|try|sample")
LATE = {k for f in ("answer", "reasoning") for k in SYNONYMS[f]}
TAKEN = LATE | {k for f in ("question", "prompt", "gold", "id", "group", "model") for k in SYNONYMS[f]}


def propose(records: Sequence[Any], document: dict[str, Any] | None, reads: Callable[[Given], str]) -> str:
    """The words of `--map` that read such records (of a document: also its inner lists); with FIELD where no field
    could be told. reads: a trial, which returns why a row can't be used, or ""."""
    half = ""
    for rows, held in _places(records, document):
        values = first_values(held)
        for path in islice(responses(held), TRIED):
            if rows and sounds(path) >= 0 and not any(k in values for k in ASKED):
                continue  # any list of a document holds texts
            given = rows | {"response": path}
            beside = _beside(values, path) | _siblings(held, values, path)
            for more in _problems(held, values, path):
                for further in (beside, {}) if beside else ({},):
                    if not (why := reads(given | further | more)):
                        return _words(given | further | more)
                    if why == "no problem":
                        half = half or f"{_words(given)} --map question=FIELD"
    return half or "--map response=FIELD"


def _words(given: Given) -> str:
    return " ".join(f"--map {name}={path}" for name, path in given.items())


def _places(records: Sequence[Any], document: dict[str, Any] | None) -> Iterator[tuple[Given, list[Any]]]:
    """Where records may lie: as they are read, or in a list inside a document."""
    yield {}, [r for r in records if isinstance(r, dict)]
    document, lists = document or {}, {}
    for path in known_paths(document):
        if path.endswith("[]") and all(FIELD.fullmatch(part) for part in path.split(".")):
            lists.setdefault(_whole(document, path))
    for path in lists:
        held = [r for _, r in islice(nested(document, path), 50)]
        if held and all(isinstance(r, dict) and "role" not in r for r in held):
            yield {"rows": path}, [{k: v for k, v in r.items() if k[:1] != "@"} for r in held]


def _whole(document: dict[str, Any], path: str) -> str:
    """The path of a list with those in objects beside it that are alike: `tasks.a.tries[]` -> `tasks{}.tries[]`."""
    held: Any = document
    out: list[str] = []
    for part in path.split("."):
        own = held.get(part.removesuffix("[]")) if isinstance(held, dict) else None
        if (
            out
            and isinstance(own, dict)
            and sum(isinstance(v, dict) and v.keys() == own.keys() for v in held.values()) > 1
        ):
            out[-1] += "{}"
        else:
            out.append(part)
        held = own
    return ".".join(out)


def responses(records: Sequence[dict[str, Any]]) -> list[str]:
    """Paths of what could be the response, the best first: by their names, then by length."""
    values = first_values(list(records))
    talks = [p for p, v in _lists(values) if _answered(v) and sounds(p) < 1]
    texts = {p: t for p, t in texts_in(values).items() if (prose(t) or sounds(p) < 0) and _varies(records, p)}
    texts = {p: t for p, t in texts.items() if not NO_TEXT.search(p) and not structured(t) and sounds(p) < 1}
    ranked = sorted(texts, key=lambda p: (sounds(p), -len(texts[p])))
    said = [
        p
        for p in ranked
        if (p == "answer" and len(texts[p]) > WHOLE)
        or not ({s.removesuffix("[]") for s in p.split(".")} & TAKEN or is_reference(p) or TAKEN_OUT.search(p))
    ]
    late = [p for p in ranked if p not in said and not is_reference(p)]
    late = [p for p in late if p.rsplit(".", 1)[-1].removesuffix("[]") in LATE or TAKEN_OUT.search(p)]
    late = [p for p in late if any(prose(v) for r in records if isinstance(v := at(r, p), str))]
    spoken = {p for p, v in _lists(values) if _talk(records, p, v)}
    plain = [p for p in (*said, *late) if not p.startswith(tuple(f"{t}[]." for t in spoken))]
    return talks + [_second(records, p) for p in _alike(values, plain)]


def _second(records: Sequence[dict[str, Any]], path: str) -> str:
    """The second of two texts in one list, where a list is a prompt and its response, not two samples."""
    key = path.removesuffix("[]").removesuffix(".0")
    lists = [get(r, path.removesuffix("[]")) for r in records]
    pairs = path.endswith("[]") and PAIR.search(key.lower()) and all(isinstance(v, list) and len(v) == 2 for v in lists)
    return f"{path.removesuffix('[]')}.1" if pairs else path


def _varies(records: Sequence[dict[str, Any]], path: str) -> bool:
    """Whether a text differs between records, as what was sampled does."""
    return len(records) < 2 or len({repr(at(r, path)) for r in records}) > 1


def _alike(values: dict[str, Any], paths: list[str]) -> list[str]:
    """Paths without those that reach into one of several objects that are alike: `*.b` where each holds the text at the
    top of a row (one object a model), nothing where an object is keyed by ids."""
    out: list[str] = []
    for path in paths:
        parts = path.split(".")
        held: Any = values
        for i, part in enumerate(parts[:-1]):
            if isinstance(held, dict) and len(held) > 1 and not part.endswith("[]"):
                kin = [
                    v
                    for v in held.values()
                    if isinstance(v, dict) and v.keys() == getattr(held.get(part), "keys", set)()
                ]
                if len(kin) > 1 and isinstance(held.get(part), dict):
                    path = f"*.{'.'.join(parts[1:])}" if i == 0 and "[]" not in path else ""
                    break
            if not FIELD.fullmatch(part):  # an id with a slash or the like
                path = ""
                break
            held = held.get(part.removesuffix("[]")) if isinstance(held, dict) else None
            held = held[0] if part.endswith("[]") and isinstance(held, list) and held else held
        if path and path not in out:
            out.append(path)
    return out


def _problems(records: Sequence[dict[str, Any]], values: dict[str, Any], response: str) -> Iterator[Given]:
    """What could name the problem beside a response, the best first; {}: what is found by itself."""
    if response.endswith(".1"):
        yield {"prompt": f"{response[:-1]}0"}
    found = question([values], response)
    own = any(k in values for f in ("question", "prompt") for k in SYNONYMS[f])
    if found and not own and sounds(found) > 0:
        yield {"question": found}
    yield {}
    if found:
        yield {"question": found}
    for key, value in values.items():
        if key != response and (held := chats.messages(value)) and held[-1]["role"] != "assistant":
            yield {"prompt": key}
    for key in values:
        if re.search(r"(^|_)(id|idx|index|uid|no|number)$", key.lower()) and key not in TAKEN:
            yield {"id": key}


def _beside(values: dict[str, Any], response: str) -> Given:
    """What stands beside a response inside of objects, where fields are not found by their names."""
    out: Given = {}
    parts = response.split(".")
    if parts[-1] == "1":  # of a list of two texts
        return out
    for depth in range(len(parts) - 1, 0, -1):
        above = ".".join(parts[:depth])
        held = at(values, above)
        for name in BESIDE if isinstance(held, dict) else ():
            key = next((k for k in SYNONYMS[name] if isinstance(held.get(k), (str, int, float, bool))), None)
            if key and f"{above}.{key}" != response:
                out.setdefault(name, f"{above}.{key}")
        if above.endswith("[]"):
            break
    return out


def _siblings(records: Sequence[dict[str, Any]], values: dict[str, Any], response: str) -> Given:
    """Of a conversation: the fields beside it that tell its problem, score and number where its users' words, which may
    differ between draws, do not tell the problem."""
    if not any(chats.messages(r.get(response)) for r in records):
        return {}
    key = next((k for k in SYNONYMS["id"] if k in values), "")
    ids = [str(r[key]) for r in records if key in r]
    if len(set(ids)) == len(ids):
        return {}
    out = {"problem": key}
    if score := next((k for k in SYNONYMS["score"] if type(values.get(k)) in (int, float)), ""):
        out["score"] = score
    for name, value in values.items():
        pairs = {(str(r.get(key)), str(r.get(name))) for r in records}
        if DRAW.search(name.lower()) and type(value) is int and len(pairs) == len(records):
            return out | {"sample": name}
    return out


def question(records: Sequence[dict[str, Any]], response: str) -> str | None:
    """The path of the text that sounds most like a question, of these the longest; None where no text stands in every
    row. A reference answer is none, nor what a model said."""
    texts = {
        p: t
        for p, t in texts_in(records[0] if records else {}).items()
        if all(isinstance(v := at(r, p), str) and v.strip() for r in records)
        if p != response and "[]" not in p and not NO_TEXT.search(p) and "system" not in p
        if (prose(t) or sounds(p) > 0) and not structured(t) and not is_reference(p) and not MADE_OF.search(p)
        if not {*p.split(".")} & {*LATE, *RESPONSE, *SYNONYMS["gold"]}
    }
    named = {p for p in texts if p.rsplit(".", 1)[-1] in SYNONYMS["question"]}
    texts = {p: t for p, t in texts.items() if sounds(p) >= 0 or p in named}
    return min(texts, key=lambda p: (p not in named, -sounds(p), -len(texts[p])), default=None)


def structured(value: str) -> bool:
    """Whether a text is a JSON object or list, which no one says."""
    try:
        return value.lstrip()[:1] in ("{", "[") and isinstance(json.loads(value), (dict, list))
    except (ValueError, RecursionError):
        return False


def _lists(values: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The lists of objects of a row that a path without `[]` reaches."""
    for path in known_paths(values, depth=DEPTH):
        if "[]" not in path and isinstance(v := at(values, path), list) and v and isinstance(v[0], dict):
            yield path, v


def _answered(value: Any) -> bool:
    held = chats.messages(value)
    return bool(held) and any(m["role"] == "assistant" for m in held[-2:])


def _talk(records: Sequence[dict[str, Any]], path: str, first: list[Any]) -> bool:
    """Whether the objects of a list are what several said in turn, not samples: messages, or objects of which one short
    value, out of a few in all rows, differs within a row."""
    if chats.messages(first) or TALK.search(path):
        return True
    for key in {k for k, v in first[0].items() if isinstance(v, str) and len(v) < 20 and not v.isdecimal()}:
        rows = [
            [str(o.get(key)) for o in v if isinstance(o, dict)] for r in records if isinstance(v := at(r, path), list)
        ]
        few = {w for row in rows for w in row}
        if (
            1 < len(few) <= 4
            and all(len(w) < 20 and " " not in w for w in few)
            and all(len({*row[:2]}) == len(row[:2]) for row in rows)
        ):
            return True
    return False
