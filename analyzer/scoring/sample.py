"""Draw responses from a model, local or on a server: a dump that can be checked and scored.

Samples of many problems grow together, each with random numbers of its own, made from seed, problem and sample number.
What is finished lies in a file beside the output, and the same call again takes it from there, to the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import jsonlines
import orjson

from analyzer import __version__
from analyzer.dumps import automatic, files, paths
from analyzer.dumps.convert import packed, row
from analyzer.dumps.names import SYNONYMS
from analyzer.dumps.read import Ledger, stream
from analyzer.dumps.specs import LABEL, expand
from analyzer.errors import AnalyzerError, DumpError, ResourceError, UsageError
from analyzer.records import Trace
from analyzer.records.options import AS_FOUND, ModelOptions, ReadOptions, SampleOptions
from analyzer.runs.disk import refuse_dangling, saved, sole_writer, unwritable
from analyzer.scoring import draws
from analyzer.scoring.encoding.encode import EXAMPLES, encode_prompt, marks_of
from analyzer.scoring.encoding.prompts import DATED, UNDATED, load_template, today
from analyzer.scoring.load import Loaded, load
from analyzer.scoring.servers import draws as server_draws
from analyzer.scoring.servers import server

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
AHEAD = 8  # requests that are on their way or wait, per connection to a server

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
    read: ReadOptions,
    how: SampleOptions,
    model: ModelOptions,
    *,
    progress: Progress = lambda what, done, total, tokens: None,
    account: Callable[[Ledger], None] = lambda ledger: None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Draw how.n responses to every problem of dumps or of files of questions, and write them as canonical JSON lines.

    Of `how`: template: as for `run.score`; template_date: by default the day on which this output was begun. batch:
    samples at a time, of however many problems; what is drawn depends on it by rounding alone (see `draws`). account:
    called with the ledger of what was read, before the model is loaded; tell: with what is to be known of the prompts'
    ids, before the first draw. The same call again continues a killed one, also with another batch where memory could
    not hold the first. Returns problems, samples, tokens (drawn by this call), continued (problems that were there),
    and template_date where a template wrote it (then it is in `meta` of every row too). Raises UsageError (settings, an
    output of other settings), DumpError (problems, a damaged output), ResourceError (model, memory, server, disk).
    """
    target, n, seed, sampler = Path(out), how.n, how.seed, how.sampler
    if not target.name.endswith(ENDINGS):
        raise UsageError(f"{out}: the ending says how to write; expected one of {', '.join(ENDINGS)}")
    refuse_dangling(target)
    if how.label is not None and not LABEL.match(how.label):
        raise UsageError(f"--label {how.label!r}: expected letters, digits and . + - _ (it names the source)")
    problems, ledger = read_problems(specs, read)
    account(ledger)
    name = str(how.model)
    where = f"{name}@{how.server}" if how.server else name
    loaded = server_draws.connect(where, how.concurrent) if server.split(where) else load(where, **vars(model))
    day = how.template_date or _begun_on(target) or today()
    asked, said = _asked(problems, loaded, load_template(how.template), how.max_tokens, day)
    for about in _findings(problems, said):
        tell(about)
    dated = {"template_date": day} if any(d.startswith(DATED) for decisions in said for d in decisions) else {}
    if how.template_date is not None and not dated:
        tell(UNDATED.format(how.template_date))
    label = how.label or (Path(name).name if Path(name).is_dir() else name.rpartition("/")[2]).replace("@", "-")
    settings = {
        "model": loaded.fingerprint,
        "sampler": asdict(sampler),
        "n": n,
        "seed": seed,
        "max_tokens": how.max_tokens,
        "label": label,
        "dtype": loaded.dtype,
        "device": loaded.device,
        "problems": hashlib.sha256(repr([(a.trace.problem, a.prompt_ids) for a in asked]).encode()).hexdigest()[:16],
    } | dated
    mark = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    done = {"problems": len(asked), "samples": n * len(asked), "tokens": 0, "continued": len(asked)} | dated
    with sole_writer(target.parent, target.name):
        if target.exists():
            _refuse_other(target, mark, n * len(asked))
            _unfinished(target).unlink(missing_ok=True)  # of a call that was killed when all was done
            return done
        if isinstance(loaded.model, server.Server):
            draw, whole, step = server_draws.draw, n, max(1, AHEAD * how.concurrent // n)
        else:
            step = max(1, how.batch // n)
            draw, whole = draws.drawer(loaded, how.batch), n * step  # batches cut elsewhere would round otherwise
        with _part(target, settings, whole, n * len(asked)) as (stream, there, by):
            done["continued"] = there // n
            if there and by != __version__:
                tell(
                    f"{target} was begun by {f'version {by}' if by else 'an earlier version'} of this program, "
                    f"{__version__} goes on with it; `analyzer` in the `meta` of a row says which drew it"
                )
            rows = jsonlines.Writer(stream, dumps=orjson.dumps)
            for start in range(there // n, len(asked), step):
                some = asked[start : start + step]
                for number, drawn in enumerate(draw(loaded, some, n, sampler, seed)):
                    one, sample = some[number // n], number % n
                    about = {"seed": seed, "max_tokens": one.max_tokens, "sampling": mark, "analyzer": __version__}
                    own = {"sample": sample, "meta": one.trace.meta | about | dated}
                    trace = _trace(one, drawn, source=label, sampler=sampler, **own)
                    rows.write(row(trace))
                    done["tokens"] += len(trace.response_ids or ())
                    if sample == n - 1:
                        stream.flush()
                        progress("sampling", start * n + number + 1, n * len(asked), done["tokens"])
                os.fsync(stream.fileno())
            with packed(target) as sink:
                stream.seek(0)
                stream.readline()
                shutil.copyfileobj(stream, sink)
    return done


def _trace(one: Asked, drawn: draws.Drawn, **more: Any) -> Trace:
    ids, logprobs, text, finish = drawn
    return replace(
        one.trace,
        response=text,
        prompt_ids=one.prompt_ids,
        response_ids=ids,
        response_logprobs=logprobs,
        logprobs_temperature=None if logprobs is None else 1.0,
        finish=finish,
        **more,
    )


def read_problems(specs: Sequence[str], read: ReadOptions = AS_FOUND) -> tuple[list[Trace], Ledger]:
    """The problems of dumps, or of files whose rows hold questions or prompts and no responses: one Trace each (its
    response is empty), in order of appearance; meta keeps the reference answer and the file's own id. And the account
    of what was read, with a note where rows of such a file repeat a problem."""
    given = dict(read.map)
    try:
        first, ledger = _first_of_each(specs, read)
    except DumpError as error:
        # No response in it: any text may stand for it, since responses are not used here.
        found = None if "response" in given else _text_field(specs, given)
        if found is None and isinstance(error, automatic.NoResponseError):
            raise DumpError(
                f"{str(error).partition('; name the fields')[0]}, nor like a question or a prompt; name it: --map "
                "question=FIELD or --map prompt=FIELD"
            ) from None
        if found is None:
            raise
        first, ledger = _first_question(specs, read, *found)
    kept = ("gold", "id")
    problems = [
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
    return problems, ledger


def _first_of_each(specs: Sequence[str], read: ReadOptions) -> tuple[dict[str, Trace], Ledger]:
    """The first trace of every problem, and the account."""
    ledger, first = Ledger(), {}
    for t in stream(specs, ledger, read):
        first.setdefault(t.problem, t)
    return first, ledger


def _first_question(
    specs: Sequence[str], read: ReadOptions, kind: str, name: str, stand_in: str
) -> tuple[dict[str, Trace], Ledger]:
    """The same of a file of questions: their text stands for the response, so what is said of this is meant of them."""

    def meant(text: str) -> str:
        for said in ("no response", "--map response=", "response is not text"):
            text = text.replace(said, said.replace("response", kind))
        return text

    try:
        first, ledger = _first_of_each(specs, replace(read, map={kind: name, **read.map, "response": stand_in}))
    except DumpError as error:
        raise DumpError(meant(str(error))) from None
    ledger.by_reason = {meant(reason): n for reason, n in ledger.by_reason.items()}
    if again := ledger.traces - len(first):
        ledger.notes.append(f"{again:,} of {ledger.traces:,} rows repeat the {kind} of another; each is sampled once.")
    return first, ledger


def _text_field(specs: Sequence[str], given: dict[str, str]) -> tuple[str, str, str] | None:
    """("question" or "prompt", the field that holds it, the path to its text or that of its first message) in the first
    rows of the first file that has one (a summary in a folder has none); None: no such."""
    for spec in expand(specs)[0]:
        head = [r for _, r in files.open_dump(*spec).head if isinstance(r, dict)]
        for kind in ("question", "prompt"):
            for name in [given[kind]] if kind in given else SYNONYMS[kind]:
                for text in (name, f"{name}.0.content"):
                    if any(isinstance(paths.get(r, text), str) for r in head if paths.has(r, name)):
                        return kind, name, text
    return None


def _asked(
    problems: list[Trace], loaded: Loaded, template: str | None, max_tokens: int, day: str
) -> tuple[list[Asked], list[list[str]]]:
    """The problems ready to be sampled, and how each one's prompt became ids."""
    how = {"vocab_size": loaded.vocab_size, "date": day, "marks": marks_of(loaded.tokenizer, loaded.eos_ids)}
    out, said = [], []
    for trace in problems:
        said.append([])
        ids, before = encode_prompt(trace, loaded.tokenizer, template, said[-1], **how), None
        while ids != before:  # what scoring would leave out of the recorded ids is not drawn after either
            ids, before = encode_prompt(replace(trace, prompt_ids=ids), loaded.tokenizer, None, said[-1], **how), ids
        room = max_tokens if loaded.context is None else min(max_tokens, loaded.context - len(ids))
        if room < 1:
            raise DumpError(
                f"{trace.origin}: the prompt of {trace.problem} has {len(ids)} tokens, the context of {loaded.name} "
                f"{loaded.context}: there is no room for a response"
            )
        out.append(Asked(trace, ids, room))
    return out, said


def _findings(problems: list[Trace], said: list[list[str]]) -> Iterator[str]:
    """Sentences on prompts whose ids may not be what was meant, with counts and the first problem."""
    found: dict[str, list[Trace]] = {}
    for trace, decisions in zip(problems, said, strict=True):
        for decision in dict.fromkeys(d for d in decisions if d.startswith(EXAMPLES)):
            found.setdefault(decision, []).append(trace)
    for decision, traces in found.items():
        first = f"first {traces[0].problem} ({traces[0].origin})"
        yield f"{decision} ({len(traces):,} of {len(problems):,} problems; {first})"


# ---- the file


@contextlib.contextmanager
def _part(target: Path, settings: dict[str, Any], whole: int, most: int) -> Iterator[tuple[IO[bytes], int, str | None]]:
    """The unfinished rows beside the output, open at their end, how many there are: a multiple of `whole`, or all
    `most` of them (what a killed call left beyond it is cut off), and the version that began them (None: of those that
    record none). The first line names the settings.
    """
    path, by = _unfinished(target), __version__
    try:  # around the closing too, which writes what the disk has refused once more
        with path.open("a+b") as stream:
            stream.seek(0)
            head = stream.readline()
            rows, there, end, cut = 0, 0, len(head), len(head)
            if head.endswith(b"\n"):
                before = _settings(path, head)
                by = before.get("analyzer")
                for name in (k for k in settings if before.get(k) != settings[k]):
                    raise UsageError(
                        f"{path} was begun with {name} {before.get(name)!r}, now {settings[name]!r}; use the same "
                        "settings, another -o, or remove that file"
                    )
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    rows, end = rows + 1, end + len(line)
                    if rows % whole == 0 or rows == most:
                        there, cut = rows, end
                stream.truncate(cut)
            else:
                stream.truncate(0)
                jsonlines.Writer(stream, dumps=orjson.dumps).write(settings | {"analyzer": __version__})
            yield stream, there, by
    except OSError as error:
        raise unwritable(path, error) from error
    except ResourceError as error:
        with path.open("rb") as file:
            rows = sum(1 for _ in file) - 1
        raise (saved(error) if rows >= whole else error) from None
    if target.exists():
        path.unlink()


def _begun_on(target: Path) -> str | None:
    """The day that templates wrote when this output was begun, as its rows or the unfinished ones tell; else None."""
    with contextlib.suppress(AnalyzerError, OSError, KeyError, TypeError, AttributeError, StopIteration):
        if target.exists():
            return next(row["meta"]["template_date"] for _, row in files.open_dump(str(target), target, None).records())
        with _unfinished(target).open("rb") as stream:
            return _settings(target, stream.readline()).get("template_date")
    return None


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _settings(path: Path, head: bytes) -> dict[str, Any]:
    """The first line of unfinished rows. Raises DumpError where it is none."""
    try:
        settings = orjson.loads(head)
    except orjson.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict):
        raise DumpError(f"{path}:1: this is no line of settings, as `sample` begins such a file; remove the file")
    return settings


def _refuse_other(target: Path, mark: str, most: int) -> None:
    """Raise UsageError unless a finished output was made by this very call, DumpError where rows of it are gone."""
    rows = 0
    with contextlib.suppress(AnalyzerError, OSError, KeyError, TypeError):
        for _, found in files.open_dump(str(target), target, None).records():
            if found["meta"]["sampling"] != mark:
                break
            rows += 1
    if not rows:
        raise UsageError(f"{target} is there already, made with other settings; remove it, or choose another name")
    if rows != most:
        raise DumpError(
            f"{target}: {rows:,} rows of this call, there should be {most:,}; it was cut off or changed since: remove "
            "it, and the same line makes it again"
        )
