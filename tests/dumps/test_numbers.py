"""Log-probs and masks that rows bring: what is known, unknown, impossible and refused; trainers' names for them."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pandas as pd
import pytest

from analyzer.dumps import check as checks
from analyzer.dumps import read as dumps
from analyzer.dumps import warnings
from analyzer.dumps.dialects import rollouts
from analyzer.dumps.fields import CANONICAL, clean
from analyzer.dumps.paths import Fault
from analyzer.dumps.survey import Survey
from analyzer.errors import DumpError
from analyzer.records import Sampler
from analyzer.records.options import ReadOptions

NAN, INF = math.nan, math.inf
IDS = {"response": "a b", "question": "q", "response_ids": [5, 6]}


def cleaned(**more):
    return clean({**IDS, **more}, 1.0)


def same(found, wanted):
    """Equal, where NaN equals NaN."""
    return repr(found) == repr(wanted)


@pytest.mark.parametrize("gone", [None, NAN, -INF])
def test_what_an_engine_could_not_tell_is_unknown_and_the_row_is_kept(gone):
    assert same(cleaned(response_logprobs=[gone, -0.5])["response_logprobs"], (NAN, -0.5))


def test_the_text_of_an_impossible_token_is_refused_under_the_policy_that_drew_it():
    with pytest.raises(
        Fault, match=r'response_logprobs\[1\] = "-inf": the policy .* impossible token; expected .* null'
    ):
        cleaned(response_logprobs=[-0.5, "-inf"])


def test_what_is_impossible_is_so_at_every_lower_temperature():
    """Tokens that the policy did not write may hold anything; a number too small to be written is no contradiction."""
    said = r'base_logprobs\[1\] is "-inf" at T=1 and -3 at T=0.6; expected "-inf" at every lower temperature'
    wrong = {"0.6": [-0.5, -3], "1.0": [-0.4, "-inf"], "0.2": [-0.1, "-inf"]}
    with pytest.raises(Fault, match=said):
        cleaned(base_logprobs=wrong)
    assert "base_logprobs" in cleaned(base_logprobs=wrong, response_mask=[1, 0])
    for lower in ("-inf", None):
        assert "base_logprobs" in cleaned(base_logprobs={"1.0": [-0.4, "-inf"], "0.6": [-0.5, lower]})
    assert "base_logprobs" in cleaned(base_logprobs={"1.0": [-0.4, -900], "0.2": [-0.5, "-inf"]})


def test_entries_of_sglang_are_read_and_must_be_of_the_ids():
    assert same(cleaned(response_logprobs=[[-0.5, 5, None], [None, 6, "b"]])["response_logprobs"], (-0.5, NAN))
    with pytest.raises(Fault, match=r"response_logprobs\[1\] is of the id 7, response_ids\[1\] is 6"):
        cleaned(response_logprobs=[[-0.5, 5, None], [-0.1, 7, None]])


def test_base_logprobs_are_a_list_with_its_temperature_or_lists_by_temperature():
    out = cleaned(base_logprobs=[-0.5, "-inf"], base_logprobs_temperature=0.6)
    assert out["base_logprobs"] == {0.6: (-0.5, -INF)} and "base_logprobs_temperature" not in out
    out = cleaned(base_logprobs={"1.0": [None, 5e-4], "0.6": [-INF, NAN], "2": None})
    assert same(out["base_logprobs"], {1.0: (NAN, 5e-4), 0.6: (-INF, NAN)})
    assert "base_logprobs" not in cleaned(base_logprobs={"1.0": None}) and "base_logprobs" not in cleaned()
    assert cleaned(base_logprobs={"1.0": [-1, -2]}, base_logprobs_temperature=1)["base_logprobs"] == {1.0: (-1.0, -2.0)}


def test_policy_logprobs_are_lists_by_source_and_temperature():
    out = cleaned(policy_logprobs={"rl": {"1.0": [None, "-inf"], "0.6": [-0.5, NAN]}, "distill": {"1": [-1, -2]}})
    assert same(out["policy_logprobs"], {"rl": {1.0: (NAN, -INF), 0.6: (-0.5, NAN)}, "distill": {1.0: (-1.0, -2.0)}})
    nothing = {"rl": None, "distill": {"1.0": None}}
    assert "policy_logprobs" not in cleaned(policy_logprobs=nothing) and "policy_logprobs" not in cleaned()
    masked = cleaned(policy_logprobs={"rl": {"1": ["?", -1.0]}}, response_mask=[0, 1])
    assert same(masked["policy_logprobs"], {"rl": {1.0: (NAN, -1.0)}})


def test_check_says_whose_policies_judged_the_rows_and_names_the_label_that_no_source_has(tmp_path):
    policies = {"rk": {"1": [-1, -2]}, "rl": {"1": [-1, -2]}}
    _, ledger, said = read(tmp_path / "rl.jsonl", [ROW | {"sample": i, "policy_logprobs": policies} for i in range(2)])
    assert said["sources"]["rl"]["numbers"]["policies"] == {"rk": 2, "rl": 2}
    assert (
        "log-probs under the policy of rk (2 rows), rl (2 rows), so that what it lost needs no model"
        in checks.render(said)
    )
    notes = "\n".join(ledger.notes)
    assert "policy_logprobs names 'rk' (" in notes and "that lacks it refuses" in notes and "names 'rl'" not in notes


@pytest.mark.parametrize(
    ("more", "reason", "said"),
    [
        ({"base_logprobs": [-1.0, -2.0]}, "no base_logprobs_temperature", "--map base_logprobs_temperature=FIELD"),
        ({"base_logprobs": [-1.0], "base_logprobs_temperature": 1}, "bad logprobs", "has 1 values for 2 response ids"),
        ({"base_logprobs": {"1": [-1.0] * 3}}, "bad logprobs", "base_logprobs.1 has 3 values for 2 response ids"),
        ({"base_logprobs": {"1": [-1.0, 0.1]}}, "bad logprobs", r"base_logprobs.1\[1\] = 0.1; expected .*impossible"),
        ({"base_logprobs": {"1": [-1.0, INF]}}, "bad logprobs", "= inf"),
        ({"base_logprobs": {"1": [-1.0, "NaN"]}}, "bad logprobs", "= 'NaN'"),
        ({"base_logprobs": {"1": [-1.0, "inf"]}}, "bad logprobs", "= 'inf'"),
        ({"base_logprobs": {"1": [-1, -1], "1.0": [-1, -1]}}, "bad logprobs", "the temperature 1 twice"),
        ({"base_logprobs": {"T1": [-1, -1]}}, "bad logprobs", "the key 'T1'; expected a temperature > 0"),
        ({"base_logprobs": {"0": [-1, -1]}}, "bad logprobs", "the key '0'"),
        ({"base_logprobs": {"nan": [-1, -1]}}, "bad logprobs", "the key 'nan'"),
        ({"base_logprobs": "-1 -1"}, "bad logprobs", "expected a list beside"),
        ({"base_logprobs_temperature": 0}, "bad base_logprobs_temperature", "= 0.0; expected a number > 0"),
        ({"base_logprobs_temperature": "1"}, "bad base_logprobs_temperature", "expected a finite number"),
        (
            {"base_logprobs": {"1": [-1, -1]}, "base_logprobs_temperature": 0.6},
            "bad base_logprobs_temperature",
            "is an object of 1",
        ),
        ({"base_logprobs": [-1], "base_logprobs_temperature": 1, "response_ids": None}, "bad logprobs", "without"),
        ({"policy_logprobs": [-1, -1]}, "bad logprobs", r"policy_logprobs = \[-1, -1\]; expected an object {source: {"),
        ({"policy_logprobs": {"rl": [-1, -1]}}, "bad logprobs", r"policy_logprobs.rl = \[-1, -1\]; expected an object"),
        ({"policy_logprobs": {"rl": {"1": [-1]}}}, "bad logprobs", "policy_logprobs.rl.1 has 1 values for 2 response"),
        ({"policy_logprobs": {"rl": {"1": [-1, 0.1]}}}, "bad logprobs", r"policy_logprobs.rl.1\[1\] = 0.1; expected"),
        ({"policy_logprobs": {"rl": {"cool": [-1, -1]}}}, "bad logprobs", "policy_logprobs.rl has the key 'cool'; exp"),
        ({"policy_logprobs": {"rl": {"1": [-1], "1.0": [-1]}}}, "bad logprobs", "policy_logprobs.rl"),
        (
            {"policy_logprobs": {"rl": {"1": [-1]}}, "response_ids": None},
            "bad logprobs",
            "policy_logprobs without resp",
        ),
        ({"response_mask": [1]}, "bad mask", "1 values of response_mask for 2 response ids"),
        ({"response_mask": [1, 2]}, "bad mask", r"response_mask\[1\] = 2; expected 0, 1, true or false"),
        ({"response_mask": "10"}, "bad mask", "expected a list of 0 and 1"),
        ({"response_mask": [1, 1], "response_ids": None}, "bad mask", "without response_ids"),
    ],
)
def test_what_cannot_be_such_a_number_is_a_fault_that_says_what_can(more, reason, said):
    with pytest.raises(Fault, match=said) as caught:
        cleaned(**more)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("held", "path"),
    [
        ({"extra_info": {"loss_mask": [1, 0]}}, "extra_info.loss_mask"),
        ({"response_mask": "10"}, "response_mask"),
        ({"info": {"turns": {"action_mask": [True, False]}}}, "info.turns.action_mask"),
        ({"response_mask": [1, 0]}, None),
        ({"loss_mask": None, "extra_info": {"split": "test"}}, None),
    ],
)
def test_a_mask_that_is_not_read_is_said(tmp_path, held, path):
    """All tokens would count as the policy's own, those of a tool too."""
    (tmp_path / "d.jsonl").write_text(json.dumps({"question": "q", "response": "a", "response_ids": [5, 6]} | held))
    ledger = dumps.Ledger()
    list(dumps.stream([str(tmp_path / "d.jsonl")], ledger))
    said = [note for note in ledger.notes if "is not read as a mask" in note]
    assert len(said) == (path is not None) and all(f"--map response_mask={path} reads it" in note for note in said)


