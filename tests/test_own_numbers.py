"""Words from the numbers that rows bring with them: ids, log-probs under their policy and under the base, and no model.

The worlds are bigrams (`validation.bigram`), so that every number is exact and the truth of every word is known.
"""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from analyzer.analysis.data.tables import build
from analyzer.analysis.pairs import run as paired
from analyzer.analysis.verdict.decide import decide
from analyzer.api import pipeline
from analyzer.cli.main import main
from analyzer.errors import DumpError
from analyzer.records import Sampler, Verdict
from analyzer.runs.store import Run
from validation import bigram as B

V, PROBLEMS, N, LONGEST = 30, 8, 24, 60
RARE = V - 2
TEMPERATURES = (1.0, 0.8, 0.6, 0.4, 0.2)
WARM, COLD = Sampler(0.6), Sampler(0.3)


def base_law() -> np.ndarray:
    base = B.law(np.random.default_rng(0), V, 1.5)
    base[:, RARE] = -np.inf
    base = B.normalised(base) + np.log1p(-1e-7)
    base[:, RARE] = np.log(1e-7)
    return base


def lines(source, made: B.Made, *, temperatures=TEMPERATURES, change=None, base=None) -> list[dict]:
    """The draws as rows with response_logprobs and base_logprobs by temperature; `change` is applied to each row."""
    base, d = base_law() if base is None else base, made.draws
    laws = {t: B.sampled(base, Sampler(t)) for t in temperatures}
    before = np.concatenate([d.start[:, None], np.maximum(d.tokens[:, :-1], 0)], 1)
    out = []
    for i, text in enumerate(B.rows(source, made, numbers={"response_logprobs": d.log_q})):
        row, n = json.loads(text), int(d.length[i])
        row["base_logprobs"] = {f"{t:g}": law[before[i, :n], d.tokens[i, :n]].tolist() for t, law in laws.items()}
        row["base_logprobs"] = {t: [x if x > -math.inf else "-inf" for x in v] for t, v in row["base_logprobs"].items()}
        row |= {"response": f"{source} {i}", "question": f"of {row['problem']}"}
        out.append(change(row, i) if change else row)
    return out


def draws(parts, seed: int, n: int = N) -> B.Draws:
    return B.draw(np.random.default_rng(seed), parts, PROBLEMS, n, LONGEST)


def sources(seed: int = 1) -> dict[str, B.Made]:
    """A base, another draw of it, a policy that is the base at T = .5, one that plants a token in half its traces."""
    base = base_law()
    cold = B.sampled(base, Sampler(0.5))
    planted = [B.Component(0.5, base), B.Component(0.5, base, {30: RARE})]
    made = {"base": [B.Component(1, base)], "again": [B.Component(1, base)], "cold": [B.Component(1, cold)]}
    return {s: B.Made(draws(parts, seed + i)) for i, (s, parts) in enumerate((made | {"planted": planted}).items())}


def written(folder, rows: dict[str, list[dict]]) -> list[str]:
    paths = []
    for source, found in rows.items():
        path = folder / f"{source}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in found))
        paths.append(str(path))
    return paths


def words(folder, rows: dict[str, list[dict]], **how) -> dict[str, Verdict]:
    """source -> its verdict at the sequence level."""
    run = Run.create(folder / "run")
    pipeline.ingest(run, written(folder, rows), **how)
    results, left = pipeline.analyze(run, ["support"])
    assert not left
    labels = list(build(run).sources)
    found = decide(results, sources=labels, reference="base")
    return {v.source: v for v in found if v.level == "sequence"}


def test_the_command_line_gives_each_word_without_a_model(tmp_path, capsys):
    paths = written(tmp_path, {s: lines(s, made) for s, made in sources().items()})
    assert main(["report", *paths, "-o", str(tmp_path / "out"), "--no-robustness"]) in (0, None)
    data = json.loads((tmp_path / "out" / "results.json").read_bytes())
    found = {v["source"]: v for v in data["verdicts"] if v["level"] == "sequence"}
    assert {s: v["verdict"] for s, v in found.items()} == {"again": "inside", "cold": "sharpened", "planted": "outside"}
    assert any(re.search(r"T=0\.[456]\d? explains", w) for w in found["cold"]["why"])
    estimates = data["analyses"]["support"]["estimates"]
    # 192 draws of a fair coin: within .15 with probability above 1 - 1e-4
    assert estimates["planted.hurdle_share@64"]["value"] == pytest.approx(0.5, abs=0.15)
    assert estimates["planted.hurdles@64"]["value"] == pytest.approx(0.5, abs=0.15)
    assert estimates["again.reach@64"]["note"] == "from the log-probs that the rows bring"
    places = data["analyses"]["support"]["tables"]["hurdles"]
    at = [dict(zip(places["columns"], row, strict=True)) for row in places["rows"]]
    assert {r["position"] for r in at} == {30} and {r["source"] for r in at} == {"planted"}
    assert any("could not be checked" in n for n in data["analyses"]["support"]["notes"])
    assert "SHARPENED" in (tmp_path / "out" / "report.md").read_text()


