"""What a server can cost: an answer has a deadline as a whole, and no more memory than what was asked for takes."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from analyzer.errors import ResourceError
from analyzer.scoring.servers import client as server_client
from analyzer.scoring.servers.client import Client, Refused

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def raw_server(answer):
    """The address of a server that gives every connection to `answer(send)`."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    over = threading.Event()

    def one(connection):
        with connection:
            connection.recv(1 << 16)
            with suppress(OSError):
                answer(connection.sendall, over)

    def serve():
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        thread.join()
        listener.close()


def drip(data: bytes):
    def answer(send, over):
        for byte in data:
            if over.wait(0.05):
                return
            send(bytes([byte]))

    return answer


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000,
        HEAD + b"\r\n" + b" " * 1000,  # without a length, up to the end of the connection
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1000,
        HEAD + b"X: " + b"y" * 1000,
        b"HTTP/1.1 200 " + b"O" * 1000,
    ],
    ids=["body", "no length", "chunks", "header", "status"],
)
def test_an_answer_by_drops_ends(data):
    """Every byte comes well within the time that the socket waits for one."""
    with raw_server(drip(data)) as url:
        since = time.monotonic()
        with pytest.raises(ResourceError, match="after 2 tries, the last one: no answer within 0.4 s"):
            client = Client(url, timeout=0.4)
            client.sleep = lambda seconds: None
            client.ask("/v1/models", tries=2)
        assert 0.8 <= time.monotonic() - since < 8


def test_an_answer_in_time_is_not_cut_off():
    body = json.dumps({"data": []}).encode()

    def answer(send, over):
        send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        over.wait(0.2)
        send(body)

    with raw_server(answer) as url:
        assert Client(url, timeout=60).ask("/v1/models") == {"data": []}
    watches = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    for watch in watches:  # one that was called off ends in a moment, another one in a minute
        watch.join(10)
    assert not any(watch.is_alive() for watch in watches)


@pytest.mark.parametrize("size", [6 << 20, 60 << 20])
@pytest.mark.parametrize("body", [None, {"prompt": [1] * 100, "max_tokens": 1}])
def test_brackets_take_no_memory(size, body):
    """Lists of nothing take fifty times their bytes."""
    brackets = b"[" + b"[]," * (size // 3) + b"[]]"

    def answer(send, over):
        send(HEAD + b"Content-Length: %d\r\n\r\n" % len(brackets))
        send(brackets)

    with raw_server(answer) as url:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(Refused, match="more than what was asked for takes"):
            Client(url, timeout=20).ask("/v1/completions", body)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_long_answer_to_a_long_request_may_be_long_but_not_dense(monkeypatch):
    assert server_client._most({"prompt": [1] * 32_000, "max_tokens": 1}) > 32_000 * 6 * 200  # five alternatives each
    assert server_client._most({"prompt": [1] * 10**7}) == server_client.LARGEST
    assert server_client._most({"input": "é" * 10}) > server_client._most({"input": ""})
    brackets = b"[" + b"[]," * 4_000_000 + b"[]]"

    def answer(send, over):
        send(HEAD + b"Content-Length: %d\r\n\r\n" % len(brackets))
        send(brackets)

    refused = pytest.raises(Refused, match="so many values .* its values are not what was asked for")
    with raw_server(answer) as url, refused:
        Client(url, timeout=20).ask("/v1/completions", {"prompt": [1] * 8_000})