def test_a_mask_makes_both_numbers_unknown_and_is_kept():
    out = cleaned(response_logprobs=[-1, 0], base_logprobs={"1": [-2, "-inf"]}, response_mask=[True, False])
    assert same((out["response_logprobs"], out["base_logprobs"]), ((-1.0, NAN), {1.0: (-2.0, NAN)}))
    assert out["response_mask"] == [1, 0]
    assert "response_mask" not in cleaned(response_mask=[1, True])  # it says nothing


ROW = {"source": "rl", "problem": "p", "prompt": "q", "response": "a b", "response_ids": [5, 6]}


def read(path, rows, **how):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    ledger, survey = dumps.Ledger(), Survey()
    traces = [t for batch in dumps.batches([str(path)], ledger, survey, ReadOptions(**how)) for t in batch]
    return traces, ledger, checks.describe(survey, ledger)


def test_check_says_what_the_numbers_hold(tmp_path):
    both = {"response_logprobs": [-1.0, None], "logprobs_temperature": 1.0}
    rows = [
        ROW | both | {"sample": 0, "base_logprobs": {"1.0": [-2.0, "-inf"], "0.6": [-2.0, None]}},
        ROW | both | {"sample": 1, "base_logprobs": {"0.6": [-2.0, -1.0]}, "response_mask": [0, 1]},
        ROW | {"sample": 2, "base_logprobs": {"0.6": [-2.0, -1.0]}},
        ROW | {"sample": 3},
    ]
    _, ledger, said = read(tmp_path / "rl.jsonl", rows)
    assert ledger.files[0]["format"] == "canonical" and ledger.files[0]["mapping"]["base_logprobs"] == "base_logprobs"
    assert said["sources"]["rl"]["numbers"] == {
        "base_rows": 3,
        "both_rows": 2,
        "laws": {
            "0.6": {"rows": 3, "values": 6, "unknown": 1, "impossible": 0},
            "1": {"rows": 1, "values": 2, "unknown": 0, "impossible": 1},
        },
        "policies": {},
        "masked": 1,
        "masked_rows": 1,
    }
    assert (
        "rl: 3 rows bring log-probs under the base at T=0.6 (3 rows, 6 values: 1 unknown, 0 impossible), T=1 (1 row, "
        "2 values: 0 unknown, 1 impossible); 1 token masked; reach needs no model in 2 of them"
    ) in checks.render(said)
    assert any("need no model for rl" in line for line in said["next"])
    notes = "\n".join(ledger.notes)
    assert "2 log-probabilities in 2 of 4 rows are not known (null, NaN or infinite, " in notes
    assert "did not write 1 of 2 tokens of 1 row" in notes


