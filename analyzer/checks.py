"""What a dump says before any model is run: the content of `analyzer check`.

`describe` counts, `render` writes it out for a terminal. Pure functions; no model, no files, no printing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from analyzer.dumps import Ledger
from analyzer.formats.traps import problem_rows
from analyzer.records import Trace

NEW_PROBLEMS = 149  # the least m with 1 - .05^(1/m) <= .02: no departure on m problems bounds it for new ones
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def describe(traces: Sequence[Trace], ledger: Ledger) -> dict[str, Any]:
    """Everything that can be said about traces without a model, as JSON-able values.

    Keys: ledger (Ledger.as_json), sources {label: counts}, accuracy (rows: source, file, problem rows and joined
    problems
    with their pass@1 and share of problems with any correct sample), joins (pairs of sources), traps (sentences), next
    (what each later step can say, and what it needs). Accuracies are means over problems of the share of correct
    samples;
    null where no sample has a label. Lengths are in characters.
    """
    by_source: dict[str, list[Trace]] = defaultdict(list)
    for t in traces:
        by_source[t.source].append(t)
    return {
        "ledger": ledger.as_json(),
        "sources": {label: _source(own) for label, own in by_source.items()},
        "accuracy": _accuracies(by_source),
        "joins": _joins(by_source),
        "traps": list(ledger.notes),
        "next": _next(by_source),
    }


def accuracy(groups: Iterable[Sequence[Trace]]) -> tuple[float | None, float | None, int]:
    """(pass@1, share with any correct sample, number of problems) over groups of traces, one group per problem; traces
    without a label are left out, and groups without any labelled trace too."""
    first, some, n = 0.0, 0, 0
    for own in groups:
        labels = [t.correct for t in own if t.correct is not None]
        if labels:
            first += sum(labels) / len(labels)
            some += any(labels)
            n += 1
    return (first / n, some / n, n) if n else (None, None, 0)


def _by_problem(traces: Iterable[Trace]) -> dict[Any, list[Trace]]:
    out: dict[Any, list[Trace]] = defaultdict(list)
    for t in traces:
        out[t.problem, t.step].append(t)
    return out


def _file(t: Trace) -> str:
    return re.sub(r"[:#]\d+$", "", t.origin)


def _by_row(traces: Sequence[Trace]) -> list[list[Trace]]:
    """One group per problem row and training step."""
    groups: dict[Any, list[Trace]] = defaultdict(list)
    for key, own in problem_rows(traces).items():
        for t in own:
            groups[(*key, t.step)].append(t)
    return list(groups.values())


def _accuracies(by_source: dict[str, list[Trace]]) -> list[dict[str, Any]]:
    """One row per source and file, plus one per source over all its files where there are several."""
    out = []
    for source, own in by_source.items():
        files: dict[str, list[Trace]] = defaultdict(list)
        for t in own:
            files[_file(t)].append(t)
        parts = list(files.items()) + ([("all files", own)] if len(files) > 1 else [])
        for name, part in parts:
            rows = _by_row(part)
            joined = list(_by_problem(part).values())
            row_1, row_any, row_n = accuracy(rows)
            joined_1, joined_any, joined_n = accuracy(joined)
            out.append(
                {
                    "source": source,
                    "file": name,
                    "problem_rows": len(rows),
                    "row_pass@1": row_1,
                    "row_any_correct": row_any,
                    "rows_labelled": row_n,
                    "problems": len(joined),
                    "joined_pass@1": joined_1,
                    "joined_any_correct": joined_any,
                    "problems_labelled": joined_n,
                }
            )
    return out


def _quantiles(values: list[int]) -> dict[str, int]:
    ordered = sorted(values)
    out = {f"q{int(q * 100):02d}": ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in QUANTILES}
    return {"min": ordered[0], **out, "max": ordered[-1]}


def _source(own: list[Trace]) -> dict[str, Any]:
    problems = _by_problem(own)
    sizes = [len(v) for v in problems.values()]
    labels = [t.correct for t in own if t.correct is not None]
    row_1, row_any, _ = accuracy(_by_row(own))
    samplers = list(dict.fromkeys(t.sampler for t in own))
    sampler = samplers[0] if len(samplers) == 1 else None
    steps = sorted({t.step for t in own if t.step is not None})
    return {
        "traces": len(own),
        "problems": len({t.problem for t in own}),
        "problem_rows": len(problem_rows(own)),
        "samples_per_problem": {"min": min(sizes), "max": max(sizes)},
        "labelled": len(labels),
        "correct": sum(labels) if labels else None,
        "pass@1": row_1,
        "any_correct": row_any,
        "chars": _quantiles([len(t.response) for t in own]),
        "empty": sum(not t.response and not t.meta.get("ids_only") for t in own),
        "repeats": sum(
            len(v) - len({t.response_ids if t.meta.get("ids_only") else t.response for t in v})
            for v in problems.values()
        ),
        "null_answers": sum(bool(t.meta.get("null_answer")) for t in own),
        "finish": dict(Counter(t.finish or "not recorded" for t in own).most_common()),
        "prompts": dict(
            Counter(
                "ids"
                if t.prompt_ids is not None
                else "messages"
                if isinstance(t.prompt, list)
                else "text"
                if t.prompt is not None
                else "question only"
                if t.question is not None
                else "none"
                for t in own
            ).most_common()
        ),
        "response_ids": sum(t.response_ids is not None for t in own),
        "response_logprobs": sum(t.response_logprobs is not None for t in own),
        "sampler": None
        if sampler is None
        else {
            "temperature": sampler.temperature,
            "top_p": sampler.top_p,
            "top_k": sampler.top_k,
            "min_p": sampler.min_p,
        },
        "samplers": sum(s is not None for s in samplers),
        "steps": {"min": steps[0], "max": steps[-1], "count": len(steps)} if steps else None,
        "groups": dict(Counter(t.group for t in own if t.group is not None).most_common()),
    }


def _joins(by_source: dict[str, list[Trace]]) -> list[dict[str, Any]]:
    """Pairs of sources: problems shared on text, and for files of equally many rows how many positions agree."""
    ordered: dict[str, dict[str, list[str]]] = {}
    for source, own in by_source.items():
        first: dict[str, dict[int, str]] = defaultdict(dict)
        for t in own:
            first[_file(t)].setdefault(t.meta["row"], t.problem)
        ordered[source] = {file: [rows[r] for r in sorted(rows)] for file, rows in first.items()}
    problems = {s: {t.problem for t in own} for s, own in by_source.items()}
    labels = list(by_source)
    out = []
    for i, a in enumerate(labels):
        for b in labels[i + 1 :]:
            positions = [
                {
                    "files": [fa, fb],
                    "rows": len(pa),
                    "agree": sum(x == y for x, y in zip(pa, pb, strict=True)),
                    "shared": len(set(pa) & set(pb)),
                }
                for fa, pa in ordered[a].items()
                for fb, pb in ordered[b].items()
                if len(pa) == len(pb) and set(pa) & set(pb)
            ]
            out.append(
                {
                    "sources": [a, b],
                    "shared": len(problems[a] & problems[b]),
                    "only": [len(problems[a] - problems[b]), len(problems[b] - problems[a])],
                    "positions": positions,
                }
            )
    return out


def _next(by_source: dict[str, list[Trace]]) -> list[str]:
    """What each later step can say about these sources, and what is missing for more."""

    def listed(labels: list[str]) -> str:
        return ", ".join(labels)

    out = []
    labelled = [s for s, own in by_source.items() if any(t.correct is not None for t in own)]
    without = [s for s in by_source if s not in labelled]
    if labelled:
        depth = {s: max(len(v) for v in _by_problem(by_source[s]).values()) for s in labelled}
        out.append("pass@k: " + ", ".join(f"{s} up to k = {n}" for s, n in depth.items()) + ".")
    if without:
        out.append(
            f"pass@k: not for {listed(without)}, no sample has a label or score (map one: --map correct=FIELD or "
            "--map score=FIELD)."
        )
    gold = [s for s in without if any(t.meta.get("gold") is not None for t in by_source[s])]
    if gold:
        out.append(f"Labels: {listed(gold)} have reference answers in the dump; --grade compares with them.")
    bare = [s for s, own in by_source.items() if any(t.prompt is None and t.prompt_ids is None for t in own)]
    ready = [s for s in by_source if s not in bare]
    if ready:
        out.append(f"Scoring with --base: ready for {listed(ready)}.")
    if bare:
        unasked = [
            s
            for s in bare
            if any(t.prompt is None and t.prompt_ids is None and t.question is None for t in by_source[s])
        ]
        out.append(
            f"Scoring with --base: {listed(bare)} need --template FILE|NAME|none, the dump has no prompts"
            + (f" (and no question either for {listed(unasked)}: --map question=FIELD)." if unasked else ".")
        )
    text = [s for s, own in by_source.items() if any(t.response_ids is None for t in own)]
    if text:
        out.append(
            f"Tokens: {listed(text)} hold text, not ids; it is tokenised again, which need not give the tokens that "
            "were sampled."
        )
    out += _reference_lines(by_source)
    engine = [
        s for s, own in by_source.items() if any(t.response_logprobs and t.logprobs_temperature == 1 for t in own)
    ]
    if engine:
        out.append(f"Engine floor: can be measured for {listed(engine)}, whose dumps have log-probs at T=1.")
    if blind := [s for s in by_source if s not in engine]:
        out.append(
            f"Engine floor (how far two engines' rounding alone moves a ratio): not known for {listed(blind)}, no "
            "log-probs of generation at T=1."
        )
    cut = [s for s, own in by_source.items() if all(t.finish is None for t in own)]
    if cut:
        out.append(f"Truncation: not known for {listed(cut)}, the dump does not say why a response ended.")
    unknown = [s for s, own in by_source.items() if any(t.sampler is None for t in own)]
    if unknown:
        out.append(
            f"Sampler membership and reach: not for {listed(unknown)}, no sampler is recorded (--sampler "
            "LABEL=T,top_p)."
        )
    out.append(
        "Reach of a source (inside or sharpened): needs the model that produced it, --policy LABEL=MODEL; without "
        "it only `outside` can be certified."
    )
    if len(by_source) < 2:
        out.append("Comparison: one source only; a second one (the base model's own samples) is needed.")
    return out


def _reference_lines(by_source: dict[str, list[Trace]]) -> list[str]:
    """What the comparison with the reference rests on: shared problems, samples of each, problems for a wider claim."""
    if len(by_source) < 2:
        return []
    reference = "base" if "base" in by_source else None
    if reference is None:
        return [f"Reference: none is called base; say which source it is: --reference {'|'.join(by_source)}."]
    own = {t.problem for t in by_source[reference]}
    out = []
    for s, traces in by_source.items():
        shared = len(own & {t.problem for t in traces})
        if s != reference and shared < len(own):
            out.append(
                f"Joined with {reference}: {s} shares {shared:,} of its {len(own):,} problems; only these compare."
            )
    few = [s for s, traces in by_source.items() if max(map(len, _by_problem(traces).values())) < 2]
    if few:
        out.append(
            f"Strategies and the check of {reference} against itself: need two samples of a problem; {', '.join(few)} "
            "have one."
        )
    if len(own) < NEW_PROBLEMS:
        out.append(
            f"`inside` without any departure holds for these {len(own):,} problems; for others like them it takes "
            f"{NEW_PROBLEMS} (docs/method.md)."
        )
    return out


# --- text -----------------------------------------------------------------------------------------------------------


def render(description: dict[str, Any]) -> str:
    """The description as text for a terminal: files, sources, accuracies, joins, traps, what comes next."""
    ledger = description["ledger"]
    lines = ["FILES"]
    for f in ledger["files"]:
        mapped = ", ".join(f"{k}={v}" for k, v in f["mapping"].items())
        lines += [
            f"  {f['path']}: {f['format']}, {f['rows']:,} rows -> "
            + (f"{f['traces']:,} traces of {', '.join(f['sources'])}" if f["sources"] else "joined with the others")
            + (f"; {f['rows_rejected']:,} rows rejected" if f["rows_rejected"] else ""),
            f"    {mapped}",
        ]
    lines += [
        f"  rows {ledger['rows']:,} = used {ledger['rows_used']:,} + rejected {ledger['rows_rejected']:,}; traces "
        f"{ledger['traces']:,}"
    ]
    lines += [f"    rejected, {reason}: {n:,}" for reason, n in ledger["by_reason"].items()]
    lines += ["", "SOURCES"]
    rows = [
        (
            "source",
            "traces",
            "problems",
            "n/problem",
            "labelled",
            "pass@1",
            "any correct",
            "chars q05/median/q95",
            "repeats",
            "prompts",
            "ids",
            "sampler",
        )
    ]
    for label, s in description["sources"].items():
        n, c = s["samples_per_problem"], s["chars"]
        rows.append(
            (
                label,
                f"{s['traces']:,}",
                f"{s['problems']:,}",
                f"{n['min']}" if n["min"] == n["max"] else f"{n['min']}-{n['max']}",
                f"{s['labelled']:,}",
                _share(s["pass@1"]),
                _share(s["any_correct"]),
                f"{c['q05']:,}/{c['q50']:,}/{c['q95']:,}",
                f"{s['repeats']:,}",
                "+".join(s["prompts"]),
                "yes" if s["response_ids"] == s["traces"] else "no" if not s["response_ids"] else "some",
                _sampler(s),
            )
        )
    lines += _table(rows)
    for label, s in description["sources"].items():
        finish = ", ".join(f"{k} {v:,}" for k, v in s["finish"].items())
        groups = ", ".join(f"{k} {v:,}" for k, v in list(s["groups"].items())[:8])
        steps = f"; steps {s['steps']['min']}-{s['steps']['max']} ({s['steps']['count']})" if s["steps"] else ""
        lines.append(f"  {label}: finish {finish}{steps}" + (f"; groups {groups}" if groups else ""))
    if any(a["rows_labelled"] for a in description["accuracy"]):
        lines += ["", "ACCURACY (mean over problem rows as the file counts them | joined on the question's text)"]
        rows = [("source", "file", "rows", "pass@1", "any correct", "problems", "pass@1", "any correct")]
        rows += [
            (
                a["source"],
                a["file"],
                f"{a['problem_rows']:,}",
                _share(a["row_pass@1"]),
                _share(a["row_any_correct"]),
                f"{a['problems']:,}",
                _share(a["joined_pass@1"]),
                _share(a["joined_any_correct"]),
            )
            for a in description["accuracy"]
        ]
        lines += _table(rows)
    joins = description["joins"]
    if joins and all(j["only"] == [0, 0] and all(p["agree"] == p["rows"] for p in j["positions"]) for j in joins):
        lines += ["", "JOINED ON THE QUESTION'S TEXT", f"  all sources share the same {joins[0]['shared']:,} problems"]
    elif joins:
        lines += ["", "JOINED ON THE QUESTION'S TEXT"]
        for j in joins:
            a, b = j["sources"]
            lines.append(
                f"  {a} and {b}: {j['shared']:,} problems shared, {j['only'][0]:,} only in {a}, {j['only'][1]:,} "
                f"only in {b}"
            )
            lines += [
                f"    by position {p['agree']:,} of {p['rows']:,} rows agree, by text {p['shared']:,} problems: "
                f"{p['files'][0]}, {p['files'][1]}"
                for p in j["positions"]
                if p["agree"] < p["rows"]
            ]
    lines += ["", "TRAPS FOUND"] + ([f"  - {t}" for t in description["traps"]] or ["  none"])
    lines += ["", "WHAT THE NEXT STEPS CAN SAY"] + [f"  - {t}" for t in description["next"]]
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _sampler(source: dict[str, Any]) -> str:
    s = source["sampler"]
    if s is None:
        return "unknown" if not source["samplers"] else f"{source['samplers']} kinds"
    return f"T={s['temperature']:g}" + "".join(
        f" {k}={s[k]:g}" for k, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)) if s[k] != off
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(w) if i == 0 or not cell[:1].isdigit() else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in rows
    ]
