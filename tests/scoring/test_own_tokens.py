"""Ids that are not the model's own words: masked ones are conditioned on and never scored, padding is left out."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from fake_server import Fake, serving

from analyzer.analysis.data import tables
from analyzer.analysis.support import hurdles
from analyzer.api import pipeline
from analyzer.records import Sampler, Trace
from analyzer.runs.store import Run
from analyzer.scoring import local, plain, windows
from analyzer.scoring.encoding.encode import MASKED, Encoded, encode
from analyzer.scoring.encoding.padding import NOTHING, PADDED, REPEATED, TWICE
from analyzer.scoring.load import score

PAD, BOS, END, UNK = 3, 1, 2, 0


def items(masked=True):
    """Traces over several prompts, long and short, some with masks; two that differ in the mask alone."""
    rng = np.random.default_rng(3)
    prompts = [tuple(rng.integers(1, 60, n).tolist()) for n in (4, 4, 7)]
    out = []
    for n, length in enumerate([1, 6, 13, 13, 20, 9, 40, 5]):
        ids = tuple(rng.integers(1, 60, length).tolist())
        if n == 3:
            ids = out[2].response_ids
        own = rng.random(length) < 0.5
        own[rng.integers(length)] = True
        if n == 6:
            own[3:30] = False  # a whole chunk of a stream
        own = tuple(map(bool, own)) if masked and n not in (1, 3) else None
        trace = Trace("s", f"p{n % 3}", n, "")
        laws = (Sampler(0.6, 0.9),) if n == 4 else ()
        out.append(Encoded(trace, prompts[n % 3], ids, np.arange(length, dtype=np.int32), laws=laws, own=own))
    return out


@pytest.mark.parametrize("path", ["plain", "cached", "shared"])
@pytest.mark.parametrize("budget", [12, 64, 4096])
def test_what_is_scored_is_what_the_whole_gives_there(tiny, path, budget):
    """The oracle is the definition on the whole response, without a mask, read at the policy's own tokens."""
    options = {"powers": (1.25,)}
    whole = {s.key: s for s in plain.score(items(masked=False), tiny.model, Sampler(0.8), **options)}
    mine = items()
    got = {s.key: s for s in local.RUN[path](mine, tiny.model, Sampler(0.8), token_budget=budget, **options)}
    assert got.keys() == whole.keys()
    for item in mine:
        want, have = whole[item.trace.key], got[item.trace.key]
        at = np.arange(len(item.response_ids))[item.at]
        assert len(have) == item.tokens == len(at) and set(have.columns) == set(want.columns)
        columns = [(name, have.columns[name], values) for name, values in want.columns.items()]
        columns += [(name, have.laws[law][name], of_it[name]) for law, of_it in want.laws.items() for name in of_it]
        assert len(columns) == len(want.columns) + 4 * len(item.laws)
        for name, mine_of_it, values in columns:
            assert np.allclose(mine_of_it, values[at], atol=2e-4), (name, item.trace.key)
        place = {int(n): i for i, n in enumerate(at)}
        assert [p for p, *_ in have.top] == [place[p] for p, *_ in want.top if p in place]
    alone = next(plain.score([mine[2]], tiny.model, None)).embedding
    assert np.allclose(got["s/p2/2"].embedding, alone, atol=2e-3)
    assert not np.allclose(got["s/p2/2"].embedding, whole["s/p2/2"].embedding, atol=2e-3)


def test_masks_tell_twins_apart_and_survive_windows(tiny):
    mine = items()
    same = Encoded(Trace("s", "p2", 9, ""), mine[2].prompt_ids, mine[2].response_ids, mine[2].offset_T, own=mine[2].own)
    found = {s.key: s for s in score([*mine, same], tiny, path="shared", sampler=None, limit=None)}
    assert len(found["s/p2/9"]) == len(found["s/p2/2"]) == mine[2].tokens
    assert np.array_equal(found["s/p2/9"].columns["offset"], np.flatnonzero(mine[2].own))
    wide = {s.key: s for s in score(mine, tiny, path="shared", sampler=None, limit=16)}
    for item in mine:
        parts = windows.split(item, 16)
        assert sum(p.tokens for p in parts) == item.tokens == len(wide[item.trace.key])
        assert all(p.tokens for p in parts)
        assert wide[item.trace.key].columns["token"].tolist() == np.array(item.response_ids)[item.at].tolist()


ROW = {"source": "base", "question": "q", "response": "r", "prompt_ids": [5, 6]}
MASKS = ["response_mask", "loss_mask", "assistant_mask", "assistant_masks", "completion_mask", "action_mask"]


