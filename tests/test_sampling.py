"""What is drawn has the sampler's law, reads back as a dump, scores as recorded, and survives being killed."""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from scipy import stats

from analyzer import sampling, scorers
from analyzer.dumps import read_dumps
from analyzer.errors import DumpError, ResourceError, UsageError
from analyzer.records import Sampler
from analyzer.scorers import draws, plain
from analyzer.scorers.columns import truncations
from analyzer.scorers.encode import encode

spec = importlib.util.spec_from_file_location("fake_server", Path(__file__).with_name("scorers") / "fake_server.py")
fake_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake_server)

ALARM = 1e-4  # a true law is refused this often
PROMPT = [5, 9, 3, 60]
SAMPLERS = [Sampler(), Sampler(0.7), Sampler(0.8, 0.7), Sampler(1.0, 1.0, 5), Sampler(1.2, 0.9, 20, 0.05)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random model whose distributions are neither flat nor a point; 0 ends a response."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(25)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return scorers.load(str(folder))


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


def first_tokens(loaded, sampler, n):
    u_N1 = np.stack([draws.uniforms(0, "p", s, 1) for s in range(n)])
    prefix = draws.prefill(loaded.model, PROMPT)
    drawn = draws.grow(loaded.model, PROMPT, u_N1, sampler, stop=frozenset(), prefix=prefix)
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
    prefix = draws.prefill(tiny.model, PROMPT)
    drawn = draws.grow(tiny.model, PROMPT, u_N2, sampler, stop=frozenset(), prefix=prefix)
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
    anew = draws.grow(tiny.model, PROMPT, u_NT, Sampler(0.9), stop=stop)
    shared = draws.grow(tiny.model, PROMPT, u_NT, Sampler(0.9), stop=stop, prefix=draws.prefill(tiny.model, PROMPT))
    assert len({len(ids) for ids, _ in anew}) > 3  # rows leave the cache at different times
    for (ids, values), (ids_shared, values_shared) in zip(anew, shared):
        assert ids == ids_shared and np.allclose(values, values_shared, atol=1e-4)
        assert not set(ids[:-1]) & stop and (ids[-1] in stop or len(ids) == 30)


def test_a_cache_that_is_wrong_is_not_used(tiny, monkeypatch):
    from transformers.cache_utils import Cache

    assert draws.cache_is_right(tiny.model)
    real = Cache.reorder_cache
    monkeypatch.setattr(Cache, "reorder_cache", lambda self, rows: real(self, rows.flip(0)))
    assert not draws.cache_is_right(tiny.model)


QUESTIONS = [{"question": f"What comes after {w}?", "answer": w, "id": f"id-{w}"} for w in ("one", "two", "six")]


@pytest.fixture
def prompts(tmp_path):
    """Three problems as ids, for the model without a tokenizer."""
    path = tmp_path / "prompts.jsonl"
    rows = [{"question": f"q{n}", "prompt_ids": [n + 1, 7, 9], "gold": n} for n in range(3)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def unpacked(path):
    data = Path(path).read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(data).read() if path.suffix == ".zst" else data


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ending", sampling.ENDINGS)
def test_a_killed_call_goes_on_to_the_same_bytes(tiny, prompts, tmp_path, ending):
    """Cut at seeded places of the unfinished file, in its first line, in a row, between two rows."""
    settings = {"model": tiny.name, "n": 3, "max_tokens": 8, "seed": 4}
    whole, broken = tmp_path / f"whole{ending}", tmp_path / f"broken{ending}"
    assert sampling.sample([prompts], whole, **settings)["continued"] == 0

    def kill(what, done, total, tokens):
        if done == total:
            raise Killed

    with pytest.raises(Killed):
        sampling.sample([prompts], broken, progress=kill, **settings)
    part = tmp_path / f".{broken.name}.part"
    rows = part.read_bytes()
    assert not broken.exists() and rows.partition(b"\n")[2] == unpacked(whole)
    header = rows.index(b"\n") + 1
    places = [0, 5, header, len(rows), *np.random.default_rng(0).integers(header, len(rows), 4)]
    continued = set()
    if ending != ".jsonl":
        places = places[3:5]  # what differs by ending is the last step alone
    for place in places:
        part.write_bytes(rows[:place])
        continued.add(sampling.sample([prompts], broken, **settings)["continued"])
        assert broken.read_bytes() == whole.read_bytes()
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([broken.name, whole.name, "prompts.jsonl"])
        broken.unlink()
    assert continued >= ({0, 1, 3} if ending == ".jsonl" else {3})


def test_a_finished_output_is_recognised_and_another_is_not_written_over(tiny, prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    settings = {"model": tiny.name, "n": 2, "max_tokens": 4}
    sampling.sample([prompts], out, **settings)
    before = out.read_bytes()
    assert sampling.sample([prompts], out, **settings)["tokens"] == 0
    for other in ({"seed": 1}, {"n": 3}, {"sampler": Sampler(0.5)}, {"max_tokens": 5}):
        with pytest.raises(UsageError, match="is there already, made with other settings"):
            sampling.sample([prompts], out, **settings | other)
    assert out.read_bytes() == before
    part = tmp_path / ".new.jsonl.part"
    with pytest.raises(Killed):
        sampling.sample(
            [prompts], tmp_path / "new.jsonl", progress=lambda *a: (_ for _ in ()).throw(Killed), **settings
        )
    with pytest.raises(UsageError, match="begun with seed 0, now 1"):
        sampling.sample([prompts], tmp_path / "new.jsonl", **settings | {"seed": 1})
    import fcntl

    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="being written by another call"):
            sampling.sample([prompts], tmp_path / "new.jsonl", **settings)


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(0.7, 0.9), Sampler(1.0, 1.0, 8)], ids=str)
def test_what_is_drawn_scores_as_recorded_and_lies_inside_its_sampler(stories, tmp_path, sampler):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    out = tmp_path / "drawn.jsonl.zst"
    sampling.sample(
        [str(path)], out, model=str(stories), n=5, sampler=sampler, max_tokens=40, template="none", label="base"
    )
    traces, ledger = read_dumps([str(out)])
    assert ledger.files[0]["format"] == "canonical" and not ledger.rows_rejected and len(traces) == 15
    for t in traces:
        assert t.source == "base" and t.sampler == sampler and t.finish in ("stop", "length")
        assert t.question in {q["question"] for q in QUESTIONS} and t.meta["id"] == f"id-{t.meta['gold']}"
        assert t.logprobs_temperature == 1.0 and t.meta["seed"] == 0 and t.meta["max_tokens"] == 40
    here = scorers.load(str(stories))
    encoded = [encode(t, here.tokenizer, vocab_size=here.vocab_size) for t in traces]
    assert all((e.offset_T >= 0).all() for e in encoded)
    got = {s.key: s.columns for s in scorers.score(encoded, here, path="shared", sampler=sampler, limit=None)}
    for t in traces:
        assert np.abs(got[t.key]["logprob"] - t.response_logprobs).max() < 1e-4
        assert np.isfinite(got[t.key]["logprob_s"]).all()  # never a token that the sampler could not draw


