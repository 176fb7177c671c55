"""Which problems sources are set side by side on."""

from __future__ import annotations

from analyzer.analysis.basis import COMMON, OWN, PAIR, choose


def test_the_problems_that_all_have():
    found = choose({"base": "abcd", "rl": "bcde", "few": "cdx"}, "base")
    assert found.problems == dict.fromkeys(["base", "rl", "few"], {"c", "d"})
    assert set(found.kind.values()) == {COMMON}


def test_pairs_with_the_reference_where_no_problem_is_in_all():
    found = choose({"base": "abcd", "rl": "abz", "few": "dz"}, "base")
    assert found.problems == {"base": {"a", "b", "d"}, "rl": {"a", "b"}, "few": {"d"}}
    assert set(found.kind.values()) == {PAIR}


def test_a_source_that_shares_nothing_leaves_the_others_alone():
    found = choose({"base": "abcd", "rl": "abz", "far": "xy"}, "base")
    assert found.problems == {"base": {"a", "b"}, "rl": {"a", "b"}, "far": {"x", "y"}}
    assert found.kind == {"base": COMMON, "rl": COMMON, "far": OWN}
    apart = choose({"base": "ab", "rl": "cd"}, "base")
    assert apart.problems == {"base": {"a", "b"}, "rl": {"c", "d"}} and set(apart.kind.values()) == {OWN}


def test_sources_without_problems_one_source_and_no_reference():
    found = choose({"base": "ab", "mute": ""}, "base")
    assert found.problems == {"base": {"a", "b"}, "mute": set()} and found.kind["base"] == COMMON
    assert choose({"base": "ab"}, "base").kind == {"base": COMMON}
    assert choose({"base": "", "a": "ab", "b": "bc"}, "base").problems["a"] == {"b"}
    assert choose({"a": "ab", "b": "bc"}, "base").problems == {"a": {"b"}, "b": {"b"}}