def scored(tmp_path, rows, model, name="run", **how):
    file = tmp_path / f"{name}.jsonl"
    file.write_text("".join(json.dumps(ROW | {"sample": n} | row) + "\n" for n, row in enumerate(rows)))
    run = Run.create(tmp_path / name)
    pipeline.ingest(run, [str(file)])
    pipeline.score(run, base=model, **how)
    columns = ["token", "logprob"] + ["embedding"] * ("servers" not in how)
    found = {r["key"].split("/")[-1]: r for part in run.tokens("base", columns) for r in part.to_dict("records")}
    return run, found


@pytest.mark.parametrize("name", MASKS)
def test_masks_by_trainers_names_leave_out_what_a_tool_said(tiny, tmp_path, name):
    ids = [7, 8, 40, 41, 42, 9]
    whole = {"response_ids": ids}
    run, found = scored(tmp_path, [whole, whole | {name: [1, 1, 0, 0, 0, 1]}, whole | {name: [0] * 6}], tiny.name)
    assert found["1"]["token"].tolist() == [7, 8, 9]
    assert np.allclose(found["1"]["logprob"], found["0"]["logprob"][[0, 1, 5]], atol=1e-5)
    record = run.manifest["scorers"]["base"]
    assert record["decisions"][MASKED] == 1
    assert run.status_counts("base") == {"ok": 2, "empty response (the mask leaves no token)": 1}
    assert pipeline.sources(run)["base"]["tokens"] == 9
    # over prompt and response, as chat templates give it
    _, over = scored(tmp_path, [whole | {name: [0, 0, 1, 1, 0, 0, 0, 1]}], tiny.name, "over")
    assert over["0"]["token"].tolist() == [7, 8, 9]


def test_a_server_leaves_them_out_too(tiny, tmp_path):
    row = {"response_ids": [7, 8, 40, 41, 42, 9], "response_mask": [1, 1, 0, 0, 0, 1]}
    _, want = scored(tmp_path, [row], tiny.name, "local")
    tiny.model.config.save_pretrained(tmp_path / "beside")
    fake = Fake(tiny.model, "vllm")
    with serving(fake) as url:
        _, got = scored(tmp_path, [row], str(tmp_path / "beside"), "served", server={"*": url})
    assert got["0"]["token"].tolist() == [7, 8, 9]
    assert np.allclose(got["0"]["logprob"], want["0"]["logprob"], atol=1e-4)


class Words:
    """Ids alone: what padding is told by. Its text says nothing."""

    is_fast, all_special_ids = False, [UNK, BOS, END, PAD]
    bos_token_id, eos_token_id, pad_token_id, unk_token_id = BOS, END, PAD, UNK

    def __init__(self, pad=PAD):
        self.pad_token_id = pad

    def __call__(self, text, *, add_special_tokens=True, **options):
        return {"input_ids": [BOS] * add_special_tokens + [10 + ord(c) % 40 for c in text]}

    def decode(self, ids, **options):
        return " ".join(map(str, ids))


A, B = (10, 11, 12), (20, 21, 22)
CUT = {  # prompt, response, what is scored of them
    "clean": ((BOS, *A), (*B, END), A, (*B, END), ()),
    "right, by the padding token": ((BOS, *A), (*B, END, PAD, PAD), A, (*B, END), ("response end",)),
    "right, one": ((BOS, *A), (*B, END, PAD), A, (*B, END), ("response end",)),
    "right, by anything": ((BOS, *A), (*B, END, 9, 9, 9), A, (*B, END), ("response end",)),
    "right, unknown": ((BOS, *A), (*B, END, UNK, UNK), A, (*B, END), ("response end",)),
    "right, by the end token": ((BOS, *A), (*B, END, END, END), A, (*B, END), ("response end",)),
    "right, not ended": ((BOS, *A), (*B, PAD, PAD, PAD), A, B, ("response end",)),
    "left": ((PAD, PAD, BOS, *A), (*B, END), A, (*B, END), ("prompt beginning",)),
    "left, one": ((PAD, BOS, *A), (*B, END), A, (*B, END), ("prompt beginning",)),
    "left, unknown": ((UNK, UNK, BOS, *A), (*B, END), A, (*B, END), ("prompt beginning",)),
    "left, by the end token": ((END, END, BOS, *A), (*B, END), A, (*B, END), ("prompt beginning",)),
    "left, of the response": ((BOS, *A), (PAD, PAD, *B, END), A, (*B, END), ("response beginning",)),
    "right, of the prompt": ((BOS, *A, PAD, PAD), (*B, END), A, (*B, END), ("prompt end",)),
    "everywhere": (
        (PAD, PAD, BOS, *A, PAD),
        (PAD, *B, END, PAD),
        A,
        (*B, END),
        ("prompt beginning", "prompt end", "response beginning", "response end"),
    ),
    "words that repeat": ((BOS, 9, 9, *A), (9, 9, *B, 9, 9, 9), (9, 9, *A), (9, 9, *B, 9, 9, 9), ()),
    "padding that was drawn": ((BOS, *A), (*B, PAD, END), A, (*B, PAD, END), ()),
    "BOS that was drawn": ((BOS, *A), (*B, BOS, END), A, (*B, BOS, END), ()),
    "a line after the end": ((BOS, *A), (*B, END, 9), A, (*B, END, 9), ()),
}


