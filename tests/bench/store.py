"""A trace's tables in DuckDB and Parquet, and a capture in a history: how fast, and how large."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

import traceq
from traceq import Trace
from traceq.history.pack import pack
from traceq.history.store import History
from traceq.reading import Question, read

LEAST_ROWS = 1_000_000
"""Slices a second into a DuckDB file."""
MOST_RECORDED = 1 << 20
"""Bytes of a history with the large trace alone."""


def bench_store(path: str, runs: int) -> int:
    """Print the figures; the exit code tells whether both promises are kept."""
    with traceq.open(path) as trace, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = len(trace.slices)
        trace.to_duckdb(folder / "first.duckdb", ["slices"])  # imports and caches
        rate = count / _median(runs, lambda n: trace.to_duckdb(folder / f"{n}.duckdb", ["slices"]))
        whole = _median(1, lambda _: trace.to_duckdb(folder / "all.duckdb"))
        parquet = _median(1, lambda _: trace.to_parquet(folder / "tables"))
        print(f"{path}: {count:,} slices, {Path(path).stat().st_size:,} bytes")
        print(f"slices into DuckDB: {rate / 1e6:.2f} M/s (limit {LEAST_ROWS / 1e6:.0f})")
        print(
            f"all tables: DuckDB {whole:.2f} s, {_size(folder / 'all.duckdb'):,} bytes; Parquet "
            f"{parquet:.2f} s, {_size(folder / 'tables'):,} bytes"
        )
        size = _record(trace, folder / "history.duckdb")
    return 0 if rate >= LEAST_ROWS and size <= MOST_RECORDED else 1


def _record(trace: Trace, path: Path) -> int:
    question = Question(under=("GatedDeltaNet",))
    capture, history = read(trace, question), History(path)
    taken = _median(1, lambda _: history.record([capture], question, {}))
    size, calls = _size(path), len(capture.outline)
    print(
        f"recorded under GatedDeltaNet: {taken:.2f} s, {calls:,} calls in {size:,} bytes (limit "
        f"{MOST_RECORDED:,}), of these {len(pack(capture)):,} packed"
    )
    return size


def _median(runs: int, work: Callable[[int], object]) -> float:
    taken = []
    for number in range(runs):
        start = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(item.stat().st_size for item in path.iterdir())
    with duckdb.connect(str(path)) as connection:
        connection.execute("CHECKPOINT")
    return path.stat().st_size
