"""The laws that a trace is held against: the source's own, and the base's in every way that it could have been sampled.

The base at T = 1, at lower temperatures, as the reference was sampled, as the source was sampled. They come from the
columns of two scorers, or from the numbers that rows bring with them (`Tables.numbers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.support import brought, membership, prompts
from analyzer.records import POWER_COLUMNS, Sampler, Tables

PLAIN = "T=1"
REFERENCE = "as the reference was sampled"
SOURCE = "as the source was sampled"
HELD = 1 << 28  # tokens of the sources' own log-probs that are held at once (1 GiB)
BATCH = 4096  # traces that are measured at once


class Part(NamedTuple):
    """Traces of one source, tokens end to end. token_T int32; q_T, laws float32 nats; `ended_N`: the last token is an
    end token. position_T: where each token stands in its response, int32 [T]; None where no token is left out."""

    source: str
    key_N: np.ndarray
    problem_N: np.ndarray
    lengths_N: np.ndarray
    ended_N: np.ndarray
    token_T: np.ndarray
    q_T: np.ndarray
    laws: dict[str, np.ndarray]
    position_T: np.ndarray | None = None


class Known(NamedTuple):
    """What is known of a source's own law. reason: why it is not, or "". brought: the rows themselves hold it. needs:
    what would make it known where they don't."""

    reason: str
    model: str | None = None
    brought: bool = False
    needs: str = ""


def temperature(exponent: float) -> str:
    """The name of the law whose log-probs are `exponent` times those at T = 1, less a constant."""
    return f"T={1 / exponent:.6g}"


def exponent(name: str) -> float:
    """1 / T of a temperature's name; 0 for a law that is no temperature."""
    return 1 / float(name[2:]) if name.startswith("T=") else 0.0


def same_weights(tables: Tables, source: str) -> bool:
    """Whether the model that produced the source is the base itself, so that only samplers can differ. Asked under
    another prompt, the same weights are another law."""
    model = tables.policies.get(source)
    if model is None or tables.base is None or source in prompts.moved(tables):
        return False
    one, two = (tables.engines.get(m, {}).get("fingerprint") for m in (model, tables.base))
    return model == tables.base or (one is not None and one == two)


def known(tables: Tables) -> dict[str, Known]:
    """Source -> whether its own law is known, of all sources."""
    out = {}
    told, declared = _brought(tables), samplers(tables)
    for source in tables.sources:
        model, sampler = tables.policies.get(source), declared.get(source)
        if source in told:
            why, needs = brought.why_not(told[source], sampler, source)
            if not why and not any(name in counted(tables, source) for name in of_rows(tables, source)):
                why, needs = _no_law(tables, source)
            out[source] = Known(why, None, True, needs)
        elif model is None:
            out[source] = Known(f"the model that produced {source} is not known; give --policy {source}=MODEL")
        elif sampler is None:
            out[source] = Known(membership.unknown(source))
        else:
            out[source] = Known("", model)
    return out


def samplers(tables: Tables) -> dict[str, Sampler]:
    """Source -> its sampler: the declared one; without one, of rows that bring their own numbers, the temperature
    recorded for their log-probs (`assumed`, which the report says)."""
    return assumed(tables) | tables.samplers


def assumed(tables: Tables) -> dict[str, Sampler]:
    """Source -> the sampler that is taken for it, of the sources that bring their own numbers and say nothing about
    how they were drawn. (Where a row says anything that can't be used, nothing is assumed in its place.)"""
    out = {}
    for source, told in (_unscored(tables, brought.said_of_policies(tables)) | _brought(tables)).items():
        (t,) = told.temperatures if len(told.temperatures) == 1 else (None,)
        if source not in tables.samplers and t is not None and told.stated == {""}:
            out[source] = Sampler(t)
    return out


def _brought(tables: Tables) -> dict[str, brought.Said]:
    """Source -> what its rows say, of the sources whose rows bring both log-probs."""
    return _unscored(tables, brought.said(tables))


def _unscored(tables: Tables, found: dict[str, brought.Said]) -> dict[str, brought.Said]:
    """Without the sources that were scored as well: a model knows more."""
    return {s: told for s, told in found.items() if tables.policies.get(s) is None or tables.base is None}


def of_rows(tables: Tables, source: str) -> dict[str, float]:
    """Name -> temperature of the laws that every row of a source brings. One above 1 is a law only as somebody's
    sampler."""
    told, declared = brought.said(tables)[source], samplers(tables)
    shared = sorted((t for t, n in told.laws.items() if n == told.rows), reverse=True)
    out = {f"T={t:.6g}": t for t in shared if t <= 1}
    for label, name in ((tables.reference, REFERENCE), (source, SOURCE)):
        sampler = declared.get(label)
        if sampler is None or sampler.is_plain or sampler != Sampler(sampler.temperature):
            continue
        if (t := brought.near(sampler.temperature, shared)) is not None:
            out[name] = t
    return out


