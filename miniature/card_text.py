"""The fixed text of the data card; `card` fills in the numbers."""

CARD = """\
# The miniature: data card

Written by `python -m miniature build` from the files beside it; do not edit. Small causal LMs, really trained, and
dumps sampled from them. The task is left-to-right Countdown: use every number once, keep every value in 1..99, reach
the goal.

## What is here

{files}

{counts}.
`correct` is the strict verdict (every step), `meta.outcome` the looser one (the final expression).
`response_logprobs` (samples 0..63) are log p at T = 1 over the full vocabulary, in nats, of the model that wrote the
row; so they are for `cool` and `cold` too, whose draws are tempered. Where log q is not known (best-of-16, the
restyled ones, padded, teacher) there are none, and no sampler. `truths.json` says of each source how it was made and
which verdict words are right at budget {budget}, by level.

Kinds, certified by exhaustive search over all chains: `reachable` with + and -, `rare` only with a division more,
`impossible` only with a multiplication more (and not with + - /). `problems.json` has the number of solutions.

## Recipe

{training}

All others start from base. `models/rlvr-step100`, which writes rlvr-early, is the run of rlvr after step 100.
Tokens are those trained on (GRPO: those sampled).

Llama, 458,304 parameters: hidden 96, 4 layers, 4 heads, tied embeddings, 157 words. One thread; bfloat16 autocast in
training, float32 in sampling and scoring. Times are of a shared machine. The same seeds give the same files only on
the same kind of processor with the same library versions.

    pretraining   {pretrain}
    corpus        {corpus}
    GRPO          {grpo}
    distillation  {distill}
    rlvr-unfaithful: GRPO but for {unfaithful}
    distill-plan: distillation but for {plan_steps} steps

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
  word with probability {other}; {mixed:.0%} of the documents draw again at every place.
- GRPO is paid by the strict verifier: a trace earns only when every step is right and is the answer's.
- The distilled model's teacher never fails: more supervision than GRPO gets. The two are not matched for compute.
- The evaluation problems, in any order of their numbers, are kept out of GRPO and distillation. They are not kept out
  of pretraining, whose documents are random: a small set of numbers and its goal can recur there.

Sources that are made, not only drawn (each from fresh draws under its own seed, shared with no other source):

- best-of-16: {of} draws of the base per kept response; a random one of the strictly correct, else a random one of all.
- restyle-known: draws of the base; opener and every word pair drawn again by the law of pretraining (opener with
  probability {opening}, the words as above). In the corpus these choices are independent of everything else, so the
  rewording leaves its distribution as it is and cannot lead out of it. The base keeps to that law only as well as it
  learned it.
- restyle-foreign: draws of the base; openers and step words replaced, word for word, by words that stand in no
  document but `note`:
  {foreign}.
  Numbers, operators, formulas, `add`, `subtract`, `answer` and the order stay.
- padded: draws of rlvr with a recap put in at every place where the corpus may have one (the numbers before the first
  step, each step after it was made), in the corpus's words. Of the restating documents of pretraining about 1 in 30
  (three steps) or 1 in 80 (four) has them all.
- rlvr-unfaithful: GRPO paid by the final expression alone. That its steps go wrong is what the reward permits; how
  they do came by itself.
- distill-plan: the solver in a backward wording that no solution of pretraining has (`plan need .. undo .. check ..`);
  {retrying:.0%} of its lessons hold one failed attempt. Responses of up to {plan_tokens} tokens.

A rewritten response whose verdict changed would have stopped the build.

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
responses that no selection from {budget} draws of the base could make; q under the source's own sampler (computed for
cool and cold), p at T = 1. A dash: log q is not known.

{surprise}

Perplexity under the base by style (medians), and E_{budget} by kind:

{by_style}

Habits (shares of responses; tokens is a mean, distinct texts a mean per problem):

{habits}

GRPO as it went (rlvr):

{history}

rlvr-unfaithful, whose reward is the outcome:

{history_unfaithful}

## Beside the paper

{paper}

## Beside the trial

A trial with other seeds, other problems, and a base without recaps and synonyms came before. One thing was changed
after it, before this training: a few more documents are aimed (chain .30 to .40, step .45 to .50, guess .10 to .12).

{trial}

One training seed and {problems} problems: the numbers describe these files. How they vary over training seeds is not
known.
"""
