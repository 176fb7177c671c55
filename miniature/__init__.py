"""The miniature world: tiny causal LMs that are really trained, and dumps sampled from them whose truth is known.

domain (problems, exhaustive search) -> traces (chains in words), backward (the plan wording), rewrites -> verifier;
tokenizer; train, grpo (the models); sample, dump (responses); truths (what is known by the making); measure, card (what
came out); build (all of it, `python -m miniature build`). grid, second_models and second are a second world
(`build --world second`), on which no threshold is set. Importing this package, or anything in the first line, loads no
torch.
"""