def missing_needs(tables: Tables, missing: Iterable[str]) -> str:
    """What rows that bring their numbers would have to bring for these laws; a truncated law they can't bring."""
    declared = samplers(tables)
    cut = [s for s in missing if s != PLAIN and any(x != Sampler(x.temperature) for x in declared.values())]
    if cut:
        return (
            f"--base MODEL and --policy LABEL=MODEL: the law {' and '.join(cut)} cuts tokens off, and base_logprobs "
            "are by temperature alone; or a reference and a source drawn without truncation"
        )
    ways = " and ".join(f"at {name}" if name == PLAIN else name for name in missing)
    return f"log-probs under the base {ways}: base_logprobs at that temperature in every row"


def _no_law(tables: Tables, source: str) -> tuple[str, str]:
    """Why the rows of a source hold no law that counts, and what would mend it."""
    told = brought.said(tables)[source]
    ways = " or ".join(f"at {name}" if name == PLAIN else name for name in counted(tables, source))
    held = ", ".join(f"T={t:g}" for t in sorted(told.laws))
    why = f"log-probs under the base are not known {ways} ({source} has them at {held})"
    why += f"; {short}" if (short := brought.lacking(told)) else ""
    return why, "base_logprobs at T=1, and at T=.8, .6, .4 and .2, in every row"


def counted(tables: Tables, source: str) -> list[str]:
    """The laws under which a source may be called inside: T = 1, as the reference was sampled, as the source was.

    A sampler that cuts nothing off at T = 1 is no further law, nor is one that both share. Where the source is the
    base's own weights, its own sampler is left out: it would be held against itself.
    """
    declared = samplers(tables)
    there = declared.get(tables.reference)
    out = [PLAIN]
    if there is not None and not there.is_plain:
        out.append(REFERENCE)
    if _other_sampler(declared, tables.reference, source) and not same_weights(tables, source):
        out.append(SOURCE)
    return out


def _other_sampler(declared: Mapping[str, Sampler], reference: str, source: str) -> bool:
    """Whether a source has a sampler that shapes its law and is not the reference's."""
    here = declared.get(source)
    return here is not None and not here.is_plain and here != declared.get(reference)


def parts(tables: Tables) -> Iterator[Part]:
    """All traces whose own law is known, a few thousand of one source at a time; the reference's among them, unless
    it is the only such source."""
    sources = {s: k for s, k in known(tables).items() if not k.reason}
    if not set(sources) - {tables.reference}:
        return
    if any(k.brought for k in sources.values()):
        yield from _parts_of_rows(tables, {s for s, k in sources.items() if k.brought})
    scored = {s: k.model for s, k in sources.items() if not k.brought}
    if tables.base is not None and scored:
        yield from _of_scores(tables, scored)


def _of_scores(tables: Tables, models: dict[str, str]) -> Iterator[Part]:
    """Parts from the columns of the base and of each source's own scorer; models: source -> scorer label."""
    scores = last_steps(tables.scores)
    base = scores[scores["model"] == tables.base]
    lengths = dict(zip(base["key"], base["n_tokens"], strict=True))
    ends = set(tables.engines.get(tables.base, {}).get("eos_ids") or ())
    # keys in portions, so that what is held of the sources' own log-probs stays bounded
    portions: list[dict[str, str]] = [{}]
    held = 0
    for source, model in models.items():
        rows = scores[(scores["model"] == model) & (scores["source"] == source)]
        for key, n in zip(rows["key"], rows["n_tokens"], strict=True):
            if not n or lengths.get(key) != n:
                continue
            if model != tables.base and held + n > HELD:
                portions.append({})
                held = 0
            held += n if model != tables.base else 0
            portions[-1][key] = model
    powers = [a for a in tables.engines.get(tables.base, {}).get("powers") or () if f"power_{a:g}" in POWER_COLUMNS]
    partly = _partly(tables, powers) if any(portions) else set()
    for owner in portions:
        if owner:
            yield from _portion(tables, owner, ends, powers, partly)


def _portion(
    tables: Tables, owner: dict[str, str], ends: set[int], powers: list[float], partly: set[str]
) -> Iterator[Part]:
    """Part by part, of the traces of `owner`; partly: sources without the powers."""
    own: dict[str, np.ndarray] = {}
    for model in dict.fromkeys(m for m in owner.values() if m != tables.base):
        mine = {key for key, m in owner.items() if m == model}
        sampler = next(tables.samplers[s] for s, m in tables.policies.items() if m == model)
        name = "logprob" if sampler.is_plain else "logprob_s"  # a server tells the first alone
        for frame in tables.tokens(model, [name]):
            frame = frame[among(frame["key"], mine)]
            for key, values in zip(frame["key"], frame[name], strict=True):
                if values is not None:
                    own[key] = np.array(values, np.float32)  # a view would keep the whole part
    there = tables.samplers.get(tables.reference)
    columns = ["token", "logprob", *(f"power_{a:g}" for a in powers)]
    if there is not None and not there.is_plain:
        columns.append("logprob_s")
    if any(_other_sampler(tables.samplers, tables.reference, s) for s in tables.sources):
        columns.append("logprob_source")
    for whole in tables.tokens(tables.base, columns):
        whole = whole[among(whole["key"], owner)]
        for source, rows in whole.groupby("source", sort=False):
            for at in range(0, len(rows), BATCH):
                known = [] if source in partly else powers
                part = _joined(tables, str(source), rows.iloc[at : at + BATCH], owner, own, known, ends)
                if part is not None:
                    yield part