@pytest.mark.parametrize("kind", CUT)
def test_padding_is_left_out_and_counted(kind):
    prompt, response, left, right, told = CUT[kind]
    trace = Trace("s", "p", 0, "", prompt_ids=prompt, response_ids=response, origin="d:1")
    got = encode(trace, Words(), vocab_size=64)
    assert got.prompt_ids == (BOS, *left) and got.response_ids == right and len(got.offset_T) == len(right)
    assert [d for d in got.decisions if d in PADDED.values()] == [PADDED[tuple(t.split())] for t in told]


def test_what_may_be_no_padding_stays_and_is_said():
    def of(words, prompt=(BOS, *A), response=(*B, END), **more):
        trace = Trace("s", "p", 0, "", prompt_ids=prompt, response_ids=response, origin="d:1")
        return encode(trace, words, vocab_size=64, **more)

    twice = of(Words(), (BOS, BOS, *A))
    assert twice.prompt_ids == (BOS, BOS, *A) and TWICE in twice.decisions
    assert of(Words(pad=BOS), (BOS, BOS, BOS, *A)).prompt_ids == (BOS, *A)  # BOS is what it pads with
    assert NOTHING in of(Words(), response=(PAD, PAD)).decisions
    assert of(Words(), response=(END, END)).response_ids == (END,)
    assert of(None, (END, END, *A), (*B, END, END), eos_ids=(END,)).response_ids == (*B, END)
    assert of(None, response=(*B, PAD, PAD)).response_ids == (*B, PAD, PAD)  # without a tokenizer PAD is a word


def test_masks_are_cut_with_the_padding():
    ids = {"prompt_ids": (BOS, *A), "response_ids": (PAD, *B, END, PAD)}
    trace = Trace("s", "p", 0, "", **ids, meta={"response_mask": [0, 1, 0, 1, 1, 0]}, origin="d:1")
    assert encode(trace, Words(), vocab_size=64).own == (True, False, True, True)
    trace = Trace("s", "p", 0, "", **ids, meta={"response_mask": [0, 1, 1, 1, 1, 0]}, origin="d:1")
    assert encode(trace, Words(), vocab_size=64).own is None


def test_a_run_of_nothing_but_padding_is_counted(tiny, tmp_path):
    rows = [{"response_ids": [0, 0, 0], "response": ""}, {"response_ids": [7, 0, 0]}]  # 0 ends a response of this model
    run, found = scored(tmp_path, rows, tiny.name)
    assert found["0"]["token"].tolist() == [0] and found["1"]["token"].tolist() == [7, 0]
    assert run.manifest["scorers"]["base"]["examples"][PADDED["response", "end"]].startswith("base/")


@pytest.mark.parametrize("brought", [True, False])
def test_places_of_hurdles_are_those_of_the_tokens_that_are_scored(tiny, tmp_path, monkeypatch, brought):
    """Numbers that rows bring count positions over all their ids, scores over the policy's own."""
    row = {"response_ids": [7, 8, 40, 41, 42, 9], "response_mask": [1, 1, 0, 0, 0, 1]}
    row |= {"response_logprobs": [-1] * 6, "base_logprobs": {"1.0": [-1, -1, None, None, None, -9]}}
    run, found = scored(tmp_path, [row], tiny.name)
    made = tables.build(run)
    key = made.traces["key"].iloc[0]
    monkeypatch.setattr(hurdles.laws, "known", lambda tables: {"base": SimpleNamespace(brought=brought)})
    seen = hurdles._looked_up(made, {key: {0, 1, 2, 5, 99}})[key]
    places = {at: mine["index"] for at, mine in seen.items() if isinstance(at, int)}
    assert places == ({0: 0, 1: 1, 5: 2} if brought else {0: 0, 1: 1, 2: 2})


