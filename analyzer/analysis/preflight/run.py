"""Can the sources be compared at all? One engine, one tokenizer, equal prompts, true declarations, and an A/A run.

Each check has a number and a limit. A failed check that gates gives no verdict: its numbers would rest on a difference
between engines, templates or files. Shares that differ by source (cut off, copied) are reported but do not block
a verdict. The A/A
run relabels one half of the reference's own traces, problem by problem, and puts it through every test that can certify
"outside"; if one does, the tests don't hold on these data and no verdict is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis import primary
from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.data.summaries import last_steps
from analyzer.analysis.drawing import nothing
from analyzer.analysis.preflight import NAMES, agreement
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import copies, engine, laws, local, prompts
from analyzer.analysis.support import run as support
from analyzer.records import BUDGET, LEVELS, Estimate, Figure, Result, Tables
from analyzer.stats import pooled
from analyzer.stats.bootstrap import DRAWS, rate

QUESTION = (
    "Can the sources be compared at all: one engine and tokenizer, equal prompts, no alarm on the base's own traces?"
)
DIFFERENCE = 0.10  # of the share cut off or copied, against the reference: said beyond this
AT_MOST = 128  # traces of a problem in the A/A run, half of them relabelled
PERMUTATIONS = 199  # in the A/A run: p down to .005, enough to fail the gate after Holm
COLUMNS = ["check", "source", "value", "limit", "passed", "gates", "note"]
WORDS = {
    "engine": "the scorers of one ratio ran with different settings",
    "tokens": "the base and the source's own model cut its traces into different tokens",
    "prompts": "joined problems were scored after other prompts than the reference's",
    "seams": "responses do not meet the prompt that they were scored after as they met their own",
    "base": "the reference's own traces are foreign to the base model",
    "policy": "the source's own traces are foreign to the model that is said to have written them",
    "declared": "the source's traces are not draws of the model and sampler that are declared for it",
    "agreed": "the reference's rows hold one law twice, and the two differ",
    "laws": "the rows' log-probs under the base at several temperatures can't be of one law",
    "redrawn": "the source's draws are likelier from the base at another temperature than from their own log-probs",
    "sampler": "the source's traces leave the sampler that is declared for it",
    "engine floor": "the log-probs of generation and scoring differ by more than the budget",
    "truncated": "the share of traces cut off at the length limit differs from the reference's",
    "masked": "the share of copied tokens differs from the reference's",
    "A/A": "a half of the reference's own traces was found outside of the other half",
}


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """Every check of the layer L0; needs no model (what needs one is then not checked, `passed` is missing).

    Estimates: `k_min` (the engine floor, a budget), `<s>.truncated` (share of traces, interval by problem),
    `<s>.masked_share` (copied tokens / tokens under the base). Tables: checks, engine (floors by source), a_a (p-values
    of the A/A run by level).
    """
    once, _ = copies.without(tables)
    scores = last_steps(once.scores) if len(once.scores) else once.scores
    base = scores[scores["model"] == tables.base] if tables.base else scores.iloc[:0]
    floors = engine.floors(tables)
    options = {"draws": draws, "seed": seed}
    if tables.base:
        local.measured(once, budget)  # of all traces, before halves of them are looked at
    estimates = {"k_min": _k_min(floors)}
    for source in tables.sources:
        traces = last_steps(tables.traces[tables.traces["source"] == source])
        cut = (traces["finish"] == "length").astype(float).where(traces["finish"].notna())
        note = "" if cut.notna().any() else "the dump does not say why traces ended"
        i = rate(cut.to_numpy(), traces["problem"].to_numpy())
        estimates[f"{source}.truncated"] = Estimate.of(i, note)
        mine = base[base["source"] == source]
        copied = mine["n_copied"] if "n_copied" in mine else pd.Series(np.nan, mine.index)
        i = pooled.ratio(copied.to_numpy(float), mine["n_tokens"].to_numpy(float), mine["problem"], **options)
        note = "" if i.n else "no trace was scored under the base model"
        estimates[f"{source}.masked_share"] = Estimate.of(i, note)
    checks = list(_of_scores(once, scores, base, floors, budget)) + list(_of_shares(tables, estimates))
    checks += list(_of_rows(tables))
    a_a, row = _a_a(tables, budget, seed, draws)
    frames = {"checks": pd.DataFrame([*checks, row], columns=COLUMNS), "engine": floors, "a_a": a_a}
    params = {"budget": budget, "draws": draws, "floor_quantile": engine.FLOOR, "difference": DIFFERENCE}
    params |= {"foreign": engine.CONTRADICTED}
    return Result("preflight", QUESTION, estimates, frames, tuple(_notes(frames["checks"])), params, seed)


def _k_min(floors: pd.DataFrame) -> Estimate:
    value = engine.k_min(floors, *floors["source"])
    n = int(floors["n"].sum())
    if math.isnan(value):
        return Estimate(value, note="no generation-time log-probs at temperature 1: the engine floor is not known")
    worst = floors.loc[floors["k_min"].idxmax(), "source"]
    return Estimate(value, n=n, method=f"exp of the {engine.FLOOR:.0%} point of |l0|", note=f"largest for {worst}")


def _check(
    name: str, source: str, value: float, limit: float, *, gates: bool, note: str = "", passed: bool | None = None
) -> dict[str, Any]:
    """A row of `checks`; not a number means that it could not be checked."""
    if passed is None:
        passed = None if math.isnan(value) else bool(value <= limit)
    return dict(zip(COLUMNS, (name, source, value, limit, passed, gates, note), strict=True))


def _of_scores(
    tables: Tables, scores: pd.DataFrame, base: pd.DataFrame, floors: pd.DataFrame, budget: int
) -> Iterator[dict[str, Any]]:
    """Checks that read the scores: engine, tokens, prompts, declarations, the engine floor."""
    own = base[base["source"] == tables.reference]
    share = engine.foreign_share(tables, own, tables.reference)
    note = "share of the reference's traces foreign to the base; check --base and --template"
    yield _check("base", "", share, engine.CONTRADICTED, gates=True, note=note)
    reference = _prompts(own)
    for source in tables.sources:
        mine, policy = base[base["source"] == source], tables.policies.get(source)
        if source != tables.reference:
            theirs = _prompts(mine)
            joined = reference.index.intersection(theirs.index)
            unequal = (reference[joined] != theirs[joined]).mean() if len(joined) else math.nan
            several = int(reference[joined].str.contains(" ").sum())
            value, note = _of_prompts(tables, source, float(unequal), several)
            yield _check("prompts", source, value, 0.0, gates=True, note=note)
            yield from _of_seams(tables, source)
        if policy is None:
            continue
        under = scores[(scores["model"] == policy) & (scores["source"] == source)]
        if policy != tables.base:
            other = engine.other_settings(tables, tables.base, policy) if tables.base else None
            value = math.nan if other is None else float(len(other))
            yield _check(
                "engine", source, value, 0.0, gates=True, note="; ".join(other or ()) or "settings that differ"
            )
            value = engine.token_mismatch(under, mine)
            yield _check(
                "tokens", source, value, 0.0, gates=True, note="share of its traces; a ratio needs one tokenizer"
            )
        if source != tables.reference:
            value = engine.foreign_share(tables, under, source)
            note = f"share of its traces foreign to {policy}; check --policy {source}=MODEL and --template"
            yield _check("policy", source, value, engine.CONTRADICTED, gates=True, note=note)
        yield _declared(under, source, policy, source in tables.samplers)
        exits = under["logprob_s"].dropna()
        value = float(np.isneginf(exits).mean()) if source in tables.samplers and len(exits) else math.nan
        note = f"share of its traces; no reach beyond the limit; check --sampler {source}=..."
        yield _check("sampler", source, value, engine.CONTRADICTED, gates=False, note=note)
    for row in floors.to_dict("records"):
        note = row["note"] or f"k_min over {row['n']:,} traces; no reach below it"
        reached = None if math.isnan(row["k_min"]) else not engine.below(budget, row["k_min"])
        yield _check("engine floor", row["source"], row["k_min"], float(budget), gates=False, note=note, passed=reached)


def _of_prompts(tables: Tables, source: str, unequal: float, several: int) -> tuple[float, str]:
    """Share of joined problems that the source's numbers under the base do not share a prompt in with the reference,
    and what to do. several: those for which the reference has several prompts."""
    note, reference, counts = "share of joined problems with another prompt", tables.reference, prompts.moved(tables)
    known = laws.known(tables)[source]
    brought = known.brought and not known.reason  # base_logprobs of the rows are of the prompt that they are of
    if source in counts and brought:
        own = counts[source]
        share = (own["other"] + own["unknown"]) / (own["traces"] - own["missing"])
        return share, (
            f"share of its traces with another prompt; the rows of {source} bring base_logprobs, which --prompt-of "
            f"{reference} does not change: give --policy {source}=MODEL, so that those as scored count"
        )
    if source in counts:
        return unequal, f"{note}; {prompts.phrase(reference)}"
    if not unequal > 0:
        return unequal, f"{note}; check --template"
    how = "(analyzer sample DUMP --model BASE)"
    ways = f"check --template, or sample {reference} again with the prompts of {source} {how}"
    if several:
        return unequal, f"{note}; {ways}, but {reference} has several prompts in {several:,} of them: no --prompt-of"
    ways += f", or ask whether {reference} under its own prompts reaches what {source} writes under others: score with "
    ways += f"--prompt-of {reference} {f'and --policy {source}=MODEL ' if brought else ''}into another -o folder"
    return unequal, f"{note}; {ways}"


def _of_seams(tables: Tables, source: str) -> Iterator[dict[str, Any]]:
    """Where responses do not meet the prompt that they were scored after: said, no gate."""
    counts = prompts.moved(tables).get(source)
    if counts is None:
        return
    n, what = prompts.seams(counts)
    ends, by = prompts.ends(counts)
    said = [f"share of {counts['traces']:,} traces"]
    if ends:
        said.append(f"no end token of the base ends them: {by}, score with --eos ID into another -o folder")
    if n:
        said.append(
            f"{what}: behind a seam the first tokens surprise whatever was trained, look at some (analyzer show)"
        )
    if counts["unread"]:
        said.append(f"{counts['unread']:,} could not be read, the model has no tokenizer for them")
    value = math.nan if counts["unread"] and not n + ends else max(n, ends) / counts["traces"]
    yield _check("seams", source, value, 0.0, gates=False, note="; ".join(said))


def _declared(under: pd.DataFrame, source: str, policy: str, sampler_known: bool) -> dict[str, Any]:
    """The row of the two-sided check of a declaration (`engine.declared`)."""
    note, found = "surprisal against the entropy: z, two-sided", engine.declared(under) if sampler_known else None
    if found is None:
        why = "entropies under its own sampler are not known" if sampler_known else "the sampler is not known"
        return _check("declared", source, math.nan, engine.Z_MOST, gates=True, note=f"{note}; {why}")
    note = f"{note} over {found.n:,} traces under {policy}; {engine.misdeclared(found, source)}"
    return _check("declared", source, found.z, engine.Z_MOST, gates=True, note=note, passed=not found.wrong)


def _of_rows(tables: Tables) -> Iterator[dict[str, Any]]:
    """Checks of the numbers that rows bring, where they bring any: whether they agree with each other."""
    shares = agreement.impossible(tables)
    found = agreement.twice(tables)
    if found is not None:
        by_sign = found.biased or not found.wrong
        value, limit = (abs(found.bias), agreement.BIAS) if by_sign else (found.gap, agreement.GAP)
        note = (
            f"nats a token between response_logprobs and base_logprobs at the same temperature, two-sided "
            f"({found.bias:+.3g} on average, {found.gap:.3g} without the sign; {found.traces:,} traces); check the "
            f"temperatures of {tables.reference} and that both lists are natural logarithms of the same ids"
        )
        yield _check("agreed", tables.reference, value, limit, gates=True, note=note, passed=not found.wrong)
    for source, (share, tokens) in shares.items():
        note = (
            f"share of {tokens:,} tokens; log p at T is a log p at 1 less log sum p^a, a = 1 / T; check the keys of "
            f"base_logprobs of {source}, and that each list is normalised at its temperature"
        )
        yield _check("laws", source, share, agreement.IMPOSSIBLE, gates=True, note=note)
    if found is not None and found.wrong:
        return  # the rows' numbers are wrong, and no evidence of how they were drawn
    for source, other in agreement.redrawn(tables).items():
        if source in shares and shares[source][0] > agreement.IMPOSSIBLE:
            continue
        note = (
            f"log of an e-value (the product of p_T / q over all tokens, whose mean is 1 where log q is true), largest "
            f"at T={other.temperature:g}, {other.drift:+.3g} nats a token; was {source} drawn at another temperature, "
            f"or with a truncation, than its log-probs are of? --sampler {source}=T[,top_p[,top_k[,min_p]]]"
        )
        passed = not other.wrong
        yield _check("redrawn", source, other.evidence, agreement.REFUSED, gates=True, note=note, passed=passed)


def _prompts(rows: pd.DataFrame) -> pd.Series:
    """problem -> the hashes of the prompts that its traces were scored after, sorted and joined."""
    if "prompt_hash" not in rows or rows["prompt_hash"].isna().all():
        return pd.Series(dtype=object)
    pairs = rows[["problem", "prompt_hash"]].dropna().drop_duplicates().sort_values(["problem", "prompt_hash"])
    return pairs.groupby("problem")["prompt_hash"].agg(" ".join)


def _of_shares(tables: Tables, estimates: dict[str, Estimate]) -> Iterator[dict[str, Any]]:
    """Differences from the reference in the share cut off and the share copied: said, no gate."""
    for source in tables.sources:
        if source == tables.reference:
            continue
        for name, key in (("truncated", "truncated"), ("masked", "masked_share")):
            here, there = (estimates[f"{s}.{key}"].value for s in (source, tables.reference))
            note = f"{here:.1%} against {there:.1%} of {tables.reference}"
            if math.isnan(here - there):
                note = estimates[f"{source}.{key}"].note or estimates[f"{tables.reference}.{key}"].note
            yield _check(name, source, abs(here - there), DIFFERENCE, gates=False, note=note)


def halved(tables: Tables, *, seed: int) -> Tables:
    """The reference's own traces (last step) as two sources of the same model: one half keeps the reference's label.

    Split at random within each problem, scored and unscored traces apart, so that each half has as many of both. At
    most AT_MOST traces per problem, the scored ones first.
    """
    label = f"{tables.reference} (A/A)"
    traces = last_steps(tables.traces[tables.traces["source"] == tables.reference])
    scores = tables.scores[tables.scores["model"] == tables.base] if len(tables.scores) else tables.scores
    scored = traces["key"].isin(scores["key"]) if len(scores) else pd.Series(False, traces.index)
    order = traces.assign(scored=scored).sort_values(["problem", "scored", "sample"], ascending=[True, False, True])
    order = order[order.groupby("problem").cumcount() < AT_MOST]
    traces = traces.loc[order.index].sort_index()
    scores = scores[scores["key"].isin(traces["key"])] if len(scores) else scores
    shuffled = order.iloc[np.random.default_rng(seed).permutation(len(order))]
    other = shuffled.groupby(["problem", "scored"]).cumcount() % 2 == 1
    moved = set(traces.loc[other[other].index, "key"])

    def relabel(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(source=np.where(frame["key"].isin(moved), label, tables.reference))

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        for part in tables.tokens(model, columns):
            part = part[part["source"] == tables.reference]
            if len(part):
                yield relabel(part)

    return replace(
        tables,
        traces=relabel(traces),
        scores=relabel(scores) if len(scores) else scores,
        tokens=tokens,
        policies={tables.reference: tables.base, label: tables.base} if tables.base else {},
        samplers={s: tables.samplers[tables.reference] for s in (tables.reference, label)}
        if tables.reference in tables.samplers
        else {},
    )


def _a_a(tables: Tables, budget: int, seed: int, draws: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """p-values by level of the relabelled half (table a_a), and the row of `checks`."""
    half = halved(tables, seed=seed)
    columns = ["level", "p", "p_holm", "certified", "n"]
    if len(half.sources) < 2:
        note = f"{tables.reference} has no two traces of a problem"
        return pd.DataFrame(columns=columns), _check("A/A", "", math.nan, 0.0, gates=True, note=note)
    label, results = half.sources[1], {}
    if len(half.scores):
        results["support"] = support.run(half, budget=budget, seed=seed, draws=draws)
    results["strategy"] = strategy.certifying(half, strategy.skeletons(half), [budget], seed, PERMUTATIONS)
    results["boundary"] = boundary.certifying(half, budget)
    found, n = primary.endpoints(results, label, budget), int((half.traces["source"] == label).sum())
    frame = pd.DataFrame([(level, *found[level], n) for level in LEVELS], columns=columns)
    tested = frame["p"].notna()
    outside = [e["level"] for e in frame[frame["certified"]].to_dict("records")]
    note = f"levels outside, of {int(tested.sum())} tested; n = {n:,} traces against {len(half.traces) - n:,}"
    note += f": {', '.join(outside)}" if outside else ""
    return frame, _check("A/A", "", float(len(outside)) if tested.any() else math.nan, 0.0, gates=True, note=note)


def _notes(checks: pd.DataFrame) -> list[str]:
    failed = checks[checks["passed"].eq(False)]
    notes = [f"{'Gate failed' if r['gates'] else 'Said, no gate'}: {sentence(r)}." for r in failed.to_dict("records")]
    open_ = checks[checks["passed"].isna()]
    if len(open_):
        parts = open_.groupby("check", sort=False)["source"].agg(lambda s: ", ".join(x for x in s if x))
        told = ((NAMES.get(name, name), who) for name, who in parts.items())
        named = "; ".join(f"{name} ({who})" if who else name for name, who in told)
        notes.append(f"Could not be checked: {named}.")
    return notes


def sentence(row: dict[str, Any]) -> str:
    """A row of `checks` in words: what, whose, the number against its limit, and what to look at."""
    whose = f" ({row['source']})" if row["source"] else ""
    return f"{WORDS[row['check']]}{whose}: {row['value']:.3g}, limit {row['limit']:.3g}; {row['note']}"


def draw(result: Result, ax: Any) -> Any:
    """Shares and differences of shares by source, with the two limits as lines."""
    import seaborn as sns

    from analyzer.analysis.drawing import level, look

    data = result.tables["checks"]
    data = data[data["check"].isin(["truncated", "masked", "policy", "base", "sampler"]) & data["passed"].notna()]
    if data.empty:
        return nothing(ax, "no share could be checked")
    own = [name.removesuffix(".truncated") for name in result.estimates if name.endswith(".truncated")]
    style, names = look([*own, *data["source"]]), data["source"].replace("", "the base")
    data = data.assign(value=data["value"].astype(float), check=data["check"].map(NAMES), source=names)
    data = data[data.groupby("check")["value"].transform("max") > 0]  # a check without a bar is no part of the picture
    if data.empty:
        return nothing(ax, "every share is 0")
    palette = {s: style[s]["color"] if s in style else style[""]["color"] for s in data["source"].unique()}
    sns.barplot(data=data, x="check", y="value", hue="source", palette=palette, ax=ax)
    level(ax, DIFFERENCE, "warned of above: truncated, masked")
    level(ax, engine.CONTRADICTED, "failed above: the others", side="left")
    ax.set(xlabel="", ylabel="share of traces, or difference")
    return ax


def caption(result: Result) -> str:
    checks = result.tables["checks"]
    done, failed = checks["passed"].notna().sum(), checks["passed"].eq(False)
    gates = int((failed & checks["gates"].astype(bool)).sum())
    n = sum(e.n for name, e in result.estimates.items() if name.endswith(".truncated"))
    return (
        "Checks that are shares of traces, by source, without intervals: cut off at the length limit and copied "
        "tokens (truncated, masked) as differences from the reference, warned of above the upper line; traces foreign "
        "to the base, to the policy or to the declared sampler, failed above the lower one. Of all checks "
        f"{done} were done, {int(failed.sum())} failed, {gates} of these forbid a verdict (n = {n:,} traces)."
    )


FIGURES = {"checks": Figure(draw, "checks", caption)}
