"""What only the name of a column speaks for: taken where its values fit, in rows of no known format and in columns that
stand beside those of a known one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from analyzer.dumps import automatic, shapes
from analyzer.dumps.fields import CHECKS, sampler
from analyzer.dumps.names import ABOUT, PER_SAMPLE, SAMPLING, SYNONYMS
from analyzer.dumps.numbers import MASKS
from analyzer.dumps.paths import MISSING, Fault, get, known_paths, show
from analyzer.dumps.survey import normal_gold
from analyzer.dumps.values import number, text, truth

DISPENSABLE = frozenset(  # fields that a trace can do without: all but those of its text, prompt and problem
    ("correct", "score", "finish", "truncated", "answer", "group", "source", "model", "step", "sample", "seed")
    + ("max_tokens", "meta", "reasoning", "sampler", *SAMPLING)
)
# canonical field -> the columns that are read as it beside a known format. Where a format's rows come from is not said
# by a column called `source`, which as a rule tells where problems come from.
BESIDE: dict[str, tuple[str, ...]] = {
    **{n: SYNONYMS[n] for n in ("correct", "score", "finish", "truncated", "answer", "reasoning", "seed")},
    **{n: SYNONYMS[n] for n in ("max_tokens", "sampler", *SAMPLING)},
    "gold": tuple(n for n in SYNONYMS["gold"] if n != "target"),
    "group": ("group", "benchmark", "dataset", "data_source"),
    "model": ("model", "model_name"),
    "step": ("step", "global_step"),
    "images": SYNONYMS["images"],
    "question": ("question", "problem"),
    "prompt": ("prompt", "full_prompt", "prompt_text"),
}
SWITCHES = frozenset(
    ("on", "off", "true", "false", "yes", "no", "0", "1", "none", "auto", "default", "enabled", "disabled", "minimal")
    + ("low", "medium", "high", "xhigh", "max", "short", "long", "concise", "detailed", "think", "no_think", "/think")
    + ("/no_think", "thinking", "non-thinking", "reasoning", "non-reasoning")
)
INSTEAD = {"model": "source", "question": "prompt", "prompt": "question"}  # of no use where the other one is there


def fill(fields: shapes.Fields, head: list[Any], reads: Collection[str], given: shapes.Fields) -> list[str]:
    """Add to the `fields` of a known format what its rows hold besides under canonical names, where all values looked
    at fit the name: notes about what was left. head: the first records, as the format prepares them; reads: columns
    that its code reads; given: from --map."""
    response = fields["response"][0]
    rows = [r for r in head if isinstance(r, dict)]
    used = {p.split(".")[0].removesuffix("[]") for paths in fields.values() for p in paths} | {*reads}
    values = {k: v for k, v in automatic.first_values(rows).items() if k not in used and v is not None}
    notes = []
    for name, columns in BESIDE.items():
        keys = [k for k in columns if get(values, k) not in (MISSING, None)]
        if name in SAMPLING and {"sampler", *SAMPLING} & given.keys():
            continue
        if not keys or name in given or _held(fields, name, rows) or _held(fields, INSTEAD.get(name, ""), rows):
            continue
        if len(keys) > 1 and name == "correct":
            notes.append(
                f"{' and '.join(keys)} could each be the label, none was taken: choose with --map correct={keys[0]}."
            )
            continue
        exploded = "[]" in response and isinstance(get(values, keys[0]), list) and name in PER_SAMPLE
        before, path = fields.get(name, ()), f"{keys[0]}[]" if exploded else keys[0]
        fields[name] = (*before, path, *(keys[1:] if name in SAMPLING else ()))
        held, faults = _faults(head, fields, name)
        if name == "score" and not faults:
            faults = _grades(head, fields)
        if faults or not held:
            fields[name] = before
            if not before:
                del fields[name]
            notes += [f"{keys[0]} was not read as {name}: {faults[0]}."] if faults else []
        else:
            values.pop(keys[0], None)
    return notes


def _grades(head: list[Any], fields: shapes.Fields) -> list[str]:
    """What speaks against a column as the label of rows of a format that has none: marks of quality are no labels."""
    drafts = _drafts(head, {"response": fields["response"], "score": fields["score"]})
    beyond = (d["score"] for d in drafts if d.get("score") is not None and not -1 <= d["score"] <= 1)
    return [f"score = {value:g} lies beyond -1 to 1 (--map score=FIELD --threshold X reads it)" for value in beyond]


def _held(fields: shapes.Fields, name: str, rows: list[dict[str, Any]]) -> bool:
    """Whether a row holds a value of the field already."""
    return any(_value(r, p) for p in fields.get(name, ()) for r in rows)


def _value(record: dict[str, Any], path: str) -> bool:
    if path[:2] == "*.":
        return any(_value(v, path[2:]) for v in record.values() if isinstance(v, dict))
    head, mark, tail = path.partition("[]")
    value = get(record, head)
    if not mark or not isinstance(value, list):
        return value not in (None, shapes.MISSING)
    tail = tail.lstrip(".")
    return any(v is not None and (not tail or (isinstance(v, dict) and _value(v, tail))) for v in value)


def masks(head: list[Any], fields: shapes.Fields, reads: Collection[str]) -> list[str]:
    """Notes about what may be a mask of response ids and is not read as one: within another column, or no list."""
    if "response_ids" not in fields:
        return []
    read = {path for paths in fields.values() for path in paths}
    left: dict[str, Any] = {}
    for row in head:
        for path in known_paths(row):
            if path.rpartition(".")[2] in MASKS and path not in read and path.split(".")[0] not in reads:
                left.setdefault(path, get(row, path.replace("[]", ".0")))
    return [
        f"{path} ({show(value, 40)}) is not read as a mask: all response ids count as written by the policy. Of a list "
        f"of 0 and 1, --map response_mask={path} reads it."
        for path, value in left.items()
        if value not in (MISSING, None, "", [])
    ]


def doubtful(head: list[Any], fields: shapes.Fields, given: shapes.Fields) -> list[str]:
    """Take out of `fields` what only a name spoke for and the values speak against: notes about it."""
    notes = []
    if "source" not in given and fields.get("model") == ("generator",) and "source" in fields:
        fields.setdefault("group", fields.pop("source"))
    elif {"source", "model"} <= fields.keys() - given.keys():
        notes.append(
            f"{fields['source'][0]} names the sources, not {fields['model'][0]}, which is there too: where it says "
            f"where problems come from, --map source={fields['model'][0]}."
        )
    if "source" not in given and automatic.origins(head, fields):
        key = fields.pop("source")
        fields.setdefault("group", key)
        notes.append(
            f"{key[0]} differs between problems and never within one: taken as where problems come from, not as who "
            f"answered them (--map source={key[0]} where it is)."
        )
    if fields.get("gold") == ("answer",) and not {"gold", "answer"} & given.keys() and _varies(head, fields):
        fields.pop("gold")
        if "answer" not in fields:
            fields["answer"] = ("answer",)
        notes.append(
            "answer differs between draws of one problem: taken as what each draw answered, not as the reference "
            "answer (--map gold=answer where it is)."
        )
    for name in [n for n in fields if n in DISPENSABLE and n not in given]:
        held, faults = _faults(head, fields, name)
        if held and len(faults) == held:
            notes.append(f"{fields.pop(name)[0]} was not read as {name}: {faults[0]}.")
    return notes


def _faults(head: list[Any], fields: shapes.Fields, name: str) -> tuple[int, list[str]]:
    """How many values of a field the first records hold, and what is wrong with those that are."""
    faults, held = [], 0
    check = CHECKED.get(name) or CHECKS[name]
    for draft in _drafts(head, {"response": fields["response"], name: fields[name]}):
        if draft.get(name) is not None:
            held += 1
            try:
                check(draft[name], name)
            except Fault as fault:
                faults.append(fault.detail)
    return held, faults


def _reasoning(value: Any, name: str) -> None:
    """Raise Fault for a switch: it says how the model was asked, not what it thought."""
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and value.strip().lower() in SWITCHES):
        raise Fault(f"bad {name}", f"{name} = {show(value)}, a switch and no text")


CHECKED: dict[str, Any] = {
    "correct": lambda value, _: truth(value),
    "truncated": lambda value, _: truth(value),
    "finish": text,
    "gold": lambda value, name: value if isinstance(value, (int, float)) else text(value, name),
    "reasoning": _reasoning,
    "sampler": lambda value, _: sampler({"sampler": value}),
    **dict.fromkeys(SAMPLING, lambda value, name: number(value, name)),
}


def _varies(head: list[Any], fields: shapes.Fields) -> bool:
    """Whether `answer` differs within most of the problems that the first records have more than once."""
    said: dict[str, list[str]] = {}
    asked = next((n for n in ("question", "prompt", "id") if n in fields), "")
    for record in head if asked else ():
        if isinstance(record, dict) and isinstance(record.get("answer"), (str, int, float)):
            whose = [get(record, fields[asked][0])] + [record.get(k) for k in ABOUT]
            said.setdefault(repr(whose), []).append(normal_gold(record["answer"]))
    several = [set(answers) for answers in said.values() if len(answers) > 1]
    return sum(len(answers) > 1 for answers in several) > len(several) / 2


def _drafts(head: list[Any], fields: shapes.Fields) -> Iterator[dict[str, Any]]:
    read = shapes.reader(fields)
    for record in head:
        try:
            yield from read(record)
        except (Fault, RecursionError):
            continue
