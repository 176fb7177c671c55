"""Sources that were sampled after different prompts: the base asked under its own, on a random model with letters for
tokens. Every expected number is computed here, from the model's logits after the ids that are meant."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import analyzer
from analyzer.analysis import figures
from analyzer.analysis.data.tables import build
from analyzer.analysis.support.prompts import OF_NO_SCORE, told
from analyzer.analysis.verdict.decide import decide
from analyzer.api import pipeline
from analyzer.api.notebook import sample
from analyzer.cli import main as cli
from analyzer.errors import DumpError, UsageError
from analyzer.records import Sampler
from analyzer.runs.merge import merge
from analyzer.runs.store import Run

LETTERS = "\n abcdefghijklmnopqrstuvwxyz0123456789<>/:?.#=ABQ"
PROBLEMS = [f"p{i}" for i in range(4)]
SOME = "base's prompt ends in white space, its own does not, and the response begins with some"
NONE = "its own prompt ends in white space, base's does not, and the response begins with none"
AGAIN = "base's prompt ends in <think>, and the response begins with it again"


def make_model(folder, seed: int):
    """A random Llama whose tokens are letters; token 0 ends a response."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"~": 0} | {letter: i + 1 for i, letter in enumerate(LETTERS)}
    backend = Tokenizer(models.WordLevel(words, unk_token="~"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="~").save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: make_model(folder / name, seed) for name, seed in (("base", 1), ("rl", 2))}


def base_prompt(problem: str) -> str:
    return f"Q: {problem}? A:"


def rl_prompt(problem: str) -> str:
    return f"<user> {problem}\n<bot> "


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def drawn(models, tmp_path_factory):
    """The dumps base and rl, each drawn from its own model after its own prompts."""
    folder = tmp_path_factory.mktemp("dumps")
    out = {}
    for name, prompt in (("base", base_prompt), ("rl", rl_prompt)):
        asked = write(folder / f"asked-{name}.jsonl", [{"id": p, "question": p, "prompt": prompt(p)} for p in PROBLEMS])
        sample([asked], folder / f"{name}.jsonl", model=models[name], n=6, max_tokens=12, seed=3, label=name)
        out[name] = named(folder / f"{name}.jsonl")
    return out


def named(path):
    """A dump whose problems are called what their questions are."""
    return write(path, [row | {"problem": row["question"]} for row in rows_of(path)])


def rows_of(path):
    return [json.loads(line) for line in open(path)]


def encode(text: str) -> list[int]:
    return [LETTERS.index(letter) + 1 for letter in text]


def expected(folder: str, prompt: list[int], response: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
    return logits[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])[:, 0].numpy()


def new_run(path, dumps, **settings) -> Run:
    run = Run.create(path)
    sources = {s for d in dumps for s in [d.split("=")[0]] if "=" in d} or {"base", "rl"}
    pipeline.ingest(run, list(dumps), sampler={s: Sampler() for s in sources})
    if settings:
        pipeline.score(run, **settings)
    return run


def by_key(run, label, name="logprob"):
    return {row["key"]: row[name] for part in run.tokens(label, [name]) for row in part.to_dict("records")}


def checks(run):
    """(check, source) -> row of the preflight."""
    results, _ = pipeline.analyze(run, ["preflight"])
    return {(r["check"], r["source"]): r for r in results["preflight"].tables["checks"].to_dict("records")}


@pytest.fixture(scope="module")
def under_base(models, drawn, tmp_path_factory):
    """The run with --prompt-of base and the model of rl."""
    path = tmp_path_factory.mktemp("run") / "run"
    return new_run(path, drawn.values(), base=models["base"], policy={"rl": models["rl"]}, prompt_of="base")


