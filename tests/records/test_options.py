"""An option stands once: flag, keyword, key of a study file and record are one name, one default, one check."""

from __future__ import annotations

import argparse
import inspect
import json
from dataclasses import asdict, fields, make_dataclass
from pathlib import Path

import numpy as np
import pytest

import analyzer
from analyzer.analysis.figures import STYLES
from analyzer.api import inputs, pipeline
from analyzer.cli import flags
from analyzer.cli.commands import COMMANDS, build_parser
from analyzer.dumps.convert import convert
from analyzer.errors import UsageError
from analyzer.pages import embed
from analyzer.records import Sampler, options
from analyzer.records.options import ModelOptions, ReadOptions, ReportOptions, SampleOptions, ScoreOptions
from analyzer.records.steps import STEPS, names, restored, stored, taken
from analyzer.scoring import load
from analyzer.scoring.servers.answers import CONCURRENT

RECORDS = (ReadOptions, ScoreOptions, ModelOptions, ReportOptions, SampleOptions)
# what a command does with what came back, and where: no setting of a step
OF_COMMANDS = {"help", "version", "command", "out", "json", "dry_run", "again", "fail_on", "read"}
FUNCTIONS = {
    name: getattr(analyzer, name) for name in ("load", "score", "report", "analyze", "compare", "sample", "estimate")
} | {"read_dumps": analyzer.read_dumps, "convert": convert, "report_run": pipeline.report, "score_run": pipeline.score}


def parsers() -> dict[str, argparse.ArgumentParser]:
    [commands] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(commands.choices)


def test_every_flag_of_every_command_is_an_option_and_every_option_a_flag():
    for name, parser in parsers().items():
        found = {a.dest: a for a in parser._actions if a.option_strings and a.dest not in OF_COMMANDS}
        if name == "show":  # a label of a scorer, no option of a step
            assert set(found) == {"model"}
            continue
        known = names(name) if name in STEPS else {}
        assert set(found) == set(known), name
        for option, record in known.items():
            [field] = [f for f in fields(record) if f.name == option]
            assert found[option].option_strings == [options.flag(field)]
            assert found[option].default == argparse.SUPPRESS  # the record has the default, once
            default = field.default
            shown = isinstance(default, (int, float, str)) and not isinstance(default, bool)
            assert not shown or found[option].help.endswith(f"(default {default})")
    by_record = {record: {o for step in STEPS.values() for o in step.get(record, ())} for record in RECORDS}
    assert by_record == {record: {f.name for f in fields(record)} for record in RECORDS}


def test_functions_take_exactly_the_options_with_the_same_defaults():
    for step, function in FUNCTIONS.items():
        taken_by = inspect.signature(function).parameters
        known = names(step)
        assert set(known) <= set(taken_by), step
        for name, record in known.items():
            assert (
                taken_by[name].default == options.default(name, record) and taken_by[name].kind.name == "KEYWORD_ONLY"
            )
        with pytest.raises(UsageError, match="'polcy' is no option of"):
            function("x", *"y" * (len([p for p in taken_by.values() if p.kind.name.startswith("POS")]) - 1), polcy=1)


def test_a_study_file_takes_exactly_the_options_of_report(tmp_path):
    file = tmp_path / "mine.toml"
    given = {"base": "m", "policy": {"rl": "n"}, "sampler": {"rl": "0.6,0.95"}, "template": "none", "budget": 8}
    given |= {"robustness": False, "template_date": "2024-07-26", "score_at_most": 2, "max_bad": 0.5}
    lines = ["dumps = ['base=b.jsonl', 'rl=r.jsonl']", "template_date = 2024-07-26"]
    lines += [f"{k} = {json.dumps(v)}" for k, v in given.items() if not isinstance(v, dict) and k != "template_date"]
    lines += [
        f"[{k}]\n" + "\n".join(f"{n} = {json.dumps(x)}" for n, x in v.items())
        for k, v in given.items()
        if isinstance(v, dict)
    ]
    file.write_text("\n".join(lines))
    held = inputs.study_file(str(file))
    assert held.pop("dumps") == ["base=b.jsonl", "rl=r.jsonl"]
    assert taken("report", held) == taken("report", given)
    for name in names("report"):  # every one is known: what is refused is the value, or nothing
        file.write_text(f"dumps = ['b.jsonl']\n{name} = {{}}")
        try:
            inputs.study_file(str(file))
        except UsageError as error:
            assert "is no option" not in str(error)
    for key in ("polcy", "shard", "json"):
        file.write_text(f"dumps = ['b.jsonl']\n{key} = 1")
        with pytest.raises(UsageError, match=f"mine.toml: '{key}' is no option of report; "):
            inputs.study_file(str(file))
    with pytest.raises(UsageError, match="a study file says what is read: dumps ="):
        file.write_text("base = 'm'")
        inputs.study_file(str(file))


