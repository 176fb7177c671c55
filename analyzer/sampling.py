"""Draw responses from a model, local or on a server: a dump that can be checked and scored.

A prompt's cache is computed once and shared by its samples, which grow together. Every sample has random numbers of its
own, made from seed, problem and sample number, so that a killed call goes on to the same bytes: what is finished lies
problem by problem in a file beside the output, and the same call again takes it from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import orjson
import zstandard

from analyzer.convert import row
from analyzer.dumps import read_dumps
from analyzer.errors import AnalyzerError, DumpError, ResourceError, UsageError
from analyzer.formats import automatic, files, paths
from analyzer.records import Sampler, Trace
from analyzer.scorers import Loaded, draws, load, server, server_draws
from analyzer.scorers.encode import encode, load_template

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
BATCH = 64  # samples of one prompt that grow together
MAX_TOKENS = 1024

Progress = Callable[[str, int, int, int], None]


@dataclass(frozen=True)
class Asked:
    """A problem ready to be sampled."""

    trace: Trace  # what the rows inherit: problem, question, prompt, gold answer, group
    prompt_ids: tuple[int, ...]
    max_tokens: int


def sample(
    specs: Sequence[str],
    out: str | Path,
    *,
    model: str,
    n: int = 64,
    sampler: Sampler | None = None,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
    template: str | None = None,
    label: str | None = None,
    field_map: dict[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    batch: int = BATCH,
    server_url: str | None = None,
    concurrent: int = server.CONCURRENT,
    progress: Progress = lambda what, done, total, tokens: None,
) -> dict[str, Any]:
    """Draw n responses to every problem of dumps or of files of questions, and write them as canonical JSON lines.

    sampler: T=1 without truncation by default. label: source of the rows (by default the model's name). template: as
    for `scoring.score`. batch: samples of one prompt at a time. The same call again continues a killed one. Returns
    problems, samples, tokens (drawn by this call), continued (problems that were there). Raises UsageError (settings,
    an output of other settings), DumpError (problems), ResourceError (model, server, disk).
    """
    target, sampler = Path(out), sampler or Sampler()
    if not target.name.endswith(ENDINGS):
        raise UsageError(f"{out}: the ending says how to write; expected one of {', '.join(ENDINGS)}")
    if n < 1 or max_tokens < 1 or batch < 1:
        raise UsageError(f"n {n}, max tokens {max_tokens} and batch {batch} must be at least 1")
    problems = read_problems(specs, field_map)
    where = f"{model}@{server_url}" if server_url else model
    loaded = server_draws.connect(where, concurrent) if server.split(where) else load(where, dtype=dtype, device=device)
    asked = _asked(problems, loaded, load_template(template), max_tokens)
    label = label or (Path(model).name if Path(model).is_dir() else model.rpartition("/")[2])
    settings = {
        "model": loaded.fingerprint,
        "sampler": asdict(sampler),
        "n": n,
        "seed": seed,
        "max_tokens": max_tokens,
        "batch": batch,
        "label": label,
        "dtype": loaded.dtype,
        "device": loaded.device,
        "problems": hashlib.sha256(repr([(a.trace.problem, a.prompt_ids) for a in asked]).encode()).hexdigest()[:16],
    }
    mark = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    if target.exists():
        _refuse_other(target, mark)
        return {"problems": len(asked), "samples": n * len(asked), "tokens": 0, "continued": len(asked)}
    draw = server_draws.draw if isinstance(loaded.model, server.Server) else draws.drawer(loaded, batch)
    done = {"problems": len(asked), "samples": n * len(asked), "tokens": 0}
    with _part(target, settings, mark) as (stream, there):
        done["continued"] = there // n
        for number, one in enumerate(asked[there // n :], there // n):
            drawn = draw(loaded, one, range(n), sampler, seed)
            about = {"seed": seed, "max_tokens": one.max_tokens, "sampling": mark}
            for sample, (ids, logprobs, text, finish) in enumerate(drawn):
                trace = replace(
                    one.trace,
                    source=label,
                    sample=sample,
                    response=text,
                    prompt_ids=one.prompt_ids,
                    response_ids=ids,
                    response_logprobs=logprobs,
                    logprobs_temperature=None if logprobs is None else 1.0,
                    sampler=sampler,
                    finish=finish,
                    meta=one.trace.meta | about,
                )
                stream.write(orjson.dumps(row(trace)) + b"\n")
                done["tokens"] += len(ids or ())
            stream.flush()
            os.fsync(stream.fileno())
            progress("sampling", (number + 1) * n, n * len(asked), done["tokens"])
        _publish(stream, target)
    return done


def read_problems(specs: Sequence[str], field_map: dict[str, str] | None = None) -> list[Trace]:
    """The problems of dumps, or of files whose rows hold questions or prompts and no responses: one Trace each (its
    response is empty), in order of appearance; meta keeps the reference answer and the file's own id."""
    given = dict(field_map or {})
    try:
        traces, _ = read_dumps(specs, field_map=given)
    except DumpError:
        # No response in it: any text may stand for it, since responses are not used here.
        found = None if "response" in given else _text_field(specs, given)
        if found is None:
            raise
        kind, stand_in = found
        traces, _ = read_dumps(specs, field_map={kind: stand_in, **given, "response": stand_in})
    first: dict[str, Trace] = {}
    for t in traces:
        first.setdefault(t.problem, t)
    kept = ("gold", "id")
    return [
        Trace(
            "problems",
            t.problem,
            0,
            "",
            prompt=t.prompt,
            question=t.question,
            prompt_ids=t.prompt_ids,
            group=t.group,
            meta={k: t.meta[k] for k in kept if k in t.meta},
            origin=t.origin,
        )
        for t in first.values()
    ]


def _text_field(specs: Sequence[str], given: dict[str, str]) -> tuple[str, str] | None:
    """("question" or "prompt", the field that holds it as text) in the first rows of the first file, None: no such."""
    names, _ = files.expand(specs)
    head = [r for _, r in files.open_dump(*names[0]).head if isinstance(r, dict)]
    for kind in ("question", "prompt"):
        for name in [given[kind]] if kind in given else automatic.SYNONYMS[kind]:
            if any(isinstance(paths.get(r, name), str) for r in head if paths.has(r, name)):
                return kind, name
    return None


def _asked(problems: list[Trace], loaded: Loaded, template: str | None, max_tokens: int) -> list[Asked]:
    out = []
    for trace in problems:
        # `encode` wants a response; one stand-in id lets it render and check the prompt alone
        stand_in = replace(trace, response_ids=(0,))
        ids = encode(stand_in, loaded.tokenizer, vocab_size=loaded.vocab_size, template=template).prompt_ids
        room = max_tokens if loaded.context is None else min(max_tokens, loaded.context - len(ids))
        if room < 1:
            raise DumpError(
                f"{trace.origin}: the prompt of {trace.problem} has {len(ids)} tokens, the context of {loaded.name} "
                f"{loaded.context}: there is no room for a response"
            )
        out.append(Asked(trace, ids, room))
    return out


# ---- the file


@contextlib.contextmanager
def _part(target: Path, settings: dict[str, Any], mark: str) -> Iterator[tuple[IO[bytes], int]]:
    """The unfinished rows beside the output, open at their end, and how many whole problems' rows it holds.

    Its first line names the settings. What a killed call left of an unfinished problem is cut off. One writer only.
    """
    path = target.with_name(f".{target.name}.part")
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise ResourceError(f"{path} can't be written: {error.strerror}; check the disk and the folder") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResourceError(f"{path} is being written by another call; wait for it, or use another -o") from None
        stream.seek(0)
        head = stream.readline()
        rows, end, whole = 0, len(head), len(head)
        if head.endswith(b"\n"):
            before = orjson.loads(head)
            for name in (k for k in settings if before.get(k) != settings[k]):
                raise UsageError(
                    f"{path} was begun with {name} {before.get(name)!r}, now {settings[name]!r}; use the same "
                    "settings, another -o, or remove that file"
                )
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                rows, end = rows + 1, end + len(line)
                whole = end if rows % settings["n"] == 0 else whole
            stream.truncate(whole)
        else:
            stream.truncate(0)
            stream.write(orjson.dumps(settings) + b"\n")
        try:
            yield stream, rows - rows % settings["n"]
        except OSError as error:
            raise ResourceError(f"{path} can't be written: {error.strerror}; what is finished is kept") from None
    if target.exists():
        path.unlink()


def _publish(stream: IO[bytes], target: Path) -> None:
    """All rows under the output's name, compressed as its ending says; equal rows give equal bytes."""
    unfinished = target.with_name(f".{target.name}.whole")
    with unfinished.open("wb") as raw:
        packed: Any = contextlib.nullcontext(raw)
        if target.suffix == ".gz":
            packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)
        elif target.suffix == ".zst":
            packed = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
        with packed as sink:
            stream.seek(0)
            stream.readline()
            while block := stream.read(1 << 20):
                sink.write(block)
        raw.flush()
        os.fsync(raw.fileno())
    unfinished.replace(target)


def _refuse_other(target: Path, mark: str) -> None:
    """Raise UsageError unless a finished output was made by this very call."""
    try:
        opened = files.open_dump(str(target), target, None)
        _, first = next(iter(opened.records()))
        same = first["meta"]["sampling"] == mark
    except (AnalyzerError, OSError, StopIteration, KeyError, TypeError):
        same = False
    if not same:
        raise UsageError(f"{target} is there already, made with other settings; remove it, or choose another name")