def test_problems_come_from_dumps_and_from_files_of_questions(tmp_path):
    def rows(name, values):
        (tmp_path / name).write_text("".join(json.dumps(v) + "\n" for v in values))
        return str(tmp_path / name)

    bare = sampling.read_problems([rows("bare.jsonl", QUESTIONS)])
    assert [(t.question, t.meta["gold"], t.response) for t in bare] == [
        (q["question"], q["answer"], "") for q in QUESTIONS
    ]
    dump = rows("dump.jsonl", [{**q, "response": f"r{n}"} for q in QUESTIONS for n in range(3)])
    assert [t.problem for t in sampling.read_problems([dump])] == [t.problem for t in bare]
    [prompt] = sampling.read_problems([rows("prompt.jsonl", [{"prompt": "Once upon a time"}])])
    assert (prompt.prompt, prompt.question) == ("Once upon a time", None)
    mapped = sampling.read_problems([rows("odd.jsonl", [{"ask": {"text": "2 + 2?"}}])], {"question": "ask.text"})
    assert [t.question for t in mapped] == ["2 + 2?"]
    with pytest.raises(DumpError, match="no field looks like a sampled response"):
        sampling.read_problems([rows("none.jsonl", [{"height": 3}])])
    with pytest.raises(DumpError):
        sampling.read_problems([str(tmp_path / "missing.jsonl")])


def test_what_can_not_be_sampled_is_said(tiny, stories, prompts, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(QUESTIONS[0]) + "\n")
    with pytest.raises(DumpError, match="--template"):
        sampling.sample([str(path)], tmp_path / "a.jsonl", model=str(stories))
    with pytest.raises(UsageError, match="the ending says how to write"):
        sampling.sample([prompts], tmp_path / "a.csv", model=tiny.name)
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"question": "q", "prompt_ids": [3] * 64}) + "\n")
    with pytest.raises(DumpError, match="no room for a response"):
        sampling.sample([str(long)], tmp_path / "a.jsonl", model=tiny.name)
    assert not list(tmp_path.glob("*a.jsonl*"))


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_server_draws_what_scores_as_recorded_whatever_goes_wrong(tiny, prompts, tmp_path, kind, monkeypatch):
    from analyzer.scorers import server_client

    monkeypatch.setattr(server_client, "FIRST_WAIT", 0.001)
    settings = {"model": tiny.name, "n": 4, "max_tokens": 6, "concurrent": 3}
    faults, asked, outs = ("500", "cut", "garbage", "html", "empty"), set(), []

    def first_time(n, body):
        again = body["seed"] in asked
        asked.add(body["seed"])
        return None if again or n == 0 else faults[n % 5]

    for name, fault in (("calm", None), ("rough", first_time)):
        with fake_server.serving(fake_server.Fake(tiny.model, kind, fault=fault)) as url:
            outs.append(tmp_path / f"{name}.jsonl")
            sampling.sample([prompts], outs[-1], server_url=url, **settings)
    calm, rough = (read_dumps([str(o)])[0] for o in outs)
    assert [t.response_ids for t in calm] == [t.response_ids for t in rough]
    assert len({t.response_ids for t in calm}) > 5
    encoded = [encode(t, None, vocab_size=64) for t in calm]
    for t, s in zip(calm, plain.score(encoded, tiny.model, None)):
        assert np.abs(s.columns["logprob"] - t.response_logprobs).max() < 1e-4
        assert t.finish == ("stop" if t.response_ids[-1] == 0 else "length")
    with fake_server.serving(fake_server.Fake(tiny.model, kind)) as url:
        sampling.sample([prompts], tmp_path / "hot.jsonl", server_url=url, sampler=Sampler(1.3), **settings)
    assert all(t.response_logprobs is None for t in read_dumps([str(tmp_path / "hot.jsonl")])[0])
