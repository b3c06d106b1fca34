"""The planted changes: what traceq reads of them is the truth, and nothing else has changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import traceq
from tests import planting
from tests.conftest import ROOT
from tests.planting import Planted, RealTrace, Truth
from tests.tracemaker import Event, compact, complete, event
from traceq.names import fold_name

UNDER = "GatedDeltaNet"
SAMPLE = ROOT / "sample_traces" / "einops-0.json.gz"
REARRANGE = "einops/einops.py: rearrange"

Plant = Callable[[RealTrace], Planted]


def scoped(name: str, ts: int, dur: int, **fields: Any) -> Event:
    """A module's slice."""
    return complete(name, Decimal(ts) / 1000, Decimal(dur) / 1000, cat="python_function", **fields)


def op(name: str, ts: int, dur: int, **fields: Any) -> Event:
    """An op's slice; times in ns."""
    return complete(name, Decimal(ts) / 1000, Decimal(dur) / 1000, **fields)


def launch(number: int, ts: int, gpu_ts: int, gpu_dur: int) -> list[Event]:
    """A call of 10 ns, the kernel that it launches, and the arrow between them."""
    args = {"correlation": number}
    at, on_gpu = Decimal(ts) / 1000, Decimal(gpu_ts) / 1000
    return [
        op("cudaLaunchKernel", ts, 10, cat="cuda_runtime", args=args),
        op(f"k{number}", gpu_ts, gpu_dur, cat="kernel", pid=0, tid=7, args=args | {"stream": 7}),
        event("s", id=number, name="ac2g", cat="ac2g", ts=at),
        event("f", id=number, name="ac2g", cat="ac2g", bp="e", pid=0, tid=7, ts=on_gpu),
    ]


BASE = 4_516_502_317_916_086
"""Start of the synthetic trace (ns): as large as real ones."""


def synthetic() -> list[Event]:
    """Two scopes that touch; ops that touch and that end with their scope; a second thread."""
    found = [
        event("M", name="process_name", ts=1, args={"name": "p"}),
        scoped("m.py(1): f", BASE, 5000),
    ]
    for number in (0, 1):
        ts = BASE + 1000 + 1000 * number
        found += [
            scoped(f"nn.Module: GatedDeltaNet_{number}", ts, 1000),
            op("a", ts, 300),
            op("b", ts + 300, 200),
            op("c", ts + 500, 400),
            op("d", ts + 600, 300),
            op("e", ts + 900, 100),
            op("e", ts + 950, 50),
            *launch(1 + 2 * number, ts + 310, ts + 400, 900),
            *launch(2 + 2 * number, ts + 610, ts + 1300, 50),
        ]
    found += [op("other", BASE + 100, 1500, tid=3), op("inner", BASE + 1550, 50, tid=3)]
    return [*found, op("other", BASE + 2100, 500, tid=3), op("outside", BASE + 4000, 500)]


@pytest.fixture(scope="module")
def synthetic_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planting") / "synthetic.json"
    text = compact([], schemaVersion=1).decode()
    events = ",".join(_text(item) for item in synthetic())
    path.write_text(text.replace("[]", f"[{events}]"))
    return path


def _text(item: Event) -> str:
    return (
        json.dumps(item, default=lambda value: f"<{value:.3f}>").replace('"<', "").replace('>"', "")
    )


@pytest.fixture(scope="module")
def small(synthetic_path: Path) -> RealTrace:
    return RealTrace.read(synthetic_path)


@pytest.fixture(scope="module")
def sample() -> RealTrace:
    return RealTrace.read(SAMPLE)


class Seen:
    """What traceq says of a file."""

    def __init__(self, path: Path) -> None:
        with traceq.open(path) as trace:
            self.doubts = trace.doubts()
            self.scopes = trace.scope_calls(UNDER)
            self.ops = trace.ops(UNDER).set_index("op")
            self.gpu = trace.gpu_account(UNDER)
            self.delays = trace.activities()["delay"].dropna()
            rows = list(trace.ledger.rows())
            self.lost = sum(tally.not_carried + tally.clamped for _, _, tally in rows)
            self.overflow = sum(tally.on_overflow_lane for _, _, tally in rows)
            self._fold = [fold_name(name) for name in trace.slices.names]
            self._slices = trace.slices

    def around(self, ops: Collection[str]) -> set[str]:
        """The ops around any call of these."""
        found = set()
        for name, above in self._slices_below():
            if name in ops:
                found |= set(above)
        return found

    def below(self, ops: Collection[str]) -> set[str]:
        """The ops below any call of these."""
        return {name for name, above in self._slices_below() if not set(above).isdisjoint(ops)}

    def _slices_below(self) -> Iterator[tuple[str, list[str]]]:
        names, parents = self._slices.name.tolist(), self._slices.parent.tolist()
        for slice_id, name in enumerate(names):
            above, parent = [], parents[slice_id]
            while parent >= 0:
                above.append(self._fold[names[parent]])
                parent = parents[parent]
            yield self._fold[name], above


