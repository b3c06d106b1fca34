"""Changes that were planted in a real trace: the right row, the right kind, the right Δ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import traceq
from tests import planting
from tests.bench import detect
from tests.conftest import ROOT
from tests.planting import Planted, RealTrace, Truth
from traceq.align import MOVED_TO, Kind
from traceq.compare import Diff, compare
from traceq.groups import Group
from traceq.reading import Question, Reading, read
from traceq.samples import RowKey, Unit
from traceq.stats import Verdict

UNDER = "GatedDeltaNet"
FORWARD = "transformers/models/qwen3_5/modeling_qwen3_5.py: forward"
SCOPE = "nn.Module: Qwen3_5GatedDeltaNet"
SOFTPLUS = "<built-in function softplus>"
LEAF = "aten::result_type"
SPLIT = "torch/functional.py: split"
REARRANGE = "einops/einops.py: rearrange"
SIBLINGS = (
    "<built-in method pow of Tensor object>",
    "<built-in method mean of Tensor object>",
    "aten::add",
)
CONVOLUTION = "conv_depthwise2d_forward_kernel_generic"

Plant = Callable[[RealTrace], Planted]

PLANTS: dict[str, Plant] = {
    "softplus x 2": lambda t: planting.scale(t, SOFTPLUS, 2, UNDER),
    "split x 1.02": lambda t: planting.scale(t, SPLIT, 1.02, UNDER),
    "added": lambda t: planting.add(t, "aten::planted", SOFTPLUS, 12_345, UNDER),
    "removed": lambda t: planting.remove(t, SOFTPLUS, UNDER),
    "leaf renamed": lambda t: planting.rename(t, LEAF, "aten::other", UNDER),
    "renamed": lambda t: planting.rename(t, REARRANGE, "x.py(3): flat", UNDER),
    "fused": lambda t: planting.fuse(t, SIBLINGS, "aten::fused", 4_321, UNDER),
    "moved": lambda t: planting.move(t, SOFTPLUS, UNDER),
    "kernel x 1.25": lambda t: planting.slow_kernel(t, "conv_depthwise2d", 1.25, UNDER),
}
SEVERAL = ("softplus x 2", "added", "renamed")
"""Those that are planted in three captures, too."""


@dataclass(frozen=True)
class Case:
    """A comparison of captures with planted copies of these, and what was planted in each."""

    diff: Diff
    truths: tuple[Truth, ...]
    after: tuple[Reading, ...]

    @property
    def truth(self) -> Truth:
        """That of the first capture."""
        return self.truths[0]

    def row(self, op: str) -> dict[str, Any]:
        """An op's row, as plain data."""
        (row,) = (row for row in self.diff.to_dict()["rows"] if row["op"] == op)
        return row

    def group(self) -> tuple[str, Group]:
        """The only group of CPU ops, which is steady."""
        (only,) = self.diff.steady_groups
        assert len(self.diff.groups.rows) == 1
        return only

    def verdict(self, table: str, name: str) -> Verdict:
        found = self.diff.evidence.of(table, name)
        assert found is not None
        return found.verdict