def test_rows_without_numbers_say_nothing_of_them(tmp_path):
    _, _, said = read(tmp_path / "rl.jsonl", [ROW | {"sample": 0, "response_logprobs": [-1.0, -1.0]}])
    assert said["sources"]["rl"]["numbers"] is None and "under the base" not in checks.render(said)
    assert any("Reach of a source" in line for line in said["next"])


def test_a_map_names_the_numbers(tmp_path):
    row = {
        "prompt": "q",
        "text": "a b",
        "ids": [5, 6],
        "lp": [-1, -2],
        "ref": [-2, "-inf"],
        "cfg": {"t": 0.6},
        "m": [1, 0],
    }
    given = {
        "response": "text",
        "response_ids": "ids",
        "response_logprobs": "lp",
        "base_logprobs": "ref",
        "base_logprobs_temperature": "cfg.t",
        "response_mask": "m",
    }
    assert set(given) <= set(CANONICAL)
    traces, _, _ = read(tmp_path / "x.jsonl", [row], map=given)
    assert same((traces[0].response_logprobs, traces[0].base_logprobs), ((-1.0, NAN), {0.6: (-2.0, NAN)}))
    del given["base_logprobs_temperature"]
    with pytest.raises(DumpError, match="base_logprobs_temperature is missing"):
        read(tmp_path / "x.jsonl", [row], map=given)


