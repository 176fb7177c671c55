"""What a survey adds up to, against slow and obvious loops. Seeded: no false alarms."""

import math
import random

import numpy as np
import pytest

from analyzer.dumps.counts import accuracy, count
from analyzer.dumps.survey import Survey
from analyzer.records import Trace


def test_accuracy_leaves_out_what_has_no_label():
    def of(correct, *keys):
        return accuracy(np.array(correct, np.int8), *map(np.array, keys))

    assert of([1, 0, 0, 1], [7, 7, 5, 5]) == (0.5, 1.0, 2, 2)
    assert of([-1, -1], [0, 1]) == (None, None, 0, 2)
    assert of([-1, 1, -1], [0, 1, 1]) == (1.0, 1.0, 1, 2)
    assert of([1, 0, 0], [0, 0, 0], [0, 1, 1]) == (0.5, 0.5, 2, 2)


def worlds(seed):
    r = random.Random(seed)
    for i in range(r.choice([1, 9, 60])):
        yield Trace(
            r.choice(["base", "rl"]),
            f"p{r.randrange(5)}",
            i,
            r.choice(["", "a", "b", "<think> c", "d" * 90]),
            prompt=r.choice([None, "x", [{"role": "user", "content": "x"}]]),
            question=r.choice([None, "x"]),
            step=r.choice([None, 0, 5]),
            correct=r.choice([None, True, False]),
            finish=r.choice([None, "stop", "length"]),
            group=r.choice([None, "g", "h"]),
            meta={"row": r.randrange(7)} | r.choice([{}, {"null_answer": True}, {"gold": 4}]),
            origin=f"{r.choice('ab')}.jsonl:{i + 1}",
        )


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_loops(seed):
    traces, survey = list(worlds(seed)), Survey()
    survey.add(traces[:3])
    survey.add(traces[3:])
    sources, accuracies, joins = count(survey)
    assert list(sources) == list(dict.fromkeys(t.source for t in traces))

    def by(own, key):
        out = {}
        for t in own:
            out.setdefault(key(t), []).append(t)
        return out

    for label, own in by(traces, lambda t: t.source).items():
        found = sources[label]
        problems = by(own, lambda t: (t.problem, t.step))
        shares = [
            [t.correct for t in group if t.correct is not None]
            for group in by(own, lambda t: (t.origin[0], t.meta["row"], t.step)).values()
        ]
        shares = [sum(labels) / len(labels) for labels in shares if labels]
        lengths = sorted(len(t.response) for t in own)
        assert found["traces"] == len(own) and found["problems"] == len({t.problem for t in own})
        assert found["problem_rows"] == len({(t.origin[0], t.meta["row"]) for t in own})
        sizes = [len(group) for group in problems.values()]
        most = max(set(sizes), key=lambda n: (sizes.count(n), n))
        same = {"most": most, "problems": sizes.count(most), "of": len(sizes)}
        assert found["samples_per_problem"] == {"min": min(sizes), "max": max(sizes), **same}
        labelled = [n for g in problems.values() if (n := sum(t.correct is not None for t in g))]
        assert (found["labelled_per_problem"] is None) == (not labelled)
        if labelled:
            reached = sorted(labelled, reverse=True)[math.ceil(0.9 * len(labelled)) - 1]
            assert found["labelled_per_problem"]["reached"] == reached
        assert found["repeats"] == sum(len(g) - len({t.response for t in g}) for g in problems.values())
        assert found["pass@1"] == (pytest.approx(math.fsum(shares) / len(shares), rel=1e-12) if shares else None)
        assert (found["chars"]["min"], found["chars"]["max"]) == (lengths[0], lengths[-1])
        assert found["chars"]["q50"] == lengths[len(lengths) // 2]
        finish = [t.finish or "not recorded" for t in own]
        assert list(found["finish"].items()) == sorted(
            ((f, finish.count(f)) for f in dict.fromkeys(finish)), key=lambda item: -item[1]
        )
        groups = [t.group for t in own if t.group]
        assert list(found["groups"].items()) == sorted(
            ((g, groups.count(g)) for g in dict.fromkeys(groups)), key=lambda item: -item[1]
        )
        assert found["empty"] == lengths.count(0) and found["null_answers"] == sum("null_answer" in t.meta for t in own)
        files = list(dict.fromkeys(t.origin.split(":")[0] for t in own))
        assert [a["file"] for a in accuracies if a["source"] == label] == files + ["all files"] * (len(files) > 1)
    for j in joins:
        a, b = ({t.problem for t in traces if t.source == s} for s in j["sources"])
        assert (j["shared"], j["only"]) == (len(a & b), [len(a - b), len(b - a)])


def test_a_response_with_text_is_never_ids_alone():
    """The dump's own meta may say so."""
    survey = Survey()
    survey.add([Trace("s", "p", 0, "four", response_ids=(1, 2), meta={"row": 1, "ids_only": True}, origin="f:1")])
    assert survey.sources["s"].counts["ids only"] == 0 and survey.columns["size"][0] == 4