class Bench:
    """The captures, each read once, and the cases that were made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.question = Question(under=(UNDER,))
        self._traces: dict[int, RealTrace] = {}
        self._readings: dict[int, Reading] = {}
        self._planted: dict[tuple[str, int], tuple[Truth, Reading]] = {}
        self._cases: dict[tuple[str, int], Case] = {}

    def case(self, name: str, captures: int = 1) -> Case:
        """So many captures, compared with copies in which one change is planted."""
        if (name, captures) not in self._cases:
            planted = [self.planted(name, number) for number in range(captures)]
            before = [self.reading(number) for number in range(captures)]
            truths, after = zip(*planted, strict=True)
            self._cases[name, captures] = Case(
                compare(before, after, self.question), truths, tuple(after)
            )
        return self._cases[name, captures]

    def planted(self, name: str, number: int) -> tuple[Truth, Reading]:
        if (name, number) not in self._planted:
            if number not in self._traces:
                self._traces[number] = RealTrace.read(_sample(number))
            planted = PLANTS[name](self._traces[number])
            path = self.folder / "planted.json"
            planted.trace.write(path)
            self._planted[name, number] = planted.truth, self._read(path)
        return self._planted[name, number]

    def reading(self, number: int) -> Reading:
        if number not in self._readings:
            self._readings[number] = self._read(_sample(number))
        return self._readings[number]

    def _read(self, path: Path) -> Reading:
        with traceq.open(path) as trace:
            return read(trace, self.question)


def _sample(number: int) -> Path:
    return ROOT / "sample_traces" / f"einops-{number}.json.gz"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("planted"))


def sums(group: Group, name: str) -> list[int]:
    """By how much a figure of a group changed in each pair of captures."""
    sides = (group.sums(side, name) for side in ("before", "after"))
    return [after - before for before, after in zip(*sides, strict=True)]


# What holds for all of them -------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANTS)
def test_the_scopes_grew_by_what_was_planted(bench: Bench, name: str) -> None:
    assert_scopes(bench.case(name))


@pytest.mark.parametrize("name", SEVERAL)
def test_so_did_those_of_each_of_several_captures(bench: Bench, name: str) -> None:
    case = bench.case(name, 3)
    assert case.diff.evidence.unit is Unit.CAPTURE
    assert_scopes(case)


def assert_scopes(case: Case) -> None:
    """CPU and GPU time of each capture; groups and unchanged code make it up to the ns."""
    sides = (case.diff.before.captures, case.diff.after.captures)
    groups = (*case.diff.groups.rows, case.diff.groups.unchanged)
    by_group = np.sum([sums(group, "time") for group in groups], axis=0)
    for number, (before, after) in enumerate(zip(*sides, strict=True)):
        truth, gpu = case.truths[number], (before.totals.gpu_here, after.totals.gpu_here)
        assert after.totals.total - before.totals.total == truth.cpu_ns == by_group[number]
        assert gpu[1].total - gpu[0].total == truth.gpu_ns
        assert after.totals.scopes == before.totals.scopes == 15


@pytest.mark.parametrize("captures", [1, 3])
@pytest.mark.parametrize("name", SEVERAL)
def test_no_row_is_declared_but_what_was_planted(bench: Bench, name: str, captures: int) -> None:
    case = bench.case(name, captures)
    ops = case.diff.table.set_index("op")
    declared = ops.index[ops["verdict"].isin(["faster", "slower"])]
    assert (ops.loc[declared, "delta"] != 0).all()
    assert set(ops.index[ops["status"] != "same"]) <= set(ops.index[ops["delta"] != 0])


# Scaled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "op"), [("softplus x 2", SOFTPLUS), ("split x 1.02", SPLIT)])
def test_a_slower_op_is_one_row(bench: Bench, name: str, op: str) -> None:
    case = bench.case(name)
    row, truth = case.row(op), case.truth
    assert (row["delta"], row["self_delta"]) == (truth.cpu_ns, truth.cpu_ns)
    assert (row["calls_part"], row["shapes_part"], row["cost_part"]) == (0, 0, truth.cpu_ns)
    assert (row["status"], row["verdict"]) == ("same", "slower")
    others = case.diff.table[case.diff.table["op"] != op]
    assert not others["self_delta"].any()
    assert (others.loc[others["delta"] != 0, "delta"] == truth.cpu_ns).all()
    assert not case.diff.groups.rows
    assert not case.diff.kernel_groups.rows
    assert not case.diff.kernels["delta"].any()


def test_all_that_is_declared_with_it_is_around_it(bench: Bench) -> None:
    case = bench.case("softplus x 2")
    declared = {
        key.name
        for key, item in case.diff.evidence.findings.items()
        if item.verdict in (Verdict.FASTER, Verdict.SLOWER)
    }
    # The op, the two frames around it, and the scopes: between a capture and its copy the
    # unchanged code has not moved at all, so nothing hides a change.
    around = {SOFTPLUS, FORWARD, "transformers/integrations/accelerate.py: wrapped"}
    assert around <= declared <= {*around, "cpu"}
    assert case.diff.evidence.drift == {"cpu": (0.0, 0.0), "gpu": (0.0, 0.0)}


def test_three_captures_tell_it_against_their_drift(bench: Bench) -> None:
    # Twice the time in each capture, to the nanosecond; captures of one side differ by as much from
    # each other (sample_traces/README.md), but most of that all ops of a capture have in common.
    case = bench.case("softplus x 2", 3)
    grown = [op_total(item, SOFTPLUS) for item in case.after]
    was = [op_total(bench.reading(number), SOFTPLUS) for number in range(3)]
    assert [after - before for before, after in zip(was, grown, strict=True)] == [
        truth.cpu_ns for truth in case.truths
    ]
    row = case.row(SOFTPLUS)
    assert row["delta"] == np.median(grown) - np.median(was)
    assert row["change"] == pytest.approx(1, abs=0.01)
    assert 0 < row["change_low"] < 0.5 < row["drift_free_low"]
    assert (row["verdict"], case.diff.groups.rows) == ("slower", ())


def op_total(reading: Reading, op: str) -> int:
    return int(reading.ops.set_index("op").loc[op, "total"])


# Kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("captures", [1, 3])
def test_a_slower_kernel_is_one_row(bench: Bench, captures: int) -> None:
    case = bench.case("kernel x 1.25", captures)
    kernels = case.diff.kernels.set_index("kernel")
    moved = kernels.index[kernels["delta"] != 0]
    assert list(moved) == [CONVOLUTION]
    assert kernels.loc[CONVOLUTION, "status"] == "same"
    assert kernels.loc[CONVOLUTION, "delta"] == np.median([t.gpu_ns for t in case.truths])
    assert kernels.loc[CONVOLUTION, "change"] == pytest.approx(0.25, abs=0.001)
    assert case.verdict("kernels", CONVOLUTION) is Verdict.SLOWER
    assert case.verdict("scopes", "gpu") is Verdict.SLOWER
    assert case.verdict("scopes", "cpu") is Verdict.UNCLEAR
    assert not case.diff.groups.rows
    assert not case.diff.kernel_groups.rows


# What replaced what ---------------------------------------------------------------------------

KINDS: dict[str, tuple[Kind, str, tuple[str, ...], tuple[str, ...]]] = {
    "added": (Kind.ADDED, FORWARD, (), ("aten::planted",)),
    "removed": (Kind.REMOVED, FORWARD, (SOFTPLUS,), ()),
    "renamed": (Kind.RENAMED, FORWARD, (REARRANGE,), ("x.py: flat",)),
    "leaf renamed": (Kind.REPLACED, "aten::pow", (LEAF,), ("aten::other",)),
    "fused": (Kind.FUSED, FORWARD, SIBLINGS, ("aten::fused",)),
    "moved": (Kind.MOVED, FORWARD + MOVED_TO + SCOPE, (SOFTPLUS,), (SOFTPLUS,)),
}


@pytest.mark.parametrize(
    ("name", "captures"), [(name, n) for name in KINDS for n in (1, 3) if n == 1 or name in SEVERAL]
)
def test_a_change_of_the_code_is_one_group(bench: Bench, name: str, captures: int) -> None:
    case = bench.case(name, captures)
    _, group = case.group()
    assert group.key == KINDS[name]
    assert group.instances == group.scopes == [15] * captures
    assert not group.is_ambiguous
    assert sums(group, "time") == [truth.cpu_ns for truth in case.truths]
    assert sums(group, "gpu") == [truth.gpu_ns for truth in case.truths]
    assert not any(sums(case.diff.groups.unchanged, "time"))
    calls = [len(side) * 15 for side in (group.key.before, group.key.after)]
    assert group.sums("before", "calls") == [calls[0]] * captures
    assert group.sums("after", "calls") == [calls[1]] * captures


@pytest.mark.parametrize("captures", [1, 3])
@pytest.mark.parametrize(
    ("name", "gone", "come"),
    [
        ("added", set(), {"aten::planted"}),
        ("removed", {SOFTPLUS, "aten::softplus"}, set()),
        ("renamed", {REARRANGE}, {"x.py: flat"}),
        ("fused", {*SIBLINGS[:2], "aten::pow", "aten::mean", LEAF}, {"aten::fused"}),
        ("moved", set(), set()),
    ],
)
def test_the_ops_that_come_and_go_are_rows(
    bench: Bench, name: str, gone: set[str], come: set[str], captures: int
) -> None:
    case = bench.case(name, captures)
    ops = case.diff.table.set_index("op")
    assert set(ops.index[ops["status"] == "removed"]) == gone
    assert set(ops.index[ops["status"] == "added"]) == come
    for op_name in come - {"x.py: flat"}:
        assert ops.loc[op_name, "delta"] == ops.loc[op_name, "self_delta"]
        assert ops.loc[op_name, "calls_after"] == 15
    other = ops[ops["status"] == "changed"]
    assert set(other.index) == CHANGED.get(name, set())
    assert (other["calls_after"] < other["calls_before"]).all()


CHANGED = {
    "removed": {"cudaLaunchKernel"},
    "fused": {"aten::add", "aten::to", "cudaLaunchKernel"},
}
"""Ops that are called less, as some of their calls went with what was removed."""


def test_the_kernels_of_what_is_gone_are_gone(bench: Bench) -> None:
    for name, count in (("removed", 1), ("fused", 3)):
        case = bench.case(name, 3)
        (group,) = case.diff.kernel_groups.rows
        assert (group.key.kind, len(group.key.before), group.key.after) == (Kind.REMOVED, count, ())
        assert (group.is_steady, group.instances) == (True, [15] * 3)
        assert sums(group, "time") == [truth.gpu_ns for truth in case.truths]
        kernels = case.diff.kernels
        assert set(kernels.loc[kernels["status"] == "removed", "kernel"]) == {*group.key.before}


def test_kernels_move_with_their_op(bench: Bench) -> None:
    (group,) = bench.case("moved").diff.kernel_groups.rows
    assert (group.key.kind, sums(group, "time")) == (Kind.MOVED, [0])
    assert (
        group.key.before == group.key.after == ("vectorized_elementwise_kernel<softplus_kernel>",)
    )


def test_a_fused_group_is_declared_faster_by_its_calls(bench: Bench) -> None:
    for captures in (1, 3):
        case = bench.case("fused", captures)
        number, _ = case.group()
        found = case.diff.evidence.of("groups", number)
        assert found is not None
        assert found.verdict is Verdict.FASTER
        assert found.per_call is None  # three calls became one


def test_a_name_alone_is_no_change_of_time(bench: Bench) -> None:
    for captures in (1, 3):
        case = bench.case("renamed", captures)
        found = case.diff.evidence.of("groups", case.group()[0])
        assert found is not None
        assert (found.verdict, found.change.estimate) == (Verdict.UNCLEAR, 0)
        assert found.per_call is not None
        assert found.per_call.estimate == 0


# The way of the bench -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row", "factor"),
    [
        ("softplus x 2", RowKey("ops", SOFTPLUS), 2),
        ("split x 1.02", RowKey("ops", SPLIT), 1.02),
        ("kernel x 1.25", RowKey("kernels", CONVOLUTION), 1.25),
    ],
)
def test_planting_in_what_was_read_is_as_planting_in_the_trace(
    bench: Bench, name: str, row: RowKey, factor: float
) -> None:
    written = bench.planted(name, 0)[1]
    planted = detect.plant(bench.reading(0), row, factor)
    for field in ("op", "parent", "size", "form", "dur", "self_time", "scopes", "step"):
        assert np.array_equal(getattr(written.outline, field), getattr(planted.outline, field))
    for field in ("node", "order", "dur", "short"):
        # The ids of slices may differ, but not their order.
        one, other = (_rank(getattr(item.work, field)) for item in (written, planted))
        assert np.array_equal(one, other)
    assert written.work.dur.tolist() == planted.work.dur.tolist()
    assert (written.totals.total, written.totals.gpu_here) == (
        planted.totals.total,
        planted.totals.gpu_here,
    )
    for table, key in (("ops", "op"), ("kernels", "kernel")):
        assert by_name(getattr(written, table), key) == by_name(getattr(planted, table), key)


def _rank(values: Any) -> Any:
    return np.unique(values, return_inverse=True)[1]


def by_name(table: pd.DataFrame, key: str) -> dict[str, tuple[int, int]]:
    return {name: (calls, ns) for name, calls, ns in table[[key, "calls", "total"]].values.tolist()}


def test_so_are_the_findings(bench: Bench) -> None:
    before, row = [bench.reading(1)], RowKey("ops", SOFTPLUS)
    written = compare(before, [bench.planted("softplus x 2", 0)[1]], bench.question)
    planted = detect.Look.at(before, [detect.plant(bench.reading(0), row, 2)])
    assert written.evidence.findings == planted.evidence.findings
    assert row in written.evidence.findings
