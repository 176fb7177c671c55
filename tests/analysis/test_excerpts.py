import numpy as np
import pandas as pd

from analyzer.analysis.data.excerpts import Place, cut, place
from analyzer.analysis.data.tables import in_memory
from analyzer.records import Tables


def tables(texts):
    frame = pd.DataFrame({"key": list(texts), "response": list(texts.values())})
    return Tables(**in_memory(frame), scores=pd.DataFrame(), tokens=lambda model, columns: iter(()), reference="base")


def test_tokens_stand_between_their_offset_and_the_next():
    assert place("a", 5, np.array([0, 3]), 0, 1) == ("a", 0, 3)
    assert place("a", 5, [0, 3], 1, 5) == ("a", 3, 5)
    unknown = [place("a", None, [0], 0, 1), place("a", 2, None, 0, 1), place("a", 2, [0, -1], 1, 1)]
    assert [*unknown, place("a", 2, [0], 1, 1)] == [None] * 4


def test_every_place_is_cut_in_its_order_and_none_is_empty():
    held = tables({"a": "ab cd", "b": "é\U0001f600x", "c": None})
    assert held.traces["characters"].tolist() == [5, 3, pd.NA]
    assert held.traces["response_hash"].notna().tolist() == [True, True, False]
    places = [Place("b", 1, 2), None, Place("a", 3, 5), Place("c", 0, 4), Place("a", 0, 2), Place("a", 2, 2)]
    assert cut(held, [*places, Place("gone", 0, 9), Place("a", -1, 3)]) == [
        "\U0001f600",
        "",
        "cd",
        "",
        "ab",
        "",
        "",
        "",
    ]
    assert held.text_of(["c", "b", "gone"]) == {"b": "é\U0001f600x"}


def test_nothing_is_read_for_no_place():
    def texts(columns):
        raise AssertionError("read")

    made = Tables(pd.DataFrame(), pd.DataFrame(), lambda model, columns: iter(()), "base", texts=texts)
    assert cut(made, [None, Place("a", 1, 1)]) == ["", ""] and made.text_of([]) == {}