def test_one_temperature_alone_makes_no_word_that_needs_others(tmp_path):
    """At T = 1 alone: inside stays, and tokens that no cooling lifts are outside; what is beyond as a whole is neither
    sharpened nor reweighted, nor outside for hurdles that cooling alone would make."""
    base = base_law()
    made = sources()
    law = B.normalised(base + np.random.default_rng(3).normal(size=base.shape))
    made["other"] = B.Made(draws([B.Component(1, law)], 9))
    got = words(tmp_path, {s: lines(s, m, temperatures=(1.0,)) for s, m in made.items()})
    want = {"again": "inside", "cold": "undetermined", "planted": "outside", "other": "undetermined"}
    assert {s: v.word for s, v in got.items()} == want
    for source in ("cold", "other"):
        assert "base_logprobs at .8, .6, .4, .2" in got[source].needs, got[source].needs
    assert any("beyond 4,096 times the base's, which no cooling lifts" in w for w in got["planted"].why)


def test_two_temperatures_are_enough_to_tell_sharpening(tmp_path):
    got = words(tmp_path, {s: lines(s, made, temperatures=(1.0, 0.6)) for s, made in sources().items()})
    assert {s: v.word for s, v in got.items()} == {"again": "inside", "cold": "sharpened", "planted": "outside"}


def test_the_reference_as_it_was_sampled_is_enough_for_inside(tmp_path):
    """T = .6 on both sides, base log-probs at .6 alone: the law of T = 1 is missing, which other words ask for."""
    warm = B.sampled(base_law(), WARM)
    scripts = {"base": {}, "again": {}, "planted": {30: RARE}}
    made = {s: B.Made(draws([B.Component(1, warm, script)], i), WARM) for i, (s, script) in enumerate(scripts.items())}
    got = words(tmp_path, {s: lines(s, m, temperatures=(0.6,)) for s, m in made.items()})
    assert got["again"].word == "inside" and "(as the reference was sampled)" in got["again"].why[0]
    assert got["planted"].word == "undetermined" and got["planted"].needs.startswith(
        "log-probs under the base at T=1: base_"
    )


def test_a_law_that_does_not_count_makes_no_word_and_no_crash(tmp_path):
    made = {s: m for s, m in sources().items() if s in ("base", "again")}
    got = words(tmp_path, {s: lines(s, m, temperatures=(0.8,)) for s, m in made.items()})["again"]
    assert got.word == "undetermined" and any("log-probs under the base are not known at T=1" in w for w in got.why)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sampler", [Sampler(), WARM])
def test_what_the_base_cannot_draw_at_all_is_a_hurdle(tmp_path, sampler):
    """ "-inf" under every law, in a third of the traces."""

    def impossible(row, i):
        if i % 3 == 0:
            for values in row["base_logprobs"].values():
                values[20] = "-inf"
        return row

    law = B.sampled(base_law(), sampler)
    made = {s: B.Made(draws([B.Component(1, law)], i), sampler) for i, s in enumerate(("base", "again"))}
    rows = {"base": lines("base", made["base"]), "again": lines("again", made["again"], change=impossible)}
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, written(tmp_path, rows))
    results, _ = pipeline.analyze(run, ["support"])
    e = results["support"].estimates
    assert e["again.hurdle_share@64"].value == e["again.hurdles@64"].value == e["again.beyond@64"].value == 1 / 3
    assert set(results["support"].tables["hurdles"]["position"]) == {20}
    (verdict,) = (v for v in decide(results, sources=["again"], reference="base") if v.level == "sequence")
    assert verdict.word == "outside"


@pytest.mark.parametrize("side", ["response_logprobs", "base_logprobs"])
def test_a_number_that_is_not_known_keeps_the_row_and_bars_inside(tmp_path, side):
    def gone(row, i):
        if i == 5:
            lists = [row[side]] if side == "response_logprobs" else row[side].values()
            for values in lists:
                values[7] = None
        return row

    made = {s: m for s, m in sources().items() if s in ("base", "again")}
    rows = {"base": lines("base", made["base"]), "again": lines("again", made["again"], change=gone)}
    got = words(tmp_path, rows)["again"]
    assert got.word == "undetermined" and got.needs == "log-probs of every token"
    assert "1 trace has tokens without a number: counted against every bound" in got.why
    assert any(f"over {PROBLEMS * N} traces" in w for w in got.why)


