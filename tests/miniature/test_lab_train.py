"""Training mechanics on a few steps: losses fall, rewards move, nothing of size."""

import json
import math
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from miniature import build, tokenizer  # noqa: E402
from miniature.domain import prompt_text, random_problem  # noqa: E402
from miniature.grpo import GRPO, advantages, collect, grpo, random_allowed, update  # noqa: E402
from miniature.traces import teacher_response  # noqa: E402
from miniature.train import PRETRAIN, finetune, new_model, pretrain, save_model, schedule  # noqa: E402


def silent(line):
    pass


def test_model_is_small_and_survives_saving(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = new_model(1)
    save_model(model, tmp_path)
    assert sum(p.numel() for p in model.parameters()) == 458_304
    assert (tmp_path / "model.safetensors").stat().st_size <= 2_000_000
    again, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([words("numbers 3 7 11 1 make 16 think").input_ids])
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)
    assert (words.bos_token_id, words.eos_token_id, words.pad_token_id) == (tokenizer.BOS, tokenizer.EOS, tokenizer.PAD)


def test_tokenizer_agrees_with_the_word_table():
    words, rng = tokenizer.build(), random.Random(0)
    for kind in ("reachable", "rare", "impossible"):
        numbers, goal = random_problem(kind, rng)
        prompt, response = prompt_text(numbers, goal), " ".join(teacher_response(numbers, goal, kind, rng))
        ids = tokenizer.encode(response.split())
        assert words(prompt).input_ids == [tokenizer.BOS, *tokenizer.encode(prompt.split())]
        assert words(f"{prompt} {response}").input_ids == words(prompt).input_ids + ids
        assert words(response, add_special_tokens=False).input_ids == ids
        assert words.decode([*ids, tokenizer.EOS], skip_special_tokens=True) == response
    assert len(set(tokenizer.vocabulary())) == len(tokenizer.vocabulary()) == len(words) - 3


def test_a_few_steps_of_pretraining_lower_the_loss():
    recipe = {**PRETRAIN, "steps": 6, "batch": 8, "warmup": 2}
    model, record = pretrain(1, silent, recipe)
    assert record["loss"] < math.log(len(tokenizer.word_ids())) - 0.2  # seeded; an untrained model stands at log V
    again, _ = pretrain(1, silent, recipe)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_finetuning_learns_the_response_alone():
    model = new_model(2)
    record = finetune(
        model,
        lambda rng: (["numbers", str(rng.randint(1, 99))], ["hmm"] * 6),
        {**build.DISTILL, "steps": 15, "batch": 8, "warmup": 2},
        1,
        silent,
    )
    with torch.no_grad():
        p = model(torch.tensor([[tokenizer.BOS, *tokenizer.encode(["numbers", "5"])]])).logits[0].softmax(-1)
    ids = tokenizer.word_ids()
    assert p[-1, ids["hmm"]] > 0.1 and record["tokens"] == 15 * 8 * 7
    assert p[0, ids["numbers"]] < 0.02  # every prompt begins with it, and it is not learned


def test_advantages_are_centred_and_silent_without_variance():
    signal = advantages(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]))
    assert signal[0].sum().abs() < 1e-6 and signal[0, 0] > 0
    assert torch.equal(signal[1:], torch.zeros(2, 4))


def test_an_update_follows_the_sign_of_the_advantage():
    model = new_model(3)
    prompt, good, bad = [tokenizer.BOS, 5, 6], [20, 21, tokenizer.EOS], [30, 31, tokenizer.EOS]

    def loglik(response):
        with torch.no_grad():
            scores = model.eval()(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        return scores[torch.arange(2, 5), torch.tensor(response)].sum().item()

    before = loglik(good), loglik(bad)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(3):
        update(model, optimizer, [(prompt, good, 1.0), (prompt, bad, -1.0)], 1.0)
    # <eos> is in both, so what the pair has in common may go either way; their difference may not
    assert loglik(good) - loglik(bad) > before[0] - before[1]


def test_grpo_runs_and_reports():
    kept = []
    recipe = {**GRPO, "steps": 2, "problems": 2, "rollouts": 4, "new_tokens": 8, "keep": (1,)}
    record = grpo(new_model(4), recipe, 1, set(), silent, kept.append)
    assert record["steps"] == 2 and [entry["step"] for entry in record["history"]] == [1, 2] and kept == [1]
    assert set(record["history"][0]) == {"step", "reward", "entropy", "length", "chain", "restating"}


def test_collected_rollouts_are_graded_and_carry_signal():
    """A model that is paid for nothing gives no rows; the rows that come have the advantages of their problem."""
    recipe = {**GRPO, "problems": 2, "rollouts": 4, "new_tokens": 8}
    rows, report = collect(new_model(5), recipe, set(), random.Random(1), torch.Generator().manual_seed(1))
    assert rows == [] and report["reward"] == 0.0 and report["written"] == round(8 * report["length"])


def test_forbidden_problems_are_never_drawn():
    rng = random.Random(6)
    forbidden = {(tuple(sorted(numbers)), goal) for numbers, goal in (random_problem("rare", rng) for _ in range(200))}
    again = random.Random(6)
    for _ in range(50):
        numbers, goal = random_allowed("rare", forbidden, again)
        assert (tuple(sorted(numbers)), goal) not in forbidden


def test_schedule_warms_up_and_comes_down():
    factors = [schedule(step, 100, 10, 0.05) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == factors[10] == 1.0 and 0.05 < factors[-1] < 0.06


def test_stages_build_on_each_other_and_are_done_once(tmp_path, monkeypatch):
    """The whole way from nothing to measured numbers, with models that learned next to nothing."""
    few = {"steps": 2, "batch": 4, "warmup": 1}
    small = {"steps": 1, "problems": 2, "rollouts": 2, "new_tokens": 4, "keep": ()}

    def rlvr(folder, log):
        model = build.load_model(folder, "base")
        return model, grpo(model, {**GRPO, **small}, 1, build.evaluation_problems(folder), log)

    monkeypatch.setattr(build, "COUNTS", {"reachable": 2, "rare": 1, "impossible": 1})
    monkeypatch.setattr(build, "DISTILL", {**build.DISTILL, **few})
    base = pretrain(1, silent, {**PRETRAIN, **few})
    monkeypatch.setattr(build, "MODELS", {"base": lambda *_: base, "rlvr": rlvr, "distill": build.train_distill})
    sources = {
        source: {**recipe, "n": 2}
        for source, recipe in build.SOURCES.items()
        if recipe["model"] in (None, "base", "rlvr", "distill")
    }
    assert {"best-of-16", "restyle-known", "restyle-foreign", "padded", "cold"} < set(sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    stages = [stage for stage in build.stages() if stage != "card"]
    lines = []
    build.build(tmp_path, lines.append, only=stages)
    assert set(json.loads((tmp_path / "training.json").read_text())) == {"base", "rlvr", "distill"}
    measured = json.loads((tmp_path / "measured.json").read_text())["sources"]
    assert {source: item["rows"] for source, item in measured.items()} == dict.fromkeys(build.SOURCES, 8)
    assert measured["teacher"]["pass"]["all"] == {"1": 1.0, "2": 1.0}
    assert abs(measured["base"]["excess@64"]["all"]) == 0.0
    lines.clear()
    build.build(tmp_path, lines.append, only=stages)
    assert lines == [f"{stage}: there already" for stage in stages]


def test_unknown_stage_is_named():
    from pathlib import Path

    with pytest.raises(ValueError, match="no stage 'basse'; stages: problems, base, rlvr"):
        build.build(Path("unused"), silent, only=["basse"])
