"""The exact worlds of `validation.bigram`: laws, draws and columns by definition, and as models all the way."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.data.tables import build
from analyzer.analysis.preflight import run as preflight
from analyzer.analysis.support import local
from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.api import pipeline
from analyzer.cli.main import main
from analyzer.records import POWERS, Sampler, Tables
from analyzer.runs.store import Run
from validation import bigram as B

V, K = 32, 64
WARM = Sampler(0.6, 0.95)


def test_a_law_has_the_entropy_and_the_stop_that_were_asked_for():
    for nats, stop in ((0.3, 0.0), (1.5, 0.02), (2.5, 0.1)):
        law = B.law(np.random.default_rng(0), V, nats, stop=stop)
        p = np.exp(law)
        assert np.allclose(p.sum(1), 1) and np.allclose(p[:, -1], stop)
        body = p[:, :-1] / (1 - stop)
        assert -(body * np.log(np.maximum(body, 1e-300))).sum(1).mean() == pytest.approx(nats, abs=1e-3)


@pytest.mark.parametrize("sampler", [Sampler(0.5), Sampler(1, 0.8), Sampler(1, 1, 5), Sampler(1, 1, 0, 0.2), WARM])
def test_a_sampled_law_is_the_scorers_definition(sampler):
    """The support and the log-probs of `scoring.columns`, which the scoring paths are compared with."""
    torch = pytest.importorskip("torch")
    from analyzer.scoring import columns

    law = B.law(np.random.default_rng(1), V, 1.5, stop=0.02)
    got = B.sampled(law, sampler)
    logits = torch.from_numpy(law).float()
    for token in range(V):
        want = columns.sampler_columns(logits, torch.full((V,), token), sampler)["logprob_s"].numpy()
        assert np.array_equal(np.isfinite(want), np.isfinite(got[:, token]))
        np.testing.assert_allclose(np.maximum(want, -99), np.maximum(got[:, token], -99), atol=2e-5)


def test_the_chance_of_a_mixture_is_that_of_its_components():
    """The product of the next-token chances is the mean of the products; a script is certain where it stands."""
    rng = np.random.default_rng(2)
    a, b = B.law(rng, V, 1.0, stop=0.02), B.law(rng, V, 2.0, stop=0.02)
    parts = [B.Component(1, a), B.Component(3, b, {2: 7})]
    d = B.draw(rng, parts, 6, 5, 12)
    for i in range(len(d.length)):
        token = d.tokens[i, : d.length[i]]
        before = np.r_[d.start[i], token[:-1]]
        one, two = a[before, token].sum(), b[before, token]
        two = np.where(np.arange(len(token)) == 2, np.where(token == 7, 0.0, -np.inf), two).sum()
        assert d.log_q[i].sum() == pytest.approx(np.logaddexp(np.log(0.25) + one, np.log(0.75) + two))
    assert (d.log_q[d.tokens < 0] == 0).all() and (d.ended == (d.tokens[np.arange(30), d.length - 1] == V - 1)).all()
    assert (d.tokens[(d.component == 1) & (d.length > 2), 2] == 7).all()
    assert (d.problem == np.repeat(np.arange(6), 5)).all()


def test_draws_have_the_chances_of_the_law():
    """Transitions of 8,400 tokens against the law: Pearson's chi-square of the frequent cells, false alarm 1e-4."""
    from scipy.stats import chi2

    law = B.law(np.random.default_rng(3), 8, 1.2)
    d = B.draw(np.random.default_rng(4), [B.Component(1, law)], 7, 20, 60)
    before = np.concatenate([d.start[:, None], d.tokens[:, :-1]], 1)
    seen = np.zeros((8, 8))
    np.add.at(seen, (before.ravel(), d.tokens.ravel()), 1)
    expected = np.exp(law) * seen.sum(1, keepdims=True)
    cells = expected >= 10
    stat = ((seen - expected)[cells] ** 2 / expected[cells]).sum()
    assert stat < chi2.isf(1e-4, cells.sum())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Draws of a base at T = .6/.95 and of another law at T = 1, both as checkpoints, scored; and the exact tables."""
    folder = tmp_path_factory.mktemp("bigram")
    rng = np.random.default_rng(0)
    base = B.law(rng, V, 1.2, stop=0.002)
    other = B.normalised(base + 0.4 * rng.normal(size=base.shape))
    made = {
        "base": B.Made(B.draw(rng, [B.Component(1, B.sampled(base, WARM))], 4, 4, 340), WARM),
        "rl": B.Made(B.draw(rng, [B.Component(1, other)], 4, 4, 340), law_VV=other),
    }
    cooler = B.draw(rng, [B.Component(1, B.sampled(base, Sampler(0.8)))], 4, 4, 340)
    made["cool"] = B.Made(cooler, Sampler(0.8), True, {}, base)
    models = {name: str(B.checkpoint(folder / name, law)) for name, law in (("base", base), ("rl", other))}
    paths = []
    for source, m in made.items():
        path = folder / f"{source}.jsonl"
        path.write_text("\n".join(B.rows(source, m)) + "\n")
        paths.append(str(path))
    how = ["--base", models["base"], "--policy", f"rl={models['rl']}", "--policy", f"cool={models['base']}"]
    assert main(["score", *paths, *how, "-o", str(folder / "run")]) in (0, None)
    return B.tables(base, made, reference_sampler=WARM), Run.open(folder / "run"), folder


def keys(exact: Tables, scored: Tables) -> dict[str, str]:
    """Key in the exact tables -> key in the run, where a problem is named by its prompt."""
    parts = [pd.concat(list(x.tokens("base", ["token"])))[["key", "source", "token"]] for x in (exact, scored)]
    mine, theirs = ({(source, ids.tobytes()): key for key, source, ids in part.to_numpy()} for part in parts)
    assert mine.keys() == theirs.keys() and len(mine) == len(exact.traces)
    return {mine[token]: theirs[token] for token in mine}


def test_scoring_the_checkpoints_gives_the_exact_log_probs(pair):
    exact, run, _ = pair
    scored = build(run)
    same = keys(exact, scored)
    assert (exact.scores.groupby("source")["n_tokens"].max() >= 300).all()
    assert set(scored.scores["model"]) == set(exact.scores["model"]) and scored.policies == exact.policies
    for model in exact.engines:
        columns = ["token", "logprob", "logprob_s", "entropy", "rank"]
        columns += [f"power_{a:g}" for a in POWERS] + ["logprob_source"] if model == "base" else []
        mine, theirs = (pd.concat(list(t.tokens(model, columns))).set_index("key") for t in (exact, scored))
        for source in set(mine["source"]):
            for key in mine.index[mine["source"] == source]:
                for name in columns:
                    a, b = mine.at[key, name], theirs.at[same[key], name]
                    if a is None or b is None:  # what is no further law: a plain sampler's, that of the reference
                        continue
                    if name in ("token", "rank"):
                        assert np.array_equal(a, b), (model, key, name)
                    else:
                        np.testing.assert_allclose(b, a, atol=1e-5, rtol=1e-5, err_msg=f"{model} {key} {name}")
    engine = run.manifest["scorers"]["base"]
    assert engine["eos_ids"] == [V - 1] and engine["powers"] == list(POWERS)


def known(result) -> dict:
    """The estimates that the exact tables know: they hold no scores of the reference under the policies."""
    return {key: e for key, e in result.estimates.items() if ".lost@" not in key}


def test_the_evidence_of_the_scored_run_is_that_of_the_exact_tables(pair):
    exact, run, _ = pair
    scored = build(run)
    a, b = (support.run(t, budget=K, draws=50) for t in (exact, scored))
    one, two = (r.tables["evidence"].set_index("source") for r in (a, b))
    assert list(one.index) == list(two.index) == ["rl", "cool"]
    names = ["inside_value", "inside_high", "beyond_low", "every_value", "every_low", "share1", "share4", "hurdles1"]
    names += ["hurdles4", "share_high", "share_low", "kl", "s", "s_low", "left", "drop", "end_value", "body_value"]
    for name in names:
        got, want = (t[name].to_numpy(float) for t in (two, one))
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4, err_msg=name)
    for name in ("laws", "missing_laws", "same_weights", "unknown", "n", "problems", "inside_law", "best"):
        assert one[name].tolist() == two[name].tolist(), name
    assert one["same_weights"].tolist() == [False, True]
    for key, e in known(a).items():
        assert b.estimates[key].value == pytest.approx(e.value, abs=1e-3, nan_ok=True), key
    same, (mine, theirs) = keys(exact, scored), (local.measured(t, K).frame.copy() for t in (exact, scored))
    theirs = theirs.loc[[same[key] for key in mine["key"]]]
    assert mine["ended"].tolist() == theirs["ended"].tolist() and mine["ended"].any()
    numbers = [c for c in mine if c not in ("key", "source", "problem")]
    assert set(numbers) == set(theirs) - {"key", "source", "problem"}
    low = (mine["stretch"] < np.log(K)).to_numpy()  # where the largest of zeros stands is rounding
    at = [x.pop("stretch_at").to_numpy()[~low] for x in (mine, theirs)]
    assert at[0].tolist() == at[1].tolist() and len(at[0])
    numbers.remove("stretch_at")
    np.testing.assert_allclose(theirs[numbers].astype(float), mine[numbers].astype(float), atol=3e-3)
    words = [[v.word for v in decide({"support": r}, sources=["rl", "cool"], reference="base")] for r in (a, b)]
    assert words[0] == words[1]
    checks = [preflight.run(t, budget=K, draws=50).tables["checks"].set_index("check") for t in (exact, scored)]
    np.testing.assert_allclose(*(c.loc["declared", "value"].astype(float) for c in checks), atol=1e-3)


def test_the_report_of_the_run_says_the_same(pair):
    exact, run, folder = pair
    assert main(["report", str(run.path), "-o", str(folder / "out"), "--no-robustness"]) in (0, None)
    data = json.loads((folder / "out" / "results.json").read_bytes())["analyses"]["support"]["estimates"]
    for key, e in known(support.run(exact, budget=K, draws=50)).items():
        value = data[key]["value"]
        assert (np.nan if value is None else value) == pytest.approx(e.value, abs=1e-3, nan_ok=True), key
    assert pipeline.ledger(run)["traces_scored"] == 48
