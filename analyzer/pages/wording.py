"""The fixed texts of the pages: what words, levels and numbers mean, headings, and the glossary of docs/reading.md."""

from __future__ import annotations

from analyzer.records.display import NONE

WORDS = {
    "inside": "at the sequence level: at most the tolerance (.02) of the source's probability mass exceeds k times the "
    "base's, under one of T = 1, the reference's sampler and the source's. It does not say that k draws of the base "
    "show the same texts. At the coarser levels: k draws of the reference contain the like of all traces but the "
    "tolerance, or a finer level is inside. At correct alone: it solves nothing that those draws do not; nothing is "
    "said of the method.",
    "sharpened": "whole traces exceed k times the base's probability, at most 5 % of the traces hold a step that "
    "does, and sampling the base at one lower temperature explains more than half of the KL divergence from it, "
    "and the text is likelier than the base's own; the rest may be anything.",
    "reweighted": "whole traces exceed k times the base's probability, at most 5 % of the traces hold a step that "
    "does, and no temperature explains half of the KL divergence: many small shifts add up. It does not say that "
    "nothing was learned.",
    "outside": "more than 5 % of the traces hold a step more than k times as likely as under the base in every "
    "sampling setting that is tried (T = 1, lower temperatures, both samplers), and whole traces are beyond all of "
    "them (without the source's own probabilities: its surprisal is); at the coarser levels, a kind of solution or "
    "solved problems more than k times as frequent as in the reference's draws.",
    "undetermined": "the data decide neither way. This is not a weaker word for inside.",
}
BOUNDS = (
    "Each verdict rests on one-sided 95 % bounds for the given problems, for its source alone: nothing is corrected "
    "for the number of sources. It rests on the declared models, samplers and prompts."
)
LEVELS = {
    "sequence": "these very tokens",
    "skeleton": "the numbers, symbols and code in their order, without wording",
    "steps": "the kinds of steps in their order",
    "kinds": "which kinds of steps there are",
    "answer": "the answer reached",
    "correct": "whether the problem is solved",
}
REACH = (
    "Beyond k: with p the probability under the base and q that under the source, a trace, step or beginning counts "
    "(1 - k p / q)+, its excess: 0 up to q = k p, near 1 far above. The mean is the source's probability mass beyond k "
    "times the base's (hockey-stick divergence E_k), a lower bound on what the best of k draws of the base, however "
    "chosen, cannot reproduce; the rest may still be missing from k draws. beyond@k is that of whole traces under the "
    "sampling setting (law) named in its note; reach@k the same at T = 1; lost@k the reverse of reach@k. A hurdle is "
    "one token, or four in a row, beyond k in every sampling setting that is tried; hurdle share@k is the share of "
    "traces with one, each step counted by its excess. horizon@k is the number of tokens after which half of the mass "
    "is beyond k. novel@k is the share of traces flagged by the e-value test, which needs no log q."
)
SAID = {"reach": " (at T = 1)", "lost": " (reverse of reach)", "beyond": " (law in its note)"}  # behind a quantity
HEADINGS = {
    "preflight": "Checks before the tests",
    "perplexity": "Likelihood under the base",
    "support": "Support: sequences",
    "contained": "Support: what draws contain",
    "strategy": "Support: kinds of solution",
    "tokens": "Support: tokens",
    "boundary": "pass@k and coverage",
    "reliability": "Reliability and forecast",
    "task_horizon": "Task horizon",
    "chains": "Valid reasoning",
    "handover": "Handover to the base",
    "clusters": "Clusters",
    "paired": "Two sources, problem by problem",
}  # of the sections; an analysis that is not here has its name
SHORT = {
    "Key numbers": "Key",
    "Checks before the tests": "Checks",
    "Likelihood under the base": "Likelihood",
    "Support: sequences": "Sequences",
    "Support: what draws contain": "Contained",
    "Support: kinds of solution": "Kinds",
    "Support: tokens": "Tokens",
    "pass@k and coverage": "pass@k",
    "Reliability and forecast": "Forecast",
    "Handover to the base": "Handover",
    "Two sources, problem by problem": "Pairs",
    "Viewer": "Traces",
    "Compare two sources": "Compare",
    "Tree of prefixes": "Tree",
    "Left out, and why": "Left out",
}  # in the row of links
OVERTURN = {
    "inside": "other problems on which more than the tolerance lies beyond, or a wrong sampler or prompt template",
    "sharpened": "other problems with hurdles, or on which a temperature explains less than half; a wrong model or "
    "sampler of {source}",
    "reweighted": "other problems with hurdles, or on which a temperature explains more than half; a wrong model or "
    "sampler of {source}",
    "outside": "a wrong model, sampler, template or tokenisation of {source} or {reference}, "
    "prompts that asked the two for different work, or an excess that is gone on fresh problems",
    "undetermined": "more problems, more traces for each, or the model that produced {source}",
}
OTHERWISE = (  # at the levels of the method
    "the same written otherwise, in a notation that the rules read as another method; a wrong model, sampler, template "
    "or limit of {source} or {reference}; or an excess that is gone on fresh problems"
)
BRACKETS = (
    "Brackets hold 95 % intervals by problem, for problems such as these, unless the estimate's method says otherwise. "
    "The verdicts rest on bounds for the given problems alone (table evidence of the sequences), mostly narrower. "
    f"{NONE} means no value."
)
GLOSSARY = {  # that of docs/reading.md; what a table names is explained on hover
    "source, reference": "a set of outputs that is judged; the one it is compared with (the base's own outputs)",
    "trace, draw": "one response, token by token; a draw is a response as a sample of its model",
    "budget k": "how many draws of the base the source is compared with",
    "beyond k, excess": 'a trace or step counts (1 - k p/q)+: 0 up to q = k p, near 1 far above it. "Beyond k '
    'draws" is short for this',
    "E_k": "mean excess, the hockey-stick divergence: probability mass of the source beyond k p; a lower bound on"
    " what the best of k draws of the base, however chosen, cannot reproduce",
    "law": "the base under one sampling setting: T = 1, a lower temperature, the reference's sampler, the "
    "source's sampler",
    "reach@k": "E_k of whole traces at T = 1",
    "beyond@k": "E_k of whole traces under that of T = 1, the reference's and the source's sampler which leaves "
    "least; often T = 1, and then equal to reach@k",
    "lost@k": "the reverse of reach@k: mass of the reference's traces beyond k times their probability under the "
    "source's model",
    "hurdle": "one token, or four in a row, beyond k under every law that is tried",
    "hurdle share@k": "share of traces with a hurdle, each step counted by its excess",
    "prefix curve, horizon@k": "E_k of the first w tokens, the likeliest law counting; the w at which it passes "
    "one half",
    "temperature share (s)": "share of the KL divergence KL(Q‖P) that the best single temperature up to 1 explains",
    "surprisal, entropy": "-log p of a token, in nats; its expectation under the base at that place",
    "excess surprisal z": "sum of surprisal less entropy, over its standard deviation: about N(0, 1) for the "
    "base's own traces at T = 1",
    "novel@k": "share of traces flagged by the e-value test (their surprisal; without log q also the words that the "
    "source uses on other problems); needs the base alone",
    "novel_mass@k": "probability mass beyond k times the base's, at least: by the sizes of the e-values",
    "e-value": "a number whose mean is at most 1 if the trace came from the base; large is evidence against it, "
    'and k/e is a p-value for "within k"',
    "level": "what is compared: sequence, skeleton, steps, kinds, answer, correct",
    "skeleton, steps, kinds": "numbers, symbols and code in order; kinds of steps in order; the set of kinds",
    "contained@k": "chance that k draws of the reference on the same problem hold a trace of the same class",
    "pass@k": "chance that one of k draws is correct (Chen et al. 2021)",
    "pass^k, G-Pass@k, mG-Pass@k": "chance that all of k draws are correct; that a share tau of them is (gpass50, "
    "gpass75); its mean over tau from 1/2 on",
    "handover_start, handover_half, handover_entrance, handover_cliff": "success of the base from the prompts of the "
    "source's correct traces alone; the share of the steps from which on it has half of the success of the source's "
    "own model; the part of the gain that the first steps bring; where its success rises more than on its own correct "
    "traces, if that is certified",
    "task_horizon@k": "difficulty at which pass@k is one half; task_horizon_ratio@k: divided by the reference's",
    "valid_share, CoT-Pass@k (cot_pass@k)": "share of correct traces whose reasoning is valid, as a judge or a person "
    "says; chance that one of k draws is correct and its reasoning valid (Wen et al. 2506.14245)",
    "forecast@k": "what k draws on these problems would show of pass@k, beyond the draws at hand; it stands on a form",
    "srr, ndr, sds, nscr": "support retention rate, net discovery rate, support dynamic score, net support change"
    " rate (Wu et al. 2507.14843)",
    "delta_se": "the reference's pass@256 (or the largest k) less the source's pass@1",
    "preflight, gate": "checks before the tests; a gate is a check that forbids a verdict when it fails",
    "A/A": "half of the reference's traces tested as if it were a source",
    "engine floor, k_min": "smallest budget that differences between generating and scoring engine leave",
    "Holm": "correction of p-values for the number of levels tested; not for the number of sources",
    "for the given problems": "bounds that count traces as the sample, problems as fixed; the verdicts rest on them",
    "for problems such as these, by problem": "intervals that count problems as the sample; brackets and bands",
    "Clopper-Pearson, Gaffke, Stringer": "bounds of a share, and of a mean of values in [0, 1], without a normal "
    "approximation",
}
ABOUT = {name.partition("@")[0]: meaning for term, meaning in GLOSSARY.items() for name in term.split(", ")}
CELLS = (
    "In the csv files, text that a spreadsheet would compute (it begins with =, +, - or @ and is no number) has an "
    "apostrophe before it, and control characters are written out; results.json holds all text as it is."
)