def test_lists_of_samples_bring_a_list_each(tmp_path):
    row = {"prompt": "q", "outputs": ["a", "b"], "response_ids": [[5], [6]], "response_mask": [[1], [0]]}
    row |= {"base_logprobs": [[-1], [-2]], "response_logprobs": [[-3], [-4]], "base_logprobs_temperature": 0.6}
    traces, _, _ = read(tmp_path / "x.jsonl", [row])
    assert same([t.base_logprobs for t in traces], [{0.6: (-1.0,)}, {0.6: (NAN,)}])
    part = {"text": "a", "response_ids": [5], "base_logprobs": {"1": [-1]}, "rollout_log_probs": [-2]}
    traces, _, _ = read(tmp_path / "x.jsonl", [{"prompt": "q", "outputs": [part, part]}])
    assert [(t.base_logprobs, t.response_logprobs) for t in traces] == [({1.0: (-1.0,)}, (-2.0,))] * 2


def test_parquet_of_others_may_hold_floats_that_json_cannot(tmp_path):
    row = {k: v for k, v in ROW.items() if k not in ("source", "problem")}
    frame = pd.DataFrame([row | {"base_logprobs": [-INF, NAN], "base_logprobs_temperature": 0.6}])
    frame.to_parquet(tmp_path / "x.parquet")
    assert same(dumps.read_dumps([str(tmp_path / "x.parquet")])[0][0].base_logprobs, {0.6: (-INF, NAN)})


TRAINED = {"prompt": "q", "response": "a b", "response_ids": [5, 6], "reward": 1.0}


@pytest.mark.parametrize("name", rollouts.BASE)
def test_a_trainers_base_is_read_with_its_temperature_and_said_without(tmp_path, name):
    traces, ledger, _ = read(tmp_path / "x.jsonl", [TRAINED | {name: [-1, -2], "temperature": 0.6}])
    assert traces[0].base_logprobs is None
    (note,) = [n for n in ledger.notes if name in n]
    assert f"--map base_logprobs={name} --map base_logprobs_temperature=temperature" in note
    given = {"base_logprobs": name, "base_logprobs_temperature": "temperature"}
    traces, ledger, _ = read(tmp_path / "x.jsonl", [TRAINED | {name: [-1, -2], "temperature": 0.6}], map=given)
    assert traces[0].base_logprobs == {0.6: (-1.0, -2.0)} and not any(name in n for n in ledger.notes)
    traces, ledger, _ = read(tmp_path / "x.jsonl", [TRAINED | {name: [-1, -2], "base_logprobs_temperature": 1}])
    assert traces[0].base_logprobs == {1.0: (-1.0, -2.0)}
    assert any(f"{name} was read as base_logprobs." in n for n in ledger.notes)


