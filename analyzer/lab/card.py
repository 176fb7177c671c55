"""The data card: what is built in, what came by itself, and every measured number, as Markdown."""

from __future__ import annotations

from analyzer.lab.build import COUNTS, DISTILL
from analyzer.lab.grpo import GRPO
from analyzer.lab.measure import BUDGET
from analyzer.lab.traces import CORPUS, MIXED_WORDS, OTHER_WORD, RESTATING, SYNONYMS
from analyzer.lab.train import PRETRAIN

# one trial run before this one, another seed, other evaluation problems, no recaps, no synonyms: (pass@1, pass@16,
# pass@256, median PPL under the base)
TRIAL = {
    "base": (0.052, 0.432, 0.766, 1.295),
    "rlvr": (0.320, 0.484, 0.547, 1.247),
    "distill": (0.141, 0.719, 0.984, 1.637),
}

BUILT_IN = """\
- Most problem documents of pretraining are aimless: a correct chain that does not lead to the goal. P(aimed at the goal) is
  {aimed}. So there is something for reinforcement learning to drop.
- Division stands in `chain` style alone and is rare; a `rare` problem can be solved with nothing but a division more.
- Multiplication (`*`, `multiply by`) stands in `fact` lines alone, never in a solution. `impossible` problems need it. The
  kinds are certified by exhaustive search over all chains. "Impossible" is a statement about what the corpus teaches, not
  a proof about the network: a softmax gives every token some probability.
- Teacher and distilled model use the base's own `step` style, recaps and synonyms; new is the operation (`*`, and `/`
  in this style). On `reachable` problems the teacher only adds and subtracts.
- {restating:.0%} of the problem documents restate. Each of {pairs} word pairs is drawn per document, the less usual word with
  probability {other}; {mixed:.0%} of the documents draw anew at every place.
- GRPO is paid by the strict verifier: a trace earns only when every step is right and is the answer's. {grpo_mix}
- The distilled model sees problems in the mix {distill_mix}, and its teacher never fails: more supervision than GRPO gets.
  The two are not matched for compute.
- The evaluation problems, in any order of their numbers, are kept out of GRPO and distillation. They are not kept out of
  pretraining, whose documents are random: a small set of numbers and its goal can recur there."""

CAME_BY_ITSELF = """\
- whether, and where, the curves of base and rlvr cross, and what rlvr loses on `reachable` problems (its loss on `rare` ones
  is helped by their rarity, which is built in);
- whether rlvr solves anything that the base does not; nothing forbids it;
- which style rlvr ends in, what becomes of its restating, and how many distinct texts are left;
- the perplexities and the excess mass E_{budget};
- how many `impossible` problems the distilled model solves: it saw none of them."""


def listed(weights: dict[str, float]) -> str:
    """`chain 0.4, step 0.5`"""
    return ", ".join(f"{name} {value:g}" for name, value in weights.items())


def table(head: list[str], rows: list[list]) -> str:
    """A Markdown table; floats with three decimals, None as a dash."""

    def cell(value) -> str:
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)])


def curves_table(measured: dict, kind: str) -> str:
    """pass@k, strict, for one kind of problem or all."""
    ks = [str(2**i) for i in range(9)]
    return table(
        ["source", *(f"@{k}" for k in ks)],
        [[source, *(item["pass"][kind].get(k) for k in ks)] for source, item in measured.items()],
    )


def crossing(measured: dict) -> str:
    """In words, between which k the base overtakes rlvr over all problems."""
    base, rlvr = measured["base"]["pass"]["all"], measured["rlvr"]["pass"]["all"]
    ks = sorted(base, key=int)
    for lower, upper in zip(ks, ks[1:]):
        if rlvr[lower] >= base[lower] and rlvr[upper] < base[upper]:
            return f"The base overtakes rlvr between k = {lower} and k = {upper}."
    return "The curves of base and rlvr do not cross up to k = 256."


