"""Comparisons: what must hold for any two traces, maps and filters, and the figures of README."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import traceq
from tests.conftest import ROOT
from traceq.compare import ADDED, STATUS_ORDER, Diff
from traceq.compare import diff as compare
from traceq.errors import PatternError, TraceqError, UsageError
from traceq.maps import parse_map
from traceq.samples import CAPTURES
from traceq.stats import Verdict

pytestmark = pytest.mark.filterwarnings(
    "error",
    # What an earlier test left to the garbage collector is not for these to answer for.
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

Rows = list[tuple[str, int, int]]


def write_trace(path: Path, rows: Rows) -> Path:
    """Slices of one thread as (name, start, duration) in µs."""
    events = [
        {"ph": "X", "name": name, "cat": "cpu_op", "pid": 1, "tid": 1, "ts": ts, "dur": dur}
        for name, ts, dur in rows
    ]
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    return path


def row_of(diff: Diff, op: str) -> dict[str, Any]:
    (row,) = (row for row in diff.to_dict()["rows"] if row["op"] == op)
    return row


# What must hold for any two traces --------------------------------------------------------------


@st.composite
def nested_slices(draw: Any) -> Rows:
    """Slices that nest, below two scopes and beside them."""
    found: Rows = [("S_0", 0, 40), ("S_1", 40, 60)]
    spans = st.tuples(st.sampled_from("fghf"), st.integers(0, 110), st.integers(0, 40))
    for name, ts, dur in draw(st.lists(spans, min_size=1, max_size=12)):
        apart_or_inside = all(
            ts + dur <= start
            or start + length <= ts
            or (start <= ts and ts + dur <= start + length)
            or (ts <= start and start + length <= ts + dur)
            for _, start, length in found
        )
        inside_scopes = not (dur > 40 or (ts < 40 < ts + dur) or (ts < 100 < ts + dur))
        if apart_or_inside and inside_scopes and (name, ts, dur) not in found:
            found.append((name, ts, dur))
    return [*found, ("f", 200, 5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diff")


# Each example opens two engines: one that fails is shown as it is, not made smaller.
@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
@given(one=nested_slices(), two=nested_slices(), under=st.sampled_from([None, "S_", "S_1"]))
def test_what_holds_for_any_two_traces(
    folder: Path, one: Rows, two: Rows, under: str | None
) -> None:
    before = traceq.open(write_trace(folder / "one.json", one))
    after = traceq.open(write_trace(folder / "two.json", two))
    with before, after:
        itself = compare(before, before, under=under)
        there = compare(before, after, under=under)
        back = compare(after, before, under=under)
    assert_same(itself)
    for result in (itself, there, back):
        assert_adds_up(result)
        assert_nothing_declared(result)
        json.dumps(result.to_dict(), allow_nan=False)
    assert_mirrored(there, back)


def assert_same(diff: Diff) -> None:
    assert diff.changes.empty
    assert len(diff.unchanged) == len(diff.table)
    assert not diff.table["delta"].any()
    assert not diff.table["self_delta"].any()
    assert set(diff.table["status"]) <= {"same"}
    assert diff.groups.rows == diff.kernel_groups.rows == ()
    assert diff.groups.alone == (0, 0)
    assert_nothing_declared(diff)
    assert diff.before == diff.after


DECLARED = {Verdict.FASTER, Verdict.SLOWER}


def assert_nothing_declared(diff: Diff) -> None:
    for table in (diff.table, diff.kernels):
        assert not table["verdict"].isin([str(verdict) for verdict in DECLARED]).any()
    assert not [item for item in diff.evidence.findings.values() if item.verdict in DECLARED]


def assert_adds_up(diff: Diff) -> None:
    table, before, after = diff.table, diff.before.totals, diff.after.totals
    assert int(table["self_before"].sum()) + before.self == before.total
    assert int(table["self_after"].sum()) + after.self == after.total
    assert before.self >= 0
    assert after.self >= 0
    shift = after.total - before.total - (after.self - before.self)
    assert int(table["self_delta"].sum()) == shift
    assert list(table["status"]) == sorted(table["status"], key=STATUS_ORDER.index)
    assert_groups_add_up(diff)
    for row in diff.to_dict()["rows"]:
        assert row["delta"] == (row["total_after"] or 0) - (row["total_before"] or 0)
        assert row["delta"] == row["calls_part"] + row["shapes_part"] + row["cost_part"]
        assert row["status"] != "same" or row["calls_before"] == row["calls_after"]
        for side, status in (("before", "added"), ("after", "removed")):
            is_absent = row[f"calls_{side}"] is None
            assert is_absent or row["status"] != status
            assert not is_absent or row["status"] in (status, "uneven")
        if row["total_before"] and row["total_after"]:
            assert row["ratio"] == pytest.approx(row["total_before"] / row["total_after"])
        for side in ("before", "after"):
            if row[f"calls_{side}"] is not None:
                assert row[f"min_{side}"] <= row[f"average_{side}"] <= row[f"max_{side}"]
                assert row[f"outermost_{side}"] <= row[f"total_{side}"]
                assert 0 <= row[f"self_{side}"] <= row[f"total_{side}"]


def assert_groups_add_up(diff: Diff) -> None:
    """The groups and the unchanged code are the time of the scopes, on either side."""
    groups = (*diff.groups.rows, diff.groups.unchanged)
    for side, totals in (("before", diff.before.totals), ("after", diff.after.totals)):
        assert sum(sum(group.sums(side, "time")) for group in groups) == totals.total


OPPOSITE = {"added": "removed", "removed": "added"}


def assert_mirrored(there: Diff, back: Diff) -> None:
    mirrored = {row["op"]: row for row in back.to_dict()["rows"]}
    assert len(mirrored) == len(there.table)
    for row in there.to_dict()["rows"]:
        other = mirrored[row["op"]]
        assert other["status"] == OPPOSITE.get(row["status"], row["status"])
        assert other["delta"] == -row["delta"]
        assert other["self_delta"] == -row["self_delta"]
        for key in ("calls", "total", "average", "min", "max", "self", "outermost"):
            assert other[f"{key}_before"] == row[f"{key}_after"]
            assert other[f"{key}_after"] == row[f"{key}_before"]


# One pair of tiny traces --------------------------------------------------------------------------

BEFORE: Rows = [
    ("nn.Module: S_0", 0, 100),
    ("a.py(1): old", 10, 20),
    ("in.py(2): old2", 12, 8),
    ("aten::flatten", 40, 10),
    ("aten::mul", 60, 5),
    ("idle", 70, 0),
    ("outside", 120, 5),
]
AFTER: Rows = [
    ("nn.Module: S_0", 0, 90),
    ("<built-in method flatten of Tensor object at 0x7f>", 10, 5),
    ("aten::flatten", 11, 3),
    ("aten::flatten", 40, 10),
    ("aten::mul", 60, 15),
    ("idle", 78, 0),
    ("outside", 120, 5),
]
NEW = "<built-in method flatten of Tensor object>"


@pytest.fixture(scope="module")
def before(folder: Path) -> Iterator[traceq.Trace]:
    with traceq.open(write_trace(folder / "before.json", BEFORE)) as trace:
        yield trace


@pytest.fixture(scope="module")
def after(folder: Path) -> Iterator[traceq.Trace]:
    with traceq.open(write_trace(folder / "after.json", AFTER)) as trace:
        yield trace


def statuses(diff: Diff) -> list[tuple[str, str]]:
    return [(row["status"], row["op"]) for row in diff.to_dict()["rows"]]


def test_statuses_and_their_order(before: traceq.Trace, after: traceq.Trace) -> None:
    diff = compare(before, after, under="nn.Module: S")
    assert statuses(diff) == [
        ("changed", "aten::flatten"),
        ("added", NEW),
        ("removed", "a.py: old"),
        ("removed", "in.py: old2"),
        ("same", "aten::mul"),  # three times as long, and as many calls
        ("same", "idle"),
    ]
    assert (diff.before.totals.scopes, diff.before.totals.total) == (1, 100_000)
    assert (diff.after.totals.scopes, diff.after.totals.total) == (1, 90_000)
    assert diff.before.totals.self == 100_000 - 20_000 - 10_000 - 5_000
    assert len(diff.warnings) == 1
    assert diff.warnings[0].startswith("No record of the conditions of before, after:")
    assert diff.before.path.endswith("before.json")
    idle = row_of(diff, "idle")
    assert (idle["delta"], idle["ratio"], idle["average_before"]) == (0, None, 0.0)


def test_whole_traces(before: traceq.Trace, after: traceq.Trace) -> None:
    diff = compare(before, after)
    assert row_of(diff, "outside")["status"] == "same"
    assert row_of(diff, "nn.Module: S")["delta"] == -10_000
    assert diff.before.totals.total == 105_000
    assert diff.under == ()


def test_an_empty_list_of_patterns_is_the_whole_trace(
    before: traceq.Trace, after: traceq.Trace
) -> None:
    whole = compare(before, after).to_dict()
    assert compare(before, after, under=[], maps=[]).to_dict() == whole


def test_a_map_joins_all_that_matches_and_counts_nested_calls_once(
    before: traceq.Trace, after: traceq.Trace
) -> None:
    diff = compare(before, after, under="S_0", maps=["old=>flatten"])
    row = diff.to_dict()["rows"][0]
    assert row == {
        "status": "replaced",
        "op": "a.py: old + in.py: old2",
        "replaced_by": NEW,  # not aten::flatten, which both sides call
        "category": "cpu_op",
        "calls_before": 1,
        "calls_after": 1,
        "total_before": 20_000,
        "total_after": 5_000,
        "delta": -15_000,
        "ratio": 4.0,
        "average_before": 20_000.0,
        "average_after": 5_000.0,
        "min_before": 20_000,
        "min_after": 5_000,
        "max_before": 20_000,
        "max_after": 5_000,
        "self_before": 20_000,
        "self_after": 2_000,
        "self_delta": -18_000,
        "outermost_before": 20_000,
        "outermost_after": 5_000,
        "gpu_delta": 0,
        **{
            f"{column}_{side}": 0
            for column in ("gpu_total", "gpu_self", "gpu_busy", "launches", "activities")
            for side in ("before", "after")
        },
        **{key: row[key] for key in (*CALL_RANGES, *PARTS)},
        **{key: row[key] for key in ADDED},
    }
    assert (row["sample_before"], row["sample_after"], row["change"]) == (20_000, 5_000, -0.75)
    assert (row["p"], row["verdict"]) == (None, "can't tell")
    assert sum(row[key] for key in PARTS) == row["delta"]
    assert statuses(diff)[1:] == [
        ("changed", "aten::flatten"),
        ("same", "aten::mul"),
        ("same", "idle"),
    ]
    assert_adds_up_with_maps(diff)


CALL_RANGES = tuple(
    f"calls_{end}_{side}" for end in ("low", "high") for side in ("before", "after")
)
PARTS = ("calls_part", "shapes_part", "cost_part")


def assert_adds_up_with_maps(diff: Diff) -> None:
    before, after = diff.before.totals, diff.after.totals
    shift = after.total - before.total - (after.self - before.self)
    assert int(diff.table["self_delta"].sum()) == shift


def test_map_to_an_op_of_both_sides_sums_both_sides_over_both_ops(
    before: traceq.Trace, after: traceq.Trace
) -> None:
    diff = compare(before, after, under="S_0", maps=["a.py=>aten::flatten"])
    pair = diff.to_dict()["rows"][0]
    assert (pair["op"], pair["replaced_by"]) == ("a.py: old", "aten::flatten")
    assert (pair["calls_before"], pair["calls_after"]) == (2, 2)
    assert (pair["total_before"], pair["total_after"]) == (30_000, 13_000)
    assert "aten::flatten" not in [op for _, op in statuses(diff)]
    assert ("removed", "a.py: old") not in statuses(diff)
    assert ("removed", "in.py: old2") in statuses(diff)
    assert_adds_up_with_maps(diff)


def test_map_from_an_op_of_both_sides(before: traceq.Trace, after: traceq.Trace) -> None:
    diff = compare(before, after, under="S_0", maps=["aten::flatten=>built-in"])
    pair = diff.to_dict()["rows"][0]
    assert (pair["calls_before"], pair["total_before"]) == (1, 10_000)
    assert (pair["calls_after"], pair["total_after"]) == (2, 15_000)  # the old op is still called
    assert_adds_up_with_maps(diff)


def test_what_is_left_of_a_replaced_op_counts(tmp_path: Path) -> None:
    old = write_trace(tmp_path / "old.json", [("rearr", 10 * n, 8) for n in range(100)])
    half = [("rearr", 10 * n, 8) for n in range(50)] + [("flat", 10 * n, 4) for n in range(50, 100)]
    new = write_trace(tmp_path / "new.json", half)
    with traceq.open(old) as before, traceq.open(new) as after:
        [row] = compare(before, after, maps=["rearr=>flat"]).to_dict()["rows"]
        with pytest.raises(PatternError, match="rearr"):
            compare(before, after, maps=["rearr=>flat", "rearr=>flat"])
    assert (row["total_before"], row["total_after"]) == (800_000, 600_000)
    assert (row["calls_before"], row["calls_after"]) == (100, 100)


def module_traces(folder: Path, name: str, times: list[int]) -> list[Path]:
    """A capture for each of the times that ``mm`` takes."""
    return [
        write_trace(
            folder / f"{name}-{number}.json", [("nn.Module: M_0", 0, 1000), ("mm", 0, took)]
        )
        for number, took in enumerate(times)
    ]


def test_one_capture_a_side_does_not_tell_a_large_shift_from_noise(tmp_path: Path) -> None:
    old, new = module_traces(tmp_path, "old", [400]) + module_traces(tmp_path, "new", [590])
    with traceq.open(old) as before, traceq.open(new) as after:
        diff = compare(before, after, under="M_0")
    row = row_of(diff, "mm")
    assert (row["status"], row["delta"], row["cost_part"]) == ("same", 190_000, 190_000)
    assert row["change"] == pytest.approx(190 / 400)  # told, and not declared
    assert (row["verdict"], row["p"], row["noise"]) == ("can't tell", None, None)
    assert (row["confidence"], row["captures_needed"]) == (0, CAPTURES)
    assert diff.changes.empty
    assert diff.groups.rows == ()
    assert "| `mm` |" not in diff.to_markdown()
    assert "CPU time of the scopes: can't tell" in diff.to_markdown()


def test_a_large_shift_is_declared_by_captures_though_no_call_changed(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        old, new = (
            [
                stack.enter_context(traceq.open(path))
                for path in module_traces(tmp_path, name, times)
            ]
            for name, times in (("old", [400, 402, 401]), ("new", [590, 593, 591]))
        )
        diff, back = compare(old, new, under="M_0"), compare(new, old, under="M_0")
    row = row_of(diff, "mm")
    assert (row["status"], row["verdict"], back.table["verdict"][0]) == ("same", "slower", "faster")
    assert (row["total_before"], row["total_after"]) == (401_000, 591_000)  # the medians
    assert diff.changes["op"].tolist() == ["mm"]
    assert diff.groups.rows == ()
    assert "| ↑ | `mm` |" in diff.to_markdown()
    assert "| ↓ | `mm` |" in back.to_markdown()
    assert [len(diff.to_dict()[side]["captures"]) for side in ("before", "after")] == [3, 3]
    assert [item.path for item in diff.before.captures] == [item.path for item in old]


@pytest.mark.parametrize("number", [1, 2])
def test_sides_of_other_numbers_of_captures_without_steps(tmp_path: Path, number: int) -> None:
    with contextlib.ExitStack() as stack:
        paths = module_traces(tmp_path, "one", [400, 402, 590])
        traces = [stack.enter_context(traceq.open(path)) for path in paths]
        diff = compare(traces[:number], traces[number:], under="M_0")
    row = row_of(diff, "mm")
    assert (row["status"], row["verdict"], row["p"]) == ("same", "can't tell", None)
    assert diff.changes.empty
    assert "can't tell" in diff.to_markdown()


def test_code_that_is_gone_from_every_step_is_removed_in_whole_traces_too(tmp_path: Path) -> None:
    """Beside the steps a trace has calls that are made once: those are no scopes to compare by."""
    steps = [(f"ProfilerStep#{n}", 100 * n, 90) for n in range(3)]
    ops = [("mm", 100 * n + 5, 30) for n in range(3)]
    once = [(f"once {word}", 400 + 10 * n, 5) for n, word in enumerate("abcde")]
    relu = [("relu", 100 * n + 50, 20) for n in range(3)]
    old = write_trace(tmp_path / "old.json", [*steps, *ops, *relu, *once])
    new = write_trace(tmp_path / "new.json", [*steps, *ops, *once])
    with traceq.open(old) as before, traceq.open(new) as after:
        diff = compare(before, after)
    assert diff.changes[["status", "op"]].to_numpy().tolist() == [["removed", "relu"]]
    assert "the code is the same" not in diff.to_markdown()


def test_calls_that_differ_in_some_scopes_only_are_no_change_of_the_code(tmp_path: Path) -> None:
    """One scope of five fills a cache: its calls are uneven, and no row of what changed."""
    scopes = [("nn.Module: M_0", 100 * n, 90) for n in range(5)]
    ops = [("mm", 100 * n, 50) for n in range(5)]
    old = write_trace(tmp_path / "old.json", [*scopes, *ops])
    new = write_trace(tmp_path / "new.json", [*scopes, *ops, ("fill", 60, 10), ("mm", 75, 5)])
    with traceq.open(old) as before, traceq.open(new) as after:
        diff = compare(before, after, under="M_0")
    assert statuses(diff) == [("uneven", "mm"), ("uneven", "fill")]
    assert diff.changes.empty
    assert diff.unchanged.empty  # no rows of the same calls either
    assert diff.steady_groups == ()
    assert [group.is_steady for group in diff.groups.rows] == [False]
    assert "2 with other calls in some scopes or captures only of 2 ops." in diff.to_markdown()
    assert_adds_up(diff)


def test_several_maps_keep_the_order_in_which_they_were_given(
    before: traceq.Trace, after: traceq.Trace
) -> None:
    maps = ["a.py=>built-in", "old2=>aten::flatten", "*::mul => re:^idle$"]
    diff = compare(before, after, under="S_0", maps=maps)
    assert [(row["op"], row["replaced_by"]) for row in diff.to_dict()["rows"][:3]] == [
        ("a.py: old", NEW),
        ("in.py: old2", "aten::flatten"),
        ("aten::mul", "idle"),
    ]
    assert list(diff.table["status"][:3]) == ["replaced"] * 3
    assert diff.to_dict()["rows"][2]["ratio"] == pytest.approx(5 / 15)  # mul is still there
    json.dumps(diff.to_dict(), allow_nan=False)
    assert diff.to_markdown()


@pytest.mark.parametrize(
    ("maps", "told"),
    [
        (["nothing=>flatten"], r"before\.json|nothing"),
        (["old=>nothing"], r"after\.json|nothing"),
        (["outside=>flatten"], "is not under the scope"),
        (["old=>outside"], "is not under the scope"),
        (["old=>a.py"], "a.py"),
        (["re:(=>flatten"], "regular expression"),
        (["old=>flatten", "old=>aten::mul"], "old"),
    ],
)
def test_maps_that_match_nothing(
    before: traceq.Trace, after: traceq.Trace, maps: list[str], told: str
) -> None:
    with pytest.raises(PatternError, match=told) as caught:
        compare(before, after, under="S_0", maps=maps)
    assert caught.value.hint


def test_a_map_that_matches_nothing_says_on_which_side(
    before: traceq.Trace, after: traceq.Trace
) -> None:
    """``old`` is in the trace before, and only there."""
    with pytest.raises(PatternError) as caught:
        compare(before, after, under="S_0", maps=["aten::flatten=>a.py"])
    assert "after.json" in caught.value.message


@pytest.mark.parametrize("text", ["", "old", "=>", "old=>", "=>new", " => new", "old->new", "a=b"])
def test_a_map_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a mapping") as caught:
        parse_map(text)
    assert repr(text) in caught.value.message
    assert "OLD=>NEW" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a=>b", ("a", "b")),
        (" a  =>  b ", ("a", "b")),
        ("re:^a$=>*b*", ("re:^a$", "*b*")),
        ("a=>b=>c", ("a", "b=>c")),
    ],
)
def test_a_map(text: str, pair: tuple[str, str]) -> None:
    assert parse_map(text) == pair


@pytest.mark.parametrize(
    ("match", "ops"),
    [
        ("flatten", ["aten::flatten", NEW]),
        ("aten::*", ["aten::flatten", "aten::mul"]),
        (["re:old$", "idle"], ["a.py: old", "idle"]),
        ("in.py(2)", ["in.py: old2"]),  # as it stands in the trace
        ("at 0x7f", [NEW]),
    ],
)
def test_match_keeps_what_matches_on_either_side(
    before: traceq.Trace, after: traceq.Trace, match: Any, ops: list[str]
) -> None:
    diff = compare(before, after, under="S_0", match=match)
    assert [row["op"] for row in diff.to_dict()["rows"]] == ops
    whole = compare(before, after, under="S_0")
    assert diff.before == whole.before  # the totals are those of the scopes
    assert diff.match == ((match,) if isinstance(match, str) else tuple(match))


def test_match_goes_for_both_ends_of_a_map(before: traceq.Trace, after: traceq.Trace) -> None:
    for match in ("old", "built-in"):
        diff = compare(before, after, under="S_0", maps=["old=>built-in"], match=match)
        assert [row["replaced_by"] for row in diff.to_dict()["rows"]] == [NEW]


def test_match_that_matches_nothing(before: traceq.Trace, after: traceq.Trace) -> None:
    with pytest.raises(PatternError, match="flaten") as caught:
        compare(before, after, under="S_0", match="flaten")
    assert "aten::flatten" in (caught.value.hint or "")


def test_scope_that_is_missing_on_one_side(
    folder: Path, before: traceq.Trace, after: traceq.Trace
) -> None:
    with traceq.open(write_trace(folder / "none.json", [("nn.Module: T_0", 0, 5)])) as other:
        for one, two in ((before, other), (other, after)):
            with pytest.raises(PatternError, match=r"none\.json: no slice .*S_0") as caught:
                compare(one, two, under="S_0")
            assert caught.value.hint


def test_scopes_with_nothing_below_them(folder: Path, before: traceq.Trace) -> None:
    with traceq.open(write_trace(folder / "bare.json", [("nn.Module: S_0", 0, 5)])) as bare:
        both = compare(bare, bare, under="S_0")
        one = compare(before, bare, under="S_0")
    assert both.table.empty
    assert both.before.totals.self == 5_000
    assert {row["status"] for row in one.to_dict()["rows"]} == {"removed"}
    for result in (both, one):
        json.dumps(result.to_dict(), allow_nan=False)
        assert result.to_markdown()
        assert result._repr_html_()


def test_a_different_number_of_scopes_stops_the_comparison(
    folder: Path, before: traceq.Trace
) -> None:
    rows = [*BEFORE, ("nn.Module: S_1", 200, 10)]
    with traceq.open(write_trace(folder / "two_scopes.json", rows)) as two:
        with pytest.raises(UsageError, match=r": 1 \(before\), 2 \(after\)") as caught:
            compare(before, two, under="S_")
        assert "--force" in (caught.value.hint or "")
        diff = compare(before, two, under="S_", force=True)
    assert diff.comparability.blockers
    for told in diff.comparability.blockers:
        assert told in diff.warnings
        assert "1 (before), 2 (after)" in told
    assert "1 \\(before\\), 2 \\(after\\)" in diff.to_markdown()
    assert diff.groups.alone == (0, 1)
    assert_groups_add_up(diff)


def test_what_is_wrong_with_a_file_is_warned_of(folder: Path, before: traceq.Trace) -> None:
    text = (folder / "before.json").read_text(encoding="utf-8")
    (folder / "cut.json").write_text(text[:-40], encoding="utf-8")
    with traceq.open(folder / "cut.json") as cut:
        diff = compare(before, cut, under="S_0")
    assert any(re.search(r"cut\.json: .*cut off", warning) for warning in diff.warnings)
    assert "cut off" in diff.to_markdown()
    assert "cut off" in diff._repr_html_()


SIDED = ("calls", "total", "average", "min", "max", "self", "outermost")


def test_to_dict_has_the_documented_keys(before: traceq.Trace, after: traceq.Trace) -> None:
    diff = compare(before, after, under=["S_0"], match="*", maps=["old=>built-in"])
    data = json.loads(json.dumps(diff.to_dict(), allow_nan=False))
    assert list(data) == [
        *("schema", "kind", "under", "match", "maps", "within", "before", "after", "warnings"),
        *("comparability", "conditions", "evidence", "scopes", "groups", "kernel_groups"),
        *("rows", "kernels"),
    ]
    assert (data["schema"], data["kind"]) == (2, "diff")
    assert (data["under"], data["match"]) == (["S_0"], ["*"])
    for side in ("before", "after"):
        assert list(data[side]) == ["captures"]
        (capture,) = data[side]["captures"]
        assert list(capture) == ["path", "sha256", "events", "scopes", "total", "self", "gpu"]
    assert set(data["scopes"]) == {"cpu", "gpu"}
    assert all(tuple(finding) == ADDED for finding in data["scopes"].values())
    for family in ("groups", "kernel_groups"):
        assert list(data[family]) == ["rows", "unchanged", "scopes_alone"]
    assert data["groups"]["rows"]
    assert data["rows"]
    for row in data["rows"]:
        assert list(row) == [*documented("diff"), *PARTS, *ADDED]
        for key, value in row.items():
            if key in ("status", "op", "category"):
                assert isinstance(value, str)
            elif key == "verdict":
                assert value in (None, *Verdict)
            elif key in FRACTIONS or key.startswith(("ratio", "average")):
                assert value is None or type(value) is float, key
            elif key != "replaced_by":
                assert value is None or type(value) is int, key


FRACTIONS = {*ADDED} - {"verdict", "captures_needed"}


def documented(query: str) -> list[str]:
    """The columns of one of queries/duckdb/."""
    text = (ROOT / "queries" / "duckdb" / f"{query}.sql").read_text(encoding="utf-8")
    return re.findall(r" AS (\w+),?$", text.partition("\nFROM ")[0], re.MULTILINE)


def test_columns_tell_what_they_mean(before: traceq.Trace, after: traceq.Trace) -> None:
    diff = compare(before, after, under="S_0")
    for table in (diff.table, diff.ops, diff.kernels):
        fields = table.attrs["fields"]
        assert [field.name for field in fields] == list(table.columns)
        assert all(field.doc.endswith(".") for field in fields)
    units = {field.name: field.unit for field in diff.table.attrs["fields"]}
    assert (units["total_after"], units["delta"], units["calls_before"]) == ("ns", "ns", "")


def test_table_has_whole_numbers(before: traceq.Trace, after: traceq.Trace) -> None:
    for maps in ([], ["old=>built-in"]):
        table = compare(before, after, under="S_0", maps=maps).table
        for key in SIDED:
            for side in ("before", "after"):
                expected = "float64" if key == "average" else "Int64"
                assert str(table[f"{key}_{side}"].dtype).lower() == expected.lower()
        assert isinstance(table, pd.DataFrame)


def test_to_markdown_and_html(before: traceq.Trace, after: traceq.Trace) -> None:
    diff = compare(before, after, under="S_0", maps=["old=>built-in"])
    short, long = diff.to_markdown(), diff.to_markdown(show_all=True)
    for text in (short, long):
        assert text.startswith("**Under S\\_0, a.py: old became \\<built\\-in method flatten ")
        assert "CPU time of the scopes: can't tell.**\n" in text
        assert "| ⇒ | `a.py: old + in.py: old2` ⇒ `" in text
        assert "4.00x" in text
        assert "<sub>1 replaced, 1 with other calls of 4 ops.</sub>" in text
        assert "CPU time: `can't tell (" in text
        assert "take 3 captures a side" in text
        assert text.endswith("\n")
    assert "`idle`" in long
    assert "`idle`" not in short
    html = diff._repr_html_()
    assert html.startswith("<div>")
    assert html.endswith("</div>")
    assert "a.py: old + in.py: old2 ⇒ &lt;built-in method flatten" in html


def test_a_closed_trace_has_its_tables_but_no_engine(folder: Path, before: traceq.Trace) -> None:
    closed = traceq.open(folder / "before.json")
    closed.close()
    assert compare(before, closed).ops["delta"].eq(0).all()
    with pytest.raises(TraceqError, match="closed"):
        closed.sql("SELECT 1")


def test_calls_on_lanes_of_their_own_are_nested_too(folder: Path) -> None:
    """The inner ``old`` overlaps another slice and lies on a lane of its own, below the outer."""
    one = [("S", 0, 100), ("old", 10, 80), ("g", 20, 40), ("old", 50, 30)]
    two = [("S", 0, 100), ("new", 10, 20), ("g", 40, 40)]
    first = traceq.open(write_trace(folder / "lanes.json", one))
    second = traceq.open(write_trace(folder / "no_lanes.json", two))
    with first, second:
        diff = compare(first, second, under="S", maps=["old=>new"])
    pair = diff.to_dict()["rows"][0]
    assert (pair["calls_before"], pair["total_before"]) == (1, 80_000)


def test_own_time_of_scopes_is_never_negative(folder: Path) -> None:
    """Children that overlap take, together, longer than the scope; its own time is then 0 or so."""
    rows = [("S", 0, 100), ("a", 0, 90), ("b", 50, 50)]
    with traceq.open(write_trace(folder / "overlap.json", rows)) as trace:
        diff = compare(trace, trace, under="S")
    assert diff.before.totals.total == 100_000
    assert diff.before.totals.self >= 0


# The figures of README ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def einops() -> Iterator[traceq.Trace]:
    with traceq.open(ROOT / "sample_traces" / "einops-0.json.gz") as trace:
        yield trace


@pytest.fixture(scope="module")
def flatten() -> Iterator[traceq.Trace]:
    with traceq.open(ROOT / "sample_traces" / "flatten-0.json.gz") as trace:
        yield trace


def test_sample_traces(einops: traceq.Trace, flatten: traceq.Trace) -> None:
    diff = compare(einops, flatten, under="GatedDeltaNet")
    assert (diff.before.totals.scopes, diff.after.totals.scopes) == (15, 15)
    assert (diff.before.totals.total, diff.after.totals.total) == (70_424_997, 57_157_662)
    gone = row_of(diff, "einops/einops.py: rearrange")
    assert (gone["status"], gone["calls_before"], gone["total_before"]) == ("removed", 15, 951_209)
    new = row_of(diff, NEW)
    assert (new["status"], new["calls_after"], new["total_after"]) == ("added", 15, 163_499)
    aten = row_of(diff, "aten::flatten")
    assert aten["status"] == "changed"
    assert (aten["calls_before"], aten["calls_after"]) == (30, 45)
    assert (aten["total_before"], aten["total_after"]) == (190_384, 215_239)
    assert_adds_up(diff)


def test_sample_traces_with_the_map(einops: traceq.Trace, flatten: traceq.Trace) -> None:
    maps = ["rearrange=>built-in method flatten"]
    diff = compare(einops, flatten, under="GatedDeltaNet", maps=maps)
    (row,) = (row for row in diff.to_dict()["rows"] if row["status"] == "replaced")
    assert (row["op"], row["replaced_by"]) == ("einops/einops.py: rearrange", NEW)
    assert (row["calls_before"], row["calls_after"]) == (15, 15)
    assert (row["total_before"], row["total_after"]) == (951_209, 163_499)
    assert row["delta"] == -787_710
    assert round(row["ratio"], 2) == 5.82
    assert_adds_up_with_maps(diff)


def test_sample_traces_both_ways_and_with_themselves(
    einops: traceq.Trace, flatten: traceq.Trace
) -> None:
    there = compare(einops, flatten, under="GatedDeltaNet")
    assert_mirrored(there, compare(flatten, einops, under="GatedDeltaNet"))
    assert_same(compare(einops, einops, under="GatedDeltaNet"))
    assert_same(compare(flatten, flatten))


# GPU time ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples() -> Iterator[tuple[traceq.Trace, traceq.Trace]]:
    folder = ROOT / "sample_traces"
    with (
        traceq.open(folder / "einops-0.json.gz") as einops,
        traceq.open(folder / "flatten-0.json.gz") as flatten,
    ):
        yield einops, flatten


def test_kernels_of_a_trace_beside_itself(samples: tuple[traceq.Trace, traceq.Trace]) -> None:
    einops, _ = samples
    for under in (None, "GatedDeltaNet"):
        diff = compare(einops, einops, under=under)
        assert set(diff.kernels["status"]) == {"same"}
        assert (diff.kernels["delta"] == 0).all()
        assert (diff.table["gpu_delta"] == 0).all()


@pytest.mark.parametrize("under", [None, "GatedDeltaNet", "Qwen3_5MLP", "aten::mm"])
def test_kernels_and_the_rest_are_all_of_the_gpu_time(
    samples: tuple[traceq.Trace, traceq.Trace], under: str | None
) -> None:
    diff = compare(*samples, under=under)
    for side, name in ((diff.before, "before"), (diff.after, "after")):
        gpu = side.totals.gpu
        assert int(diff.kernels[f"total_{name}"].sum()) == gpu.under.total
        assert int(diff.kernels[f"calls_{name}"].sum()) == gpu.under.activities
        parts = (gpu.under, gpu.outside, gpu.unknown)
        assert sum(part.total for part in parts) == gpu.all.total
        assert sum(part.activities for part in parts) == gpu.all.activities == 1457


def test_gpu_time_of_both_sides(samples: tuple[traceq.Trace, traceq.Trace]) -> None:
    diff = compare(*samples, under="GatedDeltaNet", maps=["aten::to=>_to_copy"])
    assert diff.before.totals.gpu.under.total == 3_453_340
    assert diff.after.totals.gpu.under.total == 3_454_313
    assert diff.before.totals.gpu.under.activities == 540
    assert diff.has_gpu
    linear = row_of(diff, "nn.Module: Linear")
    assert linear["gpu_delta"] == linear["gpu_total_after"] - linear["gpu_total_before"]
    assert linear["launches_before"] == linear["launches_after"] > 0
    # A replaced pair is one row: what both of its ops launched is counted once.
    pair = diff.to_dict()["rows"][0]
    op = samples[0].ops(under="GatedDeltaNet").set_index("op").loc["aten::to"]
    assert (pair["gpu_total_before"], pair["calls_before"]) == (op["gpu_total"], op["calls"])


def test_steps_are_compared_with_steps(samples: tuple[traceq.Trace, traceq.Trace]) -> None:
    whole = compare(*samples, under="GatedDeltaNet")
    first = compare(*samples, under="GatedDeltaNet", steps="8")
    rest = compare(*samples, under="GatedDeltaNet", skip_first=True)
    assert (first.before.totals.scopes, rest.before.totals.scopes) == (3, 12)
    assert rest.to_dict()["within"] == {
        "steps": None,
        "skip_first": True,
        "window": None,
        "steps_before": "marked by the profiler",
        "steps_after": "marked by the profiler",
        "spans_before": 4,
        "spans_after": 4,
    }
    assert set(whole.within.values()) == {None, False}
    for side in ("before", "after"):
        parts = [getattr(part, side).totals for part in (first, rest, whole)]
        assert parts[0].total + parts[1].total == parts[2].total
        gpu = [item.gpu.under.total for item in parts]
        assert gpu[0] + gpu[1] == gpu[2]
        column = f"calls_{side}"
        assert first.table[column].sum() + rest.table[column].sum() == whole.table[column].sum()


def test_a_step_that_is_not_there_names_the_file(
    samples: tuple[traceq.Trace, traceq.Trace],
) -> None:
    with pytest.raises(UsageError, match=r"einops-0\.json\.gz: no step is left of the 5"):
        compare(*samples, steps="70:")


def gpu_trace(path: Path, mul: int, kernel: str, dur: int) -> Path:
    """A module that launches one kernel, named like the module's frame."""
    rows = [("nn.Module: M_0", "python_function", 1, 0, 100, {})]
    rows += [("aten::mul", "cpu_op", 1, 10, mul, {})]
    rows += [("cudaLaunchKernel", "cuda_runtime", 1, 12, 2, {"correlation": 5})]
    rows += [(kernel, "kernel", 7, 200, dur, {"correlation": 5, "device": 0, "stream": 7})]
    events = [
        {"ph": "X", "name": n, "cat": c, "pid": 1, "tid": t, "ts": s, "dur": d, "args": a}
        for n, c, t, s, d, a in rows
    ]
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    return path


