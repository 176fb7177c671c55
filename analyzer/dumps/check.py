"""What a dump says before any model is run: the content of `analyzer check`.

`describe` puts together what was counted, `render` writes it out for a terminal. No model, no files, no printing.
"""

from __future__ import annotations

from typing import Any

from analyzer.dumps import prospects, unused
from analyzer.dumps.accounts import Ledger
from analyzer.dumps.counts import count
from analyzer.dumps.survey import Survey
from analyzer.records.display import counted, one_line


def describe(survey: Survey, ledger: Ledger) -> dict[str, Any]:
    """Everything that can be said about traces without a model, as JSON-able values, from what `read.batches` fills.

    Keys: ledger (Ledger.as_json), sources {label: counts}, accuracy (rows: source, file, problem rows and joined
    problems with their pass@1 and share of problems with any correct sample), joins (pairs of sources), warnings
    (sentences), next (what each later step can say, and what it needs). Accuracies are means over problems of the share
    of correct samples; null where no sample has a label. Lengths are in characters.
    """
    told = summarise(survey, ledger)
    return told | {"next": prospects.lines(survey.sources, told["sources"], told["joins"])}


def summarise(survey: Survey, ledger: Ledger) -> dict[str, Any]:
    """What `describe` says but for `next`, which takes a second for every source."""
    sources, accuracy, joins = count(survey)
    return {
        "ledger": ledger.as_json(),
        "sources": sources,
        "accuracy": accuracy,
        "joins": joins,
        "warnings": list(ledger.notes),
    }


def render(description: dict[str, Any]) -> str:
    """The description as text for a terminal: files, sources, accuracies, joins, warnings, what comes next."""
    ledger = description["ledger"]
    lines = ["FILES"]
    for f in ledger["files"]:
        mapped = ", ".join(f"{k}={v}" for k, v in f["mapping"].items())
        lines += [
            f"  {f['path']}: {f['format']}, {counted(f['rows'], 'row')} -> "
            + (
                f"{counted(f['traces'], 'trace')} of {', '.join(f['sources'])}"
                if f["sources"]
                else "joined with the others"
            )
            + (f"; {counted(f['rows_rejected'], 'row')} rejected" if f["rows_rejected"] else ""),
            f"    {mapped}",
        ]
        if named := unused.said(f["unused"]):
            kept = " (short values are kept in meta)" if f["format"].startswith("generic") else ""
            lines.append(f"    not used{kept}: {named}")
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
                _per_problem(n),
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
        lines += [f"  {label}: {_numbers(s['numbers'])}"] if s["numbers"] else []
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
        lines += [
            "",
            "JOINED ON THE QUESTION'S TEXT",
            f"  all sources share the same {counted(joins[0]['shared'], 'problem')}",
        ]
    elif joins:
        lines += ["", "JOINED ON THE QUESTION'S TEXT"]
        for j in joins:
            a, b = j["sources"]
            lines.append(
                f"  {a} and {b}: {counted(j['shared'], 'problem')} shared, "
                f"{j['only'][0]:,} only in {a}, {j['only'][1]:,} "
                f"only in {b}"
            )
            lines += [
                f"    by position {p['agree']:,} of {p['rows']:,} rows agree, by text {p['shared']:,} problems: "
                f"{p['files'][0]}, {p['files'][1]}"
                for p in j["positions"]
                if p["agree"] < p["rows"]
            ]
    lines += ["", "WARNINGS"] + ([f"  - {t}" for t in description["warnings"]] or ["  none"])
    lines += ["", "WHAT THE NEXT STEPS CAN SAY"] + [f"  - {t}" for t in description["next"]]
    return "\n".join(map(one_line, lines)) + "\n"


def render_studies(described: dict[str, Any], found: dict[str, list[str]]) -> str:
    """The descriptions of several studies as one table for a terminal, a row per study and source; of a study that
    can't be read, why. found: what each was read from."""
    rows = [("study", "source", "files", "traces", "problems", "shared", "n/problem", "labelled", "pass@1", "warnings")]
    lines = []
    for name, d in described.items():
        if "error" in d:
            rows.append((name, "not read", *("-" * (len(rows[0]) - 2))))
            lines.append(f"{name}: {d['error']}")
            continue
        shared = min((j["shared"] for j in d["joins"]), default=None)
        for i, (label, s) in enumerate(d["sources"].items()):
            n, files = s["samples_per_problem"], sum(label in f["sources"] for f in d["ledger"]["files"])
            rows.append(
                (
                    "" if i else name,
                    label,
                    f"{files:,}",
                    f"{s['traces']:,}",
                    f"{s['problems']:,}",
                    "" if i else "-" if shared is None else f"{shared:,}",
                    _per_problem(n),
                    f"{s['labelled']:,}",
                    _share(s["pass@1"]),
                    "" if i else f"{len(d['warnings']):,}",
                )
            )
    whole = next(iter(found.values()))
    done = [
        f"{len(described):,} studies by the names of their files; shared: problems that every two "
        "sources have in common.",
        f"All of one, with its warnings: analyzer check {' '.join(whole)}",
    ]
    return "\n".join(map(one_line, [*_table(rows), "", *lines, *([""] if lines else []), *done])) + "\n"


def _numbers(numbers: dict[str, Any]) -> str:
    """What the rows' own log-probs under the base hold, in one line."""
    rows, both = numbers["base_rows"], numbers["both_rows"]
    beside = f"{counted(numbers['masked'], 'token')} masked"
    if numbers["policies"]:
        named = ", ".join(f"{label} ({counted(n, 'row')})" for label, n in numbers["policies"].items())
        beside += f"; log-probs under the policy of {named}, so that what it lost needs no model"
    if not rows:
        return f"no log-probs under the base; {beside}"
    laws = (
        f"T={t} ({counted(law['rows'], 'row')}, {counted(law['values'], 'value')}: "
        f"{law['unknown']:,} unknown, {law['impossible']:,} "
        "impossible)"
        for t, law in numbers["laws"].items()
    )
    then = (
        f"reach needs no model in {'them' if both == rows else f'{both:,} of them'}"
        if both
        else "reach needs response_logprobs beside them too"
    )
    brought = f"{counted(rows, 'row')} {'brings' if rows == 1 else 'bring'}"
    return f"{brought} log-probs under the base at {', '.join(laws)}; {beside}; {then}"


def _per_problem(n: dict[str, int]) -> str:
    return f"{n['min']}" if n["min"] == n["max"] else f"{n['most']} ({n['min']}-{n['max']})"


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
