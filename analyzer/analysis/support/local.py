"""Local support: where along its traces does a source leave the base, whatever way the base is sampled?

One pass over the tokens makes a row of numbers per trace, sums for the prefix curves, and the places to look at
(`stats.spans` has the definitions). Everything else - intervals, words, tables - is made from those.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.support import laws
from analyzer.records import Estimate, Sampler, Tables
from analyzer.stats import bootstrap, reach, spans
from analyzer.stats.bootstrap import too_few

LISTED = 200  # traces per source whose places are listed
PLACES = 3  # of one trace
DECILES = 10
OPENING = 4  # tokens: the first of a response
ROW = ("key", "source", "problem", "n", "ended", "unknown", "log_q", "body_q", "end", "kept")  # whatever the laws
CURVES = {laws.PLAIN: "T=1", laws.REFERENCE: "as sampled", "all laws": "every law"}


class Local(NamedTuple):
    """frame: one row per trace (see `row_table`). curves: source -> Curve. spots: the listed places. carriers: source,
    width, token, opening, weight (expected hurdles), spot of its largest l. deciles: (source, width) -> weight [10] by
    position.
    asked: the traces of the tables that it was made from, with their source. declared: how each source was drawn.
    """

    frame: pd.DataFrame
    curves: dict[str, Curve]
    spots: pd.DataFrame
    carriers: pd.DataFrame
    deciles: dict[tuple[str, int], np.ndarray]
    budget: int
    asked: dict[str, str]
    declared: dict[str, tuple[Any, ...]]


class Curve(NamedTuple):
    """Sums by problem of the excess over the first w tokens. place_W, problem names [P], n_P traces, sum_CPW; names of
    the C laws."""

    place_W: np.ndarray
    problems: list[str]
    n_P: np.ndarray
    sum_CPW: np.ndarray
    names: list[str]


def budgets(budget: int) -> tuple[float, ...]:
    """The budgets of hurdles: the usual ones above 1, and half and twice the budget in question."""
    # budget^2 and the 4,096 of BUDGETS: evidence.far
    usual = {float(k) for k in (*reach.BUDGETS, budget / 2, 2 * budget, budget**2) if k > 1}
    return tuple(sorted(usual | {float(budget)}))


def measured(tables: Tables, budget: int) -> Local:
    """The numbers of every trace whose own law is known; made once for a run, whatever part of it is then looked at."""
    name = f"local@{budget}"
    if name not in tables.memo or not _knows(tables.memo[name], tables):
        tables.memo[name] = _measured(tables, budget)
    return tables.memo[name]


def _declared(tables: Tables) -> dict[str, tuple[Any, ...]]:
    """Source -> its model and sampler, and those that it is held against: whatever a copy of the tables changes."""
    against = tables.base, tables.samplers.get(tables.reference)
    return {s: (tables.policies.get(s), tables.samplers.get(s), *against) for s in tables.sources}


def _knows(local: Local, tables: Tables) -> bool:
    """Whether these are numbers of all traces of the tables, drawn as they say; a source may have another label."""
    if not tables.traces["key"].map(local.asked.__contains__).all():
        return False
    first, now = tables.traces.drop_duplicates("source"), _declared(tables)
    pairs = zip(first["key"], first["source"], strict=True)
    return all(local.declared[local.asked[key]] == now[source] for key, source in pairs)


def without_end(local: Local) -> Local:
    """The same with every whole trace held without its end token."""
    f = local.frame
    whole = {f"p:{c.removeprefix('body:')}": f[c] for c in f if c.startswith("body:")}
    frame = f.assign(log_q=f["body_q"], end=np.nan, ended=False, **whole)
    return local._replace(frame=frame)


def _measured(tables: Tables, budget: int) -> Local:
    ks = budgets(budget)
    longest = int(tables.scores["n_tokens"].max()) if len(tables.scores) else 0
    longest = max([longest, *(int(f["token"].map(len).max()) for f in tables.numbers() if len(f))])
    place_W = spans.places(max(1, longest))
    there = laws.samplers(tables).get(tables.reference)
    frames: list[pd.DataFrame] = []
    sums: dict[str, dict[str, list[np.ndarray]]] = {}
    names_of: dict[str, list[str]] = {}
    spots: dict[str, pd.DataFrame] = {}
    carriers: dict[str, pd.DataFrame] = {}
    deciles: dict[tuple[str, int], np.ndarray] = {}
    for part in laws.parts(tables):
        names = list(part.laws)
        curves = {name: [names.index(name)] for name in (laws.PLAIN, laws.REFERENCE) if name in names}
        curves["all laws"] = list(range(len(names)))
        found = spans.measure(
            part.q_T, list(part.laws.values()), part.lengths_N, part.ended_N, ks, place_W, list(curves.values())
        )
        frames.append(row_table(part, found, names, ks, there))
        names_of[part.source] = list(curves)
        _add_curve(sums.setdefault(part.source, {}), part, reach.excess(found.prefix_CWN, budget))
        here = _spots(part, found, budget)
        if len(here):
            spots[part.source] = _listed([spots.get(part.source), here])
            carriers[part.source] = _carriers([carriers.get(part.source), here])
            for width in (1, spans.SPAN):
                mine = here[here["width"] == width]
                more = np.bincount(mine["decile"], mine["excess"], DECILES) / width
                deciles[part.source, width] = deciles.get((part.source, width), np.zeros(DECILES)) + more
    out = {}
    for source, problems in sums.items():
        mine = list(problems)
        stack = np.stack([problems[p][1] for p in mine], 1)
        out[source] = Curve(place_W, mine, np.array([problems[p][0] for p in mine]), stack, names_of[source])
    empty = pd.DataFrame(columns=[*SPOT, "source"])
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=ROW)
    return Local(
        frame.set_index("key", drop=False).rename_axis(None),
        out,
        pd.concat([*(s.assign(source=name) for name, s in spots.items()), empty], ignore_index=True),
        pd.concat([*(s.assign(source=name) for name, s in carriers.items()), empty], ignore_index=True),
        deciles,
        budget,
        dict(zip(tables.traces["key"], tables.traces["source"], strict=True)),
        _declared(tables),
    )


def row_table(
    part: laws.Part, found: spans.Measured, names: list[str], ks: tuple[float, ...], there: Sampler | None
) -> pd.DataFrame:
    """key, source, problem, n, ended, unknown; log_q, body_q (without the end token); p:<law>, body:<law>; kept (of the
    reference's sampler `there`); end; for both widths hurdles<w>@<k>, share<w>@<k>; stretch, stretch_at."""
    out: dict[str, Any] = {"key": part.key_N, "source": part.source, "problem": part.problem_N}
    out |= {"n": part.lengths_N - part.ended_N, "ended": part.ended_N, "unknown": found.unknown_N}
    out |= {"log_q": found.q_N, "body_q": found.body_q_N, "end": found.end_N, "kept": _kept(part, there)}
    for i, name in enumerate(names):
        out |= {f"p:{name}": found.p_LN[i], f"body:{name}": found.body_p_LN[i]}
    for w, width in enumerate((1, spans.SPAN)):
        for i, k in enumerate(ks):
            out[f"hurdles{width}@{k:g}"] = found.hurdles_2NK[w, :, i].astype(np.float32)
            out[f"share{width}@{k:g}"] = found.share_2NK[w, :, i].astype(np.float32)
    at_N = found.stretch_at_N
    if part.position_T is not None:
        at_N = part.position_T[part.lengths_N.cumsum() - part.lengths_N + at_N]
    return pd.DataFrame(out | {"stretch": found.stretch_N, "stretch_at": at_N})


def _kept(part: laws.Part, sampler: Sampler | None) -> np.ndarray:
    """How much likelier the reference's cut makes what it keeps, nats of each trace without its end token [N]: log p as
    sampled less log p at its temperature, 0 at tokens that it cuts off; NaN where one of the two is not known."""
    name = "" if sampler is None else f"T={sampler.temperature:.6g}"
    if laws.REFERENCE not in part.laws or name not in part.laws:
        return np.full(len(part.key_N), np.nan)
    with np.errstate(invalid="ignore"):  # impossible under both
        gain_T = np.nan_to_num(part.laws[laws.REFERENCE] - part.laws[name], nan=0.0)
    gain_T = np.maximum(gain_T, 0.0).astype(float)
    last_N = part.lengths_N.cumsum() - 1
    gain_T[last_N[part.ended_N]] = 0.0
    return np.add.reduceat(gain_T, last_N - part.lengths_N + 1)


def _add_curve(sums: dict[str, list[np.ndarray]], part: laws.Part, excess_CWN: np.ndarray) -> None:
    """Add a part's traces to problem -> [traces, sums [C, W]]."""
    order = np.argsort(part.problem_N, kind="stable")
    problems, first = np.unique(part.problem_N[order], return_index=True)
    added = np.add.reduceat(excess_CWN[:, :, order], first, axis=2)
    for i, problem in enumerate(problems):
        n = int((first[i + 1] if i + 1 < len(first) else len(order)) - first[i])
        if problem in sums:
            sums[problem] = [sums[problem][0] + n, sums[problem][1] + added[:, :, i]]
        else:
            sums[problem] = [n, added[:, :, i]]


SPOT = ["key", "problem", "at", "l", "width", "excess", "token", "log_q", "log_p", "decile", "opening"]
CARRIER = ["width", "token", "opening"]


def _spots(part: laws.Part, found: spans.Measured, k: float) -> pd.DataFrame:
    """Every span beyond the budget as a row of SPOT."""
    keep = found.spot_l > np.log(k)
    trace, at, nats = found.spot_trace[keep], found.spot_at[keep], found.spot_l[keep]
    place = (part.lengths_N.cumsum() - part.lengths_N)[trace] + at
    return pd.DataFrame(
        {
            "key": part.key_N[trace],
            "problem": part.problem_N[trace],
            "at": at if part.position_T is None else part.position_T[place],
            "l": nats,
            "width": found.spot_width[keep],
            "excess": -np.expm1(np.log(k) - nats),
            "token": part.token_T[place],
            "log_q": part.q_T[place],
            "log_p": part.laws.get(laws.PLAIN, next(iter(part.laws.values())))[place],
            "decile": np.minimum(DECILES - 1, at * DECILES // np.maximum(1, part.lengths_N[trace])),
            "opening": at < OPENING,
        }
    )


def _listed(parts: list[pd.DataFrame | None]) -> pd.DataFrame:
    """The places to list: of the LISTED traces with the largest l, up to PLACES each that are SPAN tokens apart."""
    rows = pd.concat([p for p in parts if p is not None], ignore_index=True)
    rows = rows.sort_values(["l", "key", "at"], ascending=[False, True, True], kind="stable")
    first = rows.drop_duplicates("key")["key"].head(LISTED)
    rows = rows[rows["key"].isin(set(first))]
    taken: dict[str, list[int]] = {}
    kept = []
    for i, key, at in zip(rows.index, rows["key"], rows["at"], strict=True):
        mine = taken.setdefault(key, [])
        if len(mine) < PLACES and all(abs(at - other) >= spans.SPAN for other in mine):
            mine.append(at)
            kept.append(i)
    return rows.loc[kept].reset_index(drop=True)


def _carriers(parts: list[pd.DataFrame | None]) -> pd.DataFrame:
    """Expected hurdles by width and token, in the opening and behind it, each with its place of the largest l."""
    rows = [p if "weight" in p else p.assign(weight=p["excess"] / p["width"]) for p in parts if p is not None]
    whole = pd.concat(rows, ignore_index=True).sort_values("l", ascending=False, kind="stable")
    total = whole.groupby(CARRIER)["weight"].sum()
    first = whole.drop_duplicates(CARRIER).copy()
    first["weight"] = total.reindex(pd.MultiIndex.from_frame(first[CARRIER])).to_numpy()
    return first


def prefix_rows(curve: Curve, source: str) -> list[dict[str, Any]]:
    """Rows of the table `prefix`: source, law, tokens, excess, low, high, n, problems; pointwise 95 % by problem."""
    out = []
    for c, name in enumerate(curve.names):
        value, low, high = band(curve, c)
        for w, v, a, b in zip(curve.place_W.tolist(), value, low, high, strict=True):
            row = {"source": source, "law": CURVES[name], "tokens": w, "excess": v, "low": a, "high": b}
            out.append(row | {"n": int(curve.n_P.sum()), "problems": len(curve.n_P)})
    return out


def band(curve: Curve, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Excess over the first w tokens [W] under law c with pointwise 95 % ends (`bootstrap.share_ends`, by problem)."""
    value = curve.sum_CPW[c].sum(0) / curve.n_P.sum()
    low, high, _ = bootstrap.share_ends(curve.sum_CPW[c], curve.n_P)
    return value, low, high


def horizon(curve: Curve, c: int) -> Estimate:
    """h50: after how many tokens half of the source is beyond the budget; NaN with a note where that is never.

    Its ends are where the ends of the pointwise band pass 1/2: at the true h50 the band covers 1/2 in 95 %.
    """
    value, low, high = band(curve, c)
    found, n = crossing(curve.place_W, value), int(curve.n_P.sum())
    late, early = (crossing(curve.place_W, x) for x in (low, high))
    method = "where the excess over the first w tokens passes 1/2; band by problem"
    if not np.isfinite(found):
        note = f"half is not reached: the mass beyond the base under every law ends at {value[-1]:.3f}"
        return Estimate(float("nan"), early if np.isfinite(early) else float("nan"), float("nan"), n, method, note)
    if np.isnan(low).all():
        return Estimate(found, n=n, method=method, note=too_few(len(curve.n_P)))
    late = late if np.isfinite(late) else float("nan")
    return Estimate(found, early, late, n, method, "" if np.isfinite(late) else "its upper end is beyond the traces")


def crossing(place_W: np.ndarray, value_W: np.ndarray, level: float = 0.5) -> float:
    """The w at which a rising curve passes the level, linear between places; inf where it never does."""
    above = np.flatnonzero(value_W >= level)
    if not len(above):
        return float("inf")
    i = int(above[0])
    if i == 0:
        return float(place_W[0])
    a, b = value_W[i - 1], value_W[i]
    return float(place_W[i - 1] + (place_W[i] - place_W[i - 1]) * (level - a) / (b - a))