@pytest.fixture(scope="module")
def seen_small(synthetic_path: Path) -> Seen:
    return Seen(synthetic_path)


@pytest.fixture(scope="module")
def seen_sample() -> Seen:
    return Seen(SAMPLE)


def check(before: Seen, planted: Planted, path: Path) -> Seen:
    """What traceq finds is the truth, and the other ops are as they were."""
    planted.trace.write(path)
    after, truth = Seen(path), planted.truth
    assert after.doubts == []
    assert (after.lost, after.overflow) == (before.lost, before.overflow)
    assert after.scopes["dur"].sum() - before.scopes["dur"].sum() == truth.cpu_ns
    assert after.gpu.under.total - before.gpu.under.total == truth.gpu_ns
    assert after.gpu.all.total - before.gpu.all.total == truth.gpu_ns
    assert len(after.scopes) == len(before.scopes)
    assert (after.delays >= 0).all()
    _check_others(before, after, truth)
    return after


def _check_others(before: Seen, after: Seen, truth: Truth) -> None:
    """Own times and calls change for what was planted alone, totals also for what is around it."""
    planted, same_time = {*truth.before, *truth.after}, ["calls", "total", "self", "min", "max"]
    if truth.kind == "kernel":
        assert not _changed(before, after, [*same_time, "activities"])
        return
    if truth.kind in ("removed", "fused"):
        planted |= before.below(truth.before)
    around = before.around(truth.before) | after.around(truth.after)
    own = ["calls", "self", "gpu_self", "activities_self"]
    assert _changed(before, after, own) <= planted
    assert _changed(before, after, [*same_time, "gpu_total", "activities"]) <= planted | around


def _changed(before: Seen, after: Seen, columns: list[str]) -> set[str]:
    """The ops that do not have the same numbers on both sides."""
    first, second = (
        {op_name: tuple(map(str, row)) for op_name, *row in seen.ops[columns].itertuples()}
        for seen in (before, after)
    )
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


# The synthetic trace --------------------------------------------------------------------------

