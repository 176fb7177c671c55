"""What is drawn has the sampler's law, whatever else is in its batch, and comes with the model's own log-probs."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from analyzer.errors import ResourceError
from analyzer.records import Sampler, Trace
from analyzer.scoring import draws
from analyzer.scoring import sample as sampling
from analyzer.scoring.columns import truncations

ALARM = 1e-4  # a true law is refused this often
PROMPT = [5, 9, 3, 60]
SAMPLERS = [Sampler(), Sampler(0.7), Sampler(0.8, 0.7), Sampler(1.0, 1.0, 5), Sampler(1.2, 0.9, 20, 0.05)]


def law(loaded, ids, sampler):
    """The sampler's distribution [V] of the token after ids, by one full forward in float64."""
    with torch.no_grad():
        scores = loaded.model(torch.tensor([ids])).logits[0, -1:].double() / sampler.temperature
    for warper in truncations(sampler):
        scores = warper(None, scores)
    return scores.softmax(-1)[0].numpy()


def p_value(counts, expected):
    """Of Pearson's chi-square; cells that expect under five are pooled, and a count where none can be is impossible."""
    if (counts[expected == 0] > 0).any():
        return 0.0
    small = expected < 5
    counts = np.append(counts[~small], counts[small].sum())
    expected = np.append(expected[~small], expected[small].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    return stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def grown(loaded, u_NT, sampler, stop=frozenset(), cached=True):
    """Responses to PROMPT alone."""
    prefix = draws.prefill(loaded.model, [PROMPT]) if cached else None
    return draws.grow(loaded.model, [PROMPT], [0] * len(u_NT), u_NT, sampler, stop=stop, prefix=prefix)


def first_tokens(loaded, sampler, n):
    u_N1 = np.stack([draws.uniforms(0, "p", s, 1) for s in range(n)])
    drawn = grown(loaded, u_N1, sampler)
    return np.bincount([ids[0] for ids, _ in drawn], minlength=64)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_first_tokens_have_the_samplers_law(tiny, sampler):
    """False alarm 1e-4 each; the mutants, another temperature and a wider truncation, are refused."""
    counts = first_tokens(tiny, sampler, 4000)
    assert p_value(counts, 4000 * law(tiny, PROMPT, sampler)) > ALARM
    wrong = replace(sampler, temperature=1.5 * sampler.temperature)
    assert p_value(counts, 4000 * law(tiny, PROMPT, wrong)) < ALARM
    if sampler.top_p < 1 or sampler.top_k:
        wider = replace(sampler, top_p=min(1.0, sampler.top_p + 0.2), top_k=2 * sampler.top_k, min_p=0.0)
        assert p_value(counts, 4000 * law(tiny, PROMPT, wider)) < ALARM


def test_second_tokens_have_the_law_given_the_first(tiny):
    """All pairs under top-k 4 against p(first) p(second | first); false alarm 1e-4. A cache that is not shared out row
    by row would give the second token after another first one."""
    sampler, n = Sampler(1.5, 1.0, 4), 4000
    u_N2 = np.stack([draws.uniforms(1, "p", s, 2) for s in range(n)])
    drawn = grown(tiny, u_N2, sampler)
    pairs = np.zeros((64, 64))
    for ids, _ in drawn:
        pairs[tuple(ids)] += 1
    first = law(tiny, PROMPT, sampler)
    second = np.stack([law(tiny, [*PROMPT, v], sampler) if first[v] else np.zeros(64) for v in range(64)])
    assert p_value(pairs.ravel(), n * (first[:, None] * second).ravel()) > ALARM
    mutant = np.roll(second, 1, 0)
    assert p_value(pairs.ravel(), n * (first[:, None] * mutant).ravel()) < ALARM


def test_random_numbers_belong_to_seed_problem_and_sample():
    one = draws.uniforms(3, "p", 7, 50)
    assert np.array_equal(one, draws.uniforms(3, "p", 7, 50)) and np.array_equal(one[:9], draws.uniforms(3, "p", 7, 9))
    for other in ((4, "p", 7), (3, "q", 7), (3, "p", 8)):
        assert not np.isin(draws.uniforms(*other, 50), one).any()


def test_a_u_beyond_the_last_token_draws_one_that_can_be_drawn():
    logits = torch.tensor([[0.0, 2.0, 1.0, -50.0]]).repeat(3, 1)
    u = torch.tensor([0.0, np.nextafter(1.0, 0.0), 0.5], dtype=torch.float64)
    ids, _ = draws.draw(logits, u, Sampler(1.0, 1.0, 2))
    assert ids.tolist() == [1, 2, 1]


def test_growing_from_the_cache_equals_growing_without(tiny):
    u_NT = np.stack([draws.uniforms(0, "p", s, 30) for s in range(12)])
    stop = frozenset(range(4))
    again = grown(tiny, u_NT, Sampler(0.9), stop, cached=False)
    shared = grown(tiny, u_NT, Sampler(0.9), stop)
    assert len({len(ids) for ids, _ in again}) > 3  # rows leave the cache at different times
    for (ids, values), (ids_shared, values_shared) in zip(again, shared):
        assert ids == ids_shared and np.allclose(values, values_shared, atol=1e-4)
        assert not set(ids[:-1]) & stop and (ids[-1] in stop or len(ids) == 30)


def test_a_cache_that_is_wrong_is_not_used(tiny, monkeypatch):
    from transformers.cache_utils import Cache

    assert draws.cache_is_right(tiny.model)
    real = Cache.reorder_cache
    monkeypatch.setattr(Cache, "reorder_cache", lambda self, rows: real(self, rows.flip(0)))
    assert not draws.cache_is_right(tiny.model)


WARM = Sampler(0.9, 0.97)


@pytest.fixture(scope="module")
def exact(tiny):
    """The tiny model in float64, where rounding flips no draw on any machine; its responses end at 12 ids of 64."""
    exact = replace(tiny, model=copy.deepcopy(tiny.model).double())
    exact.model.generation_config.eos_token_id = [*range(12)]
    return exact


@pytest.fixture(scope="module")
def asked():
    """Problems with prompts of several lengths; the longest leaves room for four tokens only."""
    rng = np.random.default_rng(3)
    return [
        sampling.Asked(Trace("problems", f"p{n}", 0, ""), tuple(rng.integers(4, 64, k).tolist()), min(12, 64 - k))
        for n, k in enumerate((2, 30, 7, 60, 2, 13, 30, 9))
    ]


@pytest.fixture(scope="module")
def alone(exact, asked):
    """(problem, sample) -> what one row at a time draws with everything computed again at each step: the slow way."""
    out = {}
    for a in asked:
        for s in range(3):
            u_1T = draws.uniforms(5, a.trace.problem, s, a.max_tokens)[None]
            one = draws.grow(exact.model, [a.prompt_ids], [0], u_1T, WARM, stop=frozenset(range(12)))
            out[a.trace.problem, s] = one[0]
    assert len({len(ids) for ids, _ in out.values()}) > 4
    return out


def assert_drawn(draw, loaded, asked, want):
    drawn = draw(loaded, asked, 3, WARM, 5)
    keys = [(a.trace.problem, s) for a in asked for s in range(3)]
    for key, (ids, values, _, finish) in zip(keys, drawn, strict=True):
        assert list(ids) == want[key][0] and np.allclose(values, want[key][1], atol=1e-5)
        assert finish == ("stop" if ids[-1] < 12 else "length")


def test_a_draw_does_not_depend_on_its_batch(exact, asked, alone, monkeypatch):
    """One problem at a time, several, all, a shuffled half of them; and no prompt is computed twice for a batch."""
    prefilled, real = [], draws.prefill
    for batch in (1, 3, 8, 64):
        draw = draws.drawer(exact, batch)
        assert_drawn(draw, exact, asked, alone)
    monkeypatch.setattr(draws, "prefill", lambda m, prompts: prefilled.append(prompts) or real(m, prompts))
    some = [asked[n] for n in (6, 2, 1, 7)]
    assert_drawn(draw, exact, some, alone)
    assert sorted(p for prompts in prefilled for p in prompts) == sorted(a.prompt_ids for a in some)
    assert any(len(set(map(len, prompts))) > 1 for prompts in prefilled)


def test_a_finished_row_does_not_walk_out_of_the_context():
    """One row of four ends where the context does and stays in the batch while the others grow; positions are looked
    up in a table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval().double()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 64, k).tolist() for k in (60, 50, 51, 52)]
    u_N = [rng.random(k) for k in (4, 12, 12, 12)]
    how = {"sampler": Sampler(), "stop": frozenset()}
    together = draws.grow(model, prompts, range(4), u_N, prefix=draws.prefill(model, prompts), **how)
    for prompt, u_T, (ids, values) in zip(prompts, u_N, together):
        [(ids_alone, alone)] = draws.grow(model, [prompt], [0], [u_T], **how)
        assert ids == ids_alone and np.allclose(values, alone, atol=1e-5)


def test_a_model_that_heeds_no_mask_draws_prompts_of_one_length_together(exact, asked, alone, monkeypatch):
    real, masked = exact.model.forward, []

    def deaf(ids, attention_mask=None, position_ids=None, **more):
        masked.append(attention_mask is not None)
        return real(ids, **more)

    monkeypatch.setattr(exact.model, "forward", deaf)
    assert draws.cache_is_right(exact.model) and not draws.cache_is_right(exact.model, (6, 3, 9))
    draw = draws.drawer(exact, 64)
    masked.clear()
    assert_drawn(draw, exact, asked, alone)
    assert masked and not any(masked)
    assert draws.alike([asked[0], asked[4], asked[2]], False, None) == 2


def test_prompts_meet_under_little_padding_and_on_one_side_of_the_models_limit(asked):
    by_length = sorted(asked, key=lambda a: len(a.prompt_ids))  # 2 2 7 9 13 30 30 60, room for 12 and at the end for 4
    assert draws.alike(by_length, True, None) == 5  # a sixth: 6 * (30 + 12) cells for 135 tokens
    assert [draws.alike(by_length[n:], True, None) for n in (4, 5, 6, 7)] == [3, 3, 2, 1]
    assert [draws.alike(by_length[:4], True, limit) for limit in (21, 20, 13)] == [4, 3, 2]


def test_a_batch_that_memory_can_not_hold_is_halved(exact, asked, alone, monkeypatch):
    real, most = exact.model.forward, 6

    def full(ids, **more):
        if len(ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(ids, **more)

    monkeypatch.setattr(exact.model, "forward", full)
    draw = draws.drawer(exact, 64)
    assert_drawn(draw, exact, asked, alone)
    most = 0
    with pytest.raises(ResourceError, match="out of memory while .* draws one response of up to 12 tokens"):
        draw(exact, asked, 3, WARM, 5)
