"""The miniature world: tiny causal LMs that are really trained, and dumps sampled from them whose truth is known.

domain (problems, exhaustive search) -> traces (chains in words) -> verifier; tokenizer; train, grpo (the models);
sample, dump (responses); measure, card (what came out); build (all of it, `python -m analyzer.lab build`).
Importing this package, or anything in the first line, loads no torch.
"""
