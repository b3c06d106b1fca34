"""The large traces of the bench are the real one, several times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.size import repeat
from traceq.loading import open_trace

SAMPLE = Path(__file__).parent.parent / "sample_traces" / "flatten-0.json.gz"


@pytest.mark.parametrize("name", ["large.json", "large.json.gz"])
def test_a_trace_repeated_in_time(tmp_path: Path, name: str) -> None:
    assert repeat(SAMPLE, tmp_path / name, 20_000_000) == 3
    with open_trace(SAMPLE) as one, open_trace(tmp_path / name, cache=False) as three:
        assert three.ledger.total.read == 3 * one.ledger.total.read
        assert len(three.steps()) == len(one.steps())  # of the same numbers, three slices each
        single, triple = (
            trace.ops("GatedDeltaNet").set_index("op")[["calls", "total", "self", "gpu_self"]]
            for trace in (one, three)
        )
        assert (triple.fillna(0) == 3 * single.fillna(0)).all(axis=None)