def nameless(row, i):
    """No number at the place of the planted token."""
    at = [i for i, t in enumerate(row["response_ids"]) if t == RARE]
    for i in at:
        row["response_logprobs"][i] = None
    return row


def silent(row, i):
    if RARE in row["response_ids"]:
        del row["response_logprobs"]
    return row


@pytest.mark.parametrize("change", [nameless, silent])
def test_what_has_no_number_is_in_no_printed_interval_left_out(tmp_path, change):
    """The planted token is in a fifth or more of the traces and its number in none: every interval holds that share."""
    made = sources()
    share = float((made["planted"].draws.tokens == RARE).any(1).mean())
    rows = {"base": lines("base", made["base"]), "planted": lines("planted", made["planted"], change=change)}
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, written(tmp_path, rows))
    result = pipeline.analyze(run, ["support"])[0]["support"]
    found = result.estimates
    for name in ("reach", "beyond", "hurdle_share"):
        estimate = found[f"planted.{name}@64"]
        assert estimate.low <= share <= estimate.high and "count against both ends" in estimate.note, name
    for name in ("hurdles", "hurdle_rate", "horizon"):
        estimate = found[f"planted.{name}@64"]
        assert math.isnan(estimate.high) and "count against both ends" in estimate.note
    row = result.tables["evidence"].set_index("source").loc["planted"]
    assert row["inside_high"] >= share and row["share_high"] >= share


def test_what_a_tool_said_bars_nothing(tmp_path):
    """Ten tokens in every trace are not the policy's: whatever numbers stand there, they are given to both sides."""

    def tool(row, i):
        mask = [not 10 <= t < 20 for t in range(len(row["response_ids"]))]
        for name, values in row["base_logprobs"].items():
            row["base_logprobs"][name] = [v if m else "-inf" for v, m in zip(values, mask, strict=True)]
        row["response_logprobs"] = [v if m else None for v, m in zip(row["response_logprobs"], mask, strict=True)]
        return row | {"response_mask": [int(m) for m in mask]}

    made = {s: m for s, m in sources().items() if s in ("base", "again", "planted")}
    got = words(tmp_path, {s: lines(s, m, change=tool) for s, m in made.items()})
    assert got["again"].word == "inside" and got["planted"].word == "outside"


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"logprobs_temperature": 1.0}, "the log-probs of cool are at temperature 1 without truncation"),
        ({"sampler": None}, "the sampler of cool is not known"),
    ],
)
def test_log_probs_of_another_law_than_the_one_that_drew_are_no_log_q(tmp_path, fields, needs):
    base = base_law()
    made = {"base": sources()["base"], "cool": B.Made(draws([B.Component(1, B.sampled(base, WARM))], 4), WARM)}
    rows = {"base": lines("base", made["base"]), "cool": lines("cool", made["cool"], change=lambda r, i: r | fields)}
    got = words(tmp_path, rows)["cool"]
    assert got.word == "undetermined" and any(needs in w for w in got.why)
    said = lines("cool", made["cool"], change=lambda r, i: r | {"logprobs_temperature": 0.6})
    right = {"base": rows["base"], "cool": said}
    (tmp_path / "right").mkdir()
    assert words(tmp_path / "right", right)["cool"].word == "inside"


def test_an_end_token_is_found_in_ids_alone(tmp_path):
    """A source that stops a hundred times as early says the same in another length: no hurdle, and it is said."""
    base = B.law(np.random.default_rng(0), V, 1.5, stop=0.001)
    early = base.copy()
    early[:, :-1] += np.log(0.9 / 0.999)
    early[:, -1] = np.log(0.1)
    made = {"base": B.Made(draws([B.Component(1, base)], 0)), "early": B.Made(draws([B.Component(1, early)], 1))}
    rows = {s: lines(s, m, base=base) for s, m in made.items()}
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, written(tmp_path, rows))
    results, _ = pipeline.analyze(run, ["support"])
    row = results["support"].tables["evidence"].set_index("source").loc["early"]
    assert row["share_high"] <= 0.05 and row["end_low"] > 0.05 and row["body_value"] < 0.01 < row["inside_value"]
    (verdict,) = (v for v in decide(results, sources=["early"], reference="base") if v.level == "sequence")
    assert any(w.startswith("stops earlier: its end is beyond the budget") for w in verdict.why)
    assert any("the difference is where it stops" in w for w in verdict.why)


def test_without_a_sampler_the_temperature_of_the_log_probs_is_taken_and_said(tmp_path):
    def bare(row, i):
        del row["sampler"]
        return row | {"logprobs_temperature": 1.0}

    made = sources()
    got = words(tmp_path, {s: lines(s, made[s], change=bare) for s in ("base", "again", "planted")})
    assert got["again"].word == "inside" and got["planted"].word == "outside"
    said = "no sampler is declared: its log-probs' own temperature is taken for it (T=1)"
    assert said in got["again"].why and said in got["planted"].why


