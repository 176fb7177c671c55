"""The ledger: what became of every row that was read, in sentences that add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analyzer.records.display import counted

NOT_ASKED = ("of problems beyond --limit", "already in the run")  # of rows: how reasons begin that are no fault


def sentences(ledger: Mapping[str, Any]) -> list[str]:
    """Rows read, traces scored, and what carries no reason."""
    refused, others = rejected_rows(ledger), not_asked(ledger)
    left = "".join(f" + {n:,} {why}" for why, n in others.items())
    lines = [f"{counted(ledger['rows'], 'row')} read = {ledger['rows_used']:,} used + {refused:,} rejected{left}."]
    scored, rejected = ledger["traces_scored"], ledger["traces_rejected"]
    if scored + rejected:
        lines.append(f"{counted(ledger['traces'], 'trace')} = {scored:,} scored + {rejected:,} not scored.")
    else:
        lines.append(f"{counted(ledger['traces'], 'trace')}, none scored here: no model was given.")
    missing = ledger["rows_rejected"] + rejected - sum(ledger["by_reason"].values())
    if missing > 0:
        lines.append(f"{missing:,} of the rejected carry no reason.")
    return lines


def not_asked(ledger: Mapping[str, Any]) -> dict[str, int]:
    """Reason -> rows that were not used and are not at fault: beyond `--limit`, or in the run already."""
    return {why: n for why, n in ledger["by_reason"].items() if why.startswith(NOT_ASKED)}


def rejected_rows(ledger: Mapping[str, Any]) -> int:
    return ledger["rows_rejected"] - sum(not_asked(ledger).values())
