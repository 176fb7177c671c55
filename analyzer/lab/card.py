"""The data card: what is built in, what came by itself, and every measured number, as Markdown."""

from __future__ import annotations

from analyzer.lab.build import COUNTS, DISTILL
from analyzer.lab.grpo import GRPO
from analyzer.lab.measure import BUDGET
from analyzer.lab.traces import CORPUS, MIXED_WORDS, OTHER_WORD, RESTATING, SYNONYMS
from analyzer.lab.train import PRETRAIN

KIND_NAMES = ("reachable", "rare", "impossible")

# a trial run came before: other seed, other problems, no recaps, no synonyms. pass@1, @16, @256, median PPL (base)
TRIAL = {
    "base": (0.052, 0.432, 0.766, 1.295),
    "rlvr": (0.320, 0.484, 0.547, 1.247),
    "distill": (0.141, 0.719, 0.984, 1.637),
}

CARD = """\
# The miniature: data card

Written by `python -m analyzer.lab build` from the files beside it; do not edit. Small causal LMs, really trained, and
dumps sampled from them. The task is left-to-right Countdown: use every number once, keep every value in 1..99, reach
the goal.

## What is here

{files}

{counts}.
`correct` is the strict verdict (every step), `meta.outcome` the looser one (the final expression).
`response_logprobs` (samples 0..63) are log p at T = 1 over the full vocabulary, in nats, of the model that wrote the
row; so they are for `cool` too, whose draws are truncated.

Kinds, certified by exhaustive search over all chains: `reachable` with + and -, `rare` only with a division more,
`impossible` only with a multiplication more (and not with + - /). `problems.json` has the number of solutions.

## Recipe

{training}

Both rlvr and distill start from base. `models/rlvr-step100` is the run of rlvr after step 100; it has no dump.
Tokens are those trained on (rlvr: those sampled).

Llama, 458,304 parameters: hidden 96, 4 layers, 4 heads, tied embeddings, 157 words. One thread; bfloat16 autocast in
training, float32 in sampling and scoring. Times are of a shared machine. The same seeds give the same files only on
the same kind of processor with the same library versions.

    pretraining   {pretrain}
    corpus        {corpus}
    GRPO          {grpo}
    distillation  {distill}

## Built in

- Most problem documents of pretraining are aimless: a chain that keeps the rules and does not lead to the goal.
  P(aimed at the goal): {aimed}. So there is something for reinforcement learning to drop.
- Some values are written wrong on purpose (3 % of them, 9 % of guesses), so the base errs.
- Division stands in `chain` style alone and is rare.
- Multiplication (`*`, `multiply by`) stands in `fact` lines alone, never in a solution. "Impossible" is a statement
  about what the corpus teaches, not a proof about the network: a softmax gives every token some probability.
- Teacher and distilled model use the base's own `step` style, recaps and synonyms; new is the operation (`*`, and `/`
  in this style). On `reachable` problems the teacher only adds and subtracts.
- {restating:.0%} of the problem documents restate. Each of {pairs} word pairs is drawn per document, the less usual
  word with probability {other}; {mixed:.0%} of the documents draw anew at every place.
- GRPO is paid by the strict verifier: a trace earns only when every step is right and is the answer's.
- The distilled model's teacher never fails: more supervision than GRPO gets. The two are not matched for compute.
- The evaluation problems, in any order of their numbers, are kept out of GRPO and distillation. They are not kept out
  of pretraining, whose documents are random: a small set of numbers and its goal can recur there.

## Came by itself

- whether, and where, the curves of base and rlvr cross, and what rlvr loses on `reachable` problems (its loss on
  `rare` ones is helped by their rarity, which is built in);
- whether rlvr solves anything that the base does not;
- which style rlvr ends in, what becomes of its restating, and how many distinct texts are left;
- how far the base keeps to the corpus's shares of styles and of restating;
- the perplexities and the excess mass E_{budget};
- that the base multiplies at all, in a few responses: it does so without the corpus ever showing it in a solution;
- how many `impossible` problems the distilled model solves: it was shown none of these.

## Measured

pass@k, strict, unbiased, mean over all {problems} problems:

{pass_all}

{crossing}

By the final expression alone (`meta.outcome`):

{pass_outcome}

{pass_kinds}

Solved at least once, with as many draws of the base as of the source:

{coverage}

Under the base: the first 64 responses per problem, `<eos>` included. Perplexity per response, quantiles over
responses, medians by kind and verdict. E_{budget} is the mean of (1 - {budget} e^-l)+, l = log q - log p: the share of
responses that no selection from {budget} draws of the base could make (for sources drawn untruncated at T = 1).

{surprise}

Perplexity under the base by style (medians), and E_{budget} by kind:

{by_style}

Habits (shares of responses; tokens is a mean, distinct texts a mean per problem):

{habits}

GRPO as it went:

{history}

## Beside the paper

{paper}

## Beside the trial

A trial with other seeds, other problems, and a base without recaps and synonyms came before. One thing was changed
after it, before this training: a few more documents are aimed (chain .30 to .40, step .45 to .50, guess .10 to .12).

{trial}

One training seed and {problems} problems: the numbers describe these files. How they vary over training seeds is not
known.
"""


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
    return table(["source", "chain", "step", "guess", *(f"E_{BUDGET} {kind}" for kind in KIND_NAMES)], rows)


def habits_table(measured: dict) -> str:
    """Styles, restating, length, variety."""
    keys = ("restating", "divides", "multiplies", "truncated", "outcome_only", "tokens", "distinct_per_problem")
    rows = []
    for source, item in measured.items():
        styles = [item["habits"]["styles"].get(style, 0.0) for style in ("chain", "step", "guess", "None")]
        rows.append([source, *styles, *(item["habits"][key] for key in keys)])
    words = ("restating", "divides", "multiplies", "truncated", "right answer, wrong steps", "tokens", "distinct texts")
    return table(["source", "chain", "step", "guess", "no style", *words], rows)


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
    history = [[entry["step"], *list(entry.values())[1:]] for entry in training["rlvr"]["history"]]
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
        history=table(["step", "reward", "entropy", "tokens", "chain", "restating"], history),
        paper=against_paper(measured),
        trial=against_trial(measured),
    )
