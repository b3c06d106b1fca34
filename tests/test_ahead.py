"""Blocks that a thread makes ahead are the blocks, and it ends with whoever takes them."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq.errors import TraceReadError
from traceq.kineto import read_trace, source
from traceq.kineto.ahead import make_ahead

SAMPLE = Path(__file__).parent.parent / "sample_traces" / "einops-0.json.gz"


@given(st.lists(st.binary(max_size=5), max_size=30), st.integers(1, 12))
def test_the_same_bytes(blocks: list[bytes], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traceq.kineto.ahead._BLOCK", size)
        assert b"".join(make_ahead(iter(blocks))) == b"".join(blocks)


def test_what_was_raised_comes_after_what_was_made() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"x" * (2 << 20)
        raise OSError("the disk is gone")

    made = make_ahead(blocks())
    assert next(made) == b"x" * (2 << 20)
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    made = make_ahead(b"x" * (2 << 20) for _ in range(10_000))
    next(made)
    made.close()
    assert threading.active_count() == before


@pytest.fixture
def ahead_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "AHEAD_FROM", 1)


@pytest.mark.usefixtures("ahead_always")
def test_a_trace_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    ahead = read_trace(SAMPLE, progress=lambda done, total: told.append((done, total)))
    monkeypatch.setattr(source, "AHEAD_FROM", 1 << 60)
    plain = read_trace(SAMPLE)
    assert ahead.slices.ts.tolist() == plain.slices.ts.tolist()
    assert ahead.ledger.total == plain.ledger.total
    assert told[-1] == (SAMPLE.stat().st_size,) * 2


@pytest.mark.usefixtures("ahead_always")
@pytest.mark.parametrize("content", [b"", b"no trace", gzip.compress(b'{"traceEvents": []}')])
def test_no_thread_is_left_by_what_is_no_trace(content: bytes, tmp_path: Path) -> None:
    before = threading.active_count()
    path = tmp_path / "x.json"
    path.write_bytes(content + os.urandom(10))
    with pytest.raises(TraceReadError):
        read_trace(path)
    assert threading.active_count() == before


@pytest.mark.usefixtures("ahead_always")
def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(SAMPLE.read_bytes()[:500_000])
    data = read_trace(path)
    assert any("cut off" in note for note in data.ledger.notes)
    assert len(data.slices) > 1000
