"""Speaks HTTP with a server: one reply in a given time, and an error that says what to do.

A request runs in a thread of its own, so that a reply that dribbles in byte by byte ends with its
deadline, and Ctrl-C is heard at once. Redirects are not followed and proxies not used: the key goes
to the address that was given, nowhere else. What the replies mean is left to the engines.
"""

from __future__ import annotations

import base64
import json
import queue
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import unquote

import urllib3

from traceq.errors import CaptureError, UsageError
from traceq.units import printable

KEY_VARIABLE = "TRACEQ_SERVER_API_KEY"
QUICK = 30.0
"""Seconds for what a server answers from memory."""

_MOST = 64 << 20  # no reply of either engine is near it
_CHUNK = 64 << 10
_EXCERPT = 4096  # bytes of a reply that are looked at for a message
_HIDDEN = "***"
_LOGIN = re.compile(r"://[^/?#\s]*@")


class NoReplyError(CaptureError):
    """No reply came. ``sent`` says whether the server may have got the request all the same."""

    def __init__(self, message: str, *, hint: str | None = None, sent: bool) -> None:
        super().__init__(message, hint=hint)
        self.sent = sent


class StatusError(CaptureError):
    """The server replied that it did not do it."""

    def __init__(self, message: str, *, hint: str | None = None, status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class _TooLongError(urllib3.exceptions.HTTPError):
    """The reply has no end, as far as anybody waits for it."""


_FAILURES = urllib3.exceptions
_LATE = "{base}{path} did not reply within {timeout:g} s"
_BUSY = "See the server's log: it may be busy, or stuck."
_NO_REPLY: tuple[tuple[type[Exception], bool, str, str | None], ...] = (
    (_FAILURES.NameResolutionError, False, "the host {host!r} is not known here", None),
    (
        _FAILURES.NewConnectionError,
        False,
        "nothing can be reached at {base}",
        "See that the server has started, and that host and port are its own.",
    ),
    (_FAILURES.SSLError, True, "{base} offers no trusted TLS", "Is it http:// instead?"),
    (_FAILURES.ConnectTimeoutError, False, _LATE, _BUSY),
    (_FAILURES.TimeoutError, True, _LATE, _BUSY),
    (
        _TooLongError,
        True,
        "{base}{path} replied with more than {most} MiB",
        "See that the URL is the server's own.",
    ),
    (
        _FAILURES.HTTPError,
        True,
        "{base}{path} broke the connection off, or does not speak HTTP",
        "See whether the server is still running, and its log.",
    ),
    (Exception, True, "{base}{path} could not be asked: {kind}", None),
)
"""What went wrong, the first that fits: whether the server may have got the request, message, hint.

Where that is unknown it may have: a profile that was started for nothing is then stopped.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; ``base`` has neither user nor password, ``login`` as the URL has it.

    >>> Address.parse("http://me:secret@localhost:8000/v1")
    Address(base='http://localhost:8000', host='localhost')
    """

    base: str
    host: str
    login: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read http://host:port; a /v1 at the end, as OpenAI clients want it, is dropped."""
        hint = "Give it like http://localhost:30000"
        try:
            url = urllib3.util.parse_url(text)
        except urllib3.exceptions.LocationParseError:
            raise UsageError("the server's URL cannot be read", hint=hint) from None
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError("the server's URL has to begin with http:// or https://", hint=hint)
        if url.query or url.fragment:
            raise UsageError("the server's URL has a ? or # in it", hint=hint)
        path = re.sub(r"/v1\Z", "", (url.path or "").rstrip("/"))
        port = "" if url.port is None else f":{url.port}"
        return cls(f"{url.scheme}://{url.host}{port}{path}", url.host, url.auth)

    @property
    def is_here(self) -> bool:
        """Whether it is a loopback address (which may still be a tunnel, or a container)."""
        return self.host in ("localhost", "[::1]") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came."""

    status: int
    body: bytes
    location: str = ""

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300


class Client:
    """Sends requests to one server, with its key, which shows in no message."""

    def __init__(self, address: Address, key: str | None = None) -> None:
        if key is not None and not re.fullmatch(r"[!-~]+", key):
            raise UsageError(
                "the API key has characters that no HTTP header can carry",
                hint="See that it has no space or line break in it.",
            )
        self.address = address
        self._headers: dict[str, str] = {}
        secrets = {key}
        if address.login is not None:
            login = unquote(address.login)
            packed = base64.b64encode(login.encode()).decode()
            self._headers["authorization"] = f"Basic {packed}"
            secrets |= {packed, login, address.login}
            secrets |= {text.partition(":")[2] for text in (login, address.login)}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        # The longest first: one may be a part of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def get(self, path: str, *, timeout: float = QUICK) -> Reply:
        """The reply to a GET, whatever its status; NoReplyError if none came."""
        return self._request("GET", path, None, timeout)

    def post(self, path: str, body: Any = None, *, timeout: float = QUICK) -> Reply:
        """The reply to a POST with ``body`` as JSON, whatever its status."""
        return self._request("POST", path, body, timeout)

    def checked(self, reply: Reply, what: str) -> Reply:
        """The reply, if its status is one of success; ``what`` is the path that was asked for."""
        if not reply.is_ok:
            self._fail(reply, what)
        return reply

    def json(self, reply: Reply, what: str) -> Any:
        """The JSON of a reply of success."""
        try:
            return json.loads(self.checked(reply, what).body)
        except (ValueError, RecursionError):
            raise CaptureError(
                f"{self.address.base}{what} replied with something that is not JSON: "
                f"{self.excerpt(reply.body)}",
                hint="See that the URL is the server's own, not that of a page before it.",
            ) from None

    def excerpt(self, body: bytes) -> str:
        """The start of what a server said, fit for a message: one line, no secret."""
        text = self.without_secrets(body[:_EXCERPT].decode("utf-8", "replace"))
        if len(body) > _EXCERPT and self._secrets:
            text = text[: -len(self._secrets[0])]  # it may end within one, which is then not seen
        text = printable(" ".join(text.split()))
        return text if len(text) <= 200 else text[:199] + "…"

    def without_secrets(self, text: str) -> str:
        """The text with the key, the password and the logins of URLs blotted out."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _LOGIN.sub(f"://{_HIDDEN}@", text)

    def _fail(self, reply: Reply, what: str) -> NoReturn:
        place = f"{self.address.base}{what}"
        hint: str | None = None
        message = f"{place} replied with HTTP {reply.status}"
        if reply.status in (401, 403):
            hint = f"Put the server's API key (sglang: the admin key) into {KEY_VARIABLE}."
        elif 300 <= reply.status < 400:
            message += f", a redirect to {self.excerpt(reply.location.encode())}"
            hint = "Give the address of the server itself."
        elif reply.body.strip():
            message += f": {self.excerpt(reply.body)}"
        raise StatusError(message, hint=hint, status=reply.status)

    def _request(self, method: str, path: str, body: Any, timeout: float) -> Reply:
        outcome: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
        deadline = time.monotonic() + timeout

        def work() -> None:
            try:
                outcome.put(self._exchange(method, path, body, deadline))
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.put(error)

        threading.Thread(target=work, daemon=True, name="traceq-http").start()
        try:
            result = outcome.get(timeout=timeout)
        except queue.Empty:
            result = urllib3.exceptions.TimeoutError()
        if isinstance(result, Exception):
            # Not chained: what lies below quotes headers now and then.
            raise self._no_reply(result, path, timeout) from None
        return result

    def _exchange(self, method: str, path: str, body: Any, deadline: float) -> Reply:
        left = max(0.1, deadline - time.monotonic())
        with urllib3.PoolManager(retries=False) as pool:
            response = pool.request(
                method,
                self.address.base + path,
                body=None if body is None else json.dumps(body),
                headers=self._headers | {"content-type": "application/json"},
                timeout=urllib3.Timeout(total=left),
                redirect=False,
                preload_content=False,
                decode_content=False,  # none was asked for: a small reply cannot unpack to a huge
            )
            location = response.headers.get("location", "")
            return Reply(response.status, _body(response, deadline), location)

    def _no_reply(self, error: Exception, path: str, timeout: float) -> NoReplyError:
        _, sent, message, hint = next(row for row in _NO_REPLY if isinstance(error, row[0]))
        text = message.format(
            base=self.address.base,
            host=self.address.host,
            path=path,
            timeout=timeout,
            most=_MOST >> 20,
            kind=type(error).__name__,
        )
        return NoReplyError(text, hint=hint, sent=sent)


def _body(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The body, if it ends in time. Not ``stream``, which takes lines of any length for sizes."""
    data = bytearray()
    while chunk := response.read(_CHUNK, decode_content=False):
        data += chunk
        if len(data) > _MOST:
            raise _TooLongError
        if time.monotonic() > deadline:
            raise _FAILURES.TimeoutError
    return bytes(data)
