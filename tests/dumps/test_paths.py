import pytest

from analyzer.dumps.paths import MISSING, get, has, known_paths, show, split_each

RECORD = {"a": {"b": [1, {"c": 2}]}, "x.y": 3, "list": [{"t": "u"}, {}], "m1": {"out": "v"}, "@0": {"out": "w"}}


def test_get_reaches_into_objects_lists_and_dotted_keys():
    assert get(RECORD, "a.b.1.c") == 2
    assert get(RECORD, "x.y") == 3
    assert get(RECORD, "a.b.7") is MISSING
    assert get(RECORD, "a.nope") is MISSING


def test_split_each():
    assert split_each("completions[].score") == ("completions", "score")
    assert split_each("code[]") == ("code", "")
    assert split_each("code") is None


@pytest.mark.parametrize(
    ("path", "there"),
    [("list[]", True), ("list[].t", True), ("list[].z", False), ("a[]", False), ("*.out", True), ("*.no", False)],
)
def test_has(path, there):
    assert has(RECORD, path) is there


def test_wide_paths_never_look_at_the_objects_around():
    assert not has({"@0": {"out": "w"}}, "*.out")


def test_known_paths_name_what_a_map_could_name():
    assert known_paths(RECORD) == ["a", "a.b", "a.b[]", "x.y", "list", "list[]", "list[].t", "m1", "m1.out"]


def test_show_is_short_and_on_one_line():
    assert show("a\nb") == "'a\\nb'"
    assert len(show("x" * 500)) == 60
