"""A trace processor that is running already, reached over HTTP or a Unix socket.

Addresses mean what they mean to ``trace_processor --remote``. The protocol is left to ``rpc``;
starting an instance of one's own to ``shell``.
"""

from __future__ import annotations

import http.client
import io
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from perfetto.trace_processor.unix import UnixTransport, unix_socket_path_for

from traceq.engine.rpc import RpcBackend, Transport
from traceq.errors import EngineError

_CONNECT_SECONDS = 10.0


class RemoteBackend(RpcBackend):
    """The running instance at ``address``; raises EngineError if none answers there."""

    def __init__(self, address: str) -> None:
        super().__init__(_connect(address))


class HttpTransport:
    """Requests as bodies of ``POST /rpc``, replies as the bodies that come back.

    ``netloc`` is ``host:port``. Connects at once and raises OSError if that fails.
    """

    def __init__(self, netloc: str) -> None:
        self._connection = http.client.HTTPConnection(netloc, timeout=_CONNECT_SECONDS)
        self._socket = self._connect()
        self._unread = io.BytesIO()

    def send(self, data: bytes) -> None:
        """Posts one request and takes in the whole reply."""
        if self._connection.sock is None:
            # The server closed the connection after its last reply.
            self._socket = self._connect()
        headers = {"Content-Type": "application/x-protobuf"}
        self._connection.request("POST", "/rpc", body=data, headers=headers)
        with self._connection.getresponse() as response:
            body = response.read()
        if response.status != http.client.OK:
            raise ConnectionError(f"POST /rpc was answered with {response.status}")
        self._unread = io.BytesIO(body)

    def read(self, n: int) -> bytes:
        """Returns exactly ``n`` bytes of the reply."""
        data = self._unread.read(n)
        if len(data) < n:
            raise ConnectionError("the reply was cut off")
        return data

    def interrupt(self) -> None:
        """Closes the connection under a running call; the instance goes on with it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _connect(self) -> socket.socket:
        """Connects, and returns the socket: the connection lets go of it while a reply is read."""
        self._connection.connect()
        # Queries take as long as they take; the session watches the time.
        self._connection.sock.settimeout(None)
        return self._connection.sock


class SocketTransport(UnixTransport):  # type: ignore[misc]  # perfetto carries no annotations
    """Perfetto's Unix socket, with a way to end a running call."""

    def interrupt(self) -> None:
        """Closes the connection under a running call; the instance goes on with it."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


def _connect(address: str) -> Transport:
    path = unix_socket_path_for(address)
    try:
        if path is not None:
            return SocketTransport(path)
        return HttpTransport(_netloc(address))
    except OSError as error:
        where = path or address
        raise EngineError(
            f"no trace processor answers at {where}: {error.strerror or error}",
            hint="Start one with: trace_processor_shell -D --http-port 9001 TRACE; "
            "or name an engine: wasm, wasm64, shell, shell:PATH.",
        ) from error


def _netloc(address: str) -> str:
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        valid = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise EngineError(
            f"{address!r} is not an address of a trace processor",
            hint="Give host:port, http://host:port, a session name or a socket path.",
        )
    return parts.netloc
