"""Speaks JSON over HTTP with the API of GitHub or GitLab: waits where told to, and says what to do.

The token goes to the address that was given and nowhere else: redirects are not followed, and links
to further pages only within it. It shows in no message. What is asked for is left to ``sticky``.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from traceq.errors import TraceqError
from traceq.units import printable

TRIES = 4
"""So many times a request is sent at most, where it fails for reasons that pass."""
PATIENCE = 90.0
"""Seconds that are waited for a service in all, whatever it asks for."""
TIMEOUT = 30.0
"""Seconds for one request, to the last byte of its reply."""
_FIRST_WAIT = 1.0
_MOST = 128 << 20  # bytes of a reply: a page of a hundred comments of GitLab's longest is below
_PART = 1 << 16
_MOST_DIGITS = 12
_MOST_PAGES = 200
_NEXT = re.compile(r'<([^<>]*)>\s*;[^<]*\brel="?next"?')


class PostError(TraceqError):
    """The report could not be posted. ``status`` is that of HTTP, 0 where none came."""

    def __init__(self, message: str, *, hint: str | None = None, status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back: all of it."""

    status: int
    headers: urllib3.HTTPHeaderDict
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of success: its JSON, and the path of the page after it (empty: none)."""

    data: Any
    next_page: str = ""


@dataclass(slots=True)
class Api:
    """One service: ``base`` is the address of its API, ``headers`` hold the token.

    ``hints`` tell by status what to do. ``sleep`` is for tests.
    """

    base: str
    headers: dict[str, str] = field(repr=False)
    token: str = field(repr=False)
    hints: dict[int, str]
    sleep: Callable[[float], None] = time.sleep
    waited: float = 0.0

    def pages(self, path: str) -> Iterator[Any]:
        """The items of a list, page by page."""
        seen: set[str] = set()
        while path and path not in seen:
            if len(seen) >= _MOST_PAGES:
                raise PostError(f"{self.base} lists more than {_MOST_PAGES} pages of comments")
            seen.add(path)
            reply = self.request("GET", path)
            if not isinstance(reply.data, list):
                raise PostError(f"{self.base} replied with no list of comments", hint=_NOT_AN_API)
            yield from reply.data
            path = reply.next_page

    def request(self, method: str, path: str, body: Any = None) -> Reply:
        """The reply of success to a request. Raises PostError."""
        for number in range(1, TRIES + 1):
            last = number == TRIES
            try:
                response = self._send(method, path, body)
            except urllib3.exceptions.HTTPError as error:
                # A comment that was asked for twice would be two: what was sent is not sent again.
                if last or isinstance(error, _WRONG) or not _is_unsent(error, method):
                    raise self._no_reply(error) from None
                self._wait(_FIRST_WAIT * 2 ** (number - 1), "cannot be reached")
                continue
            if 200 <= response.status < 300:
                return self._read(response, path)
            seconds = _wait_of(response, number)
            if last or seconds is None or (method == "POST" and response.status >= 500):
                raise self._refused(response)
            self._wait(seconds, f"replied with HTTP {response.status}")
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, body: Any) -> _Answer:
        deadline = time.monotonic() + TIMEOUT
        response = _pool(self.base).request(
            method,
            self.base + path,
            body=None if body is None else json.dumps(body).encode(),
            headers=self.headers | {"content-type": "application/json", "user-agent": "traceq"},
            timeout=urllib3.Timeout(total=TIMEOUT),
            redirect=False,
            retries=False,
            preload_content=False,
        )
        try:
            return _Answer(response.status, response.headers, self._read_all(response, deadline))
        finally:
            response.close()

    def _read_all(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """No more than fits, and no longer than a request may take, however slow it comes."""
        data = bytearray()
        while part := response.read1(_PART):
            data += part
            if len(data) > _MOST:
                raise PostError(f"{self.base} replied with more than {_MOST >> 20} MiB")
            if time.monotonic() > deadline:
                raise urllib3.exceptions.TimeoutError
        return bytes(data)

    def _read(self, response: _Answer, path: str) -> Reply:
        try:
            data = json.loads(response.data) if response.data.strip() else None
        except (ValueError, RecursionError):
            message = f"{self.base} replied with something that is not JSON"
            raise PostError(message, hint=_NOT_AN_API) from None
        return Reply(data, self._next(response, path))

    def _next(self, response: _Answer, path: str) -> str:
        """The path of the next page: what stands before it may be a name behind a proxy."""
        match = _NEXT.search(response.headers.get("link", ""))
        if match is None:
            return ""
        root = urlsplit(self.base).path
        try:
            url: SplitResult = urlsplit(urljoin(self.base + path, match[1]))
        except ValueError:
            url = urlsplit("")
        if not url.path.startswith(f"{root}/"):
            message = f"{self.base} names a next page of comments that is not of this API"
            raise PostError(message, hint=_NOT_AN_API)
        return url.path.removeprefix(root) + (f"?{url.query}" if url.query else "")

    def _wait(self, seconds: float, why: str) -> None:
        if self.waited + seconds > PATIENCE:
            raise PostError(
                f"{self.base} {why} and asks for a wait of {seconds:.0f} s",
                hint="Run it again later.",
            )
        self.waited += seconds
        self.sleep(seconds)

    def _refused(self, response: _Answer) -> PostError:
        said = self._message(response)
        text = f"{self.base} replied with HTTP {response.status}{f': {said}' if said else ''}"
        status = response.status
        hint = self.hints.get(status)
        if 300 <= status < 400:
            hint = "Give the address of the API itself (--api-url)."
        elif status >= 500:
            hint = "The service has a fault of its own: run it again later."
        return PostError(text, hint=hint, status=status)

    def _message(self, response: _Answer) -> str:
        """What a refusal says for itself, without the token."""
        try:
            data = json.loads(response.data[:65_536])
            said = data.get("message") or data.get("error") if isinstance(data, dict) else ""
        except (ValueError, RecursionError):
            said = ""
        text = said if isinstance(said, str) else json.dumps(said)
        return printable(text.replace(self.token, "***"))[:200]

    def _no_reply(self, error: urllib3.exceptions.HTTPError) -> PostError:
        # Not chained, and not quoted: what lies below may hold headers.
        is_late = isinstance(error, urllib3.exceptions.TimeoutError)
        if is_late and not isinstance(error, urllib3.exceptions.NewConnectionError):
            return PostError(f"{self.base} did not reply in time", hint="Run it again later.")
        if isinstance(error, urllib3.exceptions.SSLError):
            return PostError(f"{self.base} offers no trusted TLS", hint=_CERTIFICATES)
        kind = type(error).__name__
        return PostError(f"{self.base} cannot be reached ({kind})", hint=_NO_NETWORK)


_NOT_AN_API = "Give the address of the API (--api-url), as https://api.github.com."
_CERTIFICATES = "Name the certificates of your network in SSL_CERT_FILE."
_NO_NETWORK = "See that this machine reaches it; HTTPS_PROXY names a proxy."


def _pool(base: str) -> urllib3.PoolManager:
    """A pool that uses the proxy and the certificates that the environment names.

    Plain HTTP stays on this machine, so it goes through no proxy: that would read the token.
    """
    parts = urlsplit(base)
    certificates = os.environ.get("SSL_CERT_FILE")
    proxy = getproxies().get(parts.scheme)
    if proxy and parts.scheme == "https" and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, ca_certs=certificates)
    return urllib3.PoolManager(ca_certs=certificates)


_WRONG = (
    urllib3.exceptions.LocationParseError,
    urllib3.exceptions.URLSchemeUnknown,
    urllib3.exceptions.SSLError,
)
"""What is no better the next time."""


def _is_unsent(error: urllib3.exceptions.HTTPError, method: str) -> bool:
    """Whether a request may be sent again: it did not get there, or asks for the same twice."""
    unsent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return method != "POST" or isinstance(error, unsent)


def _wait_of(response: _Answer, number: int) -> float | None:
    """Seconds to wait before a refused request is sent again; None where that is no use.

    A rate limit is 429, or on GitHub 403 with one of the headers that say so.
    """
    headers, status = response.headers, response.status
    spent = headers.get("x-ratelimit-remaining") == "0"
    is_told = "retry-after" in headers or spent or b"secondary rate limit" in response.data
    is_limit = status == 429 or (status == 403 and is_told)
    if not is_limit:
        return _FIRST_WAIT * 2 ** (number - 1) if status >= 500 else None
    if (wait := _whole(headers.get("retry-after", ""))) is not None:
        return float(wait)
    if spent and (reset := _whole(headers.get("x-ratelimit-reset", ""))) is not None:
        return max(reset - time.time(), _FIRST_WAIT)
    return 60.0  # as GitHub asks for where a secondary limit says nothing


def _whole(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_number else None
