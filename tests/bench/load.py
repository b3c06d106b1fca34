"""One measured run of ``python -m tests.bench load``: prints what it took as JSON.

Each way answers the same question, calls and time of an op under a scope. Wall time is that of
opening and answering; CPU time and memory are those of the whole process, imports included.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from traceq.many.local import start_early

if TYPE_CHECKING:
    from traceq.trace import Trace

QUERY = """
SELECT COUNT(*) AS calls, SUM(s.dur) AS total
FROM slice s
WHERE s.name GLOB '*rearrange*'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name GLOB '*GatedDeltaNet*')
"""

Answer = list[int]


def _ops(path: str) -> Answer:
    from traceq.loading import open_trace

    with open_trace(path) as trace:
        table = trace.ops("GatedDeltaNet", match="*rearrange*")
        return [int(table["calls"].sum()), int(table["total"].sum())]


def _one(path: str) -> Answer:
    from traceq.loading import open_trace

    with open_trace(path) as trace:
        return [trace.ledger.total.read]


def _both(path: str) -> Answer:
    """As a diff opens two captures: the trace, and one like it of other content."""
    from tests.bench.load import count_events  # not this one's, which no other process has
    from traceq.gathering import Opening, gather_each, split

    read, _ = split([*gather_each(_pair(path), count_events, Opening())])
    return read[:1] if read[0] == read[1] else read


def _pair(path: str) -> list[str]:
    return [path, str(Path(path).parent / "copy.json.gz")]


def count_events(trace: Trace) -> int:
    """What is asked of both: that they are read."""
    return trace.ledger.total.read


def _sql(path: str) -> Answer:
    from traceq.loading import open_trace

    with open_trace(path) as trace:
        return [int(value) for value in trace.sql(QUERY).iloc[0]]


def _raw_json(path: str) -> Answer:
    """The engine alone, fed the JSON as it comes out of the file."""
    from traceq.engine import Engine
    from traceq.engine.wasm import WasmBackend

    with Engine(WasmBackend, name="wasm", reload=False) as engine:
        engine.load(_inflated(path))
        return [int(str(value)) for value in engine.query(QUERY).rows()[0]]


def _inflated(path: str) -> Iterator[bytes]:
    from isal import igzip

    from traceq.kineto.registers import clear_upper_halves

    with igzip.open(path) as file:
        while block := file.read(16 << 20):
            clear_upper_halves()  # as traceq does: the engine is not to be slowed by the reading
            yield block


WAYS: dict[str, Callable[[str], Answer]] = {
    "first open, ops": _ops,
    "second open, ops": _ops,
    "first open, SQL": _sql,
    "second open, SQL": _sql,
    "raw JSON, SQL": _raw_json,
}
"""In this order: each first way finds an empty cache, which the second one then has."""

BOTH = "both of a diff"
SIDES: dict[str, Callable[[str], Answer]] = {"first open": _one, BOTH: _both}
"""Opening one trace, and two: each finds an empty cache."""


def main() -> None:
    """Run one way on one trace."""
    way, path = sys.argv[1:]
    if way == BOTH:  # as the command line does
        start_early(_pair(path), "traceq.gathering")
    import traceq.engine.wasm  # both sides' imports, so that the wall time is that of the work
    import traceq.gathering
    import traceq.loading  # noqa: F401

    started = time.monotonic()
    answer = (WAYS | SIDES)[way](path)
    wall = time.monotonic() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": wall,
        "peak_mb": usage.ru_maxrss / 1024,
        "answer": answer,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