def test_every_law_is_asked_after_the_prompts_of_its_own_source(models, drawn, under_base):
    """Under the base, base's prompt and the response's ids; under rl's model, rl's prompt, whoever wrote them."""
    base, policy = by_key(under_base, "base"), by_key(under_base, "policy-rl")
    assert len(base) == len(policy) == 48
    prompts = {"base": base_prompt, "policy-rl": rl_prompt}
    for source, path in drawn.items():
        for row in rows_of(path)[::5]:
            key = f"{source}/{row['problem']}/{row['sample']}"
            for label, found, name in (("base", base, "base"), ("policy-rl", policy, "rl")):
                wanted = expected(models[name], encode(prompts[label](row["problem"])), row["response_ids"])
                assert np.abs(found[key] - wanted).max() < 1e-5, (key, label)
                other = prompts["policy-rl" if label == "base" else "base"]
                wrong = expected(models[name], encode(other(row["problem"])), row["response_ids"])
                assert np.abs(found[key] - wrong).max() > 0.01, (key, label)


def test_it_is_plain_scoring_of_dumps_whose_prompts_were_exchanged_by_hand(models, drawn, tmp_path):
    """To 1e-6 by the defining path, in every column."""
    exchanged = [row | {"prompt_ids": encode(base_prompt(row["problem"]))} for row in rows_of(drawn["rl"])]
    by_hand = [drawn["base"], write(tmp_path / "rl.jsonl", exchanged)]
    how = {"base": models["base"], "policy": {"rl": models["rl"]}, "scorer": "plain"}
    one = new_run(tmp_path / "one", drawn.values(), **how, prompt_of="base")
    two = new_run(tmp_path / "two", by_hand, **how)
    three = new_run(tmp_path / "three", drawn.values(), **how)
    for name in ("logprob", "entropy", "rank", "mass_above", "power_2.5"):
        for key, values in by_key(two, "base", name).items():
            assert np.allclose(by_key(one, "base", name)[key], values, atol=1e-6, rtol=0), (name, key)
    own = {key: v for key, v in by_key(three, "policy-rl").items() if key.startswith("rl/")}
    assert len(own) == 24 and all(np.array_equal(by_key(one, "policy-rl")[key], v) for key, v in own.items())


def test_the_run_says_whose_prompts_and_for_which_traces(under_base):
    assert under_base.manifest["settings"]["prompt_of"] == "base"
    record = under_base.manifest["scorers"]["base"]
    assert record["prompt_of"] == "base" and under_base.manifest["scorers"]["policy-rl"]["prompt_of"] == "rl"
    assert record["prompts"].keys() == {"rl"}
    counts = record["prompts"]["rl"]
    assert (counts["traces"], counts["other"], counts["unknown"], counts["missing"]) == (24, 24, 0, 0)
    assert record["decisions"]["prompt: that of base in place of its own"] == 24


def test_unequal_prompts_are_refused_and_the_refusal_names_what_works(models, drawn, under_base, tmp_path):
    run = new_run(tmp_path / "run", drawn.values(), base=models["base"], policy={"rl": models["rl"]})
    row = checks(run)["prompts", "rl"]
    assert row["gates"] and row["passed"] is False and row["value"] == 1
    assert "score with --prompt-of base into another -o folder" in row["note"]
    assert "prompt_of" not in run.manifest["settings"] and "prompts" not in run.manifest["scorers"]["base"]
    followed = checks(under_base)  # what the message says was done
    assert followed["prompts", "rl"]["passed"] is True and followed["prompts", "rl"]["value"] == 0
    assert "scored under base's prompt" in followed["prompts", "rl"]["note"]
    gates = [r for r in followed.values() if r["gates"] and r["passed"] is False]
    assert not gates, gates


def test_a_reference_with_several_prompts_is_not_told_to_use_what_would_refuse_it(models, drawn, tmp_path):
    rows = rows_of(drawn["base"])
    rows[0] |= {"prompt_ids": encode("Q: other? A:")}
    dumps = [write(tmp_path / "base.jsonl", rows), drawn["rl"]]
    note = checks(new_run(tmp_path / "run", dumps, base=models["base"]))["prompts", "rl"]["note"]
    assert note.endswith("but base has several prompts in 1 of them: no --prompt-of")
    assert "score with --prompt-of" not in note
    run = new_run(tmp_path / "other", dumps)
    with pytest.raises(
        DumpError, match=r"base asks problem p0 after different prompts \(.*base.jsonl:1, .*:2\)"
    ) as told:
        pipeline.score(run, base=models["base"], prompt_of="base")
    assert "give the rows of each a label of their own" in str(told.value) and not run.manifest["scorers"]
    # and that works
    dumps = [f"base={write(tmp_path / 'rest.jsonl', rows[1:])}", f"odd={write(tmp_path / 'odd.jsonl', rows[:1])}"]
    run = new_run(tmp_path / "apart", [*dumps, f"rl={drawn['rl']}"], base=models["base"], prompt_of="base")
    assert set(run.status_counts("base")) == {"ok"}
    assert {s: c["other"] for s, c in run.manifest["scorers"]["base"]["prompts"].items()} == {"odd": 1, "rl": 24}