@pytest.mark.parametrize("under", [None, "M_0", "M"])
def test_a_slower_kernel_is_neither_cpu_time_nor_passed_over(
    tmp_path: Path, under: str | None
) -> None:
    before = gpu_trace(tmp_path / "a.json", 20, "nn.Module: M_0 kernel", 90)
    after = gpu_trace(tmp_path / "b.json", 20, "nn.Module: M_0 kernel", 600)
    with traceq.open(before) as one, traceq.open(after) as other:
        diff = compare(one, other, under=under)
    assert diff.before.totals.total == diff.after.totals.total == 100_000
    assert diff.after.totals.gpu.under.total == 600_000
    assert row_of(diff, "aten::mul")["delta"] == 0
    assert row_of(diff, "aten::mul")["gpu_delta"] == 510_000
    # Shown, and not declared slower: one capture a side without steps cannot tell.
    (kernel,) = diff.to_dict()["kernels"]
    assert list(kernel) == [*documented("kernels"), *ADDED]
    assert (kernel["status"], kernel["delta"]) == ("same", 510_000)
    assert (kernel["verdict"], kernel["change"]) == ("can't tell", pytest.approx(510 / 90))
    scopes = diff.to_dict()["scopes"]
    assert (scopes["cpu"]["change"], scopes["gpu"]["change"]) == (0, pytest.approx(510 / 90))
    text = diff.to_markdown()
    assert "| `nn.Module: M_0 kernel` | 1 | 90.000 | 600.000 | \\+510.000 | 0.15x |  |" in text
    assert "GPU time" in text.splitlines()[0]


def test_a_kernel_of_another_type_has_changed(tmp_path: Path) -> None:
    name = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<{}>>(int)"
    before = gpu_trace(tmp_path / "a.json", 20, name.format("float"), 90)
    after = gpu_trace(tmp_path / "b.json", 20, name.format("c10::BFloat16"), 90)
    with traceq.open(before) as one, traceq.open(after) as other:
        diff = compare(one, other, under="M_0")
    assert diff.kernels["status"].tolist() == ["changed"]
    assert diff.kernels["variants_before"].tolist() == [1]
