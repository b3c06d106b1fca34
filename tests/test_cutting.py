"""A part of a trace: its tables are those of the whole, and nothing is lost without a word."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tracemaker as tm
from traceq import TraceqError
from traceq.intake import TraceFile, read_file
from traceq.layout import Layout
from traceq.limits import Limits
from traceq.loading import open_trace
from traceq.model import NOT_IN_PART, TraceData
from traceq.trace import Trace

SAMPLES = Path(__file__).parent.parent / "sample_traces"


def tables(trace: Trace, limits: Limits) -> dict[str, pd.DataFrame]:
    """What the commands show of a trace under limits."""
    windows = trace.windows(steps=limits.steps, skip_first=limits.skip_first, window=limits.window)
    under = limits.under
    found = {
        f"scopes by {by}": trace.scopes(under, by, windows=windows)
        for by in ("class", "instance", "layer")
    }
    found["ops"] = trace.ops(under, windows=windows)
    found["account"] = pd.DataFrame([asdict(trace.gpu_account(under, windows=windows))])
    if under:
        calls = trace.scope_calls(under, windows=windows)
        found["scope calls"] = calls.drop(columns=[name for name in calls if "id" in name])
    found["kernels"] = trace.kernels(under, windows=windows)
    found["tree"] = by_path(trace.tree(under, windows=windows))
    steps = trace.steps()[["step", "name", "ts", "dur"]]
    found["steps"] = steps[steps["step"].notna()]  # without the work outside of them
    return found


def by_path(tree: pd.DataFrame) -> pd.DataFrame:
    """A tree's nodes by the names on their paths: their order follows the first calls of all."""
    paths: dict[int, str] = {-1: ""}
    for node, above, name in zip(tree["node"], tree["parent"], tree["name"], strict=True):
        paths[node] = f"{paths[above]}/{name}"
    table = pd.DataFrame(tree).assign(path=[paths[node] for node in tree["node"]])
    table = table.drop(columns=["node", "parent"])
    return table.sort_values(["path", "kind", "calls", "gpu_total"], ignore_index=True)


def check_part(path: Path, limits: Limits) -> Trace | None:
    """Fails where a table of the part differs from the whole's; None where there is no part."""
    with open_trace(path, cache=False) as whole:
        try:
            wanted = tables(whole, limits)
        except TraceqError as error:
            with pytest.raises(type(error), match=re.escape(error.message)):
                open_trace(path, cache=False, part=limits)
            return None
        part = open_trace(path, cache=False, part=limits)
        found = tables(part, limits)
        for name, table in wanted.items():
            pd.testing.assert_frame_equal(
                pd.DataFrame(found[name]), pd.DataFrame(table), obj=f"{name} {limits.words}"
            )
        check_ledger(whole, part)
        return part


def check_ledger(whole: Trace, part: Trace) -> None:
    """Fails where the part's ledger does not account for every event of the file."""
    for (phase, category), row in part.ledger.tallies.items():
        assert row.read == row.loaded + row.not_carried + row.unreadable, (phase, category)
        assert row.read == whole.ledger.tallies[phase, category].read
        assert min(row.loaded, row.clamped, row.on_overflow_lane) >= 0
    for reason, count in part.ledger.reasons.items():
        # Arrows that join nothing may be left out for that they are not in the part.
        assert reason == NOT_IN_PART or count <= whole.ledger.reasons[reason]
    assert part.ledger.reasons.total() == sum(
        row.not_carried + row.unreadable for row in part.ledger.tallies.values()
    ) + _clamped(part)
    assert whole.ledger.total.read == part.ledger.total.read


def _clamped(trace: Trace) -> int:
    """How often the ledger's reasons tell of values that were changed."""
    reasons = trace.ledger.reasons.items()
    return sum(count for why, count in reasons if "set to 0" in why or "ended with" in why)


