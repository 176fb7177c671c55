"""On which problems sources are set side by side: chosen once, for every table and figure that puts them in a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

COMMON, PAIR, OWN = "common", "pair", "own"


class Basis(NamedTuple):
    """problems: source -> those it is compared on. kind: source -> COMMON (the problems of all that are compared), PAIR
    (those it shares with the reference, where no problem is in all), OWN (it shares none with the reference)."""

    problems: dict[str, set[str]]
    kind: dict[str, str]


def choose(problems: Mapping[str, Collection[str]], reference: str) -> Basis:
    """The basis of sources with these problems; a source without any plays no part and is compared on none.

    A source without a problem of the reference stays out of the others' basis. Where no problem is in all that are
    left, each is compared on those it shares with the reference, and the reference on all that any of them shares.
    Without a reference among them the common problems are those of all.
    """
    own = {s: set(p) for s, p in problems.items()}
    base = own.get(reference) or set()
    joined = [s for s, p in own.items() if p and (not base or p & base)]
    if base and joined == [reference] and sum(map(bool, own.values())) > 1:  # nothing shares a problem with it
        joined = []
    common = set.intersection(*(own[s] for s in joined)) if joined else set()
    found, kind = {}, {}
    for s, p in own.items():
        if s not in joined:
            found[s], kind[s] = p, OWN if p else COMMON
        elif common:
            found[s], kind[s] = common, COMMON
        else:
            shared = set().union(*(own[o] for o in joined if o != s)) if s == reference or not base else base
            found[s], kind[s] = p & shared, PAIR
    return Basis(found, kind)


def named(kind: Mapping[str, str], reference: str) -> dict[str, str]:
    """What figures call the sources that do not stand on the same problems as the others: it says on which."""
    pair = {s: f"those shared with {'any' if s == reference else reference}" for s in kind}
    return {s: f"{s} on {'its own problems' if k == OWN else pair[s]}" for s, k in kind.items() if k != COMMON}
