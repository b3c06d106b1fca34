"""traceq beside torch.profiler's own ``key_averages()`` of the same capture.

One was made on a GPU and is kept with its averages, one is made here, on the CPU. Counts, CPU and
GPU times per op must be equal to the nanosecond. What differs is named here: torch
drops a call whose only child has its name, and leaves Python frames out of its own times.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import traceq
from traceq import Trace
from traceq.names import fold_name

DATA = Path(__file__).parent / "data"
TRAINING = DATA / "training-h100.json.gz"
STEP = "ProfilerStep*"
"""What torch calls all of its step labels; traceq folds them to ProfilerStep."""


def nanoseconds(micros: float) -> int:
    return round(micros * 1000)


def dropped_by_torch(trace: Trace) -> dict[str, tuple[int, int]]:
    """Calls and time (ns) by op of calls that torch takes for doubles of their parent.

    torch.autograd.profiler_util.EventList removes an event that is the only child of an event of
    its name; children are ops and labels, not runtime calls or Python frames.
    """
    slices = trace.slices
    is_event = slices.of_category("cpu_op", "user_annotation")
    parent = slices.parent.copy()
    around = np.where(parent >= 0, parent, 0)
    while (inside := (parent >= 0) & ~is_event[around]).any():
        parent[inside] = slices.parent[around[inside]]
        around = np.where(parent >= 0, parent, 0)
    children = np.bincount(parent[is_event & (parent >= 0)], minlength=len(slices))
    double = is_event & (parent >= 0) & (children[around] == 1)
    double &= slices.name == slices.name[around]
    found: dict[str, tuple[int, int]] = {}
    for item in np.flatnonzero(double).tolist():
        name = slices.names[slices.name[item]]
        calls, time = found.get(name, (0, 0))
        found[name] = (calls + 1, time + int(slices.dur[item]))
    return found


def own_time_of_events(trace: Trace) -> dict[str, int]:
    """Time (ns) of labels less that of the ops and labels below: what torch calls self."""
    tree = trace.tree()
    labels = tree[tree["kind"].isin(["label", "op", "module"])]
    return dict(labels.groupby("name")["self"].sum().items())


def compare_cpu(trace: Trace, averages: list[dict[str, Any]], labels: set[str]) -> list[str]:
    """What differs, in words; ``labels`` are record_function's, which hold Python frames."""
    ops = trace.ops().set_index("op")
    doubles = dropped_by_torch(trace)
    found = []
    for op, there in folded(averages).items():
        row = ops.loc[op]
        calls, time = doubles.get(op, (0, 0))
        here = [int(row["calls"]) - calls, int(row["total"]) - time, int(row["gpu_self"])]
        here.append(int(row["self"]))
        if here[:3] != there[:3] or (op not in labels and here != there):
            found.append(f"{op}: {here} here, {there} there")
    return found