def test_several_prompts_of_a_trained_source_cost_only_what_they_leave_open(models, drawn, tmp_path):
    rows = rows_of(drawn["rl"])
    rows[0] |= {"prompt_ids": encode("<user> other\n<bot> ")}
    dumps = [drawn["base"], write(tmp_path / "rl.jsonl", rows)]
    run = new_run(tmp_path / "run", dumps, base=models["base"], policy={"rl": models["rl"]}, prompt_of="base")
    assert run.status_counts("base") == {"ok": 48}
    assert run.status_counts("policy-rl") == {"ok": 42, "rl has several prompts of its problem": 6}


@pytest.mark.parametrize(
    "label, message",
    [
        ("bsae", r"--prompt-of bsae: no source has that label; did you mean 'base'\?"),
        ("rl", r"--prompt-of rl: the reference base was drawn after its own prompts.*analyzer sample DUMP_OF_rl"),
    ],
)
def test_only_the_reference_can_be_named(models, drawn, tmp_path, label, message):
    run = new_run(tmp_path / "run", drawn.values())
    with pytest.raises(UsageError, match=message):
        pipeline.score(run, base=models["base"], prompt_of=label)
    with pytest.raises(UsageError, match=message):
        analyzer.estimate(run, base=models["base"], prompt_of=label)


def test_a_run_keeps_its_prompts(models, drawn, under_base, tmp_path, monkeypatch):
    how = {"base": models["base"], "policy": {"rl": models["rl"]}}
    with pytest.raises(UsageError, match="after the prompts of base, now with every .*: add --prompt-of base, or use"):
        pipeline.score(under_base, **how)
    before = sorted(under_base.path.glob("scores/*/*"))
    pipeline.score(under_base, **how, prompt_of="base")
    assert sorted(under_base.path.glob("scores/*/*")) == before
    own = new_run(tmp_path / "own", drawn.values(), **how)
    with pytest.raises(
        UsageError, match="every trace after its own prompt, now with .*: leave --prompt-of out, or use"
    ):
        pipeline.score(own, **how, prompt_of="base")
    # cut off in the middle: continued as it was begun, to the same numbers
    from analyzer.scoring import parts as scoring

    monkeypatch.setattr(scoring, "UNIT_TRACES", 7)

    def stop(label, done, total, tokens):
        if done > 20:
            raise KeyboardInterrupt

    run = new_run(tmp_path / "cut", drawn.values())
    with pytest.raises(KeyboardInterrupt):
        pipeline.score(run, **how, prompt_of="base", progress=stop)
    with pytest.raises(UsageError, match="add --prompt-of base"):
        pipeline.score(run, **how)
    pipeline.score(run, **how, prompt_of="base")
    assert run.manifest["scorers"]["base"]["prompts"] == under_base.manifest["scorers"]["base"]["prompts"]
    for label in ("base", "policy-rl"):
        whole = by_key(under_base, label)
        assert all(np.allclose(v, whole[key], atol=1e-5) for key, v in by_key(run, label).items())


