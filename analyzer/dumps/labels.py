"""What the source of a file is called where neither the user nor a row says so: after the file, or its folder.

Parts of one dump (shards, ranks) are one source. Checkpoints of one run are no samples of each other: where they would
be one source, they are its training steps. Both are reported, with the labels to give if that is wrong.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from analyzer.dumps.recognise import Plan

STRUCTURE = re.compile(
    r"math_eval|eval[-_]results|episodes|completions|details|global_step_\d+|(train|val)_step_\d+_epoch_\d+"
    r"|\d{4}-\d\d-\d\dT\d\d[\d.:-]+"
)  # folders that producers make inside a run's folder
SAVED = re.compile(r"data-\d{5}-of-\d{5}")  # files of a dataset that was saved to disk
SEED = re.compile(r"(_temp[\d.]+_n\d+)?_seed\d+$")  # of a run's folder: one folder per seed of the same model
WORDS = r"(?:global[-_]|dp[-_]|local[-_])?(?:rank|shard|part|chunk|worker|gpu)"
OF = re.compile(r"(?P<base>.*?)[-_.]?(?P<index>\d+)[-_]of[-_](?P<of>\d+)(?:-[0-9a-f]{16})?$", re.I)
WORD = re.compile(rf"(?P<base>(?:.*[-_.])?){WORDS}[-_.]?(?P<index>\d+)(?:-[0-9a-f]{{8}}-[0-9a-f-]{{27}}.*)?$", re.I)
NUMBER = re.compile(r"(?P<base>.*[^\W\d])[-_.](?P<index>\d+)$")
# what a number behind these words tells apart is who answered, or how
TELLING = re.compile(
    r"(?:^|[-_.])(?:model|policy|agent|temp|temperature|t|top_?[pk]|shots?|v|version|variant|config|exp|setting|arm"
    r"|checkpoint|ckpt|steps?|iter|iteration|epoch|update|round)$",
    re.I,
)
CHECKPOINT = re.compile(
    r"(?:^|[-_.])(?P<name>(?:checkpoint|ckpt|global[-_]?step|step|iter|iteration|epoch)[-_.]?(?P<n>\d{1,12}))(?=$|[-_.])",
    re.I,
)
SHOWN = 6  # numbers in a message


class Part(NamedTuple):
    """A file's place in a dump of several files: what they share of their name, its number, how many there are."""

    base: str
    index: int
    of: int | None


def stem_of(path: PurePath) -> str:
    return re.sub(
        r"\.(jsonl|ndjson|json|parquet|arrow|eval|csv|tsv)$",
        "",
        path.name.removesuffix(".gz").removesuffix(".zst"),
        flags=re.I,
    )


def label_of(name: str) -> str:
    """A source label from a model or file name: the last part of a path (also one of Windows), other characters than
    letters, digits, . + - _ as -."""
    return re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\]", name.rstrip("/\\"))[-1]).strip("-") or "unnamed"


def part_of(stem: str) -> Part | None:
    """The part that a file is by the words of its name; None where they do not say that it is one."""
    found = OF.fullmatch(stem)
    if found and int(found["of"]) > 1 and int(found["index"]) <= int(found["of"]):
        return Part(_bare(found["base"]), int(found["index"]), int(found["of"]))
    found = WORD.fullmatch(stem)
    return Part(_bare(found["base"]), int(found["index"]), None) if found else None


def _bare(base: str) -> str:
    return re.sub(rf"(?:^|[-_.]){WORDS}$", "", base.strip("-_."), flags=re.I).strip("-_.")


def derive(plans: Sequence[Plan]) -> None:
    """Name each file's source from its path: the stem, or the folder (`clash`: as another folder's). Folders
    that differ only in the seed of the run are one source: its seeds are pooled, and so are the parts of one dump."""
    plans = [p for p in plans if p.dialect.shape != "side"]
    for plan in plans:
        plan.derived = "stdin"
    plans = [p for p in plans if p.file.path is not None]
    _set_parts(plans)
    # the parts of one dump count as one file of its name
    free = [p for p in plans if p.file.label is None]
    stems = Counter(stem for stem, _ in {(_stem(p), _path(p).parent if p.part else id(p)) for p in free})
    homes: dict[str, Path] = {}
    for plan in plans:
        path = _path(plan)
        stem, rule = _stem(plan), _rule(plan)
        if rule == "stem" and (not stem or stem.isdecimal() or stems[stem] > 1 or SAVED.fullmatch(stem_of(path))):
            rule = "parent"
        if rule == "stem" or not path.parent.name:
            plan.derived = label_of(stem or stem_of(path))
            continue
        folder = _run_folder(path, rule, plan.dialect.inside)
        if re.fullmatch(rf"{WORDS}[-_.]?\d+", path.parent.name, re.I) and folder == path.parent and folder.parent.name:
            plan.part = Part("", int(re.sub(r"\D", "", folder.name)), None)
            folder = folder.parent
        plan.derived = label_of(folder.name or stem)
        if plan.file.label is None and homes.setdefault(plan.derived, folder) != folder:
            plan.clash = (
                f"{plan.file.name}: its source would be called {plan.derived!r} after its folder, as that of "
                f"another folder; name the sources: A={plan.file.name}"
            )
    _set_steps(plans)


