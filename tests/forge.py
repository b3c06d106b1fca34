"""A server that behaves as the comment APIs of GitHub and GitLab do, for tests, on this machine."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "ghs_secretSECRET123"
PROJECT, NUMBER = "octo/repo", 7
LIMIT = 65_536


@dataclass
class Refusal:
    """What is replied in place of the next request that fits."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""
    cut: bool = False


@dataclass
class Forge:
    """The comments of one request, and all that was asked of the server."""

    is_gitlab: bool = False
    user: str | None = "octo-bot"
    author: str = "octo-bot"
    can_write: bool = True
    comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refusals: deque[Refusal] = field(default_factory=deque)
    before_made: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    link_base: str = ""
    way: str = ""

    def add(self, body: str, author: str | None = None) -> int:
        with self.lock:
            number = max(self.comments, default=100) + 1
            self.comments[number] = {
                "id": number,
                "body": body,
                ("author" if self.is_gitlab else "user"): {
                    ("username" if self.is_gitlab else "login"): author or self.author
                },
                **({} if self.is_gitlab else {"html_url": f"{self.url}/c/{number}"}),
            }
            return number

    @property
    def bodies(self) -> list[str]:
        return [item["body"] for _, item in sorted(self.comments.items())]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    forge: Forge

    def log_message(self, *words: object) -> None:
        """Quiet."""

    def reply(self, status: int, data: Any = None, **headers: str) -> None:
        body = b"" if data is None else json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        forge, parts = self.forge, urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        forge.asked.append((self.command, self.path))
        token = self.headers.get("private-token") or self.headers.get("authorization", "")
        forge.tokens.add(token.removeprefix("Bearer "))
        for refusal in [*forge.refusals]:
            if refusal.method in ("", self.command):
                forge.refusals.remove(refusal)
                if refusal.cut:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)  # its files hold it open
                    return None
                return self.reply(refusal.status, refusal.body, **refusal.headers)
        if forge.way:
            return self.without_end()
        if token.removeprefix("Bearer ") != TOKEN:
            return self.reply(401, {"message": "Bad credentials"})
        return self.route(parts.path, parse_qs(parts.query), body)

    def without_end(self) -> None:
        """A reply that comes a byte at a time, or as fast as it can."""
        self.send_response(200)
        self.send_header("content-length", str(1 << 40))
        self.end_headers()
        part, pause = (b" ", 0.05) if self.forge.way == "drip" else (b" " * (1 << 16), 0.0)
        try:
            for _ in range(1000):
                self.wfile.write(part)
                time.sleep(pause)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    def route(self, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> None:
        forge = self.forge
        if path == "/user":
            if forge.user is None:
                return self.reply(403, {"message": "Resource not accessible by integration"})
            return self.reply(200, {"username" if forge.is_gitlab else "login": forge.user})
        listing, single = self.paths()
        if path == listing:
            return self.listing(path, query) if self.command == "GET" else self.make(body)
        if match := re.fullmatch(single, path):
            return self.change(int(match[1]), body)
        return self.reply(404, {"message": "Not Found"})

    def paths(self) -> tuple[str, str]:
        if self.forge.is_gitlab:
            base = f"/projects/{PROJECT.replace('/', '%2F')}/merge_requests/{NUMBER}/notes"
            return base, rf"{re.escape(base)}/(\d+)"
        return (
            f"/repos/{PROJECT}/issues/{NUMBER}/comments",
            rf"/repos/{re.escape(PROJECT)}/issues/comments/(\d+)",
        )

    def listing(self, path: str, query: dict[str, list[str]]) -> None:
        size, page = int(query.get("per_page", ["30"])[0]), int(query.get("page", ["1"])[0])
        items = [item for _, item in sorted(self.forge.comments.items())]
        shown = items[(page - 1) * size : page * size]
        headers = {}
        if page * size < len(items):
            address = (
                f"{self.forge.link_base or self.forge.url}{path}?per_page={size}&page={page + 1}"
            )
            headers["link"] = f'<{self.forge.url}/x>; rel="first", <{address}>; rel="next"'
        self.reply(200, shown, **headers)

    def make(self, body: dict[str, Any]) -> None:
        if not self.forge.can_write:
            return self.reply(403, {"message": "Resource not accessible by integration"})
        if len(body["body"]) > LIMIT:
            return self.reply(422, {"message": "Validation Failed", "errors": ["too long"]})
        for step in self.forge.before_made:
            step()
        number = self.forge.add(body["body"])
        return self.reply(201, self.forge.comments[number])

    def change(self, number: int, body: dict[str, Any]) -> None:
        with self.forge.lock:
            if number not in self.forge.comments:
                return self.reply(404, {"message": "Not Found"})
            if self.command == "DELETE":
                del self.forge.comments[number]
                return self.reply(204)
            if self.command != ("PUT" if self.forge.is_gitlab else "PATCH"):
                return self.reply(405, {"message": "Method Not Allowed"})
            self.forge.comments[number]["body"] = body["body"]
            return self.reply(200, self.forge.comments[number])


@contextmanager
def serving(forge: Forge) -> Iterator[Forge]:
    """Serve on a port of this machine that is free."""
    handler = type("Handler", (_Handler,), {"forge": forge})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    forge.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
