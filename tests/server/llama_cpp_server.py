"""A real server: llama-cpp-python's, with real weights. Not collected by default: make test-server.

SERVER_PYTHON names the interpreter that has llama-cpp-python and gguf (by default this one).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import analyzer
from analyzer.cli import main as cli
from analyzer.dumps.read import read_dumps
from analyzer.errors import ResourceError
from analyzer.records import Sampler
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring.encoding.encode import encode
from analyzer.scoring.servers import server

PYTHON = os.environ.get("SERVER_PYTHON", sys.executable)
OPENINGS = ["Once upon a time", "Lily and Tom went to the park", "The little dog was very", "One day, a big bird"]
# llama.cpp keeps keys and values in half precision unless told otherwise; bounds of the difference in nats (median,
# largest), several times what was measured: 3.6e-4 and .030 so, SINGLE in single precision
PRECISION = {"half": ([], 2e-3, 0.15), "single": (["--type_k", "0", "--type_v", "0"], 1e-5, 1e-3)}


@contextlib.contextmanager
def running(stories, tmp_path, *more, logits_all=True, bos=True):
    model = tmp_path / "stories.gguf"
    options = [] if bos else ["--no-bos"]
    subprocess.run([PYTHON, Path(__file__).with_name("write_gguf.py"), stories, model, *options], check=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    line = [PYTHON, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    line += ["--n_ctx", "512", "--logits_all", str(logits_all), "--verbose", "False", "--n_threads", "1", *more]
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).read()
                break
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture(scope="module")
def served(shared, tmp_path_factory):
    stories = shared / "models" / "stories260K"
    with running(stories, tmp_path_factory.mktemp("server")) as url:
        yield str(stories), url


@pytest.fixture(scope="module")
def drawn(shared, tmp_path_factory):
    """Stories drawn by the package itself: ids, log-probs."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "openings.jsonl").write_text("".join(json.dumps({"question": o}) + "\n" for o in OPENINGS))
    out = folder / "base.jsonl"
    stories = str(shared / "models" / "stories260K")
    analyzer.sample([str(folder / "openings.jsonl")], out, model=stories, n=12, max_tokens=150, template="none")
    return out


@pytest.mark.parametrize("precision", PRECISION)
def test_it_agrees_with_the_definition_up_to_the_noise_of_two_engines(shared, drawn, tmp_path, capsys, precision):
    stories, (options, median, largest) = str(shared / "models" / "stories260K"), PRECISION[precision]
    with running(stories, tmp_path, *options) as url:
        got, want, refused = compared(stories, url, drawn)
    assert set(got) == set(want) and len(got) >= 10
    off_T = [(got[k].columns["logprob"] - want[k].columns["logprob"]).astype(float) for k in want]
    off, sums = np.abs(np.concatenate(off_T)), np.abs([o.sum() for o in off_T])
    with capsys.disabled():
        sys.stderr.write(
            f"\n{precision} precision: {len(got)} traces, {len(off)} tokens, {len(refused)} refused; |difference| in "
            f"nats: median {np.median(off):.2g}, 99 % {np.quantile(off, 0.99):.2g}, largest {off.max():.2g}; of a "
            f"trace's sum: 99 % {np.quantile(sums, 0.99):.2g}, largest {sums.max():.2g}\n"
        )
    assert np.median(off) < median and off.max() < largest


def compared(stories, url, drawn):
    """The server's scores, those of the definition, and what the server can't score."""
    here, there = scorers.load(stories), scorers.load(f"{stories}@{url}")
    assert (there.model.way, there.model.skip) == ("text, echo", 1)
    items = [encode(t, here.tokenizer, vocab_size=512) for t in read_dumps([str(drawn)])[0]]
    refused = server.refusals(there.model, items, there.context)
    items = [i for i in items if i.trace.key not in refused]
    want = {s.key: s for s in scorers.score(items, here, path="plain", sampler=Sampler(), limit=None)}
    got = {s.key: s for s in scorers.score(items, there, path="server", sampler=Sampler(), limit=None)}
    return got, want, refused


def test_a_server_that_adds_no_bos_shifts_its_log_probs_and_is_refused(shared, tmp_path):
    """Without BOS, llama-cpp-python gives each token the log-prob that the token itself already conditions."""
    stories = shared / "models" / "stories260K"
    with running(stories, tmp_path, bos=False) as url, pytest.raises(ResourceError, match="can be trusted"):
        scorers.load(f"{stories}@{url}")


def test_a_server_without_logits_all_is_refused(shared, tmp_path):
    stories = shared / "models" / "stories260K"
    with running(stories, tmp_path, logits_all=False) as url, pytest.raises(ResourceError, match="logits_all"):
        scorers.load(f"{stories}@{url}")


def test_from_the_command_line_to_the_report(served, drawn, tmp_path):
    stories, url = served
    other = tmp_path / "cool.jsonl"
    line = ["sample", str(drawn), "--model", stories, "-n", "4", "--max-tokens", "60", "--temperature", "0.7"]
    assert cli.main([*line, "--server", url, "--label", "cool", "-o", str(other)]) == 0
    run = tmp_path / "run"
    dumps = [f"base={drawn}", f"cool={other}", "--base", stories, "--policy", f"cool={stories}", "--server", url]
    assert cli.main(["score", *dumps, "--template", "none", "-o", str(run)]) == 0
    assert cli.main(["score", *dumps, "--template", "none", "-o", str(run)]) == 0
    record = Run.open(run).manifest["scorers"]["base"]
    assert record["path"] == "server" and record["server"]["url"] == url.removesuffix("/v1")
    assert cli.main(["report", str(run), "-o", str(tmp_path / "report")]) == 0