def _path(plan: Plan) -> Path:
    return plan.file.path.absolute()


def _stem(plan: Plan) -> str:
    return plan.part.base if plan.part else stem_of(_path(plan))


def _rule(plan: Plan) -> str:
    """What names the source by the dialect: stem, parent or grandparent."""
    rule = plan.dialect.label
    if rule in ("grandparent", "named") and not re.search(plan.dialect.name or "$^", stem_of(_path(plan))):
        return "stem"
    return rule


def _set_parts(plans: Sequence[Plan]) -> None:
    """Find the parts of one dump: files of one folder, label and format whose names say that they are parts, or are
    one name numbered from 0 without a gap (where the number does not tell who answered)."""
    alike: dict[Any, list[tuple[Plan, Part]]] = defaultdict(list)
    for plan in plans:
        if _rule(plan) != "stem":
            continue
        stem = stem_of(_path(plan))
        if (part := part_of(stem)) is None and (found := NUMBER.fullmatch(stem)) and not TELLING.search(found["base"]):
            part, told = Part(found["base"], int(found["index"]), None), False
        else:
            told = True
        if part:
            key = (_path(plan).parent, plan.file.label, plan.format, part.base, part.of, told)
            alike[key].append((plan, part))
    for (*_, of, told), group in alike.items():
        numbers = sorted(part.index for _, part in group)
        if of or (len(group) > 1 and (told or numbers == list(range(len(group))))):
            for plan, part in group:
                plan.part = part


def _set_steps(plans: Sequence[Plan]) -> None:
    """Give the files of several checkpoints in one place, and under one label, the step that their paths tell."""
    places: dict[Any, dict[int, list[Plan]]] = defaultdict(lambda: defaultdict(list))
    for plan in plans:
        path = _path(plan)
        parts = [*path.parent.parts, stem_of(path)]
        for i in reversed(range(len(parts))):
            if found := CHECKPOINT.search(parts[i]):
                blank = parts[i][: found.start("n")], parts[i][found.end("n") :]
                places[(plan.file.label, *parts[:i], blank)][int(found["n"])].append(plan)
                plan.checkpoint = found["name"]
                break
    for steps in places.values():
        for step, group in steps.items() if len(steps) > 1 else ():
            for plan in group:
                plan.step = step


def said(plans: Sequence[Plan], accounts: Sequence[dict[str, Any]]) -> list[str]:
    """Notes about parts taken as one source, parts that are missing, and checkpoints taken as steps of one source."""
    files = {account["path"]: account for account in accounts}
    plans = [p for p in plans if p.file.name in files]
    notes, dumps, runs = [], defaultdict(list), defaultdict(list)
    for plan in plans:
        account = files[plan.file.name]
        if plan.part:
            source = plan.file.label or plan.derived
            dumps[(source, _path(plan).parent if plan.part.of else None, plan.part.of)].append(plan)
        if account["counts"].get("steps_of_path"):
            runs[tuple(account["sources"])].append(plan)
    for (source, _, of), group in dumps.items():
        pooled = [p for p in group if p.file.label is None and not files[p.file.name]["models"]]
        if len(pooled) > 1:
            a, b = pooled[0].file.name, pooled[1].file.name
            notes.append(
                f"{len(pooled)} files are taken as parts of one source, {source} "
                f"({_few([_path(p).name for p in pooled])}); where each is one of its own, label them: A={a} B={b}."
            )
        if of:
            here = {p.part.index for p in group}
            first = 1 if of in here else 0
            if gone := [i for i in range(first, of + first) if i not in here]:
                notes.append(f"{len(gone)} of {of} parts of {source} are not here: {_few(gone)}.")
    for sources, group in runs.items():
        steps = sorted({p.step for p in group})
        if len(steps) > 1:
            a, b = group[0].file.name, next(p.file.name for p in group if p.step != group[0].step)
            notes.append(
                f"{', '.join(sources)}: the files of {len(steps)} checkpoints ({_few(steps)}) are taken as training "
                f"steps of one source, of which the last is compared; to set them side by side: A={a} B={b}."
            )
    return notes


def _few(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _run_folder(path: Path, rule: str, inside: str) -> Path:
    """The folder of the run that wrote a file, without the folders that producers (and this one, `inside`) make in it,
    and without the benchmark, temperature and seed that limit-of-RLVR writes into its name."""
    folder = path.parent if rule != "grandparent" else path.parent.parent
    if STRUCTURE.fullmatch(folder.parent.name) and not STRUCTURE.fullmatch(folder.name) and rule == "parent":
        folder = folder.parent
    while (STRUCTURE.fullmatch(folder.name) or re.fullmatch(inside, folder.name)) and folder.parent.name:
        folder = folder.parent
    name = SEED.sub("", folder.name)
    if name != folder.name:
        name = name.removesuffix(f"_{path.parent.name}")
    return folder.with_name(name) if name and folder.name else folder
