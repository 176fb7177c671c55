"""The data card: what is built in, what came by itself, and every measured number, as Markdown."""

from __future__ import annotations

from miniature.backward import RETRYING
from miniature.card_text import CARD
from miniature.grpo import GRPO
from miniature.measure import BUDGET
from miniature.recipe import COUNTS, DISTILL, DISTILL_PLAN, UNFAITHFUL
from miniature.rewrites import FOREIGN
from miniature.traces import CORPUS, MIXED_WORDS, OPENING, OTHER_WORD, RESTATING, SYNONYMS
from miniature.train import PRETRAIN

KIND_NAMES = ("reachable", "rare", "impossible")

# a trial run came before: other seed, other problems, no recaps, no synonyms. pass@1, @16, @256, median PPL (base)
TRIAL = {
    "base": (0.052, 0.432, 0.766, 1.295),
    "rlvr": (0.320, 0.484, 0.547, 1.247),
    "distill": (0.141, 0.719, 0.984, 1.637),
}


def listed(weights: dict[str, float]) -> str:
    """`chain 0.4, step 0.5`"""
    return ", ".join(f"{name} {value:g}" for name, value in weights.items())


def table(head: list[str], rows: list[list]) -> str:
    """A Markdown table; floats with three decimals, None as a dash."""

    def cell(value) -> str:
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)])


def curves(by_source: dict[str, dict[str, float]]) -> str:
    """One row of pass@1, 2, 4 .. 256 per source."""
    ks = [str(2**i) for i in range(9)]
    return table(["source", *(f"@{k}" for k in ks)], [[s, *(c.get(k) for k in ks)] for s, c in by_source.items()])


def crossing(measured: dict, kind: str = "all") -> str:
    """In words, between which k the base overtakes rlvr, over all problems or those of one kind."""
    base, rlvr = measured["base"]["pass"][kind], measured["rlvr"]["pass"][kind]
    ks = sorted(base, key=int)
    for lower, upper in zip(ks, ks[1:]):
        if rlvr[lower] >= base[lower] and rlvr[upper] < base[upper]:
            return f"the base overtakes rlvr between k = {lower} and k = {upper}"
    return f"the base does not overtake rlvr up to k = {ks[-1]}"


def where_it_crosses(measured: dict) -> str:
    """The crossing over all problems, the kinds of the problems that rlvr lost, and the reachable ones alone."""
    lost = {kind: measured["rlvr"]["coverage"][kind]["base_only"] for kind in KIND_NAMES}
    return (
        f"Over all problems {crossing(measured)}. Problems that the base solves at least once and rlvr never: "
        f"{listed(lost)}.\nOn the `reachable` ones alone {crossing(measured, 'reachable')}."
    )


def files_table(measured: dict, sources: dict) -> str:
    """What each dump is."""
    rows = []
    for source, recipe in sources.items():
        sampler = recipe["sampler"] or {}
        written = recipe["model"] or "solver"
        written += f", best of {recipe['best_of']}" if "best_of" in recipe else ""
        written += f", rewritten ({recipe['rewrite']})" if "rewrite" in recipe else ""
        kilobytes = round(measured[source]["bytes"] / 1000)
        how = [sampler.get("temperature"), sampler.get("top_p"), recipe["seed"]]
        rows.append([source, written, measured[source]["rows"], recipe["n"], *how, kilobytes])
    return table(["source", "written by", "rows", "per problem", "temperature", "top-p", "seed", "KB"], rows)


def training_table(training: dict) -> str:
    """How each model was trained."""
    rows = []
    for name, record in sorted(training.items(), key=lambda item: item[1]["seed"]):
        last = record["history"][-1] if "history" in record else None
        end = f"reward {last['reward']}, entropy {last['entropy']}" if last else f"loss {record['loss']}"
        rows.append([name, record["seed"], record["steps"], record["tokens"], round(record["seconds"]), end])
    return table(["model", "seed", "steps", "tokens", "seconds", "end"], rows)


def surprise_table(measured: dict) -> str:
    """Perplexity and least likely token under the base."""
    head = ["source", "q05", "q25", "median", "q75", "q95", *KIND_NAMES, "correct", "wrong"]
    rows = []
    for source, item in measured.items():
        under = item["under_base"]
        least = f"{under['least_likely_token_p_median']:.2g}"
        excess = (item[f"excess@{BUDGET}"] or {}).get("all")
        medians = [*under["by_kind"].values(), under["correct"], under["wrong"], under["logprob_median"], least, excess]
        rows.append([source, *under["ppl"].values(), *medians])
    return table([*head, "median log p", "median least p", f"E_{BUDGET}"], rows)


def by_style_table(measured: dict) -> str:
    """Median perplexity by style, excess mass by kind."""
    rows = []
    for source, item in measured.items():
        excess = item[f"excess@{BUDGET}"] or {}
        rows.append([source, *item["under_base"]["by_style"].values(), *(excess.get(kind) for kind in KIND_NAMES)])
    return table(["source", "chain", "step", "guess", "plan", *(f"E_{BUDGET} {kind}" for kind in KIND_NAMES)], rows)