def folded(averages: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Calls, CPU, own GPU and own CPU time (ns) by op: torch keeps line numbers apart."""
    found: dict[str, list[int]] = {}
    for item in averages:
        if item["key"] == STEP or not item["device"].endswith("CPU"):
            continue
        row = found.setdefault(fold_name(item["key"]), [0, 0, 0, 0])
        row[0] += item["count"]
        for place, column in enumerate(("cpu", "self_gpu", "self_cpu"), 1):
            row[place] += nanoseconds(item[column])
    return found


# A training step on a GPU ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def training() -> Trace:
    return traceq.open(TRAINING)


@pytest.fixture(scope="module")
def averages() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DATA / "training-h100-averages.json").read_text())
    return found


def test_cpu_and_gpu_time_of_each_op(training: Trace, averages: list[dict[str, Any]]) -> None:
    assert len([item for item in averages if item["device"].endswith("CPU")]) == 207
    assert compare_cpu(training, averages, labels={"Optimizer.step#SGD.step"}) == []
    ops = training.ops()
    on_cpu = ops[~ops["category"].isin(["python_function", "kernel", "gpu_memcpy", "gpu_memset"])]
    assert set(on_cpu["op"]) - set(folded(averages)) == {
        "ProfilerStep",
        "ProfilerStep (on the GPU)",
        "Optimizer.step#SGD.step (on the GPU)",
        "PyTorch Profiler (0)",
        "Iteration Start: PyTorch Profiler",
        "Record Window End",
    }


def test_doubles_are_what_explains_the_counts(training: Trace) -> None:
    doubles = dropped_by_torch(training)
    assert {name: calls for name, (calls, _) in doubles.items()} == {
        "aten::mul": 68,
        "aten::div": 28,
    }


def test_time_of_each_kernel(training: Trace, averages: list[dict[str, Any]]) -> None:
    there = {
        item["key"]: (item["count"], nanoseconds(item["self_gpu"]))
        for item in averages
        if item["device"].endswith("CUDA")
    }
    # torch lists the GPU's copies of labels as well, and sums them with the kernels below.
    copies = {STEP, "Optimizer.step#SGD.step"}
    assert copies <= set(there)
    kernels = training.kernels(full_names=True)
    here = {
        row["kernel"]: (row["calls"], row["total"])
        for row in kernels[["kernel", "calls", "total"]].to_dict("records")
    }
    assert here == {key: value for key, value in there.items() if key not in copies}


def test_labels_differ_by_their_python_frames_alone(
    training: Trace, averages: list[dict[str, Any]]
) -> None:
    there = next(item for item in averages if item["key"] == "Optimizer.step#SGD.step")
    ops = training.ops().set_index("op")
    row = ops.loc["Optimizer.step#SGD.step"]
    assert int(row["self"]) < nanoseconds(there["self_cpu"])
    assert own_time_of_events(training)[there["key"]] == nanoseconds(there["self_cpu"])


def test_backward_kernels_are_under_their_forward_module(training: Trace) -> None:
    scopes = training.scopes().set_index("scope")
    gdn = scopes.loc["nn.Module: Qwen3_5GatedDeltaNet"]
    assert int(gdn["calls"]) == 6
    activities = training.activities("GatedDeltaNet")
    assert len(activities) == int(gdn["activities"])
    backward = activities[activities["is_backward"]]
    assert 0 < len(backward) < len(activities)
    # Six calls, three layers in each of two steps, which do the same work.
    per_call = backward.groupby("scope_id").size()
    assert len(per_call) == 6
    assert per_call.tolist()[:3] == per_call.tolist()[3:]
    assert set(backward["scope_id"]) == set(activities["scope_id"])
    forward_ts = {row.id: row.ts for row in training.scope_calls("GatedDeltaNet").itertuples()}
    started = backward["scope_id"].map(forward_ts)
    assert (backward["ts"] > started).all()


def test_whole_model_owns_every_backward_kernel(training: Trace) -> None:
    """What belongs to no forward op (AccumulateGrad) launches nothing in this capture."""
    left = training.activities()
    inside = training.activities("ForCausalLM")
    left = left[~left["id"].isin(inside["id"])]
    slices = training.slices
    launches = left["launch_id"].dropna().astype(int)
    nodes = set()
    for item in launches.tolist():
        around = item
        while around >= 0 and not slices.names[slices.name[around]].startswith("autograd::engine"):
            around = int(slices.parent[around])
        if around >= 0:
            nodes.add(slices.names[slices.name[around]])
    assert nodes == set()


# A run captured here --------------------------------------------------------------------------


def capture(path: Path) -> list[dict[str, Any]]:
    """Profile a small model on the CPU, forward and backward; torch's own averages."""
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile

    model = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.GELU(), torch.nn.Linear(32, 4)
    )
    inputs = torch.randn(8, 16)
    with profile(
        activities=[ProfilerActivity.CPU], with_stack=True, record_shapes=True
    ) as profiler:
        for _ in range(3):
            model(inputs).square().mean().backward()
    profiler.export_chrome_trace(str(path))
    return [
        {
            "key": item.key,
            "device": str(item.device_type),
            "count": item.count,
            "self_cpu": item.self_cpu_time_total,
            "cpu": item.cpu_time_total,
            "self_gpu": item.self_device_time_total,
        }
        for item in profiler.key_averages()
    ]


def test_a_run_of_this_process(tmp_path: Path) -> None:
    averages = capture(tmp_path / "run.json")
    assert len(averages) > 20
    with traceq.open(tmp_path / "run.json") as trace:
        assert compare_cpu(trace, averages, labels=set()) == []
        assert isinstance(trace.ops(), pd.DataFrame)
