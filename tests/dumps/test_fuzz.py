"""Nothing but DumpError and UsageError leaves the reader, whatever rows hold; when it returns, the ledger adds up.

Every sample is mutated 150 times; FUZZ=10000 in the environment asks for as many as it says. Seeded: no false alarms.
"""

import copy
import json
import os
import random
import zipfile
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.dumps import check as checks
from analyzer.dumps import files
from analyzer.dumps import read as dumps
from analyzer.dumps.survey import Survey
from analyzer.errors import DumpError, UsageError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
TIMES = int(os.environ.get("FUZZ", "150"))
FUZZED = settings(max_examples=TIMES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FILES = sorted(p for p in SAMPLES.rglob("*") if p.is_file())
JUNK = [
    None, True, False, 0, -1, 7, 2**31, -(10**20), 10**400, 0.5, float("nan"), float("inf"), -1e308, "", " ", "a", "1",
    "\ud800", "\0", "é\n", "x" * 300, "attachment://none", [], {}, [[]], ["a", 1], [None, {"x": 1}], {"role": "user"},
    {"type": "text", "text": "t"}, [{"type": "image"}], [{"type": "text", "text": "t"}], {"content": None}, {"": {}},
]  # fmt: skip


def _containers(value, found):
    if isinstance(value, (dict, list)) and value:
        found.append(value)
        for inner in value.values() if isinstance(value, dict) else value:
            _containers(inner, found)
    return found


def _mutate(value, rng):
    """One to three changes anywhere in a JSON value: junk, a missing part, a part twice, two parts swapped."""
    for _ in range(rng.randint(1, 3)):
        spots = _containers(value, [])
        if not spots:
            return
        at = rng.choice(spots)
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        kind = rng.random()
        if kind < 0.2:
            del at[key]
        elif kind < 0.3 and isinstance(at, list):
            at.append(copy.deepcopy(at[key]))
        elif kind < 0.4:
            other = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
            at[key], at[other] = at[other], at[key]
        else:
            at[key] = copy.deepcopy(rng.choice(JUNK))


def _write(file, folder, values, header):
    """The values as the file was written; rows of Parquet as JSON lines, which can hold what Parquet can't."""
    if file.suffix == ".eval":
        with zipfile.ZipFile(folder / file.name, "w") as archive:
            archive.writestr("header.json", json.dumps(header))
            for n, value in enumerate(values):
                archive.writestr(f"samples/{n}_epoch_1.json", json.dumps(value))
    elif file.suffix == ".json":
        (folder / file.name).write_text(json.dumps(values))
    else:
        body = "".join(json.dumps(v) + "\n" for v in values)
        (folder / file.with_suffix(".jsonl").name).write_text(body)


def _read(path: Path, max_bad: float, thorough: bool) -> None:
    try:
        traces, ledger = dumps.read_dumps([str(path)], max_bad=max_bad)
    except (DumpError, UsageError) as e:
        assert str(e) and len(str(e).splitlines()) <= 3
        str(e).encode(errors="strict" if str(e).isascii() else "replace")
        return
    assert ledger.rows == ledger.rows_used + ledger.rows_rejected and ledger.traces == len(traces) > 0
    assert sum(ledger.by_reason.values()) == ledger.rows_rejected == len(ledger.rejected)
    assert len({t.key for t in traces}) == len(traces)
    for t in traces:
        t.response.encode()
        json.dumps(t.meta, allow_nan=False)
        orjson.dumps([t.meta, t.prompt, t.answer])  # as the run and `convert` write them
    orjson.dumps(ledger.rejected)
    orjson.dumps(ledger.as_json())
    if thorough:
        survey = Survey()
        survey.add(traces)
        described = checks.describe(survey, ledger)
        json.dumps(described, allow_nan=False).encode()
        assert checks.render(described).encode()


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(SAMPLES)))
def test_mutated_rows(file, tmp_path):
    opened = files.open_dump(file.name, file, None)
    rows = [r for _, r in opened.records()]
    header = rows[0].get("@0") if file.suffix == ".eval" else None
    rows = [{k: v for k, v in r.items() if k != "@0"} for r in rows] if header else rows
    text = file.read_text() if file.suffix == ".json" else ""
    whole = json.dumps([json.loads(text) if text else rows, header])
    partners = [
        p for p in file.parent.iterdir() if p != file and file.parent.name in ("openai-batch", "evalplus", "humaneval")
    ]
    for partner in partners:
        (tmp_path / partner.name).write_bytes(partner.read_bytes())

    @FUZZED
    @given(seed=st.integers(0, 2**32))
    def mutated(seed):
        rng = random.Random(seed)
        value, head = json.loads(whole)
        _mutate([value, head] if head and rng.random() < 0.2 else value, rng)
        if isinstance(value, (list, dict)) and value:
            _write(file, tmp_path, value, head)
            _read(tmp_path, rng.choice([0.0, 0.01, 0.5, 1.0]), rng.random() < 0.1)

    mutated()


@pytest.mark.parametrize(
    "name", ["canonical.jsonl", "reasoning-gym.json", "verl-generation.parquet", "inspect", "lighteval"]
)
def test_damaged_bytes(name, tmp_path):
    source = SAMPLES / name
    source = next(source.iterdir()) if source.is_dir() else source
    whole = source.read_bytes()
    out = tmp_path / source.name

    @FUZZED
    @given(seed=st.integers(0, 2**32))
    def damaged(seed):
        rng = random.Random(seed)
        raw = bytearray(whole)
        at = rng.randrange(len(raw))
        kind = rng.randrange(3)
        if kind == 0:
            raw = raw[:at]
        elif kind == 1:
            raw[at] = rng.randrange(256)
        else:
            raw[at:at] = rng.randbytes(rng.randint(1, 8))
        out.write_bytes(bytes(raw))
        _read(out, rng.choice([0.0, 0.2, 1.0]), rng.random() < 0.1)

    damaged()