@pytest.mark.parametrize("name", rollouts.POLICY)
def test_a_trainers_policy_is_read_where_it_fits(tmp_path, name):
    traces, ledger, _ = read(tmp_path / "x.jsonl", [TRAINED | {name: [-1, -2]}])
    assert traces[0].response_logprobs == (-1.0, -2.0) and any("without the temperature" in n for n in ledger.notes)
    padded = [TRAINED | {name: [-1, -2]}, TRAINED | {name: [-1, -2, 0], "prompt": "r"}]
    traces, ledger, _ = read(tmp_path / "x.jsonl", padded)
    assert [t.response_logprobs for t in traces] == [None, None] and ledger.rows_used == 2
    assert any(f"{name} was not read as response_logprobs: " in n and "3 values for 2" in n for n in ledger.notes)
    row = {k: v for k, v in TRAINED.items() if k != "response_ids"} | {name: [-1, -2]}
    _, ledger, _ = read(tmp_path / "x.jsonl", [row])
    assert any(f"{name} was not read: no response_ids beside it" in n for n in ledger.notes)


def test_of_two_names_the_engines_is_taken_and_the_other_said(tmp_path):
    traces, ledger, _ = read(
        tmp_path / "x.jsonl", [TRAINED | {"old_log_probs": [-1, -2], "rollout_log_probs": [-3, -4]}]
    )
    assert traces[0].response_logprobs == (-3.0, -4.0)
    assert any("rollout_log_probs was read as response_logprobs, not old_log_probs" in n for n in ledger.notes)


def test_the_rollouts_of_a_known_trainer_bring_them_too(tmp_path):
    row = {"input": "q", "output": "a b", "score": 1.0, "step": 5, "response_ids": [5, 6]}
    row |= {"old_log_probs": [-1, -2], "ref_log_prob": [-3, -4], "base_logprobs_temperature": 1.0}
    traces, ledger, _ = read(tmp_path / "5.jsonl", [row])
    assert ledger.files[0]["format"] == "verl" and traces[0].response_ids == (5, 6)
    assert (traces[0].response_logprobs, traces[0].base_logprobs) == ((-1.0, -2.0), {1.0: (-3.0, -4.0)})


def test_a_weak_name_that_is_no_list_of_logprobs_costs_no_row(tmp_path):
    row = TRAINED | {"logprobs": [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -2.0}]}
    traces, ledger, _ = read(tmp_path / "x.jsonl", [row])
    assert traces[0].response_logprobs is None
    assert any("logprobs was not read as response_logprobs: response_logprobs[0] = " in n for n in ledger.notes)


def test_a_mask_without_ids_is_said(tmp_path):
    row = {"prompt": "q", "response": "a b", "response_mask": [1, 0]}
    _, ledger, _ = read(tmp_path / "x.jsonl", [row])
    assert any("response_mask was not read: no response_ids beside it" in n for n in ledger.notes)