WRONG = [
    ("score", {"score_at_most": "0"}, "--score-at-most '0' is not a whole number of at least 1"),
    ("score", {"workers": 2}, "--workers N: only with --cluster"),
    ("score", {"concurrent": 4}, "--concurrent: requests at a time are made to a --server alone"),
    (
        "score",
        {"cluster": "auto", "server": "http://x"},
        "--cluster and --server: a server scores by itself; leave one",
    ),
    ("score", {"server": "here"}, "--server 'here': an address begins with http:// or https://"),
    ("score", {"server": ["http://a", "http://b"]}, "--server for all, twice; name the others by LABEL="),
    ("score", {"policy": ["a=x", "a=y"]}, "--policy a=... was given twice: 'x' and 'y'"),
    ("score", {"shard": "8/8"}, "--shard '8/8' is not I/N, counted from 0"),
    ("score", {"template_date": "29.2.2020"}, "--template-date '29.2.2020': expected a day as YYYY-MM-DD"),
    ("score", {"on_overlong": "skp"}, "--on-overlong 'skp' is unknown; did you mean 'skip'?"),
    ("score", {"dtype": "float99"}, "--dtype 'float99' is unknown; did you mean 'float"),
    ("score", {"threshold": "nan"}, "--threshold 'nan' must be a finite number"),
    ("score", {"max_bad": 3}, "--max-bad 3 must be a share in [0, 1]"),
    ("score", {"strict": True, "max_bad": 0.2}, "--strict: no row may be bad then; leave --max-bad out"),
    ("score", {"sampler": {"a": {"temprature": 1}}}, "--sampler: a sampler has no 'temprature'; did you mean"),
    ("score", {"sampler": {"a": {"temperature": "0.6"}}}, "sampler temperature '0.6' is not a number"),
    ("score", {"sampler": {"a": {"top_k": True}}}, "sampler top_k True is not a number"),
    ("score", {"sampler": {"a": {"top_k": float("inf")}}}, "sampler top_k inf must be an integer >= 0"),
    ("score", {"sampler": {"a": {1: 2}}}, "--sampler: a sampler has no 1; allowed: min_p"),
    ("score", {"map": {1: "x"}}, "--map, the name 1: expected text"),
    ("score", {"map": {"": "x"}}, "--map, the name '' is empty"),
    ("score", {"policy": [Path("m")]}, "--policy 'm': expected NAME=VALUE"),
    ("score", {"shard": 5}, "--shard 5 is not I/N"),
    ("score", {"base": ""}, "--base '' is empty; leave it out, or give it a value"),  # "$UNSET" in a shell
    ("report", {"base": " "}, "--base ' ' is empty"),
    ("report", {"reference": ""}, "--reference '' is empty"),
    ("report", {"template": ""}, "--template '' is empty"),
    ("score", {"device": ""}, "--device '' is empty"),
    ("sample", {"model": ""}, "--model '' is empty"),
    ("analyze", {"budget": 2.5}, "--budget 2.5 is not a whole number of at least 1"),
    ("analyze", {"budget": 10**30}, "--budget 1000000000000000000000000000000 is above 2,147,483,647"),
    ("analyze", {"seed": True}, "--seed True is not a whole number of at least 0"),
    ("report", {"html_max_mb": "-1"}, "--html-max-mb '-1' is not a number above 0"),
    ("report", {"robustness": 0}, "--no-robustness 0: expected true or false"),
    ("sample", {"top_p": 0}, "--top-p 0 must be in (0, 1]"),
    ("sample", {"n": 0}, "-n 0 is not a whole number of at least 1"),
]


@pytest.mark.parametrize("step, given, said", WRONG, ids=[f"{s} {' '.join(g)}" for s, g, _ in WRONG])
def test_a_wrong_value_is_told_in_the_words_of_the_flag_wherever_it_comes_from(step, given, said, tmp_path):
    """By Python, and by a study file or the command line where they can hold it: before any dump is looked for."""
    given = {"score": {"base": "m"}, "sample": {"model": "m"}}.get(step, {}) | given
    nothing = str(tmp_path / "nothing.jsonl")
    more = ["x"] if step in ("report", "sample") else []
    with pytest.raises(UsageError) as refused:
        getattr(analyzer, step)(nothing, *more, **given)
    assert str(refused.value).startswith(said)
    line = [step, nothing] if step == "analyze" else [step, nothing, "-o", "x"]
    for name, value in given.items():
        if isinstance(value, (dict, bool)) or name == "robustness":  # which a line can't say wrongly
            return
        for one in value if isinstance(value, list) else [value]:
            [field] = [f for f in fields(names(step)[name]) if f.name == name]
            line += [options.flag(field), str(one)]
    with pytest.raises(UsageError) as refused:
        taken(step, flags.given(build_parser().parse_args(line), step))
    assert str(refused.value).replace("'", "").startswith(said.replace("'", ""))


def test_earlier_names_lead_to_the_new_ones():
    for old, new in (
        ("policies", "policy"),
        ("field_map", "map"),
        ("at_most", "score_at_most"),
        ("vary", "robustness"),
    ):
        with pytest.raises(UsageError, match=f"'{old}' is no option of report; did you mean '{new}'"):
            analyzer.report("x", "y", **{old: 1})