SMALL: dict[str, tuple[Plant, Truth]] = {
    "scale": (
        lambda t: planting.scale(t, "b", 1.5, UNDER),
        Truth("scaled", ("b",), ("b",), 2, 200, 0),
    ),
    "scale the last": (
        lambda t: planting.scale(t, "e", 3, UNDER),
        Truth("scaled", ("e",), ("e",), 2, 400, 0),
    ),
    "add": (
        lambda t: planting.add(t, "new", "a", 70, UNDER),
        Truth("added", (), ("new",), 2, 140, 0),
    ),
    "add at the end": (
        lambda t: planting.add(t, "new", "e", 70, UNDER),
        Truth("added", (), ("new",), 2, 140, 0),
    ),
    "remove": (
        lambda t: planting.remove(t, "c", UNDER),
        Truth("removed", ("c",), (), 2, -800, -100),
    ),
    "rename": (
        lambda t: planting.rename(t, "e", "f.py(3): g", UNDER),
        Truth("renamed", ("e",), ("f.py: g",), 4, 0, 0),
    ),
    "fuse": (
        lambda t: planting.fuse(t, ("a", "b", "c"), "abc", 333, UNDER),
        Truth("fused", ("a", "b", "c"), ("abc",), 2, 2 * (333 - 900), -1900),
    ),
    "move": (lambda t: planting.move(t, "a", UNDER), Truth("moved", ("a",), ("a",), 2, 0, 0)),
    "move work": (lambda t: planting.move(t, "b", UNDER), Truth("moved", ("b",), ("b",), 2, 0, 0)),
    "kernel": (
        lambda t: planting.slow_kernel(t, "k1", 2, UNDER),
        Truth("kernel", ("k1",), ("k1",), 1, 0, 900),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_traceq_finds_what_was_planted(
    name: str, small: RealTrace, seen_small: Seen, tmp_path: Path
) -> None:
    plant, truth = SMALL[name]
    planted = plant(small)
    assert planted.truth == truth
    check(seen_small, planted, tmp_path / "planted.json")


def _times(trace: RealTrace, *names: str) -> list[tuple[str, int, int]]:
    """Name, start after BASE and duration of the slices, by start."""
    rows = zip(trace.events, trace.ts.tolist(), trace.dur.tolist(), strict=True)
    found = [
        (item["name"], ts - BASE, dur)
        for item, ts, dur in rows
        if item["ph"] == "X" and item["name"] in names
    ]
    return sorted(found, key=lambda item: item[1])


def test_time_put_in_at_the_end_of_a_slice_is_not_its_neighbours(small: RealTrace) -> None:
    longer = planting.scale(small, "b", 1.5, UNDER).trace
    assert _times(longer, "a", "b", "c") == [
        *(("a", 1000, 300), ("b", 1300, 300), ("c", 1600, 400)),
        *(("a", 2100, 300), ("b", 2400, 300), ("c", 2700, 400)),
    ]
    scopes = _times(
        longer, "nn.Module: GatedDeltaNet_0", "nn.Module: GatedDeltaNet_1", "m.py(1): f"
    )
    assert [item[1:] for item in scopes] == [(0, 5200), (1000, 1100), (2100, 1100)]


def test_other_threads_and_gpu_work_follow(small: RealTrace) -> None:
    longer = planting.scale(small, "b", 1.5, UNDER).trace
    assert _times(longer, "other", "inner") == [
        ("other", 100, 1500), ("inner", 1550, 50), ("other", 2200, 500),
    ]  # fmt: skip
    assert _times(longer, "k1", "k2", "k3", "k4") == [
        ("k1", 1400, 900), ("k2", 2400, 50), ("k3", 2500, 900), ("k4", 3500, 50),
    ]  # fmt: skip
    arrows = [ts for item, ts in zip(longer.events, longer.ts, strict=True) if item["ph"] == "f"]
    assert sorted(ts - BASE for ts in arrows) == [1400, 2400, 2500, 3500]


def test_a_moved_call_comes_last_with_its_kernels_after_the_others(small: RealTrace) -> None:
    moved = planting.move(small, "b", UNDER).trace
    assert _times(moved, "b", "c", "cudaLaunchKernel")[:4] == [
        ("c", 1300, 400), ("cudaLaunchKernel", 1410, 10),
        ("b", 1800, 200), ("cudaLaunchKernel", 1810, 10),
    ]  # fmt: skip
    assert [item[0] for item in _times(moved, "k1", "k2", "k3", "k4")] == ["k2", "k1", "k4", "k3"]


def test_a_removed_call_leaves_no_arrow_and_no_gap(small: RealTrace) -> None:
    left = planting.remove(small, "c", UNDER).trace
    assert _times(left, "b", "e")[:2] == [("b", 1300, 200), ("e", 1500, 100)]
    assert {item["id"] for item in left.events if item["ph"] in "sf"} == {1, 3}
    assert _times(left, "other", "outside") == [
        ("other", 100, 1500), ("other", 1700, 500), ("outside", 3200, 500),
    ]  # fmt: skip


def test_a_slower_kernel_pushes_those_behind_it(small: RealTrace) -> None:
    slower = planting.slow_kernel(small, "k1", 2, UNDER).trace
    assert _times(slower, "k1", "k2", "k3", "k4") == [
        ("k1", 1400, 1800), ("k2", 3200, 50), ("k3", 3250, 900), ("k4", 4150, 50),
    ]  # fmt: skip


def test_a_slice_that_sticks_out_by_rounding_is_inside() -> None:
    ts = [0, 10, 50, 100]
    parent, end = planting._nest(ts, [100, 50 + 1, 100 + 2, 200])
    assert (parent, end) == ([-1, 0, 0, -1], [100, 50, 100, 200])


def test_what_cannot_be_planted_is_refused(small: RealTrace) -> None:
    with pytest.raises(ValueError, match="no call of 'nothing'"):
        planting.scale(small, "nothing", 2, UNDER)
    with pytest.raises(ValueError, match="take away"):
        planting.scale(small, "a", 0.5, UNDER)
    with pytest.raises(ValueError, match="on 2 threads"):
        planting.scale(small, "a", 2, "re:other|GatedDeltaNet")
    with pytest.raises(ValueError, match="no 2 siblings"):
        planting.fuse(small, ("b", "a"), "x", 1, UNDER)
    with pytest.raises(ValueError, match="not all among"):
        planting.only_steps(small, [7])


# A real trace ---------------------------------------------------------------------------------

REAL: dict[str, Plant] = {
    "scale": lambda t: planting.scale(t, REARRANGE, 1.37, UNDER),
    "scale an op with launches": lambda t: planting.scale(t, "aten::pow", 2.5, UNDER),
    "add": lambda t: planting.add(t, "aten::planted", REARRANGE, 12_345, UNDER),
    "remove": lambda t: planting.remove(t, "<built-in function softplus>", UNDER),
    "rename": lambda t: planting.rename(t, REARRANGE, "<built-in method flatten>", UNDER),
    "move": lambda t: planting.move(t, "<built-in function softplus>", UNDER),
    "kernel": lambda t: planting.slow_kernel(t, "conv_depthwise2d", 1.25, UNDER),
    "fuse": lambda t: planting.fuse(t, _first_run(t), "aten::fused", 4_321, UNDER),
}


def _first_run(trace: RealTrace) -> tuple[str, ...]:
    return planting.consecutive_siblings(trace, UNDER)[-1].ops


@pytest.mark.parametrize("name", REAL)
def test_traceq_finds_what_was_planted_in_a_real_trace(
    name: str, sample: RealTrace, seen_sample: Seen, tmp_path: Path
) -> None:
    planted = REAL[name](sample)
    assert planted.truth.instances >= 15
    after = check(seen_sample, planted, tmp_path / "planted.json.gz")
    if planted.truth.kind in ("scaled", "added", "renamed"):
        assert sorted(after.delays) == sorted(seen_sample.delays)
    for op_name in planted.truth.before:
        assert (op_name in after.ops.index) == (planted.truth.kind in ("scaled", "moved", "fused"))


def test_the_truth_is_the_difference_of_the_op_itself(
    sample: RealTrace, seen_sample: Seen, tmp_path: Path
) -> None:
    path, rows = tmp_path / "planted.json.gz", seen_sample.ops
    for op_name in (REARRANGE, "<built-in function softplus>"):
        truth = planting.remove(sample, op_name, UNDER).truth
        assert truth.cpu_ns == -rows.loc[op_name, "outermost"]
        assert truth.gpu_ns == -rows.loc[op_name, "gpu_total"]
    longer = planting.scale(sample, REARRANGE, 1.37, UNDER)
    longer.trace.write(path)
    ops = Seen(path).ops
    for column in ("self", "total"):
        assert ops.loc[REARRANGE, column] - rows.loc[REARRANGE, column] == longer.truth.cpu_ns
    assert abs(longer.truth.cpu_ns - 0.37 * rows.loc[REARRANGE, "total"]) <= 8


def test_factor_one_changes_nothing(sample: RealTrace) -> None:
    same = planting.scale(sample, REARRANGE, 1.0, UNDER).trace
    assert (same.ts == sample.ts).all()
    assert (same.dur == sample.dur).all()
    assert same.events == sample.events


def test_a_trace_that_is_written_as_it_was_read_says_the_same(
    sample: RealTrace, tmp_path: Path
) -> None:
    path = tmp_path / "same.json.gz"
    sample.write(path)
    first, second = (
        json.loads(gzip.decompress(item.read_bytes()), parse_float=str) for item in (SAMPLE, path)
    )
    assert list(first.items()) == list(second.items())


def test_siblings_that_follow_one_another_in_every_scope(small: RealTrace) -> None:
    runs = planting.consecutive_siblings(small, UNDER)
    assert [(run.ops, run.calls, run.cpu_ns) for run in runs] == [
        (("a", "b", "c"), 2, 1800),
        (("b", "c", "e"), 2, 1400),
    ]


def test_some_steps_alone(sample: RealTrace, seen_sample: Seen, tmp_path: Path) -> None:
    part = planting.only_steps(sample, [9, 11], UNDER)
    part.trace.write(tmp_path / "part.json.gz")
    after = Seen(tmp_path / "part.json.gz")
    assert after.doubts == []
    assert len(after.scopes) == 2 * 3
    assert after.scopes["dur"].sum() == seen_sample.scopes["dur"].sum() + part.truth.cpu_ns
    assert after.gpu.under.total == seen_sample.gpu.under.total + part.truth.gpu_ns
    with traceq.open(SAMPLE) as whole:
        windows = [whole.windows(steps=steps) for steps in ("9:10", "11:12")]
        scopes = pd.concat([whole.scope_calls(UNDER, windows=item) for item in windows])
    assert (
        after.scopes[["ts", "dur", "self"]].values.tolist()
        == scopes[["ts", "dur", "self"]].values.tolist()
    )


def test_steps_without_labels_are_calls_of_the_module_at_the_top(small: RealTrace) -> None:
    events = list(small.events)
    for row, item in enumerate(events):
        if item["name"].startswith("nn.Module"):
            events[row] = item | {"name": "nn.Module: GatedDeltaNet_0"}
    named = RealTrace(small.top, events, small.ts, small.dur)
    assert planting.step_spans(named) == {
        0: (BASE + 1000, BASE + 2000),
        1: (BASE + 2000, BASE + 3000),
    }
    part = planting.only_steps(named, [1], UNDER)
    assert part.truth == Truth("steps", (), (), 1, -1000, -950)
    assert _times(part.trace, "k1", "k2", "k3", "k4") == [("k3", 2400, 900), ("k4", 3300, 50)]