def test_the_example_of_the_docs_is_read(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    block = page.split("## Your own numbers")[1].split("\n\n")[1]
    rows, end = [], 0
    while block[end:].strip():
        row, end = json.JSONDecoder().raw_decode(block, len(block) - len(block[end:].lstrip()))
        rows.append(row)
    traces, ledger, _ = read(tmp_path / "x.jsonl", rows)
    assert ledger.rows_used == 3 and ledger.files[0]["format"] == "canonical"
    assert same(traces[2].policy_logprobs, {"rl": {1.0: (-0.4, -6.3, 0.0)}, "distill": {1.0: (-0.5, -INF, NAN)}})
    assert traces[0].base_logprobs == {1.0: (-0.9, -3.2, -INF), 0.6: (-0.7, -4.1, -INF)}
    assert same(traces[1].base_logprobs, {1.0: (-0.8, NAN, -0.2)})


@pytest.mark.parametrize("value", [-9999.0, -9999, -1e10, -1e29, -3.4028235e38])
@pytest.mark.parametrize("field", ["response_logprobs", "base_logprobs"])
def test_a_mark_for_outside_of_the_top_k_is_no_log_prob(field, value):
    """vLLM writes -9999 where a token is not among those whose log-probs it tells."""
    fields = {field: [-0.5, value] if field[0] == "r" else {"1": [-0.5, value]}}
    with pytest.raises(Fault, match=r"outside of their top k.*expected null there"):
        cleaned(**fields)
    assert cleaned(**(fields | {"response_mask": [1, 0]}))  # not the policy's: whatever stands there


@pytest.mark.parametrize("garbage", [1.0, "-inf", -1e31, "x", math.inf, None, [1]])
def test_what_stands_at_masked_tokens_is_not_looked_at(garbage):
    fields = {"response_logprobs": [-0.5, garbage], "base_logprobs": {"1": [-0.5, garbage]}}
    out = cleaned(**fields, response_mask=[1, 0])
    assert same((out["response_logprobs"], out["base_logprobs"]), ((-0.5, NAN), {1.0: (-0.5, NAN)}))


def test_temperatures_through_float32_are_what_they_were_made_of():
    f32 = struct.unpack("f", struct.pack("f", 0.6))[0]
    out = cleaned(response_logprobs=[-1, -2], logprobs_temperature=f32, sampler={"temperature": f32})
    assert out["logprobs_temperature"] == out["sampler"].temperature == 0.6 != f32
    assert list(cleaned(base_logprobs={repr(f32): [-1, -2]})["base_logprobs"]) == [0.6]
    assert list(cleaned(base_logprobs=[-1, -2], base_logprobs_temperature=f32)["base_logprobs"]) == [0.6]
    with pytest.raises(Fault, match=r"the temperature 0.6 twice"):
        cleaned(base_logprobs={"0.6": [-1, -2], repr(f32): [-1, -2]})


def test_sampling_settings_in_an_object_are_the_sampler(tmp_path):
    numbers = {"response_logprobs": [-1.0, -1.0], "logprobs_temperature": 1.0, "sample": 0}
    rows = [ROW | numbers | {"sampling_params": {"temperature": 0.6, "top_p": 0.95, "n": 4}, "problem": "a"}]
    rows += [ROW | numbers | {"temperature": 0.6, "top_p": 0.95, "problem": "b"}]
    traces, ledger, _ = read(tmp_path / "rl.jsonl", rows)
    assert {t.sampler for t in traces} == {Sampler(0.6, 0.95)}
    assert ledger.files[0]["mapping"]["temperature"] == "temperature | sampling_params.temperature"
    alone = [{k: v for k, v in r.items() if k != "response_logprobs"} for r in rows]
    traces, ledger, _ = read(tmp_path / "other.jsonl", alone)
    assert [t.sampler for t in traces] == [Sampler(0.6, 0.95)] * 2 and not ledger.files[0]["unused"]
    part = read(tmp_path / "part.jsonl", [ROW | numbers | {"top_p": 0.5}])[0][0]
    assert part.sampler is None and part.meta["sampler_part"] == {"top_p": 0.5}


@pytest.mark.parametrize(
    ("said", "meta"),
    [
        ({"repetition_penalty": 1.3}, {"sampler_part": {"temperature": 0.6, "repetition_penalty": 1.3}}),
        ({"sampling_params": {"num_beams": 4}}, {"sampler_part": {"temperature": 0.6, "num_beams": 4}}),
        ({"gen_kwargs": {"do_sample": False}}, {"greedy": True}),
        (
            {"generation_config": {"logit_bias": {"7": -5}}},
            {"sampler_part": {"temperature": 0.6, "logit_bias": {"7": -5}}},
        ),
        (
            {"sampler": {"temperature": 0.6, "repetition_penalty": 1.3, "seed": 3}, "temperature": None},
            {"sampler_part": {"temperature": 0.6, "repetition_penalty": 1.3}},
        ),
        (
            {"min_new_tokens": 5, "suppress_tokens": [7]},
            {"sampler_part": {"temperature": 0.6, "min_new_tokens": 5, "suppress_tokens": [7]}},
        ),
        ({"logit_bias": {"7": -INF}}, {"sampler_part": {"temperature": 0.6, "logit_bias": "{'7': -inf}"}}),
        ({"do_sample": 0}, {"greedy": True}),
        ({"top_n_sigma": -1, "suppress_tokens": [], "frequency_penalty": NAN}, {}),
        (
            {
                "sampler": {
                    "temperature": 0.6,
                    "repetition_penalty": 1.0,
                    "seed": 3,
                    "max_tokens": 100,
                    "n": 4,
                    "stop": [],
                }
            },
            {},
        ),
        ({"repetition_penalty": 1.0, "do_sample": True, "num_beams": 1, "logit_bias": None, "presence_penalty": 0}, {}),
    ],
)
def test_settings_that_shape_a_draw_and_are_no_samplers_leave_no_sampler(tmp_path, said, meta):
    plain = {"problem": "p", "source": "rl", "sample": 0, "sampler": {"temperature": 0.6}}
    numbers = {"response_logprobs": [-1.0, -1.0], "logprobs_temperature": 1.0, "sample": 0, "temperature": 0.6}
    generic = {"question": "q", "completion": "a b", "temperature": 0.6}
    for name, row in (("rl", ROW | numbers), ("canonical", ROW | plain), ("generic", generic)):
        trace = read(tmp_path / f"{name}.jsonl", [row | said])[0][0]
        assert trace.sampler == (None if meta else Sampler(0.6)), name
        assert {k: v for k, v in trace.meta.items() if k in ("greedy", "sampler_part")} == meta, name


def test_a_setting_that_no_sampler_has_is_found_in_any_row_and_said(tmp_path):
    row = ROW | {"source": "rl", "problem": "p", "sampler": {"temperature": 1}}
    rows = [row | {"sample": i} | ({"repetition_penalty": 1.02} if i > 1200 else {}) for i in range(1203)]
    traces, ledger, _ = read(tmp_path / "rl.jsonl", rows)
    assert [t.sampler for t in traces[1200:]] == [Sampler(1.0), None, None]
    (note,) = warnings.find(survey_of(traces), ledger.files)[-1:]
    assert note.startswith("rl: 2 of 1,203 rows state repetition_penalty 1.02, which no sampler here has")
    assert "no sampler is recorded from them" in note
    given = read(tmp_path / "rl.jsonl", rows, sampler={"rl": Sampler(0.5)})[0]
    assert {t.sampler for t in given} == {Sampler(0.5)}
    assert "the given --sampler rl is taken in its place" in warnings.find(survey_of(given), ledger.files)[-1]


def survey_of(traces):
    survey = Survey()
    survey.add(traces)
    return survey


@pytest.mark.parametrize(
    "row", [{"source": "rl", "problem": "p", "response": "a b"}, {"question": "q", "completion": "a b"}]
)
def test_two_masks_that_differ_are_asked_about(tmp_path, row):
    both = row | {"response_ids": [5, 6], "sample": 0, "response_mask": [1, 1], "prompt_ids": [3]}
    same_ = [both | {"loss_mask": [0, 1, 1]}, both | {"sample": 1, "action_mask": [1, 1], "loss_mask": [0.5, 0.5]}]
    assert len(read(tmp_path / "same.jsonl", same_)[0]) == 2
    late = [both | {"sample": i, "response_mask": None, "loss_mask": [0, 1]} for i in (2, 3)]  # one mask, another name
    assert [t.meta.get("response_mask") for t in read(tmp_path / "late.jsonl", same_ + late)[0]][2:] == [[0, 1]] * 2
    differs = [both | {"loss_mask": [1, 0]}]
    with pytest.raises(DumpError, match=r"two masks: loss_mask says 1 of 2 .* 2 of 2; .*--map response_mask=loss_mask"):
        read(tmp_path / "two.jsonl", differs)
    for name, mask in (("loss_mask", [1, 0]), ("response_mask", None)):
        (trace,) = read(tmp_path / "two.jsonl", differs, map={"response_mask": name})[0]
        assert trace.meta.get("response_mask") == mask


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"sampler": {"temperature": 0}}, "rows drawn at temperature 0 are no draws"),
        ({"sampler": {"top_p": 0.5}}, "its rows state a sampler in part"),
        ({"sampler": {"temperature": 0.6}}, "its log-probs are at T=1 without truncation"),
        ({"logprobs_temperature": None}, "no sampler is recorded, nor the temperature"),
        ({"base_logprobs": {"1.2": [-1, -1]}}, "above T=1 alone"),
    ],
)
def test_check_promises_no_reach_that_the_report_refuses(tmp_path, more, why):
    numbers = {
        "response_logprobs": [-1, -1],
        "logprobs_temperature": 1.0,
        "base_logprobs": {"1": [-1, -1]},
        "sample": 0,
    }
    _, _, said = read(tmp_path / "rl.jsonl", [ROW | numbers | more])
    assert any(line.startswith("Reach, hurdles and horizon: not yet for rl") and why in line for line in said["next"])
    assert not any("need no model" in line for line in said["next"])