def test_without_a_sampler_and_a_temperature_there_is_no_word(tmp_path):
    def bare(row, i):
        return {name: value for name, value in row.items() if name != "sampler"}

    made = sources()
    got = words(tmp_path, {s: lines(s, made[s], change=bare) for s in ("base", "again")})
    assert got["again"].word == "undetermined" and "sampler of again is not known" in " ".join(got["again"].why)


STATED = {
    "greedy": {"sampler": {"temperature": 0.0}},
    "cut": {"sampler": {"top_p": 0.5}},
    "column": {"temperature": 0.3},
    "cut-column": {"top_p": 0.5},
    "params": {"sampling_params": {"temperature": 0.3, "top_p": 1.0, "n": 8}},
}


def test_a_sampler_that_rows_state_is_never_replaced_by_the_temperature_of_their_log_probs(tmp_path):
    """Drawn at T = .3 and scored at T = 1, which would read as inside if T = 1 were taken for the sampler."""
    base, cool = B.Made(draws([B.Component(1, base_law())], 1)), draws([B.Component(1, B.sampled(base_law(), COLD))], 2)

    def raw(fields):
        def change(row, i):
            row.pop("sampler")
            fields_ = fields(i) if callable(fields) else fields
            return row | {"response_logprobs": row["base_logprobs"]["1"], "logprobs_temperature": 1.0} | fields_

        return change

    made = STATED | {"mixed": lambda i: {"sampler": {"temperature": 0.3 if i % 2 else 0.4}}, "silent": {}}
    rows = {s: lines(s, B.Made(cool), change=raw(fields)) for s, fields in made.items()}
    got = words(tmp_path, {"base": lines("base", base)} | rows)
    assert {s: v.word for s, v in got.items()} == dict.fromkeys([*STATED, "mixed"], "undetermined") | {
        "silent": "inside"  # nothing says otherwise, and the report says what is taken
    }
    assert got["greedy"].needs == "greedy drawn again with a temperature above 0"
    for source in ("cut", "cut-column"):
        assert "response_logprobs under it" in got[source].needs
    for source in ("column", "params"):
        assert "under the sampler that drew it (T=0.3)" in got[source].needs
    assert "under a label of their own" in got["mixed"].needs


def test_two_samplers_of_one_row_are_refused(tmp_path):
    rows = lines("s", sources()["again"], change=lambda r, i: r | {"temperature": 0.3})
    with pytest.raises(DumpError, match=r"sampler.temperature = 1.0, and beside it temperature = 0.3"):
        words(tmp_path, {"s": rows}, reference="s")


def test_rows_without_numbers_count_against_every_bound(tmp_path):
    """The traces that hold the planted token bring none: nothing is beyond in the others, and nothing is inside."""

    def selected(row, i):
        if RARE in row["response_ids"]:
            del row["base_logprobs"]
        return row

    made = sources()
    few = lines("few", made["again"], change=lambda r, i: r if i else {k: v for k, v in r.items() if "base" not in k})
    some = {"planted": lines("planted", made["planted"], change=selected), "few": few}
    some["cold"] = lines("cold", made["cold"], change=lambda r, i: r if i else r | {"base_logprobs": None})
    got = words(tmp_path, {"base": lines("base", made["base"])} | some)
    assert {s: v.word for s, v in got.items()} == dict.fromkeys(some, "undetermined")
    n = PROBLEMS * N
    assert any(w.startswith(f"1 of {n} traces bring no numbers of a token") for w in got["few"].why)
    assert "in every row" in got["planted"].needs and "in every row" in got["cold"].needs


@pytest.mark.parametrize("how", ["reference without ids", "one inside", "one masked inside", "no finish"])
def test_stopping_early_is_no_hurdle_however_the_end_token_shows(tmp_path, how):
    base = B.law(np.random.default_rng(0), V, 1.5, stop=0.001)
    early = base.copy()
    early[:, :-1] += np.log(0.9 / 0.999)
    early[:, -1] = np.log(0.1)

    def change(row, i):
        if how == "reference without ids":
            return {k: row[k] for k in ("source", "problem", "sample", "response", "question", "finish")}
        if how == "no finish":
            return row | {"finish": None}
        if i == 0:
            row["response_ids"][10] = V - 1
            if "masked" in how:
                row["response_mask"] = [int(j != 10) for j in range(len(row["response_ids"]))]
        return row

    made = {"base": B.Made(draws([B.Component(1, base)], 0)), "early": B.Made(draws([B.Component(1, early)], 1))}
    rows = {"base": lines("base", made["base"], base=base, change=change)}
    rows["early"] = lines("early", made["early"], base=base, change=change if how == "no finish" else None)
    got = words(tmp_path, rows)["early"]
    assert got.word == "undetermined", got
    if how == "no finish":
        assert "`finish` in every row" in got.needs and any("no end token is known" in w for w in got.why)
    else:
        assert "only where it stops differs" in got.needs