def habits_table(measured: dict) -> str:
    """Styles, restating, length, variety."""
    keys = ("restating", "divides", "multiplies", "truncated", "outcome_only", "tokens", "distinct_per_problem")
    rows = []
    for source, item in measured.items():
        styles = [item["habits"]["styles"].get(style, 0.0) for style in ("chain", "step", "guess", "plan", "None")]
        rows.append([source, *styles, *(item["habits"][key] for key in keys)])
    words = ("restating", "divides", "multiplies", "truncated", "right answer, wrong steps", "tokens", "distinct texts")
    return table(["source", "chain", "step", "guess", "plan", "no style", *words], rows)


def against_paper(measured: dict) -> str:
    """What Yue et al. (2025, arXiv 2504.13837) report, beside what happened here."""
    base, rlvr, distill, cool = (measured[source] for source in ("base", "rlvr", "distill", "cool"))
    cells, own, its = rlvr["coverage"]["all"], base["under_base"]["ppl"]["0.5"], rlvr["under_base"]["ppl"]["0.5"]
    ends = f"pass@256 {distill['pass']['all']['256']:.3f} against {base['pass']['all']['256']:.3f}"
    side = "lower" if its < own else "not lower"
    return table(
        ["the paper", "here"],
        [
            ["RLVR raises pass@1", f"{base['pass']['all']['1']:.3f} to {rlvr['pass']['all']['1']:.3f}"],
            ["the base overtakes at large k", crossing(measured)],
            [
                "RLVR solves nearly a subset (RLVR only: 0 % of AIME24 at k = 1024, 1 % of MATH500 at 128)",
                f"RLVR only {cells['source_only']}, base only {cells['base_only']}, of {sum(cells.values())}",
            ],
            [
                "RLVR's responses lie in the lower part of the base's own perplexities",
                f"median {its:.3f} against {own:.3f}: {side}; the base itself at T = 0.6: "
                f"{cool['under_base']['ppl']['0.5']:.3f}",
            ],
            ["distillation goes beyond the base", f"{ends}; E_{BUDGET} {distill[f'excess@{BUDGET}']['all']:.3f}"],
            [
                "T = 0.6, top-p 0.95, up to 1024 samples; 7 B to 32 B; mathematics, code, vision",
                "T = 1 untruncated, 256 samples; 0.46 M; arithmetic",
            ],
        ],
    )


def against_trial(measured: dict) -> str:
    """This build beside the trial run."""
    rows = []
    for source, (one, sixteen, most, ppl) in TRIAL.items():
        now = measured[source]["pass"]["all"]
        here = measured[source]["under_base"]["ppl"]["0.5"]
        rows.append([source, one, now["1"], sixteen, now["16"], most, now["256"], ppl, here])
    names = [f"{what} {run}" for what in ("@1", "@16", "@256", "PPL") for run in ("trial", "here")]
    return table(["source", *names], rows)


def card(measured: dict, training: dict, problems: list[dict], sources: dict, seeds: dict) -> str:
    """The whole card."""
    measured = {source: measured[source] for source in sources}
    by_kind = [
        f"`{kind}` problems:\n\n" + curves({source: item["pass"][kind] for source, item in measured.items()})
        for kind in KIND_NAMES
    ]
    coverage = [
        [source, kind, *item["coverage"][kind].values()]
        for source, item in measured.items()
        if item["coverage"]
        for kind in ("all", *KIND_NAMES)
    ]
    head = ["step", "reward", "entropy", "tokens", "chain", "restating"]
    history, unfaithful = (
        table(head, [list(entry.values()) for entry in training[name]["history"]])
        for name in ("rlvr", "rlvr-unfaithful")
    )
    return CARD.format(
        files=files_table(measured, sources),
        counts=f"{len(problems)} problems ({listed(COUNTS)}), seed {seeds['problems']}",
        training=training_table(training),
        pretrain=PRETRAIN,
        corpus=CORPUS,
        grpo=GRPO,
        distill=DISTILL,
        aimed=listed(CORPUS["aimed"]),
        restating=RESTATING,
        pairs=len(SYNONYMS),
        other=OTHER_WORD,
        mixed=MIXED_WORDS,
        budget=BUDGET,
        problems=len(problems),
        pass_all=curves({source: item["pass"]["all"] for source, item in measured.items()}),
        pass_outcome=curves({source: item["outcome"] for source, item in measured.items()}),
        pass_kinds="\n\n".join(by_kind),
        crossing=where_it_crosses(measured),
        coverage=table(["source", "kind", "both", "base only", "source only", "neither"], coverage),
        surprise=surprise_table(measured),
        by_style=by_style_table(measured),
        habits=habits_table(measured),
        history=history,
        history_unfaithful=unfaithful,
        unfaithful=UNFAITHFUL,
        plan_steps=DISTILL_PLAN["steps"],
        of=sources["best-of-16"]["best_of"],
        opening=OPENING,
        foreign=", ".join(f"{usual}/{foreign}" for usual, foreign in FOREIGN.items()),
        retrying=RETRYING,
        plan_tokens=sources["distill-plan"]["new_tokens"],
        paper=against_paper(measured),
        trial=against_trial(measured),
    )