def _partly(tables: Tables, powers: list[float]) -> set[str]:
    """Sources that have the powers in some of their traces alone, as where a policy was named only when the scoring was
    taken up again: a law of a part of a source is none of the source."""
    if not powers:
        return set()
    name = f"power_{powers[0]:g}"
    known: dict[str, set[bool]] = {}
    for frame in tables.tokens(tables.base or "", [name]):
        for source, has in frame[name].notna().groupby(frame["source"]):
            known.setdefault(str(source), set()).update(has.unique())
    return {source for source, found in known.items() if len(found) > 1}


def _joined(
    tables: Tables,
    source: str,
    rows: pd.DataFrame,
    owner: dict[str, str],
    own: dict[str, np.ndarray],
    powers: list[float],
    ends: set[int],
) -> Part | None:
    """One Part: the base's columns beside the source's own log-probs."""
    keys = rows["key"].tolist()
    there = tables.samplers.get(tables.reference)
    if owner[keys[0]] == tables.base:  # the source is the base itself, with the reference's sampler
        name = "logprob_s" if there is not None and not there.is_plain else "logprob"
        q = [None if v is None else np.asarray(v) for v in rows[name]]
    else:
        q = [own.get(key) for key in keys]
    kept = [i for i, v in enumerate(q) if v is not None and len(v) == len(rows["token"].iloc[i]) > 0]
    if not kept:
        return None
    rows, q = rows.iloc[kept], [q[i] for i in kept]
    lengths_N = np.array([len(v) for v in q], np.int64)
    token_T = np.concatenate(rows["token"].tolist())
    plain_T = _flat(rows["logprob"], lengths_N)
    laws = {PLAIN: plain_T}
    for a in powers:
        laws[temperature(a)] = np.float32(a) * plain_T - _flat(rows[f"power_{a:g}"], lengths_N)
    if "logprob_s" in rows:
        laws[REFERENCE] = _flat(rows["logprob_s"], lengths_N)
    if "logprob_source" in rows and _other_sampler(tables.samplers, tables.reference, source):
        laws[SOURCE] = _flat(rows["logprob_source"], lengths_N)
    laws = {name: p_T for name, p_T in laws.items() if name == PLAIN or not np.isnan(p_T).any()}
    last = lengths_N.cumsum() - 1
    ended_N = np.isin(token_T[last], list(ends)) if ends else np.zeros(len(kept), bool)
    key_N, problem_N = rows["key"].to_numpy(object), rows["problem"].to_numpy(object)
    return Part(source, key_N, problem_N, lengths_N, ended_N, token_T, np.concatenate(q).astype(np.float32), laws)


def _flat(column: pd.Series, lengths_N: np.ndarray) -> np.ndarray:
    """Lists end to end, float32; NaN where a trace has none."""
    arrays = [np.full(n, np.nan, np.float32) if v is None else v for v, n in zip(column, lengths_N, strict=True)]
    return np.concatenate(arrays).astype(np.float32, copy=False)


def _parts_of_rows(tables: Tables, sources: set[str]) -> Iterator[Part]:
    """Parts from the numbers that rows bring; a temperature that some trace of a source lacks is no law of it. Tokens
    that the policy did not write are left out, and traces without any other."""
    found = brought.ends(tables)
    keys = set(last_steps(tables.traces)["key"])
    for frame in tables.numbers():
        frame = frame[among(frame["key"], keys)]
        for source, rows in frame[frame["source"].isin(sources)].groupby("source", sort=False):
            names = of_rows(tables, str(source))
            masks = [np.ones(len(t), bool) if w is None else w
                     for t, w in zip(rows["token"], rows["written"], strict=True)]  # fmt: skip
            some = [bool(w.any()) for w in masks]
            rows, masks = rows[some], [w for w in masks if w.any()]
            if not len(rows):
                continue
            own_T = np.concatenate(masks)
            lengths_N = np.array([w.sum() for w in masks], np.int64)
            last = lengths_N.cumsum() - 1

            def flat(values: Iterable[np.ndarray], own_T: np.ndarray = own_T) -> np.ndarray:
                return np.concatenate(list(values))[own_T]

            laws = {name: flat(r[t] for r in rows["laws"]).astype(np.float32) for name, t in names.items()}
            token_T, q_T = flat(rows["token"]), flat(rows["logprob_q"]).astype(np.float32)
            ended_N = brought.ended(token_T[last], rows["finish"].to_numpy(object), found)
            position_T = None if own_T.all() else flat(np.arange(len(w), dtype=np.int32) for w in masks)
            key_N, problem_N = rows["key"].to_numpy(object), rows["problem"].to_numpy(object)
            yield Part(str(source), key_N, problem_N, lengths_N, ended_N, token_T, q_T, laws, position_T)
