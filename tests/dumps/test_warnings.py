"""Findings about several sources at once."""

from __future__ import annotations

from analyzer.dumps import warnings
from analyzer.dumps.survey import Survey
from analyzer.records import Trace


def test_sources_that_share_no_problem_are_one_note():
    survey = Survey()
    survey.add([Trace(s, s[0], 0, "r", origin=f"f:{i}") for i, s in enumerate(("a", "b1", "b2", "a2"))])
    (note,) = [note for note in warnings.find(survey, []) if "no problem" in note]
    assert note == "a shares no problem with b1, b2: nothing can be compared between them."
