"""Statistics on plain arrays, one small file each; imports numpy and scipy only.

Axis letters: `_N` traces, `_P` problems, `_K` budgets, `_B` bootstrap draws. All logarithms are natural. Nothing here
knows about files, models or sources; the analyses turn these numbers into estimates with notes.
"""