def test_shards_are_joined_only_where_the_prompts_are_the_same(models, drawn, under_base, tmp_path, monkeypatch):
    from analyzer.scoring import parts as scoring

    monkeypatch.setattr(scoring, "UNIT_TRACES", 7)
    how = {"base": models["base"], "policy": {"rl": models["rl"]}}
    paths = {}
    for name, i, prompt_of in (("a", 0, "base"), ("b", 1, "base"), ("c", 1, None)):
        paths[name] = tmp_path / name
        new_run(paths[name], drawn.values(), **how, prompt_of=prompt_of, shard=(i, 2))
    run, missing = merge([paths["a"], paths["b"]], tmp_path / "whole")
    assert not missing and run.manifest["settings"]["prompt_of"] == "base"
    assert run.manifest["scorers"]["base"]["prompts"] == under_base.manifest["scorers"]["base"]["prompts"]
    with pytest.raises(UsageError, match="prompt_of"):
        merge([paths["a"], paths["c"]], tmp_path / "mixed")


def test_a_problem_that_the_base_was_not_asked_is_counted(models, drawn, tmp_path):
    few = [row for row in rows_of(drawn["base"]) if row["problem"] != "p2"]
    dumps = [write(tmp_path / "base.jsonl", few), drawn["rl"]]
    run = new_run(tmp_path / "run", dumps, base=models["base"], prompt_of="base")
    assert run.status_counts("base") == {"ok": 36, "base has no prompt of its problem": 6}
    assert pipeline.ledger(run)["by_reason"] == {"not scored: base has no prompt of its problem": 6}
    assert run.manifest["scorers"]["base"]["prompts"]["rl"]["missing"] == 6
    assert checks(run)["prompts", "rl"]["passed"] is True


def test_the_same_weights_after_two_prompts_are_two_laws(models, drawn, tmp_path):
    """A source that is the base itself after another prompt gets a scorer of its own, and no word by construction."""
    asked = write(tmp_path / "asked.jsonl", [{"id": p, "question": p, "prompt": rl_prompt(p)} for p in PROBLEMS])
    sample([asked], tmp_path / "rl.jsonl", model=models["base"], n=6, max_tokens=12, seed=4, label="rl")
    dumps = [drawn["base"], named(tmp_path / "rl.jsonl")]
    run = new_run(tmp_path / "run", dumps, base=models["base"], policy={"rl": models["base"]}, prompt_of="base")
    assert run.manifest["policies"] == {"base": "base", "rl": "policy-rl"}
    for row in rows_of(dumps[1])[::5]:
        wanted = expected(models["base"], encode(rl_prompt(row["problem"])), row["response_ids"])
        assert np.abs(by_key(run, "policy-rl")[f"rl/{row['problem']}/{row['sample']}"] - wanted).max() < 1e-5
    results, _ = pipeline.analyze(run, ["support", "preflight"])
    row = results["support"].tables["evidence"].set_index("source").loc["rl"]
    assert not row["same_weights"] and row["n"] == 24
    verdicts = told(decide(results, sources=["base", "rl"], reference="base"), build(run))
    assert all(any(why.startswith("only prompt and sampler differ") for why in v.why) for v in verdicts)
    table = results["preflight"].tables["checks"].set_index(["check", "source"])
    assert table.loc[("declared", "rl"), "passed"] and table.loc[("prompts", "rl"), "passed"]
    # after one prompt they are one law, whatever the option
    again = write(tmp_path / "again.jsonl", [row | {"source": "rl"} for row in rows_of(drawn["base"])])
    how = {"base": models["base"], "policy": {"rl": models["base"]}}
    same = new_run(tmp_path / "same", [drawn["base"], again], **how, prompt_of="base")
    assert build(same).engines["base"]["prompts"]["rl"]["other"] == 0
    results, _ = pipeline.analyze(same, ["support"])
    assert results["support"].tables["evidence"].set_index("source").loc["rl", "same_weights"]
    assert "prompt_of" not in results["support"].params


