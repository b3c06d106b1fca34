"""Perfetto's trace_processor, fed the JSON itself: the one in this process, or the native one.

TRACEQ_ENGINE=shell asks for the native one. The question is asked in SQL, without any table of
traceq's, and nothing is kept of what was fed.
"""

import os
from pathlib import Path

import told

from traceq.engine import Engine
from traceq.engine.shell import ShellBackend, find_shell
from traceq.engine.wasm import WasmBackend

# The instants that Kineto writes are slices there too, without a category.
QUERY = f"""
SELECT (SELECT COUNT(*) FROM slice WHERE dur >= 0 AND category IS NOT NULL), COUNT(*), SUM(s.dur)
FROM slice s
WHERE s.name GLOB '*{told.OP}*'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name GLOB '*{told.UNDER}*')
"""
_LARGE = 1_000_000_000
"""Bytes of JSON from which on 4 GB may not do for the 32-bit engine."""


def open_one(path):
    """Load the JSON and ask."""
    is_native, memory64 = os.environ.get("TRACEQ_ENGINE") == "shell", _size(path) > _LARGE

    def start():
        return ShellBackend(find_shell()) if is_native else WasmBackend(memory64=memory64)

    with Engine(start, name="shell" if is_native else "wasm", reload=False) as engine:
        engine.load(_blocks(path))
        events, calls, total = (int(str(value)) for value in engine.query(QUERY).rows()[0])
    return {"events": events, "calls": calls, "total_ns": total}


def diff(before, after):
    """Both, one after the other."""
    sides = [open_one(path) for path in (before, after)]
    return {key: [side[key] for side in sides] for key in ("calls", "total_ns")}


def _size(path):
    return Path(path).stat().st_size


def _blocks(path):
    with Path(path).open("rb") as file:
        while block := file.read(16 << 20):
            yield block


if __name__ == "__main__":
    told.run({"open": open_one, "diff": diff})