@pytest.mark.parametrize(("answers", "finish"), [(8, "stop"), (1, "stop"), (8, None)])
def test_a_last_token_that_may_be_text_is_not_called_an_end(tmp_path, answers, finish):
    """Servers leave the end token out: the answer then comes last, even one that closes most traces."""
    chosen = np.full(V, -np.inf)  # the base's answers: of `answers` kinds in 7 traces of 8, or 8; the source's is RARE
    chosen[:answers] = np.log(7 / 8 / answers)
    chosen[8], chosen[RARE] = np.log(1 / 8 - 1e-6), np.log(1e-6)
    rows = {}
    for seed, source in enumerate(("base", "new")):
        made = B.Made(draws([B.Component(1, base_law())], seed))
        drawn = np.random.default_rng(seed).choice(V, PROBLEMS * N, p=np.exp(chosen))

        def answered(row, i, drawn=drawn, new=source == "new"):
            token = RARE if new else int(drawn[i])
            row["response_ids"].append(token)
            row["response_logprobs"].append(-1e-6 if new else chosen[token])
            for t, found in row["base_logprobs"].items():
                law = chosen / float(t)
                found.append(float(law[token] - np.logaddexp.reduce(law)))
            return row | {"finish": finish}

        rows[source] = lines(source, made, change=answered)
    got = words(tmp_path, rows)["new"]
    assert got.word == "undetermined", got
    assert not any("where it stops" in w or w.startswith("stops ") for w in got.why), got.why
    assert any("may be text" in w for w in got.why)
    assert "`finish` in every row" in got.needs and "end token" in got.needs


def test_nothing_that_was_judged_is_nothing_inside(tmp_path):
    made = sources()

    def masked(row, i):
        return row | {"response_mask": [0] * len(row["response_ids"])}

    def zeros(row, i):
        nothing = [0.0] * len(row["response_ids"])
        return row | {"response_logprobs": nothing, "base_logprobs": {"1.0": nothing}}

    def half(row, i):
        return masked(row, i) if i % 2 else row

    rows = {s: lines(s, made["planted"], change=f) for s, f in (("masked", masked), ("zeros", zeros))}
    rows |= {"base": lines("base", made["base"]), "half": lines("half", made["again"], change=half)}
    got = words(tmp_path, rows)
    assert {v.word for v in got.values()} == {"undetermined"}
    assert "no row of masked has a token that its policy wrote" in got["masked"].why[-2]
    assert "response_logprobs of zeros are 0 in every token" in got["zeros"].why[-2]
    assert any(
        f"{PROBLEMS * N // 2} of {PROBLEMS * N} traces bring no numbers of a token" in w for w in got["half"].why
    )


@pytest.mark.parametrize(
    "held", [(1.0, 0.4), (1.0, 0.1), (1.0, 0.6, 0.4), (1.0, 0.3, 0.2, 0.1), (1.0, 0.45, 0.44, 0.43)]
)
def test_a_cooled_base_is_never_reweighted_by_temperatures_that_leave_gaps(tmp_path, held):
    cool = {s: B.Made(draws([B.Component(1, B.sampled(base_law(), Sampler(t)))], 5, n=40)) for s, t in COOLED.items()}
    made = {"base": sources()["base"], **cool}
    got = words(tmp_path, {s: lines(s, m, temperatures=held) for s, m in made.items()})
    for source, verdict in got.items():
        assert verdict.word in ("sharpened", "undetermined"), (source, verdict)
        if any("could explain half" in w for w in verdict.why):
            assert verdict.needs.startswith("log-probs of the base at T=.8") and verdict.needs.endswith(
                "(base_logprobs)"
            )


COOLED = {f"at {t:g}": t for t in (0.5, 0.7, 0.8)}


def test_what_followed_the_advice_is_decided(tmp_path):
    """A tilt is undetermined at T = 1 and .4, and reweighted with the temperatures that are asked for."""
    law = B.normalised(base_law() + 0.5 * np.random.default_rng(7).normal(size=(V, V)))
    made = {"base": sources()["base"], "tilt": B.Made(draws([B.Component(1, law)], 8, n=60))}
    got = {}
    for name, held in (("few", (1.0, 0.4)), ("all", (1.0, 0.8, 0.6, 0.4, 0.2))):
        (tmp_path / name).mkdir()
        got[name] = words(tmp_path / name, {s: lines(s, m, temperatures=held) for s, m in made.items()})["tilt"]
    assert got["few"].needs == "log-probs of the base at T=.8, .6, .2 too (base_logprobs)"
    assert (got["few"].word, got["all"].word) == ("undetermined", "reweighted")


