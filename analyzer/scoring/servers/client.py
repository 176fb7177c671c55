"""JSON over HTTP to an OpenAI-style server: one connection per thread, faults tried again with back-off.

The API key comes from the environment alone (ANALYZER_API_KEY); it goes to no other host, since redirects are not
followed, and into no file or message.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from analyzer.dumps.streams import weighed
from analyzer.errors import DumpError, ResourceError, UsageError

log = logging.getLogger(__name__)  # a wait is a warning: on stderr, unless the program that imports this says otherwise

KEY = "ANALYZER_API_KEY"
TRIES = 6  # of one request; with the waits below a server may be away for about 20 s
TIMEOUT = 600.0  # seconds, from the request to the last byte of the answer
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds; doubled from try to try, a random half of it taken off
LONGEST_ASKED_WAIT = 600.0  # of a server's Retry-After; more counts as a refusal
PASSING = (408, 425, 429, 500, 502, 503, 504, 529)  # statuses worth another try
# bytes of an answer: at least, for each token asked about (five alternatives with their texts), and at most
SMALLEST, TOKEN_BYTES, LARGEST = 1 << 22, 1 << 11, 1 << 28
DENSITY = 8  # bytes of memory for the values of an answer, per byte that it may have


class Fault(Exception):
    """An answer that can't be used but may be better next time; status: of HTTP, None where it is 200 or none came;
    wait: seconds that the server asked for."""

    def __init__(self, reason: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.wait = status, wait


class Away(Fault):
    """No answer at all, or one that says: later."""


class Refused(Exception):
    """The server will not answer this request, however often it is sent. status: of HTTP, None where it is 200."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class Client:
    """A server's address, and a connection to it for every thread that asks. `sleep(seconds)` is replaced in tests."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, tries: int = TRIES) -> None:
        self.url = checked(url)
        self.timeout, self.tries = timeout, tries
        self.stop = threading.Event()
        self.sleep: Callable[[float], Any] = self.stop.wait
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._told = 0.0  # until when the waits last told go
        self._key = key()

    def ask(
        self,
        path: str,
        body: Any = None,
        read: Callable[[Any], Any] = lambda answer: answer,
        *,
        tries: int | None = None,
        wrong: int | None = None,
    ) -> Any:
        """read(the JSON answer) of a GET, or of a POST when there is a body; path: below the root, as "/v1/models".

        `read` raises Fault where the answer is wrong: it is asked for again, `tries` times in all, `wrong` times when
        an answer came and was wrong. Raises Refused (the server says no) and, when the tries are used up, ResourceError
        from the last Fault.
        """
        number = 0
        while True:
            number += 1
            try:
                return read(self._exchange(path, body))
            except Fault as found:
                fault, limit = found, tries or self.tries
                limit = limit if isinstance(fault, Away) else wrong or limit
            if number >= limit or self.stop.is_set():
                break
            wait = fault.wait
            if wait is None:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (number - 1)) * random.uniform(0.5, 1)
            self._tell(fault, wait, f"try {number + 1} of {limit}")
            self.sleep(wait)
        raise ResourceError(
            f"server {self.url}: no usable answer to {path} after {number} tries, the last one: {fault}"
        ) from fault

    def _tell(self, fault: Fault, wait: float, then: str) -> None:
        """One line per wait; requests that wait at the same time share it."""
        until = time.monotonic() + wait
        if until > self._told + 1:
            self._told = until
            said = f": {fault}" if fault.status is None else f" said {fault.status}"
            log.warning("server %s%s, waiting %g s (%s)", self.url, said, round(wait, 1), then)

    def release(self) -> None:
        """Close the connections of threads that are done; one that is needed again opens again."""
        while self._open:
            self._open.pop().close()

    def close(self) -> None:
        """End what is under way; threads that wait for an answer get none."""
        self.stop.set()
        for connection in list(self._open):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)  # closing alone would not wake a thread that reads
            connection.close()

    def _exchange(self, path: str, body: Any) -> Any:
        """One request and its answer; a kept connection that the server has closed meanwhile is opened again once."""
        data = None if body is None else json.dumps(body).encode()
        largest = _most(body)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        while True:
            connection = getattr(self._local, "connection", None)
            kept = connection is not None
            if not kept:
                connection = self._local.connection = self._connect()
            connection.timeout = self.timeout  # may have changed since it was opened
            late = threading.Event()
            watch = threading.Timer(self.timeout, _cut_off, (connection, late))  # the socket's own starts at every byte
            watch.daemon = True
            watch.start()
            try:
                if connection.sock is None:
                    connection.connect()
                connection.sock.settimeout(self.timeout)
                if self.stop.is_set():  # `close` has not seen a connection that was just made
                    raise ConnectionError("given up")
                connection.request("GET" if data is None else "POST", urlsplit(self.url).path + path, data, headers)
                response = connection.getresponse()
                raw = response.read(largest + 1)
                if late.is_set():
                    raise TimeoutError
                if response.length and len(raw) <= largest:  # read(n) itself says nothing of an end that comes early
                    raise ConnectionError(
                        f"the connection was cut after {len(raw):,} bytes, {response.length:,} were to come"
                    )
                break
            except (OSError, http.client.HTTPException) as error:
                self._drop(connection)
                if late.is_set():
                    raise Away(f"no answer within {self.timeout:g} s (TimeoutError)") from error
                if (
                    kept
                    and not self.stop.is_set()
                    and isinstance(error, (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected))
                ):
                    continue
                what = f"no answer within {self.timeout:g} s" if isinstance(error, TimeoutError) else str(error)
                raise Away(f"{what or 'the connection broke'} ({type(error).__name__})") from error
            finally:
                watch.cancel()
        if response.will_close or len(raw) > largest:
            self._drop(connection)
        if response.status != 200:
            self._complain(path, response, raw)
        if len(raw) > largest:
            raise Refused(f"an answer of more than {largest:,} bytes, which is more than what was asked for takes")
        try:
            answer = json.loads(weighed("the answer", raw, DENSITY * largest, "its values are not what was asked for"))
        except DumpError as error:
            raise Refused(str(error)) from None
        except (ValueError, RecursionError):
            raise Fault(f"the answer is not JSON: {self._shown(raw)}") from None
        if _complaint(answer) is not None and not {"choices", "data", "tokens"} & set(answer):
            raise Fault(f"an error with HTTP 200: {self._shown(raw)}")
        return answer

    def _complain(self, path: str, response: http.client.HTTPResponse, raw: bytes) -> None:
        status, wait = response.status, _seconds(response.headers.get("Retry-After"))
        said = f"HTTP {status} {self._plain(response.reason)}: {self._shown(raw)}"
        if status in (401, 403):
            said += f"; the key in {KEY} is not the one it wants" if self._key else f"; its key belongs into {KEY}"
        if 300 <= status < 400:
            place = self._plain(response.headers.get("Location", "nowhere"))
            with contextlib.suppress(ValueError):
                place = urljoin(self.url + path, place)
            root = place.removesuffix(path) if place.endswith(path) else "its root"
            said += f"; it points to {place}; redirects are not followed: if you trust it, give {root} as URL"
        if status not in PASSING or (wait or 0) > LONGEST_ASKED_WAIT:
            raise Refused(said, status)
        raise Away(said, status, wait)

    def _shown(self, raw: bytes) -> str:
        """What a message may show of an answer: its beginning, on one line, never the key."""
        text = None
        with contextlib.suppress(ValueError, RecursionError):
            text = _complaint(json.loads(raw))
        return repr(self._plain(raw[:4000].decode("utf-8", errors="replace") if text is None else text))

    def _plain(self, text: str) -> str:
        text = text.replace(self._key, "...") if self._key else text
        return "".join(c if c.isprintable() else " " for c in text)[:200]

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self.timeout)
        connection.auto_open = 0  # one that `close` has closed must not open again
        self._open.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._open.discard(connection)
        self._local.connection = None


def _most(body: Any) -> int:
    """Bytes that the answer to a request may have."""
    asked = (body or {}).get("prompt", (body or {}).get("input", ()))
    tokens = (4 if isinstance(asked, str) else 1) * len(asked) + (body or {}).get("max_tokens", 0)  # bytes of a letter
    return min(LARGEST, SMALLEST + TOKEN_BYTES * tokens)


def _cut_off(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    """End an exchange that takes too long: whoever reads it wakes up."""
    late.set()
    if (sock := connection.sock) is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def checked(url: str) -> str:
    """The server's root without a trailing /v1. Raises UsageError for what is no plain http(s) address, and for one
    with credentials in it: addresses are written into the run."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        usable = usable and parts.path.isascii() and parts.path.isprintable() and " " not in parts.path
        (parts.hostname or "").encode("idna")  # as the look-up does: no empty label, none of more than 63 characters
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--server {url!r}: expected an address like http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query:
        raise UsageError(
            f"--server {parts.scheme}://{parts.hostname}...: the address holds credentials or a query, and addresses "
            f"are written into the run; put the key into the environment variable {KEY}"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v1")


def key() -> str:
    """The API key, without white space around it. Raises UsageError, without the key, where no header can hold it."""
    found = os.environ.get(KEY, "").strip()
    if not (found.isascii() and found.isprintable()):
        raise UsageError(
            f"{KEY}: the key (not shown) holds a character that no HTTP header can; expected printable ASCII alone; "
            "copy it again"
        )
    return found


def _complaint(answer: Any) -> str | None:
    """What an error object says, in the shapes that servers give it; None where the answer is none."""
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if isinstance(error, dict):
        error = error.get("message", str(error))
    if error is None:
        error = answer.get("message" if answer.get("object") == "error" else "detail")
    return None if error is None else str(error)


def _seconds(text: str | None) -> float | None:
    """Retry-After: a number of seconds or a date; None where it is neither."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