def test_what_is_padding_is_the_same_under_every_model(tiny, tmp_path):
    """Base and policy often name different end and padding tokens: the first model of a run decides for both."""
    import shutil

    other = tmp_path / "policy"
    shutil.copytree(tiny.name, other)
    for file in ("config.json", "generation_config.json"):
        held = json.loads((other / file).read_text())
        (other / file).write_text(json.dumps(held | {"eos_token_id": 9}))
    ids = [[7, 0, 0, 0], [7, 9, 9], [7, 9, 0, 0], [7, 8, 0]]
    for name in ("base", "rl"):
        rows = [ROW | {"source": name, "sample": n, "response_ids": r} for n, r in enumerate(ids)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run.create(tmp_path / "run")
    plain = {"base": Sampler(), "rl": Sampler()}
    pipeline.ingest(run, [str(tmp_path / f"{n}.jsonl") for n in plain], sampler=plain)
    pipeline.score(run, base=tiny.name)
    pipeline.score(Run.open(run.path), base=tiny.name, policy={"rl": str(other)})  # on another day
    run = Run.open(run.path)
    found = {}
    for label in ("base", "policy-rl"):
        rows = [r for part in run.tokens(label, ["token"]) for r in part.to_dict("records")]
        found[label] = {r["key"]: r["token"].tolist() for r in rows if r["key"].startswith("rl/")}
    assert found["base"] == found["policy-rl"]
    assert list(found["base"].values()) == [[7, 0], [7, 9, 9], [7, 9, 0], [7, 8, 0]]


def test_any_special_token_may_end_a_response():
    """As a chat model's end token under its base, whose own is the padding: <|im_end|><|endoftext|><|endoftext|>."""
    chat_end, base_end = PAD, END
    words = Words(pad=base_end)
    for response, left in (
        ((*B, chat_end, base_end, base_end), (*B, chat_end)),
        ((*B, chat_end, base_end), (*B, chat_end)),
        ((*B, chat_end, chat_end), (*B, chat_end)),
        ((*B, base_end, base_end), (*B, base_end)),
    ):
        trace = Trace("s", "p", 0, "", prompt_ids=(BOS, *A), response_ids=response, origin="d:1")
        assert encode(trace, words, vocab_size=64).response_ids == left


def test_words_that_repeat_behind_a_special_token_are_cut_only_where_it_ends_the_response(tiny, tmp_path):
    """[/THINK] 1 1: an answer. Behind an end token nothing was written, whatever the collator filled it with."""
    tag, end, one = PAD, END, 21
    words = Words(pad=end)

    def of(*response, **more):
        trace = Trace("s", "p", 0, "", prompt_ids=(BOS, *A), response_ids=response, origin="d:1")
        return encode(trace, words, vocab_size=64, **more)

    kept = of(*B, tag, one, one)
    assert kept.response_ids == (*B, tag, one, one) and REPEATED in kept.decisions
    assert not any(d in PADDED.values() for d in kept.decisions)
    assert REPEATED not in of(*B, tag, one).decisions and REPEATED not in of(*B, one, one).decisions
    for ends in ((*B, end, one, one), (*B, end, 0, 0, 0)):
        cut = of(*ends)
        assert cut.response_ids == (*B, end) and PADDED["response", "end"] in cut.decisions
    # --eos says that a token ends responses, of recorded ids too
    rows = [{"response_ids": [7, 9, 21, 21], "response": ""}] * 2 + [{"response_ids": [7, 9], "response": ""}]
    run, found = scored(tmp_path, rows, tiny.name, eos=9)
    assert {n: r["token"].tolist() for n, r in found.items()} == dict.fromkeys("012", [7, 9])
    _, found = scored(tmp_path, rows, tiny.name, "unnamed")
    assert found["0"]["token"].tolist() == [7, 9, 21, 21]


def test_a_policy_that_collapsed_keeps_what_it_wrote(tiny, tmp_path):
    rows = [{"response_ids": ids} for ids in ([7] * 20, [7, 8] + [9] * 18, [7, 8, 0] + [9] * 5, [7, 8] + [0] * 9)]
    run, found = scored(tmp_path, rows, tiny.name)
    assert [len(found[n]["token"]) for n in "0123"] == [20, 20, 3, 3]  # 0 ends responses of this model
    assert run.manifest["scorers"]["base"]["decisions"][PADDED["response", "end"]] == 2
