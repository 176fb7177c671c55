"""The record that the words at the sequence level are read from: a row of the table `evidence`, each number by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from analyzer.analysis.primary import number, rows
from analyzer.records import Result

NAN = math.nan


@dataclass(frozen=True)
class Evidence:
    """What is known of one source, as `evidence.row`, `novelty.evidence` and `run` found it. Numbers that are not known
    are NaN, names "": neither earns a word. Nats, shares of traces, tokens."""

    source: str = ""
    n: int = 0  # traces
    problems: int = 0
    no_verdict: str = ""  # why the base's own traces contradict it
    no_log_q: str = ""  # why the source's own law is not known
    needs: str = ""  # what would make it known
    k_min: float = NAN  # below this budget the engines' noise decides
    # whole traces
    laws: str = ""  # that count and are known, and those that are missing
    missing_laws: str = ""
    missing_needs: str = ""
    inside_law: str = ""  # the kindest law
    inside_value: float = NAN
    inside_high: float = NAN
    inside_events: float = NAN
    inside_body_value: float = NAN  # without the end token
    inside_body_high: float = NAN
    beyond_law: str = ""  # the law with the smallest lower bound
    beyond_value: float = NAN
    beyond_low: float = NAN
    body_low: float = NAN
    every_value: float = NAN  # against every law at once
    every_low: float = NAN
    end_low: float = NAN
    improbable: float = NAN
    improbable_p: float = NAN
    law: str = ""
    # hurdles
    tokens: float = NAN
    hurdles1: float = NAN
    hurdles4: float = NAN
    share1: float = NAN
    share4: float = NAN
    share_low: float = NAN
    share_high: float = NAN
    far: float = NAN
    far_low: float = NAN
    carried_by: str = ""
    carrier: str = ""
    carried: str = ""
    # temperatures
    coolest: float = NAN
    dense: bool = True
    unknown_temperatures: str = ""
    best: str = ""
    s: float = NAN
    s_high: float = NAN
    s_low_half: float = NAN
    s_high_half: float = NAN
    s_unsure: float = NAN
    s_least: float = NAN
    s_least_at: str = ""
    left: float = NAN
    left_low: float = NAN
    left_high: float = NAN
    reference_temperature: float = NAN  # where the reference's law is another than T = 1
    reference_cuts: bool = False
    s_reference: float = NAN
    r_low_half: float = NAN
    r_high_half: float = NAN
    drop: float = NAN
    drop_low: float = NAN
    drop_least: float = NAN
    # what bars or explains a word
    same_weights: bool = False
    same_sampler: bool = False
    equal: str = ""
    assumed: str = ""
    unknown: int = 0  # traces with tokens without a number
    silent: float = NAN  # traces without any, of so many
    every: float = NAN
    short: str = ""
    end_unknown: bool = False
    copies: float = NAN
    length: float = NAN
    length_reference: float = NAN
    cut_share: float = NAN
    temperature: float = 1.0  # NaN: no sampler is declared
    # without log q
    certify: float = NAN  # the k that counts
    mass: float = NAN  # beyond it, by e-values
    mass_low: float = NAN
    rank_share: float = NAN
    rank_p: float = NAN
    rank_low: float = NAN
    base_draws: float = NAN
    ranked: str = ""
    hottest: float = NAN
    covered: float = 1.0
    bets: float = NAN
    log_e_sum: float = NAN
    taught: float = NAN  # share of the traces that the learned bets judge
    wording: str = ""  # what they win on
    conformal_share: float = NAN
    conformal_low: float = NAN
    conformal_high: float = NAN
    z_median: float = NAN
    z_reference_median: float = NAN
    flagged_groups: str = ""

    @property
    def share(self) -> float:
        """The share of traces with a hurdle, at the span that has the larger one."""
        return self.share1 if self.share1 >= self.share4 else self.share4

    @property
    def hurdles(self) -> float:
        """The hurdles of a trace at that span."""
        return self.hurdles1 if self.share1 >= self.share4 else self.hurdles4


def read(support: Result | None, source: str) -> Evidence | None:
    """The source's row of `evidence`, None where there is none."""
    row = next(iter(rows(support, "evidence", source)), None)
    if row is None:
        return None
    return Evidence(**{f.name: _value(row[f.name], f.default) for f in fields(Evidence) if f.name in row})


def _value(value: Any, default: Any) -> Any:
    """A cell as its field's kind: where a source lacks one, its column holds NaN, and floats for integers."""
    if isinstance(default, float):
        return number(value)
    missing = value is None or value != value
    return default if missing else type(default)(value)
