"""The account of a reading: every row of every file is used or rejected, and says so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from analyzer.dumps import hints
from analyzer.errors import DumpError
from analyzer.records import json_value
from analyzer.records.display import counted


@dataclass
class Ledger:
    """The account of a reading. rows = rows_used + rows_rejected; a row is a record of a file (a list per problem is
    one row and many traces; a row of a file that others are joined with is used, and no trace). `rejected`: dicts with
    file, line, reason, detail, row. `notes`: trap findings, one sentence each. `opened`: file -> sha256 when it was
    opened; given beforehand, that of an earlier reading, to which this one must be equal."""

    threshold: float = 1.0
    files: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    rows_used: int = 0
    rows_rejected: int = 0
    traces: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    opened: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ValueError unless the numbers add up, in all and file by file."""
        sums = {k: sum(f[k] for f in self.files) for k in ("rows", "rows_used", "rows_rejected", "traces")}
        wrong = [k for k, v in sums.items() if v != getattr(self, k)]
        if (
            wrong
            or self.rows != self.rows_used + self.rows_rejected
            or len({self.rows_rejected, len(self.rejected), sum(self.by_reason.values())}) > 1
        ):
            raise ValueError(f"the ledger does not add up ({wrong or 'rows'}): {self.as_json()}")

    def as_json(self) -> dict[str, Any]:
        """Everything but the rejected rows themselves (those go to rejected.jsonl)."""
        return {
            "rows": self.rows,
            "rows_used": self.rows_used,
            "rows_rejected": self.rows_rejected,
            "traces": self.traces,
            "by_reason": dict(self.by_reason),
            "threshold": self.threshold,
            "files": self.files,
            "notes": list(self.notes),
        }


def book(
    ledger: Ledger, account: dict[str, Any], rejected: list[dict[str, Any]], first_bad: str, max_bad: float
) -> None:
    """Add a file's account to the ledger. Raises DumpError where too many of its rows are bad."""
    judge(account, rejected, first_bad, max_bad)
    ledger.files.append(account)
    ledger.rows += account["rows"]
    ledger.rows_used += account["rows_used"]
    ledger.rows_rejected += len(rejected)
    ledger.traces += account["traces"]
    ledger.rejected += rejected
    for r in rejected:
        ledger.by_reason[r["reason"]] = ledger.by_reason.get(r["reason"], 0) + 1


def judge(account: dict[str, Any], rejected: list[dict[str, Any]], first_bad: str, max_bad: float) -> None:
    """Raise DumpError where nothing is usable or more than the allowed share of rows is bad."""
    rows, bad = account["rows"], len(rejected)
    if rows and bad == 0:
        return
    if rows == 0:
        raise DumpError(
            f"{account['path']}: no rows in it; the run that wrote it produced nothing: leave it out or write it again"
        )
    reasons = Counter(r["reason"] for r in rejected).most_common(3)
    listed = ", ".join(f"{n} x {reason}" for reason, n in reasons)
    if bad == rows:
        keys = ", ".join(list(rejected[0]["row"])[:15]) if isinstance(rejected[0]["row"], dict) else ""
        why = {r["reason"] for r in rejected}
        most = reasons[0][0]
        hint = f"; its rows have: {keys}" if keys else ""
        if not keys and why <= {"broken JSON", "not an object"}:
            hint = "; expected one JSON object per row"
        if keys and most == "no problem":
            held = [r["row"] for r in rejected if isinstance(r["row"], dict) and r["reason"] == most]
            asked = hints.question(held, account["mapping"].get("response", ""))
            hint += f"; name the fields: --map question={asked or 'FIELD'}"
        elif keys and most in ("no response", "response is not text", "not a list", "not an object"):
            hint += "; name the fields: --map response=FIELD"
        raise DumpError(f"{first_bad}; none of {counted(rows, 'row')} can be used ({listed}){hint}")
    if bad > max_bad * rows:
        share = min(1.0, -(-bad * 1000 // rows) / 1000)
        raise DumpError(
            f"{first_bad}; {bad} of {counted(rows, 'row')} can't be used ({listed}); allowed are "
            f"{max_bad:.1%} of a file's rows. "
            + (
                f"Repair them, or --max-bad {share:g} leaves them out and counts them"
                if bad * 2 <= rows
                else "So many say that the fields are others or the file is broken: name them (--map), or repair it"
            )
        )


def same_content(accounts: list[dict[str, Any]]) -> list[str]:
    """Notes about files that are byte for byte the same under several labels. Raises DumpError within one label."""
    seen: dict[str, dict[str, Any]] = {}
    notes = []
    for account in (a for a in accounts if a["sources"]):
        other = seen.setdefault(account["sha256"], account)
        if other is account or other["path"] == account["path"]:
            continue
        if set(other["sources"]) & set(account["sources"]):
            raise DumpError(
                f"{account['path']}: the same bytes as {other['path']} (sha256 {account['sha256'][:12]}), both for "
                f"source {account['sources'][0]!r}: "
                "every sample would count twice; leave one out, or give it another label: LABEL=PATH"
            )
        notes.append(
            f"{account['path']} ({', '.join(account['sources'])}) is byte for byte {other['path']} "
            f"({', '.join(other['sources'])}): comparing the two compares a file with itself."
        )
    return notes


def kept(record: Any) -> Any:
    """A rejected record as its file has it; as JSON text where not every writer takes it (deep nesting, integers beyond
    64 bits, lone surrogates)."""
    row = record if not isinstance(record, dict) else {k: v for k, v in record.items() if not k.startswith("@")}
    row = json_value(row)
    try:
        orjson.dumps({"row": row})
    except TypeError:
        return json.dumps(row)
    return row