@pytest.mark.parametrize(
    "own, new, response, seam",
    [
        ("Q: 1\n<think>\n", "Q: 1\nbot\n", "so 1</think>", "its own prompt ends in <think>, base's does not"),
        # the tag that its own prompt ends in is no token of the response
        ("Q: 1\n<think>\n", "Q: 1\nbot\n", "<think>\nso", "its own prompt ends in <think>, base's does not"),
        ("Q: 1\nbot\n", "Q: 1\n<think>\n", "<think> so", AGAIN),
        ("Q: 1\nbot\n", "Q: 1\n<think>\n", "so 1", "base's prompt ends in <think>, its own does not"),
        ("Q: 1\n</think>\n", "Q: 1\n<think>\n", "so 1", "its own prompt ends in </think>, base's in <think>"),
        ("Q: 1\n<think>\n", "B: 1\n<think>\n", "so 1", None),
        ("Q: 1\n", "Q: 1 A:", "so", NONE),
        ("Q: 1\n", "Q: 1 A:", " so", None),
        ("Q: 1:", "Q: 1\n", " so", SOME),
        ("Q: 1:", "A: 1:", "so", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ids", [False, True])
def test_seams_are_counted_and_said(models, tmp_path, own, new, response, seam, ids):
    def row(source, prompt, i):
        held = {"prompt_ids": encode(prompt), "response_ids": encode(response)} if ids else {}
        return {"source": source, "problem": f"p{i}", "sample": 0, "prompt": prompt, "response": response} | held

    if ids and own.endswith(response[:8]):
        seam = None  # ids are as they were sampled: the tag is one of theirs, and opens what base's prompt does not
    rows = [row(s, p, i) for s, p in (("base", new), ("rl", own)) for i in range(3)]
    run = new_run(tmp_path / "run", [write(tmp_path / "dump.jsonl", rows)], base=models["base"], prompt_of="base")
    record = run.manifest["scorers"]["base"]
    assert record["prompts"]["rl"]["seams"] == ({seam: 3} if seam else {})
    assert {k: n for k, n in record["decisions"].items() if k.startswith("seam")} == (
        {f"seam: {seam}": 3} if seam else {}
    )
    check = checks(run)["seams", "rl"]
    assert check["passed"] is (seam is None) and not check["gates"]
    assert seam is None or f"{seam} (3)" in check["note"]


def test_an_end_token_of_another_template_is_named_with_what_makes_it_one(models, tmp_path):
    """`#` as the end token of the source's template, which the base's model does not know as one."""
    import shutil

    from transformers import AutoTokenizer

    model = tmp_path / "model"
    shutil.copytree(models["base"], model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["#"]})
    tokenizer.save_pretrained(model)
    [end] = encode("#")
    rows = [
        {"source": s, "problem": f"p{i}", "sample": 0, "prompt_ids": encode(p), "response_ids": [*encode(" so"), last]}
        for s, p, last in (("base", "Q:", 0), ("rl", "A:", end))
        for i in range(3)
    ]
    dump = write(tmp_path / "dump.jsonl", rows)
    run = new_run(tmp_path / "run", [dump], base=str(model), prompt_of="base")
    row = checks(run)["seams", "rl"]
    assert row["passed"] is False and row["value"] == 1
    assert f"no end token of the base ends them: # (id {end}) (3), score with --eos ID into another -o" in row["note"]
    verdicts = told(decide({}, sources=["base", "rl"], reference="base"), build(run))
    assert f"3 of 3 responses end in what is no end token of the base: # (id {end}) (3)" in verdicts[0].why
    run = new_run(tmp_path / "other", [dump], base=str(model), prompt_of="base", eos=end)  # what it says
    assert checks(run)["seams", "rl"]["passed"] is True and end in run.manifest["scorers"]["base"]["eos_ids"]


def test_a_base_with_ids_and_a_source_with_messages_that_its_tokenizer_cannot_render(models, tmp_path):
    """Messages need a chat template, which a base model seldom has: they are not what it is asked after."""
    base = {"source": "base", "problem": "p", "sample": 0, "prompt_ids": encode("Q: 1 A:"), "response": " so"}
    asked = [{"role": "user", "content": "Q: 1"}]
    rl = {"source": "rl", "problem": "p", "sample": 0, "prompt": asked, "response": "<think> so"}
    bare = {"source": "bare", "problem": "p", "sample": 0, "question": "Q: 1", "response": " so"}
    run = new_run(tmp_path / "run", [write(tmp_path / "d.jsonl", [base, rl, bare])])
    with pytest.raises(DumpError, match="no chat template"):
        pipeline.score(run, base=models["base"], template={"bare": "none"})
    pipeline.score(run, base=models["base"], prompt_of="base")
    record = run.manifest["scorers"]["base"]["prompts"]
    assert (record["rl"]["unknown"], record["bare"]["unknown"], record["rl"]["other"]) == (1, 1, 0)
    found = by_key(run, "base")
    for source, text in (("rl", "<think> so"), ("bare", " so")):
        wanted = expected(models["base"], encode("Q: 1 A:"), encode(text))
        assert np.abs(found[f"{source}/p/0"] - wanted).max() < 1e-5
    prompt = checks(run)["prompts", "rl"]
    assert prompt["passed"] is True and "scored under base's prompt" in prompt["note"]


def test_a_template_on_one_side_is_used_for_what_it_renders(models, tmp_path):
    base = {"source": "base", "problem": "p", "sample": 0, "question": "1?", "response": " so"}
    rl = {"source": "rl", "problem": "p", "sample": 0, "prompt": "<user> 1?\n<bot>", "response": " so"}
    (tmp_path / "t.txt").write_text("Q: {question} A:")
    run = new_run(tmp_path / "run", [write(tmp_path / "d.jsonl", [base, rl])])
    with pytest.raises(DumpError, match="only the bare question for base/p/0"):
        pipeline.score(run, base=models["base"], prompt_of="base")
    pipeline.score(run, base=models["base"], template={"base": str(tmp_path / "t.txt")}, prompt_of="base")
    wanted = expected(models["base"], encode("Q: 1? A:"), encode(" so"))
    assert all(np.abs(v - wanted).max() < 1e-5 for v in by_key(run, "base").values())


def test_rows_with_their_own_base_logprobs_stay_refused_and_are_told_why(models, drawn, tmp_path):
    own = by_key(new_run(tmp_path / "first", drawn.values(), base=models["base"]), "base")
    rows = rows_of(drawn["rl"])
    for row in rows:
        values = own[f"rl/{row['problem']}/{row['sample']}"].tolist()
        row |= {"response_logprobs": values, "base_logprobs": {"1": values}}
    dumps = [drawn["base"], write(tmp_path / "rl.jsonl", rows)]
    run = new_run(tmp_path / "own", dumps, base=models["base"])
    assert "score with --prompt-of base and --policy rl=MODEL into another" in checks(run)["prompts", "rl"]["note"]
    run = new_run(tmp_path / "run", dumps, base=models["base"], prompt_of="base")
    row = checks(run)["prompts", "rl"]
    assert row["passed"] is False and row["value"] == 1
    assert "bring base_logprobs, which --prompt-of base does not change: give --policy rl=MODEL" in row["note"]
    pipeline.score(run, base=models["base"], policy={"rl": models["rl"]}, prompt_of="base")
    assert checks(run)["prompts", "rl"]["passed"] is True


def test_a_dry_run_counts_the_tokens_that_scoring_will(models, drawn, tmp_path):
    how = {"base": models["base"], "policy": {"rl": models["rl"]}}
    run = new_run(tmp_path / "run", drawn.values())
    plan = analyzer.estimate(run, **how, prompt_of="base")["models"]
    prompts = {"base": base_prompt, "policy-rl": rl_prompt}
    for label, prompt in prompts.items():
        assert plan[label]["prompt_tokens"] == sum(12 * len(prompt(p)) for p in PROBLEMS), label
    assert plan["base"]["prompt_tokens"] != analyzer.estimate(run, **how)["models"]["base"]["prompt_tokens"]


def test_every_page_says_whose_prompt(models, drawn, tmp_path, capsys, monkeypatch):
    """From the command line: scored, then reported on by a command that reads it in the run."""

    def save(spec, result, name, directory, *, style):
        """In place of a drawing, which takes most of the time of a report."""
        directory.mkdir(exist_ok=True)
        paths = {kind: directory / f"{name}.{kind}" for kind in ("svg", "pdf", "csv")}
        for path in paths.values():
            path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        return paths

    monkeypatch.setattr(figures, "save", save)
    monkeypatch.setenv("NO_COLOR", "1")
    run, out = tmp_path / "run", tmp_path / "out"
    line = [*drawn.values(), "--base", models["base"], "--policy", f"rl={models['rl']}", "--sampler", "base=1"]
    assert cli.main(["score", *line, "--sampler", "rl=1", "--prompt-of", "base", "-o", str(run)]) == 0
    assert "prompt: that of base in place of its own (24)" in capsys.readouterr().err
    assert cli.main(["report", str(run), "-o", str(out), "--no-robustness", "--budget", "4"]) == 0
    shown, said = capsys.readouterr().out, "scored under base's prompt"
    data = json.loads((out / "results.json").read_text())
    assert {v["prompt_of"] for v in data["verdicts"]} == {"base"}
    assert not any("no verdict" in why for v in data["verdicts"] for why in v["why"])
    for name in ("preflight", "perplexity", "support", "tokens", "clusters", "paired"):
        analysis = data["analyses"][name]
        assert said in analysis["notes"][0] and analysis["params"]["prompt_of"] == "base", name
        for key, e in analysis["estimates"].items():
            mine = key.startswith(("rl.", "rl-base.")) and not OF_NO_SCORE.search(key)
            assert (said in e["method"]) == mine, key
    for name in ("boundary", "contained"):
        assert said not in json.dumps(data["analyses"][name]), name
    assert said not in json.dumps(data["analyses"]["strategy"]["estimates"])
    [head] = [v for v in data["verdicts"] if v["headline"]]
    place = said if head["level"] == "sequence" else "each drawn under its own prompt"
    markdown, page = ((out / name).read_text().replace("&#39;", "'") for name in ("report.md", "index.html"))
    for text in (shown, markdown, page):
        assert place in text
    for text in (shown, markdown, page, (out / "tables" / "key.tex").read_text()):
        assert f"Under the base: rl {said}." in text
    captions = [line for line in markdown.splitlines() if line.startswith("![")]
    assert len(captions) > 10 and all(said in c for c in captions if "support-" in c or "perplexity-" in c)
    assert not any(said in c for c in captions if re.search("boundary-|contained-|strategy-|paired-pass", c))
    assert all("this does not tell training from prompting" in " ".join(v["why"]) for v in data["verdicts"])
    for source, wanted in (("rl", True), ("base", False)):
        assert cli.main(["show", str(run), f"{source}/p0/0"]) == 0
        assert (said in capsys.readouterr().out) == wanted
        assert cli.main(["show", str(run), f"{source}/p0/0", "--json"]) == 0
        assert json.loads(capsys.readouterr().out).get("prompt_of") == ("base" if wanted else None)
    assert cli.main(["compare", str(run), "rl", "base"]) == 0
    assert f"rl: {said}, not their own" in capsys.readouterr().out


def test_without_a_model_the_flag_has_nothing_to_act_on(drawn, tmp_path, capsys):
    assert cli.main(["report", *drawn.values(), "--prompt-of", "base", "-o", str(tmp_path / "out")]) == 2
    assert "--prompt-of: nothing is scored without --base MODEL" in capsys.readouterr().err


def test_seams_stand_among_the_reasons_of_a_verdict(models, drawn, tmp_path):
    rows = [row | {"prompt_ids": encode(f"<user> {row['problem']}\n<think>\n")} for row in rows_of(drawn["rl"])]
    dumps = [drawn["base"], write(tmp_path / "rl.jsonl", rows)]
    tables = build(new_run(tmp_path / "run", dumps, base=models["base"], prompt_of="base"))
    verdicts = told(decide({}, sources=["base", "rl"], reference="base"), tables)
    assert {v.prompt_of for v in verdicts} == {"base"}
    for v in verdicts:
        said = any(why.startswith("seams of base's prompt and 24 of 24 responses: ") for why in v.why)
        assert said == (v.level == "sequence")
        assert v.as_json()["prompt_of"] == "base"
    assert "prompt_of" not in decide({}, sources=["base", "rl"], reference="base")[0].as_json()
