"""Nothing but DumpError and UsageError leaves the reader, whatever rows hold; when it returns, the ledger adds up."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer import checks, dumps
from analyzer.errors import DumpError, UsageError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
FILES = sorted(p for p in SAMPLES.rglob("*") if p.is_file())
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just(["a", 1]),
    st.just({"role": "user"}),
    st.just("\ud800"),
    st.just([[]]),
    st.just([None, {"x": 1}]),
)


def _spots(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _spots(inner, (*path, key))


def _mutate(value, path, how, junk):
    if not path:
        return junk
    out = value.copy()
    key = path[0]
    if len(path) > 1:
        out[key] = _mutate(value[key], path[1:], how, junk)
    elif how == "delete":
        del out[key]
    elif how == "twice" and isinstance(out, list):
        out.append(out[key])
    else:
        out[key] = junk
    return out


def _read(path: Path, max_bad: float) -> None:
    try:
        traces, ledger = dumps.read_dumps([str(path)], max_bad=max_bad)
    except (DumpError, UsageError) as e:
        assert str(e) and len(str(e).splitlines()) <= 3
        return
    assert ledger.rows == ledger.rows_used + ledger.rows_rejected and ledger.traces == len(traces) > 0
    assert sum(ledger.by_reason.values()) == ledger.rows_rejected == len(ledger.rejected)
    assert len({t.key for t in traces}) == len(traces)
    json.dumps(checks.describe(traces, ledger), allow_nan=False).encode()
    assert checks.render(checks.describe(traces, ledger)).encode()
    for t in traces:
        t.response.encode()
        json.dumps(t.meta, allow_nan=False)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(SAMPLES).parts[0]))
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_rows(file, tmp_path, data):
    text = file.read_text()
    lines = file.suffix == ".jsonl"
    value = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(_spots(value), key=str)[1:] or [()]))
        value = _mutate(value, path, data.draw(st.sampled_from(["junk", "delete", "twice"])), data.draw(JUNK))
        if not isinstance(value, (list, dict)) or not value:
            return
    out = tmp_path / file.name
    body = "".join(json.dumps(v) + "\n" for v in value) if lines and isinstance(value, list) else json.dumps(value)
    out.write_text(body)
    _read(out, data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0])))


@pytest.mark.parametrize("name", ["canonical.jsonl", "reasoning-gym.json"])
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes(name, tmp_path, data):
    raw = bytearray((SAMPLES / name).read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    if kind == "cut":
        raw = raw[:at]
    elif kind == "flip":
        raw[at] = data.draw(st.integers(0, 255))
    else:
        raw[at:at] = data.draw(st.binary(max_size=8))
    out = tmp_path / name
    out.write_bytes(bytes(raw))
    _read(out, data.draw(st.sampled_from([0.0, 0.2, 1.0])))
