"""What `--dry-run` found, as text for a terminal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import analyzer
from analyzer.cli.progress import Progress, put
from analyzer.records.display import counted, one_line, size, span
from analyzer.records.steps import names


def planned(a: argparse.Namespace, asked: dict[str, tuple[list[str], str, dict[str, Any]]]) -> int:
    """Print what scoring would cost; asked: name -> dumps or a run, folder of the run, options."""
    found = {}
    for name, (dumps, folder, options) in asked.items():
        known = {k: v for k, v in options.items() if k in names("estimate")}
        with Progress() as show:
            found[name] = analyzer.estimate(dumps, path=folder, **show.callbacks(), **known)
    several = len(found) > 1
    if a.json:
        put(json.dumps(found if several else next(iter(found.values()))))
    else:
        heads = [f"{one_line(name)}: " if several else "" for name in found]
        put("\n\n".join(head + plan_text(plan) for head, plan in zip(heads, found.values(), strict=True)))
    return 0


def plan_text(plan: Mapping[str, Any]) -> str:
    """The plan as text for a terminal."""
    head = f"{counted(plan['traces_to_score'], 'trace')} to score under {counted(len(plan['models']), 'model')}"
    if plan["traces_scored"]:
        head += f"; {plan['traces_scored']:,} are scored already"
    if plan["traces_over_the_limit"]:
        head += f"; {plan['traces_over_the_limit']:,} beyond --score-at-most"
    lines = [head]
    for label, m in plan["models"].items():
        lines += _lines(label, m)
    device = f" and {size(plan['device_bytes'])} on the device" if plan["device_bytes"] else ""
    lines.append(
        f"In all: about {span(plan['seconds'])}, {size(plan['disk_bytes'])} on disk, "
        f"{size(plan['peak_bytes'])} of memory at the peak{device}. Tokens are exact, the rest are estimates; "
        "nothing was written."
    )
    if plan["devices"] > 1:
        lines.append(f"Of one of {plan['devices']} processes: together they take that much memory each, and less time.")
    return "\n".join(map(one_line, lines))


def _lines(label: str, m: Mapping[str, Any]) -> list[str]:
    memory, length, probe = m["memory"], m["length"], m["probe"]
    out = [f"{label} = {m['name']}: {counted(m['traces'], 'trace')}"]
    if m["empty"]:
        out[0] += f" ({m['empty']:,} empty ones are left out)"
    if m["traces"]:
        out += [
            f"  tokens: {m['prompt_tokens']:,} of prompts, {m['response_tokens']:,} of responses; "
            f"{m['computed_tokens']:,} computed after what is shared"
            + ("" if m["pass"] == label else f" (the same weights as {m['pass']}: one pass)"),
            f"  length: median {length['median']:,}, 95 % {length['q95']:,}, longest {length['longest']:,} "
            f"({length['trace']}), context {m['context'] or 'unknown'}",
        ]
    if m["traces"] and "weights_bytes" not in memory:
        out.append("  memory, time and disk: the server's")
    elif m["traces"]:
        cut = f", {probe['cut']} cut: attention over long traces is not in it" if probe["cut"] else ""
        out += [
            f"  memory: {size(memory['peak_bytes'])} at the peak, of which weights {size(memory['weights_bytes'])} "
            f"({m['dtype']}), logits and head {size(memory['head_bytes'])}, activations of a pass "
            f"{size(memory['activation_bytes'])}, kept keys and values {size(memory['kept_bytes'])}, rows on their way "
            f"to disk {size(memory['rows_bytes'])}; the rest is libraries, texts and ids"
            + (f"; on {m['device']} {size(memory['device_bytes'])}" if memory["device_bytes"] else ""),
            f"  time: about {span(m['seconds'])} (path {m['path']}; sample: {counted(probe['tokens'], 'token')} of "
            f"{counted(probe['traces'], 'trace')} in {span(probe['seconds'])}{cut})",
        ]
    if m["overlong"]:
        out.append(f"  {m['overlong']:,} longer than the context: refused unless --on-overlong skip or window")
    return out
