"""One measured run of ``python -m tests.bench load``: prints what it took as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator

QUERY = """
SELECT s.name, COUNT(*) AS call_count,
       AVG(s.dur)/1000.0 AS avg_dur_us, SUM(s.dur)/1000.0 AS total_dur_us
FROM slice s
WHERE s.name GLOB '*rearrange*'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name GLOB '*GatedDeltaNet*')
GROUP BY s.name
"""


def with_traceq(path: str) -> list[object]:
    """The way of ``traceq sql``."""
    import traceq

    with traceq.open(path) as trace:
        return trace.sql(QUERY).values.tolist()


def with_raw_json(path: str) -> list[object]:
    """The engine alone, fed the JSON as it comes out of the file."""
    from traceq.engine import Engine
    from traceq.engine.wasm import WasmBackend

    with Engine(WasmBackend, name="wasm", reload=False) as engine:
        engine.load(_inflated(path))
        return [list(row) for row in engine.query(QUERY).rows()]


def _inflated(path: str) -> Iterator[bytes]:
    from isal import igzip

    with igzip.open(path) as file:
        while block := file.read(16 << 20):
            yield block


def main() -> None:
    """Run one way on one trace."""
    way, path = sys.argv[1:]
    started = time.monotonic()
    answer = (with_traceq if way == "traceq" else with_raw_json)(path)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - started,
        "peak_mb": usage.ru_maxrss / 1024,
        "answer": answer,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