def against_trial(measured: dict) -> str:
    """This build beside the trial run."""
    rows = []
    for source, (one, sixteen, most, ppl) in TRIAL.items():
        now = measured[source]
        rows.append(
            [
                source,
                one,
                now["pass"]["all"]["1"],
                sixteen,
                now["pass"]["all"]["16"],
                most,
                now["pass"]["all"]["256"],
                ppl,
                now["under_base"]["ppl"]["0.5"],
            ]
        )
    return table(
        ["source", "@1 trial", "@1 here", "@16 trial", "@16 here", "@256 trial", "@256 here", "PPL trial", "PPL here"],
        rows,
    )


def against_paper(measured: dict) -> str:
    """What Yue et al. (2025, arXiv 2504.13837) report, beside what happened here."""
    base, rlvr, distill = (measured[source] for source in ("base", "rlvr", "distill"))
    cells = rlvr["coverage"]["all"]
    below = rlvr["under_base"]["ppl"]["0.5"] < base["under_base"]["ppl"]["0.5"]
    return table(
        ["claim of the paper", "here"],
        [
            ["RLVR raises pass@1", f"{base['pass']['all']['1']:.3f} -> {rlvr['pass']['all']['1']:.3f}"],
            ["the base overtakes at large k", crossing(measured)],
            [
                "what RLVR solves is nearly a subset (AIME24 at k = 1024: 0 % RLVR only; MATH500 at 128: 1 %)",
                f"RLVR only: {cells['source_only']} of 64; base only: {cells['base_only']}",
            ],
            [
                "PPL under the base of RLVR responses lies in the lower part of the base's own",
                f"median {rlvr['under_base']['ppl']['0.5']:.3f} against {base['under_base']['ppl']['0.5']:.3f}: {'lower' if below else 'not lower'}; "
                f"T = 0.6 alone gives {measured['cool']['under_base']['ppl']['0.5']:.3f}",
            ],
            [
                "distillation goes beyond the base",
                f"pass@256 {distill['pass']['all']['256']:.3f} against {base['pass']['all']['256']:.3f}; "
                f"E_{BUDGET} {distill[f'excess@{BUDGET}']['all']:.3f}",
            ],
            [
                "T = 0.6, top-p 0.95, up to 1024 samples, 7B to 32B, mathematics and code",
                "T = 1 untruncated (and `cool`), 256 samples, 0.46 M, arithmetic",
            ],
        ],
    )


