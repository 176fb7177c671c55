"""Answers, for `boundary`: the test at a budget that the verdict's answer level reads, how varied the answers are, how
many kinds the sample has not shown, what luck would solve, and how reliably problems are solved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from analyzer.analysis.data.spelling import amount, spelling
from analyzer.records import TESTED
from analyzer.stats import bootstrap, budget, diversity, guessing, passk
from analyzer.stats.bootstrap import ALPHA
from analyzer.stats.unseen import missing_mass

CHOSEN = "chosen on the other half"  # name of the problems that one half of the draws chooses
NONE = "\0NA"  # the answer of a trace without one
GUESSABLE = 0.05  # accuracy of the reference below which a hit may be a guess
TAUS = (0.05, 0.1, 0.25, 0.5, 0.9)


def parity(traces: pd.DataFrame, mask: np.ndarray) -> np.ndarray:
    """Half (0 or 1) of each masked row, -1 of the others, int [N]: alternating by sample number within the problem."""
    mine = traces.loc[mask, ["problem", "sample"]].sort_values(["problem", "sample"], kind="stable")
    half = (mine.groupby("problem").cumcount() % 2).reindex(traces.index[mask])
    out = np.full(len(traces), -1)
    out[mask] = half.to_numpy()
    return out


def golds(traces: pd.DataFrame) -> pd.Series:
    """The right answer by problem (index): the one that most draws of any source gave that count as correct, of equally
    frequent ones the first in order of the text. Empty where the dumps have no answers."""
    right = traces["correct"].astype("boolean").eq(True).fillna(False).to_numpy(dtype=bool)
    hits = known(traces[right])
    counts = hits[hits["answer"] != NONE].groupby(["problem", "answer"]).size()
    if not len(counts):
        return pd.Series(dtype=object)
    return pd.Series({problem: part.idxmax()[1] for problem, part in counts.groupby(level=0)}, dtype=object)


def lenient(traces: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """The traces with every draw correct whose answer counts as correct for its problem anywhere in `every`, or is one
    number with words that counts so (`amount`): where two graders differ, the milder one. It can only raise what the
    reference solves."""
    right = known(every[every["correct"].astype("boolean").eq(True).fillna(False).to_numpy(dtype=bool)], worded=False)
    right = pd.MultiIndex.from_frame(right[right["answer"] != NONE].drop_duplicates())
    mine = known(traces, worded=False)
    if not len(right) or mine.empty:
        return traces
    accepted = pd.MultiIndex.from_frame(mine).isin(right) & traces["correct"].notna().to_numpy()
    correct = traces["correct"].astype("boolean").where(~accepted, True)
    return traces.assign(correct=correct)


def guess_rate(gold: pd.Series) -> pd.Series:
    """By problem (index): the chance that the right answer of another problem is right here, float: what answering
    without the question solves (`guessing.permuted`). 0 where no other problem has a known answer."""
    names, g_P = guessing.permuted(np.ones(len(gold)), gold.to_numpy(), gold.index.to_numpy(), gold.to_dict())
    return pd.Series(np.nan_to_num(g_P), index=names)


def read(reference: pd.DataFrame) -> np.ndarray:
    """Which of the reference's rows count as draws, bool [N]: all but those that count as wrong for want of an answer,
    or because a limit cut them.

    Nobody knows what they would have said: for the certificate they are neither hits nor misses. Where the reference
    brings no answer at all and is right nonetheless, its labels rest on something else and all other rows count.
    """
    right = reference["correct"].astype("boolean").eq(True).fillna(False).to_numpy(dtype=bool)
    answered = reference["answer"].notna().to_numpy()
    return right | ((answered | bool(right.any() and not answered.any())) & ~cut(reference))


def cut(traces: pd.DataFrame) -> np.ndarray:
    """Which rows a limit on tokens cut before an answer was read, bool [N]: column `cut`
    (`strategy_ends.unfinished`), or where it is missing those of finish "length"."""
    if "cut" in traces:
        return traces["cut"].to_numpy(dtype=bool)
    if "finish" not in traces:
        return np.zeros(len(traces), bool)
    return (traces["finish"] == "length").fillna(False).to_numpy(dtype=bool)


def tops(traces: pd.DataFrame) -> pd.DataFrame:
    """By problem (index): draws with the most frequent right answer, and with the most frequent wrong one (top_right,
    top_wrong, int). Who guesses hits no more often than the other possible answers; who solves agrees with itself, and
    wrong answers that a grader takes for right ones do not. Empty where the dump has no answers."""
    right = traces["correct"].astype("boolean")
    sides = {"top_right": right.eq(True), "top_wrong": right.eq(False)}
    out = {}
    for name, side in sides.items():
        mine = known(traces).loc[lambda rows, side=side: side.fillna(False).reindex(rows.index).to_numpy(dtype=bool)]
        counts = mine[mine["answer"] != NONE].groupby(["problem", "answer"]).size()
        out[name] = counts.groupby(level=0).max()
    return pd.DataFrame(out).fillna(0).astype(int)


def budget_test(
    both: pd.DataFrame, k: int, first: pd.DataFrame | None = None, second: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """More correct draws than k reference draws, or guesses, allow? One row per predeclared group, and one for the
    problems chosen on one half of the draws (the reference solves none, the source some) and tested on the other; Holm
    over all.

    `both`: one row per joined problem, columns n, c (source), n_ref, c_ref, group_ref, guess, the chance that an
    answer without the question is right, and top_right, top_wrong (`tops`; without them no answers are known); `first`,
    `second`: the same of the two halves. Problems that k guesses hit on average (k guess >= 1) are left out (column
    guessable), and p is the largest one of the conditional binomial, of c draws against k times the guess rate, and of
    `blind`. Draws of a group are pooled. Problems whose ratio of draws n / n_ref is over twice the median are left out
    (chosen by n alone), and the largest remaining ratio enters the test, so that unequal counts can only make it
    milder. Nothing chosen is a row with p = 1, so that the number of tests does not depend on the data.
    """
    parts = [(str(group), False, part) for group, part in both.groupby("group_ref")]
    if first is not None and second is not None:
        pick = first.index[(first["c_ref"] == 0) & (first["c"] > 0)]
        parts.append((CHOSEN, True, second[second.index.isin(pick)]))
    ratio = both["n"] / both["n_ref"]
    most = 2 * ratio.median()
    solves = bool(both["c_ref"].sum())
    out = []
    for group, chosen, part in parts:
        part = part.assign(ratio=part["n"] / part["n_ref"])
        hopeless = k * part["guess"] >= 1
        part, guess = part[~hopeless & (part["ratio"] <= most)], float(part["guess"].mean()) if len(part) else 0.0
        counts = int(part["c"].sum()), int(part["n"].sum()), int(part["c_ref"].sum()), int(part["n_ref"].sum())
        row = {"group": group, "chosen": chosen, "k": k, "problems": len(part)}
        row |= dict(zip(("c_source", "n_source", "c_reference", "n_reference"), counts, strict=True))
        row["source_only"] = int(((part["c"] > 0) & (part["c_ref"] == 0)).sum())
        row["reference_only"] = int(((part["c"] == 0) & (part["c_ref"] > 0)).sum())
        row |= {"p": 1.0, "factor": math.nan, "guess": guess, "guessable": int(hopeless.sum())}
        row["guessed"] = bool(hopeless.any() and not len(part))
        row |= blind(part, chosen, solves)
        if len(part):
            in_test = (*counts[:3], counts[1] / part["ratio"].max())
            p_guess = guessing.p_value(*counts[:2], k * float((part["guess"] * part["n"]).sum() / counts[1]))
            row["p_count"] = float(budget.p_value(*in_test, k))
            row["p"] = max(row["p_count"], p_guess, row["p_blind"])
            row["factor"] = budget.factor(*in_test, k, alpha=ALPHA / len(parts) / len(TESTED))
        out.append(row)
    for row, p in zip(out, budget.holm(np.array([r["p"] for r in out])), strict=True):
        row["p_holm"] = float(p)
    return out


def blind(part: pd.DataFrame, chosen: bool, solves: bool) -> dict[str, Any]:
    """Columns answered, top_right, top_wrong, p_blind, p_count: whether the source's hits may be guesses.

    Of the draws that give either the most frequent right or the most frequent wrong answer a guesser has at most half
    right, however many possible answers there are: a sign test. Where no answers are known, any question has two
    possible ones, and a guesser can give the same one each time: problems are the unit, more than half of the draws
    right or not, those chosen by their hits tell nothing; and a reference that is right on none of the problems
    (`solves`) may as well not keep the format.
    """
    answered = "top_right" in part
    if answered:
        right, wrong = int(part["top_right"].sum()), int(part["top_wrong"].sum())
    else:
        right = int((2 * part["c"] > part["n"]).sum())
        wrong = len(part) - right
    p = float(binom.sf(right - 1, right + wrong, 0.5)) if right + wrong and (answered or not chosen and solves) else 1.0
    return {"answered": answered, "top_right": right, "top_wrong": wrong, "p_blind": p, "p_count": 1.0}


def known(traces: pd.DataFrame, *, worded: bool = True) -> pd.DataFrame:
    """Columns problem, answer (in one spelling) of the rows of a dump that has any; no answer is one of its own.
    worded=False: of one number with words around it the number alone (`amount`)."""
    if "answer" not in traces or traces["answer"].isna().all():
        return pd.DataFrame({"problem": [], "answer": []})
    # the NUL keeps "no answer" apart from a text "NA"
    answers = spelled(traces["answer"], worded=worded)
    return pd.DataFrame({"problem": traces["problem"], "answer": answers.where(answers.notna(), NONE)})


def spelled(answers: pd.Series, *, worded: bool = True) -> pd.Series:
    """Answers in one spelling (`spelling`), None where there is none; worded: see `known`."""
    # each answer once: there are few, and a variation of a million rows asks for them again and again
    codes, distinct = pd.factorize(answers)
    texts = map(str, distinct.tolist())
    own = [spelling(a) if worded else amount(a) or spelling(a) for a in texts]
    own = np.array([*own, None], dtype=object)  # the last one is code -1
    return pd.Series(own[codes], answers.index, dtype=object)


def unseen(traces: pd.DataFrame, reference: pd.DataFrame | None) -> dict[str, Any]:
    """Good-Turing mass of answers not seen yet, mean over problems; beside it the share of draws whose answer the
    reference (`known` of its traces) never gave to that problem, over the problems that both have."""
    mine = known(traces)
    row: dict[str, Any] = {"n": len(mine), "problems": mine["problem"].nunique()}
    if mine.empty:
        numbers = dict.fromkeys(("mass", "low", "high", "new_to_reference"), math.nan)
        return row | numbers | {"method": "", "note": "no answer in the dump"}
    kinds = mine.groupby(["problem", "answer"]).size()
    mass_P = missing_mass(kinds.to_numpy(), kinds.index.get_level_values(0).to_numpy())
    i = bootstrap.rate(mass_P, np.arange(len(mass_P)))
    row |= {"mass": i.value, "low": i.low, "high": i.high, "new_to_reference": math.nan}
    if reference is not None and len(reference):
        joined = mine[mine["problem"].isin(reference["problem"].unique())]
        given = pd.MultiIndex.from_frame(reference.drop_duplicates())
        if len(joined):
            row["new_to_reference"] = float(1 - pd.MultiIndex.from_frame(joined).isin(given).mean())
    return row | {"method": f"Good-Turing N1 / n by problem; {i.method}", "note": ""}


def luck(
    traces: pd.DataFrame, here: pd.DataFrame, reference: pd.DataFrame, *, draws: int, seed: int
) -> list[dict[str, Any]]:
    """What luck would solve, by k: mean 1 - (1 - g)^k, with g by problem the share of the reference's draws that give
    its most frequent wrong answer, beside pass@k of the same problems; and pass@k without the guessable problems
    (0 < reference accuracy < 5 %, after Yue et al., arXiv 2504.13837, who took its answers without reasoning).

    `lucky_permuted` takes for g the share of the reference's draws that give the right answer of another problem (the
    mean over the others; `guessing.permuted`): what answering without the question would solve.

    traces: the reference's (a sharpened source repeats its favourite error, which is no guess); here: counts n, c by
    problem (index) of the source, reference: of the reference. A problem without a wrong answer of the reference has
    no g and is left out of `lucky` and `pass`.
    """
    k_K = passk.budgets(here["n"].to_numpy())
    right = traces["correct"].astype("boolean")
    wrong = known(traces[right.eq(False).fillna(False).to_numpy(dtype=bool)])
    wrong = wrong[(wrong["answer"] != NONE) & wrong["problem"].isin(here.index)]
    kinds = wrong.groupby(["problem", "answer"]).size()
    names = kinds.index.get_level_values(0).to_numpy() if len(kinds) else np.zeros(0, dtype=object)
    g_names, g_P = guessing.rate(kinds.to_numpy(), reference["n"].reindex(names).to_numpy(), names)
    lucky_PK, permuted_PK = (guessing.lucky(g, k_K) for g in (g_P, _permuted(traces, here.index)))
    own = here.loc[g_names]
    own_PK = passk.pass_at_k(own["n"], own["c"], k_K)
    rate = (reference["c"] / reference["n"]).reindex(here.index)
    guessable = ((rate > 0) & (rate < GUESSABLE)).to_numpy()
    kept = here[~guessable]
    kept_PK = passk.pass_at_k(kept["n"], kept["c"], k_K)
    w_BP = bootstrap.weights(len(kept), draws=draws, seed=seed) if len(kept) else None
    ends = bootstrap.column_means(kept_PK, w_BP) if len(kept) else np.full((1, len(k_K)), np.nan)
    out = []
    for j, k in enumerate(k_K):
        low, high = bootstrap.quantiles(ends[:, j], len(kept))
        row = {"k": int(k), "pass": _mean(own_PK[:, j]), "lucky": _mean(lucky_PK[:, j]), "problems": len(own)}
        row |= {"pass_filtered": _mean(kept_PK[:, j]), "low": low, "high": high}
        row |= {"problems_filtered": len(kept), "guessable": int(guessable.sum())}
        out.append(row | {"lucky_permuted": _mean(permuted_PK[:, j]), "problems_permuted": len(permuted_PK)})
    return out


def _permuted(traces: pd.DataFrame, problems: pd.Index) -> np.ndarray:
    """Guess rate by permuted gold (`golds`) of the problems where it is known, float [P]."""
    every, gold = known(traces), golds(traces[traces["problem"].isin(problems)]).to_dict()
    every = every[every["problem"].isin(problems)]
    kinds = every.groupby(["problem", "answer"]).size()
    if not len(kinds):
        return np.zeros(0)
    names = [kinds.index.get_level_values(i).to_numpy(dtype=object) for i in (1, 0)]
    g_P = guessing.permuted(kinds.to_numpy(), *names, gold)[1]
    return g_P[~np.isnan(g_P)]


def cover(here: pd.DataFrame) -> list[dict[str, Any]]:
    """Cover@tau: share of problems whose share of correct draws is at least tau, one row per tau of TAUS."""
    cover_PT = guessing.cover(here["n"], here["c"], np.array(TAUS))
    out = []
    for j, tau in enumerate(TAUS):
        i = bootstrap.rate(cover_PT[:, j], np.arange(len(here)))
        row = {"tau": tau, "cover": i.value, "low": i.low, "high": i.high, "problems": i.n, "method": i.method}
        out.append(row | {"draws": int(here["n"].median()) if len(here) else 0})
    return out


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if len(values) and not np.isnan(values).all() else math.nan


def variety(traces: pd.DataFrame, *, draws: int, seed: int) -> dict[str, Any]:
    """Distinct responses and answers at a common number of draws, share of repeats, entropy of the answers (nats)."""
    n_P = traces.groupby("problem").size()
    m = int(passk.budgets(n_P.to_numpy())[-1])
    texts = traces.groupby(["problem", "response_hash"]).size()
    out = {"problems": len(n_P), "n": len(traces), "draws": m, "distinct_responses": _distinct(texts, m)}
    out["repeats"] = 1 - len(texts) / len(traces)
    numbers = ("distinct_answers", "answer_entropy", "low", "high")
    if traces["answer"].isna().all():
        return out | dict.fromkeys(numbers, math.nan) | {"note": "no answer in the dump"}
    kinds = known(traces).groupby(["problem", "answer"]).size()
    entropy_P = diversity.entropy(kinds.to_numpy(), kinds.index.get_level_values(0).to_numpy())
    mean = bootstrap.mean(entropy_P, np.arange(len(entropy_P)), draws=draws, seed=seed)
    found = (_distinct(kinds, m), mean.value, mean.low, mean.high)
    return out | dict(zip(numbers, found, strict=True)) | {"note": ""}


def _distinct(counts: pd.Series, m: int) -> float:
    """Mean over problems of the expected number of distinct items in m draws."""
    return float(np.nanmean(diversity.distinct(counts.to_numpy(), counts.index.get_level_values(0).to_numpy(), m)))
