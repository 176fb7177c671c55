"""The texts of a row: where they are, and which of them could be something that was said."""

from __future__ import annotations

import re
from typing import Any

from analyzer.dumps.paths import known_paths

NO_TEXT = re.compile(
    r"(^|[._])(id|uid|uuid|hash|sha|date|time|at|path|url|file|name|role|status|traceback|error|msg|level|outcome|object|type|style|version|filter|system|system_prompt|\w+_reason|options(\[\])?|tail|preview|excerpt|snippet)$"
)
ASKED = re.compile(r"q$|quest|ask|args?$|argum|prompt|input|instr|query|task|user|problem")
SAID = re.compile(r"resp|repl|out|gener|gen$|compl|ans|assist|sol|trac|traj|reason|attempt|rollout|predict|bot$")
PLAIN = re.compile(r"text|txt")
WHOLE = 100  # characters; an `answer` beyond them is no reference but what the model wrote
DEPTH = 5  # levels of a path


def prose(value: str) -> bool:
    """True for more than a word: a type, a name and a tag are neither asked nor answered."""
    return " " in value.strip() or len(value) > WHOLE


def texts_in(values: dict[str, Any]) -> dict[str, str]:
    """Path -> the text it reaches (of a list, its first element), for every path that a map could name; `a.0[]` reaches
    into a list of one list."""
    out = {}
    for path in known_paths(values, depth=DEPTH):
        value = at(values, path)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and "[]" not in path:
            path, value = f"{path}.0[]", at(values, f"{path}.0[]")
        if isinstance(value, str) and value.strip() and path.count("[]") < 2:
            out[path] = value
    return out


def at(values: dict[str, Any], path: str) -> Any:
    value: Any = values
    for part in path.split("."):
        if isinstance(value, list) and part == "0[]":
            value = {"0": value[0] if value else None}
        value = value.get(part.removesuffix("[]")) if isinstance(value, dict) else None
        if part.endswith("[]"):
            value = value[0] if isinstance(value, list) and value else None
    return value


def sounds(path: str) -> int:
    """-1 where a path sounds like a response, 1 where it sounds like a question, 0 where it says nothing. The last word
    of a name counts that says something, and a question anywhere above."""
    said = 0
    for part in path.lower().replace("[]", "").split("."):
        words = [w for w in re.split(r"[_-]+", part) if w][::-1]
        sound = next((1 if ASKED.match(w) else -1 for w in words if ASKED.match(w) or SAID.match(w)), 0)
        if sound > 0:
            return 1
        said = sound or said or -any(PLAIN.match(w) for w in words)
    return said