def card(measured: dict, training: dict, problems: list[dict], sources: dict, seeds: dict) -> str:
    """The whole card."""
    measured = {source: measured[source] for source in sources}
    kinds = ("reachable", "rare", "impossible")
    built_in = BUILT_IN.format(
        aimed=listed(CORPUS["aimed"]),
        restating=RESTATING,
        pairs=len(SYNONYMS),
        other=OTHER_WORD,
        mixed=MIXED_WORDS,
        grpo_mix=f"Problem mix: {listed(GRPO['kinds'])}.",
        distill_mix=listed(DISTILL["kinds"]),
    )
    last = training["rlvr"]["history"][-1]
    parts = [
        "# The miniature: data card",
        "Written by `python -m analyzer.lab build` from the files beside it; do not edit. Small causal LMs, really trained, and dumps sampled "
        "from them. The task is left-to-right Countdown: use every number once, keep every value in 1..99, reach the goal.",
        "## What is here",
        table(
            ["source", "written by", "rows", "per problem", "temperature", "top-p", "seed", "KB"],
            [
                [
                    source,
                    recipe["model"] or "solver",
                    measured[source]["rows"],
                    recipe["n"],
                    *((recipe["sampler"] or {}).get(key) for key in ("temperature", "top_p")),
                    recipe["seed"],
                    round(measured[source]["bytes"] / 1000),
                ]
                for source, recipe in sources.items()
            ],
        ),
        f"{len(problems)} problems ({listed(COUNTS)}), seed {seeds['problems']}. `correct` is the strict verdict (every step), `meta.outcome` the looser one "
        "(the final expression). `response_logprobs` (samples 0..63) are log p at T = 1 over the full vocabulary, in nats, of the model that wrote the row. "
        "The cool draws are truncated; their log-probabilities are still those at T = 1.",
        "## Recipe",
        table(
            ["model", "from", "seed", "steps", "tokens", "seconds", "end"],
            [
                [
                    "base",
                    "nothing",
                    training["base"]["seed"],
                    training["base"]["steps"],
                    training["base"]["tokens"],
                    round(training["base"]["seconds"]),
                    f"loss {training['base']['loss']}",
                ],
                [
                    "rlvr",
                    "base",
                    training["rlvr"]["seed"],
                    training["rlvr"]["steps"],
                    training["rlvr"]["tokens"],
                    round(training["rlvr"]["seconds"]),
                    f"reward {last['reward']}, entropy {last['entropy']}",
                ],
                [
                    "distill",
                    "base",
                    training["distill"]["seed"],
                    training["distill"]["steps"],
                    training["distill"]["tokens"],
                    round(training["distill"]["seconds"]),
                    f"loss {training['distill']['loss']}",
                ],
            ],
        ),
        "Llama, 458,304 parameters: hidden 96, 4 layers, 4 heads, tied embeddings, word-level vocabulary of 157. One thread, bfloat16 autocast in training, float32 in "
        "sampling and scoring. Times are of a shared machine. The same seeds give the same files only on the same kind of processor and the same library versions.",
        f"Pretraining: {PRETRAIN}\n\nCorpus: {CORPUS}\n\nGRPO: {GRPO}\n\nDistillation: {DISTILL}",
        "## Built in",
        built_in,
        "## Came by itself",
        CAME_BY_ITSELF.format(budget=BUDGET),
        "## Measured",
        "pass@k, strict, unbiased, mean over all problems:",
        curves_table(measured, "all"),
        crossing(measured),
        *(text for kind in kinds for text in (f"`{kind}` problems:", curves_table(measured, kind))),
        "Solved at least once, as many draws of the base as of the source:",
        table(
            ["source", "kind", "both", "base only", "source only", "neither"],
            [
                [source, kind, *item["coverage"][kind].values()]
                for source, item in measured.items()
                if item["coverage"]
                for kind in ("all", *kinds)
            ],
        ),
        "Under the base, first 64 responses per problem, `<eos>` included; perplexity per response, quantiles over responses; E is the share of responses that no selection from "
        f"{BUDGET} base draws could make:",
        table(
            [
                "source",
                "q05",
                "q25",
                "median",
                "q75",
                "q95",
                *kinds,
                "correct",
                "wrong",
                "median log p",
                "median least p",
                f"E_{BUDGET}",
            ],
            [
                [
                    source,
                    *item["under_base"]["ppl"].values(),
                    *item["under_base"]["by_kind"].values(),
                    item["under_base"]["correct"],
                    item["under_base"]["wrong"],
                    item["under_base"]["logprob_median"],
                    f"{item['under_base']['least_likely_token_p_median']:.2g}",
                    (item[f"excess@{BUDGET}"] or {}).get("all"),
                ]
                for source, item in measured.items()
            ],
        ),
        "Habits:",
        table(
            [
                "source",
                "chain",
                "step",
                "guess",
                "none",
                "restating",
                "truncated",
                "right answer, wrong steps",
                "tokens",
                "distinct per problem",
            ],
            [
                [
                    source,
                    *(item["habits"]["styles"].get(style, 0.0) for style in ("chain", "step", "guess", "None")),
                    *(
                        item["habits"][key]
                        for key in ("restating", "truncated", "outcome_only", "tokens", "distinct_per_problem")
                    ),
                ]
                for source, item in measured.items()
            ],
        ),
        "GRPO as it went (every tenth step):",
        table(
            ["step", "reward", "entropy", "length", "chain", "restating"],
            [
                [min(10 * i, training["rlvr"]["steps"] - 1) + 1, *entry.values()]
                for i, entry in enumerate(training["rlvr"]["history"])
            ],
        ),
        "## Beside the paper",
        against_paper(measured),
        "## Beside the trial",
        "A trial with other seeds, other problems, and a base without recaps and synonyms came before; nothing was tuned after it but the share of aimed documents, "
        "raised once before this training.",
        against_trial(measured),
        "One training seed and 64 problems: the numbers describe these files. How they vary over training seeds is not known.",
    ]
    return "\n\n".join(parts) + "\n"