def scaled(k):
    def change(row, i):
        row["base_logprobs"] = {t: [x if x == "-inf" else x * k for x in v] for t, v in row["base_logprobs"].items()}
        return row

    return change


def moved(keys):
    return lambda row, i: row | {"base_logprobs": {to: row["base_logprobs"][at] for to, at in keys.items()}}


def unnormalised(row, i):
    plain = row["base_logprobs"]["1"]
    return row | {"base_logprobs": {f"{t:g}": [x / t for x in plain] for t in TEMPERATURES}}


def rounded(row, i):
    """As bfloat16 keeps numbers, on one side."""
    bits = np.asarray(row["response_logprobs"], np.float32).view(np.uint32)
    near = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return row | {"response_logprobs": near.astype(float).tolist()}


WRONG = {
    "bits": (scaled(1 / math.log(2)), "agreed"),
    "half": (scaled(0.5), "agreed"),
    "mislabelled": (moved({"1.0": "0.6"}), "agreed"),
    "slightly": (moved({"1.0": "0.8"}), "agreed"),
    "swapped": (moved({"1": "0.4", "0.8": "0.6", "0.6": "0.8", "0.4": "1", "0.2": "0.2"}), "laws, agreed"),
    "shifted": (
        lambda r, i: r | {"base_logprobs": {t: v[1:] + v[:1] for t, v in r["base_logprobs"].items()}},
        "agreed",
    ),
    "unnormalised": (unnormalised, "laws"),
}


def test_numbers_that_disagree_with_each_other_make_no_word(tmp_path):
    made = {s: m for s, m in sources().items() if s != "planted"}
    for name, (change, failed) in ({"rounded": (rounded, "")} | WRONG).items():
        (tmp_path / name).mkdir()
        run = Run.create(tmp_path / name / "run")
        pipeline.ingest(run, written(tmp_path / name, {s: lines(s, m, change=change) for s, m in made.items()}))
        results, _ = pipeline.analyze(run, ["support", "preflight"])
        checks = results["preflight"].tables["checks"]
        assert set(failed.split(", ")) - {""} == set(checks.loc[checks["passed"].eq(False), "check"]), name
        got = {v.source: v for v in decide(results, sources=list(made), reference="base") if v.level == "sequence"}
        want = (
            {"again": "inside", "cold": "sharpened"} if not failed else dict.fromkeys(("again", "cold"), "undetermined")
        )
        assert {s: got[s].word for s in want} == want, name


def test_a_source_that_is_the_base_in_every_token_says_so(tmp_path):
    made = sources()
    copied = lines("copied", made["planted"], change=lambda r, i: r | {"base_logprobs": {"1": r["response_logprobs"]}})
    got = words(tmp_path, {"base": lines("base", made["base"]), "copied": copied})["copied"]
    assert got.word == "inside" and any(w.startswith("by construction: its log-probs and the base's") for w in got.why)


def test_traces_that_no_draw_repeats_are_counted_once(tmp_path):
    """Thirty-two traces six times each are no 192 draws."""
    few = B.Made(draws([B.Component(1, base_law())], 77, n=4))
    rows = [r | {"sample": 100 * k + r["sample"]} for k in range(6) for r in lines("again", few)]
    got = words(tmp_path, {"base": lines("base", sources()["base"]), "again": rows})["again"]
    assert got.word == "undetermined" and "149 traces" in got.needs
    (line,) = (w for w in got.why if "more traces repeat another token by token" in w)
    assert 140 <= int(line.split()[0]) <= 160  # the shortest may have been drawn twice


def test_copies_whose_numbers_differ_in_a_digit_are_copies(tmp_path):
    few = B.Made(draws([B.Component(1, base_law())], 77, n=4))

    def other(k):
        return lambda row, i: row | {"response_logprobs": [x + 1e-6 * k for x in row["response_logprobs"]]}

    rows = [r | {"sample": 100 * k + r["sample"]} for k in range(6) for r in lines("again", few, change=other(k))]
    got = words(tmp_path, {"base": lines("base", sources()["base"]), "again": rows})["again"]
    assert got.word == "undetermined" and any("more traces repeat another token by token" in w for w in got.why)