def test_text_and_values_are_read_alike():
    lines = ReadOptions(map=["a=b=c"], sampler=["x=0.6,0.95"], threshold="0.5", limit="3")
    assert lines == ReadOptions(map={"a": "b=c"}, sampler={"x": Sampler(0.6, 0.95)}, threshold=0.5, limit=3)
    assert ReadOptions(map=None, threshold=None) == options.AS_FOUND
    assert ReadOptions(strict=True).max_bad == 0
    score = ScoreOptions(template=["none", "rl=chat"], shard="1/4", policy={"rl": Path("m")})
    assert score.template == {"*": "none", "rl": "chat"} and score.shard == (1, 4) and score.policy == {"rl": "m"}
    assert score == ScoreOptions(**vars(score)) and ScoreOptions(template="none").template == {"*": "none"}
    assert SampleOptions(model="m", temperature="0.5").sampler == Sampler(0.5)
    for wrong in (0.6, [("x", 0.6)], [None]):
        with pytest.raises(UsageError, match="^--sampler .*: expected text"):
            ReadOptions(sampler=wrong)
    of_numpy = Sampler(np.float32(0.5), top_k=np.int64(20))
    assert of_numpy == Sampler(0.5, top_k=20) and json.dumps(asdict(of_numpy))


def test_what_a_run_keeps_gives_the_options_again():
    """The names in run.json are those that runs have always had."""
    read, how, model, report = taken(
        "report",
        {"map": {"a": "b"}, "sampler": {"x": "0.6"}, "limit": 2, "base": "m", "policy": {"x": "n"}, "budget": 8}
        | {"template": "none", "score_at_most": 4, "device": "cpu", "robustness": False, "html_max_mb": 2},
    )
    kept = json.loads(json.dumps([stored(read), stored(how) | stored(model), stored(report)]))
    assert {"field_map", "samplers", "max_bad", "limit"} <= kept[0].keys() and "strict" not in kept[0]
    assert {"policies", "templates", "at_most", "servers", "dtype"} <= kept[1].keys() and "cluster" not in kept[1]
    assert kept[2] == {"budget": 8, "seed": 0, "vary": False, "style": "icml", "short": False, "difficulty": None} | {
        "file_mb": 2.0,
        "folder_mb": 100.0,
    }
    assert taken("load", restored("load", kept[0])) == [read]
    assert taken("score_run", restored("score_run", kept[1])) == [how, model]
    assert taken("report_run", restored("report_run", kept[2])) == [report]
    earlier = {"field_map": None, "threshold": 1.0, "samplers": {}, "max_bad": 0.0, "grade": False, "files": []}
    assert taken("load", restored("load", earlier)) == [ReadOptions(max_bad=0)]


def test_what_is_known_elsewhere_too_agrees():
    """Lists and defaults that the modules below need for themselves."""
    for name, known in (("dtype", load.DTYPES), ("scorer", load.SCORERS), ("style", STYLES)):
        record = names("report")[name]
        for value in known:
            record(**{name: value})
        with pytest.raises(UsageError, match=f"allowed: {', '.join(sorted(known))}"):
            record(**{name: "?"})
    assert ReportOptions().traces_max_mb == embed.FOLDER_MB
    assert ScoreOptions().concurrent == SampleOptions().concurrent == CONCURRENT
    loaded = inspect.signature(load.load).parameters
    assert vars(ModelOptions()) == {f.name: loaded[f.name].default for f in fields(ModelOptions)}


def test_a_made_up_option_is_everywhere_at_once(monkeypatch):
    """A field of the record alone: the flag with its help and check, the keyword, the key, run.json."""
    extra = options._how(None, options.at_least_1, "made up", "N")
    more = make_dataclass(
        "ScoreOptions", [("made_up", "int | None", extra)], bases=(ScoreOptions,), frozen=True, kw_only=True
    )
    for step in ("score", "report", "estimate", "score_run"):
        of = {more if r is ScoreOptions else r: some for r, some in STEPS[step].items()}
        monkeypatch.setitem(STEPS, step, of | {more: (*of[more], "made_up")})
    parser = argparse.ArgumentParser()
    flags.add(parser, "score")
    assert "--made-up N" in parser.format_help() and "made up" in parser.format_help()
    line = flags.given(parser.parse_args(["--base", "m", "--made-up", "3"]), "score")
    how = taken("score", line)[1]
    assert how.made_up == 3 and stored(how)["made_up"] == 3 and restored("score_run", stored(how))["made_up"] == 3
    with pytest.raises(UsageError, match="--made-up 0 is not a whole number"):
        analyzer.score("x", base="m", made_up=0)


def test_every_command_says_what_it_is_for_and_shows_an_example():
    for name, parser in parsers().items():
        assert parser.description and len(parser.description) > 30 and f"  analyzer {name}" in parser.epilog, name
        titles = [g.title for g in parser._action_groups if g._group_actions]
        if name in STEPS:
            assert len(titles) == len(set(titles)) and "output" in titles
    assert set(COMMANDS) == set(parsers())
    assert {"what to read", "models", "how to score", "machine", "output"} <= {
        g.title for g in parsers()["report"]._action_groups
    }
