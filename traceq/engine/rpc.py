"""The trace processor protocol, completed: load a trace, query it, register SQL packages.

Perfetto's Python client speaks this protocol for queries only; :class:`RpcBackend` adds the rest
over any transport. Starting an engine and moving bytes is left to the transports (wasm, shell,
remote); threads, timeouts and rebuilding are left to the session; decoding cells to the table.

Requests and replies are ``TraceProcessorRpcStream`` messages as described in Perfetto's
``protos/perfetto/trace_processor/trace_processor.proto``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from perfetto.common.exceptions import PerfettoException
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc

from traceq.errors import EngineError, QueryError

# A request may have 64 MiB (proto_ring_buffer.h); small ones keep the copies that are made of
# each one small, at no measurable cost.
CHUNK_BYTES = 4 << 20

_POSITION = re.compile(r"\bline (\d+) col (\d+)")


class Transport(Protocol):
    """Moves the bytes of requests and replies, and can be stopped from another thread."""

    def send(self, data: bytes) -> None:
        """Delivers one serialized request."""

    def read(self, n: int) -> bytes:
        """Returns exactly ``n`` bytes of the replies, or raises ``ConnectionError``."""

    def interrupt(self) -> None:
        """Makes a running or later :meth:`send` or :meth:`read` fail soon; for any thread."""

    def close(self) -> None:
        """Frees what the transport holds; must not run beside another call."""


class RpcBackend(TraceProcessorRpc):  # type: ignore[misc]  # perfetto carries no annotations
    """One trace processor instance, spoken to over ``transport``.

    Not thread-safe, except for :meth:`interrupt`. When a conversation breaks (the engine stopped,
    the connection closed, a reply made no sense) :attr:`dead` is true from then on and every
    further request raises :class:`EngineError`.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, _protos())
        self._broken = False
        self._interrupted = False

    @property
    def dead(self) -> bool:
        """Whether the backend must be replaced."""
        return self._broken or self._interrupted

    def parse(self, chunk: bytes) -> None:
        """Appends bytes of a trace of any type; raises EngineError if the engine refuses them."""
        view = memoryview(chunk)
        for start in range(0, len(view), CHUNK_BYTES):
            request = self._request("TPM_APPEND_TRACE_DATA")
            request.append_trace_data = bytes(view[start : start + CHUNK_BYTES])
            _refuse_load(self._ask(request).append_result.error)

    def notify_eof(self) -> None:
        """Ends the trace; raises EngineError if the engine finds it broken or cut off."""
        reply = self._ask(self._request("TPM_FINALIZE_TRACE_DATA"))
        _refuse_load(reply.finalize_data_result.error)

    def query(self, sql: str) -> Any:
        """Runs ``sql`` and returns the ``QueryResult`` message; raises QueryError if refused."""
        with self._conversation():
            result = self.execute_query(sql)
        if result.error:
            raise _query_error(result.error)
        return result

    def register_sql_package(self, name: str, modules: Mapping[str, str]) -> None:
        """Makes ``modules`` (full module name to SQL) ready for ``INCLUDE PERFETTO MODULE``.

        A package of the same name is replaced. Raises EngineError if the engine refuses, for
        instance when a module's name does not start with the package's.
        """
        request = self._request("TPM_REGISTER_SQL_PACKAGE")
        args = request.register_sql_package_args
        args.package_name, args.allow_override = name, True
        for module, sql in modules.items():
            args.modules.add(name=module, sql=sql)
        error = self._ask(request).register_sql_package_result.error
        if error:
            raise EngineError(
                _headed(f"SQL package {name!r} was refused", error),
                hint=f"Name every module of the package '{name}.<module>'.",
            )

    def status(self) -> Any:
        """Returns the ``StatusResult`` message: version and name of the loaded trace."""
        return self._ask(self._request("TPM_GET_STATUS")).status

    def interrupt(self) -> None:
        """Ends the call that is running, from another thread; the backend is dead afterwards."""
        self._interrupted = True
        self.transport.interrupt()

    def _request(self, method: str) -> Any:
        request = self.protos.TraceProcessorRpc()
        request.request = self.protos.TraceProcessorRpc.TraceProcessorMethod.Value(method)
        return request

    def _ask(self, request: Any) -> Any:
        """Sends one request that has one reply, and returns that."""
        stream = self.protos.TraceProcessorRpcStream()
        stream.msg.append(request)
        reply = self.protos.TraceProcessorRpc()
        with self._conversation():
            self.transport.send(stream.SerializeToString())
            reply.ParseFromString(self._read_payload())
            self._check_envelope(reply)
        return reply

    @contextmanager
    def _conversation(self) -> Iterator[None]:
        """Marks the backend dead unless the exchange inside runs to its end."""
        if self.dead:
            raise EngineError("the query engine has stopped", hint="Start a new one.")
        self._broken = True
        try:
            yield
        except (OSError, HTTPException, PerfettoException, DecodeError, ValueError) as error:
            raise EngineError(
                f"the query engine broke off: {_last_line(str(error)) or type(error).__name__}",
                hint="Check that the instance is still running and is a trace processor.",
            ) from error
        self._broken = False


@functools.cache
def _protos() -> ProtoFactory:
    return ProtoFactory(PlatformDelegate())


def _refuse_load(error: str) -> None:
    if error:
        raise EngineError(
            _headed("the query engine could not load the trace", error),
            hint="Check that the file is a whole trace; a cut-off one must be repaired first.",
        )


def _query_error(text: str) -> QueryError:
    """The engine's own text, headed by its last line (the reason) and the position in it."""
    text = text.strip("\n")
    summary, positions = _last_line(text), _POSITION.findall(text)
    if positions:
        summary += " (line {}, column {})".format(*positions[-1])
    hint = "Correct the query at that position." if positions else "Correct the query."
    if "no such" in summary:
        hint = "Names of the standard library need INCLUDE PERFETTO MODULE <module>; first."
    return QueryError(summary if summary == text else f"{summary}\n{text}", hint=hint)


def _headed(summary: str, text: str) -> str:
    """The summary with the reason (the last line of ``text``), and all of a longer text below."""
    text, reason = text.strip("\n"), _last_line(text)
    return f"{summary}: {reason}" if reason == text.strip() else f"{summary}: {reason}\n{text}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