def test_copies_under_other_names_of_their_problem_are_copies(tmp_path):
    few = B.Made(draws([B.Component(1, base_law())], 77, n=4))
    rows = [r | {"problem": f"{r['problem']}-{k}"} for k in range(6) for r in lines("again", few)]
    got = words(tmp_path, {"base": lines("base", sources()["base"]), "again": rows})["again"]
    assert got.word == "undetermined" and any("more traces repeat another token by token" in w for w in got.why)


def test_the_rows_that_lack_a_temperature_are_named(tmp_path):
    def lack(row, i):
        return row | {"base_logprobs": {"1": row["base_logprobs"]["1"]}} if i == 3 else row

    made = sources()
    rows = {"base": lines("base", made["base"]), "cold": lines("cold", made["cold"], change=lack)}
    got = words(tmp_path, rows)["cold"]
    assert got.word == "undetermined" and got.needs.startswith(
        "base_logprobs at the same temperatures in every row: T="
    )
    assert "in 191 of 192 rows (cold/p0000/3 is one without)" in got.needs


def test_what_rows_cannot_bring_is_not_asked_of_them(tmp_path):
    def cut(row, i):
        return row | {"sampler": {"temperature": 0.6, "top_p": 0.95}}

    made = sources()
    rows = {"base": lines("base", made["base"], change=cut), "planted": lines("planted", made["planted"])}
    rows["half"] = lines("half", made["again"], change=lambda r, i: r | {"response_logprobs": None})
    got = words(tmp_path, rows)
    assert {v.word for v in got.values()} == {"undetermined"}
    assert got["planted"].needs.startswith(
        "--base MODEL and --policy LABEL=MODEL: the law as the reference was sampled"
    )
    assert got["half"].needs == "both log-probs in every row, or --base MODEL and --policy"


@pytest.mark.parametrize("held", [(1.2,), (2.0, 1.2)])
def test_hotter_laws_alone_are_no_crash(tmp_path, held):
    made = {s: m for s, m in sources().items() if s in ("base", "again")}
    got = words(tmp_path, {s: lines(s, m, temperatures=held) for s, m in made.items()})["again"]
    assert got.word == "undetermined" and got.needs.startswith("base_logprobs at T=1")


def test_a_pair_that_is_held_against_different_laws_has_no_difference(tmp_path):
    base = base_law()
    made = {s: B.Made(draws([B.Component(1, B.sampled(base, COLD))], i)) for i, s in enumerate(("one", "other"), 11)}
    rows = {"base": lines("base", sources()["base"]), "one": lines("one", made["one"], temperatures=(1.0,))}
    rows["other"] = lines("other", made["other"])
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, written(tmp_path, rows))
    results, _ = pipeline.analyze(run, ["support"])
    found = paired.run(build(run), draws=50).tables["differences"].set_index(["a", "b", "measure"])
    assert found.at[("one", "other", "hurdles"), "problems"] == 0
    assert (
        "held against different laws of the base (one: T=1; other: T=1" in found.at[("one", "other", "hurdles"), "note"]
    )
    assert "laws" not in found.at[("one", "other", "pass@k"), "note"]  # answers need no law
    assert found.at[("other", "base", "hurdles"), "problems"] == PROBLEMS
    assert any("one T=1; other T=1, T=0.8" in note for note in results["support"].notes)


def judged(made: B.Made, policies: dict[str, np.ndarray], *, temperatures=(1.0,)) -> list[dict]:
    """The reference's draws with their own log-probs and those under other policies, and none under a base."""
    before = np.concatenate([made.draws.start[:, None], np.maximum(made.draws.tokens[:, :-1], 0)], 1)

    def change(row, i):
        n = len(row["response_ids"])
        at = before[i, :n], made.draws.tokens[i, :n]
        laws = {
            s: {f"{t:g}": B.sampled(law, Sampler(t))[at].tolist() for t in temperatures} for s, law in policies.items()
        }
        return {k: v for k, v in row.items() if k != "base_logprobs"} | {"policy_logprobs": laws}

    return lines("base", made, change=change)


def never(law: np.ndarray, token: int) -> np.ndarray:
    """A law that practically never writes one token any more."""
    out = law.copy()
    out[:, token] -= 12
    return B.normalised(out)