SPANS = st.tuples(st.integers(0, 80), st.integers(1, 60)).map(
    lambda span: f"{span[0]}us:{span[0] + span[1]}us"
)
LIMITS = st.builds(
    Limits,
    under=st.one_of(
        st.none(),
        st.sampled_from(["A_", "B_0", "label", "aten::y", "A_0", "m.py"]).map(lambda x: (x,)),
    ),
    steps=st.one_of(st.none(), st.none(), st.sampled_from(["0", "5", "5:7", "1:", "-1:"])),
    skip_first=st.sampled_from([False, False, True]),
    window=st.one_of(st.none(), SPANS),
)


@given(events=tm.gpu_traces(), limits=LIMITS)
def test_tables_of_a_part_are_those_of_the_whole(
    tmp_path: Path, events: list[tm.Event], limits: Limits
) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    check_part(path, limits)


@given(events=tm.gpu_traces(), limits=LIMITS)
def test_a_file_that_is_read_twice_gives_the_same_part(
    tmp_path: Path, events: list[tm.Event], limits: Limits
) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    check_twice(path, limits)


@given(events=tm.traces(), window=SPANS)
def test_events_of_all_phases_read_twice(
    tmp_path: Path, events: list[tm.Event], window: str
) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    check_twice(path, Limits(window=window))


def check_twice(path: Path, limits: Limits) -> None:
    """Fails where reading a file twice for a part gives another part than reading it once."""
    found = []
    for least in (10**9, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("traceq.intake._READ_TWICE", least)
            try:
                data, layout = read_file(TraceFile.at(path), "default", limits, None)
                check_loaded(data)
                found.append(spelled(data, layout))
            except TraceqError as error:
                found.append({"error": str(error)})
    for name in {**found[0], **found[1]}:
        assert found[0].get(name) == found[1].get(name), name


def check_loaded(data: TraceData) -> None:
    """Fails where the ledger counts others than the slices that are there."""
    tallies = data.ledger.tallies.items()
    slices = sum(row.loaded for (phase, _), row in tallies if phase in set("XBiIR"))
    assert slices == len(data.slices)


def spelled(data: TraceData, layout: Layout) -> dict[str, Any]:
    """A laid-out trace with texts in place of their numbers, which may differ."""
    slices, texts = data.slices, [*data.strings, None]
    args: dict[int, dict[str, Any]] = {}
    for column in slices.args:
        for row, value in zip(column.row.tolist(), column.value.tolist(), strict=True):
            text = data.strings[value] if column.kind == "string" else value
            args.setdefault(row, {})[column.key] = text
    rows = zip(slices.name.tolist(), slices.category.tolist(), slices.track.tolist(), strict=True)
    return {
        "slices": [(texts[name], texts[cat], data.tracks[track]) for name, cat, track in rows],
        "times": (slices.ts.tolist(), slices.dur.tolist(), slices.instant.tolist()),
        "args": args,
        "flows": (data.flows.ts.tolist(), data.flows.role.tolist()),
        "layout": [
            part.tolist() if isinstance(part, np.ndarray) else part
            for part in (getattr(layout, name) for name in Layout.__slots__)
        ],
        "others": (data.counters, data.asyncs, data.thread_names, data.process_names),
        "ledger": data.ledger.as_dict(),
    }


@pytest.mark.parametrize("name", ["einops-0", "flatten-2"])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(window="1ms:3ms"),
        Limits(window=":100us"),
        Limits(steps="9"),
        Limits(steps="9:11", under=("GatedDeltaNet",)),
        Limits(under=("GatedDeltaNet",)),
        Limits(under=("RMSNorm",), window="10ms:"),
        Limits(skip_first=True),
    ],
    ids=lambda limits: limits.words,
)
def test_parts_of_samples(name: str, limits: Limits) -> None:
    part = check_part(SAMPLES / f"{name}.json.gz", limits)
    assert part is not None
    assert part.ledger.reasons[NOT_IN_PART] > 0