def test_what_was_lost_needs_no_model(tmp_path, capsys):
    """A policy that forgot a token and one that forgot nothing: `lost` of a run from rows alone is its definition."""
    base = base_law()
    policies = {"forgot": never(base, 3), "again": base}
    made = sources()
    rows = {"base": judged(made["base"], policies)} | {s: lines(s, made["again"]) for s in policies}
    assert main(["report", *written(tmp_path, rows), "-o", str(tmp_path / "out"), "--no-robustness"]) in (0, None)
    found = json.loads((tmp_path / "out" / "results.json").read_bytes())["analyses"]["support"]["estimates"]
    d = made["base"].draws
    before = np.concatenate([d.start[:, None], np.maximum(d.tokens[:, :-1], 0)], 1)
    at = before, np.maximum(d.tokens, 0)
    log_ratio = np.where(d.tokens >= 0, base[at] - policies["forgot"][at], 0.0).sum(1)
    lost = np.maximum(0, 1 - 64 * np.exp(-log_ratio)).mean()
    assert lost > 0.3 and found["forgot.lost@64"]["value"] == pytest.approx(lost, abs=1e-5)
    assert found["forgot.lost@64"]["low"] < lost < found["forgot.lost@64"]["high"]
    assert found["again.lost@1"]["value"] == 0 and found["again.lost@64"]["high"] < 0.05
    assert found["forgot.lost@64"]["note"] == "from the log-probs that the rows bring"


def test_labels_of_no_source_are_refused_and_rows_of_others_said(tmp_path, capsys):
    made = {s: m for s, m in sources().items() if s in ("base", "again")}
    policies = {"agian": base_law()}
    paths = written(tmp_path, {"base": judged(made["base"], policies), "again": lines("again", made["again"])})
    assert main(["report", *paths, "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert "base.jsonl:1: policy_logprobs names 'agian', and no source has that label; did you mean 'again'?" in said
    assert main(["check", *paths]) in (0, None)
    assert "policy_logprobs names 'agian'" in capsys.readouterr().out
    there = lines(
        "again",
        made["again"],
        change=lambda row, i: row | {"policy_logprobs": {"base": {"1": row["response_logprobs"]}}},
    )
    (tmp_path / "other").mkdir()
    run = Run.create(tmp_path / "other" / "run")
    pipeline.ingest(run, written(tmp_path / "other", {"base": lines("base", made["base"]), "again": there}))
    assert any("policy_logprobs of again are not used" in note for note in run.manifest["input_notes"])


def test_draws_that_are_cooler_than_their_log_probs_say_are_refused(tmp_path):
    """Log-probs at T = 1 of draws at T = .6 or of the likeliest five, where no row tells: cooling that is the
    reference's own would be the source's. True log-probs have an e-value above 200 once in 200 times (three seeds)."""

    def raw(law):
        def change(row, i):
            at = before[i, : len(row["response_ids"])], made.draws.tokens[i, : len(row["response_ids"])]
            kept = {k: v for k, v in row.items() if k != "sampler"}
            return kept | {"logprobs_temperature": 1.0, "response_logprobs": law[at].tolist()}

        before = np.concatenate([made.draws.start[:, None], np.maximum(made.draws.tokens[:, :-1], 0)], 1)
        return change

    base = base_law()
    tilted = B.normalised(base + 0.7 * np.random.default_rng(7).normal(size=(V, V)))
    for name, sampler in {"cool": WARM, "cut": Sampler(top_k=5), "true": Sampler()}.items():
        (tmp_path / name).mkdir()
        run = Run.create(tmp_path / name / "run")
        rows = {}
        for seed, (source, law) in enumerate({"base": base, "tilt": tilted}.items()):
            made = B.Made(draws([B.Component(1, B.sampled(law, sampler))], seed))
            rows[source] = lines(source, made, change=raw(law))
        pipeline.ingest(run, written(tmp_path / name, rows))
        results, _ = pipeline.analyze(run, ["support", "preflight"])
        checks = results["preflight"].tables["checks"]
        wrong = set(checks.loc[checks["check"].eq("redrawn") & checks["passed"].eq(False), "source"])
        assert ("base" in wrong) == (name != "true"), (name, checks)
        (verdict,) = (v for v in decide(results, sources=["tilt"], reference="base") if v.level == "sequence")
        assert name == "true" or verdict.word == "undetermined", (name, verdict)


def test_a_bias_between_two_engines_is_no_other_temperature(tmp_path):
    """Log q .005 nats a token below what the base's engine says of the same law, as `agreed` lets pass: at T = .95,
    which the advice asks for, the base then is likelier than log q, and at .8 hardly less likely."""

    def lower(row, i):
        return row | {"response_logprobs": [x - 0.005 for x in row["response_logprobs"]]}

    made = {s: m for s, m in sources().items() if s in ("base", "again")}
    rows = {s: lines(s, m, temperatures=(1.0, 0.95, 0.9, *TEMPERATURES[1:]), change=lower) for s, m in made.items()}
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, written(tmp_path, rows))
    checks = pipeline.analyze(run, ["preflight"])[0]["preflight"].tables["checks"].set_index(["check", "source"])
    assert checks.at[("agreed", "base"), "passed"]
    assert checks.at[("redrawn", "base"), "passed"] and checks.at[("redrawn", "again"), "passed"], checks["value"]
