"""What differs between captures: what is told, what stops a comparison, what is not known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq.comparability import (
    CaptureFacts,
    Comparability,
    compare_facts,
    count_instances,
    read_facts,
)
from traceq.errors import UsageError
from traceq.info import CategoryCount, TraceInfo

FACTS = CaptureFacts(
    "a.json",
    conditions={"GPU": "H100", "driver": "550.54"},
    has_record=True,
    models={"nn.Module: GatedDeltaNet": 3},
    scopes=15,
    activities=100,
    stages=("prefill", "decode", "decode"),
    shapes="1 × (ids=[10, 256])",
    sizes={"hidden size": "2048"},
    fingerprint="1",
)


def facts(name: str = "", **more: Any) -> CaptureFacts:
    """The facts of one more capture, which differs in ``more``."""
    return replace(FACTS, path=f"{name}.json", fingerprint=name, **more)


def told(found: Comparability) -> list[str]:
    return [item.text for item in found.differences]


def with_driver(name: str, driver: str) -> CaptureFacts:
    return facts(name, conditions={"GPU": "H100", "driver": driver})


# Conditions -----------------------------------------------------------------------------------


def test_equal_captures_have_nothing_to_tell() -> None:
    assert compare_facts([facts("a"), facts("b")], [facts("c"), facts("d")]) == Comparability()
    (same,) = compare_facts([FACTS], [FACTS]).differences
    assert same.text == "A capture is on both sides: it has no change."


def test_captures_that_were_not_made_in_turns_are_told() -> None:
    def made(times: Sequence[float]) -> list[CaptureFacts]:
        return [facts(str(time), time=time) for time in times]

    assert not compare_facts(made([1, 3]), made([2, 4])).differences
    assert not compare_facts(made([1]), made([2, 3])).differences  # one says nothing of an order
    for before, after in (([1, 2], [3, 4]), ([3, 4], [1, 2])):
        (found,) = compare_facts(made(before), made(after)).differences
        assert "Make them in turns" in found.text


def test_a_condition_is_told_by_side() -> None:
    found = compare_facts([with_driver("a", "550.54")], [with_driver("b", "560.28")])
    assert told(found) == ["The captures differ in driver: 550.54 (before), 560.28 (after)."]
    assert found.differences[0].values == (("550.54", ("before",)), ("560.28", ("after",)))
    assert not found.blockers


def test_a_condition_is_told_within_a_side() -> None:
    before = [with_driver("a", "550"), with_driver("b", "560"), with_driver("c", "550")]
    found = compare_facts(before, [with_driver("d", "550"), with_driver("e", "550")])
    assert told(found) == [
        "The captures differ in driver: 550 (before-0, before-2, after), 560 (before-1)."
    ]


def test_long_values_are_cut_to_where_they_part() -> None:
    found = compare_facts([with_driver("a", "x" * 500 + "1")], [with_driver("b", "x" * 500 + "2")])
    assert len(told(found)[0]) < 250
    assert "x1 (before)" in told(found)[0]


def test_many_values_and_captures_are_not_all_listed() -> None:
    before = [with_driver(str(n), str(n)) for n in range(9)]
    after = [with_driver(f"a{n}", "0" if n % 2 else "1") for n in range(20)]
    [text] = told(compare_facts(before, after))
    assert text.endswith(", 3 other values.")
    assert "(before-0, after-1, after-3, after-5, after-7, after-9, 5 more)" in text


def test_gpu_activities_are_told_within_a_side_alone() -> None:
    fewer = [facts("b", activities=50)]
    assert compare_facts([facts("a")], fewer) == Comparability()
    found = compare_facts([facts("a"), *fewer], [facts("c")])
    assert told(found) == [
        "The captures differ in number of GPU activities: 100 (before-0), 50 (before-1)."
    ]


def test_the_record_goes_before_what_the_profiler_wrote() -> None:
    one = facts("a", conditions={"driver": "550", "CUDA driver": "12.4"})
    other = facts("b", conditions={"driver": "560", "CUDA driver": "12.6"})
    assert [item.what for item in compare_facts([one], [other]).differences] == ["driver"]
    bare = facts("c", conditions={"CUDA driver": "12.6"}, has_record=False)
    found = compare_facts([one], [bare])
    assert [item.what for item in found.differences] == ["CUDA driver", "record of the conditions"]


# What is not known ----------------------------------------------------------------------------


def test_captures_without_a_record_are_named_once() -> None:
    bare = replace(FACTS, conditions={}, has_record=False, shapes="", sizes={})
    found = compare_facts([facts("a"), replace(bare, path="b", fingerprint="b")], [bare])
    [text] = told(found)
    assert text.startswith("No record of the conditions of before-1, after: ")
    assert not found.blockers
    assert told(compare_facts([bare], [bare]))[1].startswith(
        "No record of the conditions of before"
    )


def test_what_a_record_does_not_tell_is_not_known() -> None:
    found = compare_facts([facts("a")], [facts("b", conditions={"GPU": "H100"}, shapes="")])
    assert told(found) == [
        "Not told by all captures, so not known to be equal: driver (after), "
        "shapes of inputs (after)."
    ]


def test_steps_that_are_not_told_block_nothing() -> None:
    found = compare_facts([facts("a")], [facts("b", stages=(), models={})])
    assert not found.blockers
    [text] = told(found)
    assert "steps (after), stages (after), classes of the scopes (after)" in text


# Blockers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"stages": ("prefill", "decode")}, "steps: 3 (before), 2 (after)."),
        ({"stages": (), "steps": "5"}, "steps: 3 (before), 5 (after)."),
        (
            {"stages": ("decode", "decode", "prefill")},
            "the order of stages: prefill, 2 × decode (before), 2 × decode, prefill (after).",
        ),
        (
            {"shapes": "1 × (ids=[8, 256])"},
            "shapes of inputs: 1 × (ids=[10, 256]) (before), 1 × (ids=[8, 256]) (after).",
        ),
        ({"sizes": {"hidden size": "4096"}}, "hidden size: 2048 (before), 4096 (after)."),
        (
            {"models": {"nn.Module: GatedDeltaNet": 4}},
            "instances of GatedDeltaNet: 3 (before), 4 (after).",
        ),
    ],
)
def test_other_work_is_a_blocker(more: dict[str, Any], sentence: str) -> None:
    found = compare_facts([facts("a")], [facts("b", **more)])
    assert found.blockers == (f"The captures differ in {sentence}",)
    with pytest.raises(UsageError) as refused:
        found.raise_blockers()
    assert found.blockers[0] in refused.value.message
    assert "--force" in str(refused.value.hint)


def test_another_number_of_calls_of_the_scopes_is_told_of() -> None:
    found = compare_facts([facts("a"), facts("b", scopes=10)], [facts("c")])
    assert not found.blockers
    assert told(found) == [
        "The captures differ in number of scopes: 15 (before-0, after), 10 (before-1)."
    ]


def test_a_stage_that_is_not_told_may_be_equal() -> None:
    other = facts("b", stages=("prefill", "", "decode"))
    assert compare_facts([facts("a")], [other]) == Comparability()


def test_a_renamed_class_is_a_difference() -> None:
    models = {"nn.Module: Norm": 2, "nn.Module: FlatDeltaNet": 3}
    one = facts("a", models={"nn.Module: GatedDeltaNet": 3, "nn.Module: Norm": 2})
    found = compare_facts([one], [facts("b", models=models)])
    assert not found.blockers
    assert told(found) == [
        "The captures differ in the class of the scopes: GatedDeltaNet (before), "
        "FlatDeltaNet (after); 3 instances each, so taken as renamed."
    ]


def test_a_class_of_other_number_or_within_a_side_is_not_renamed() -> None:
    other = {"nn.Module: FlatDeltaNet": 3}
    fewer = compare_facts([facts("a")], [facts("b", models={"nn.Module: FlatDeltaNet": 2})])
    assert fewer.blockers == (
        "The captures differ in instances of GatedDeltaNet: 3 (before), none (after).",
        "The captures differ in instances of FlatDeltaNet: none (before), 2 (after).",
    )
    mixed = compare_facts([facts("a"), facts("b", models=other)], [facts("c", models=other)])
    assert len(mixed.blockers) == 2


def test_many_other_classes_are_counted() -> None:
    models = {f"nn.Module: Class{'x' * 300}{n}": 1 for n in range(9)}
    found = compare_facts([facts("a")], [facts("b", models=models)])
    assert found.blockers[-1] == "They differ in 7 more classes of scopes."
    assert max(map(len, found.blockers)) < 250
    with pytest.raises(UsageError, match=r"\(1 more\)") as refused:
        found.raise_blockers()
    assert refused.value.message.isprintable()


# Copies ---------------------------------------------------------------------------------------


def test_a_capture_twice_on_a_side_is_a_blocker() -> None:
    found = compare_facts([facts("a"), facts("a"), facts("b")], [facts("c")])
    assert found.blockers == (
        "before-0 and before-1 are the same capture (a.json): they are not two samples.",
    )
    thrice = compare_facts([facts("a")], [facts("c")] * 3)
    assert thrice.blockers == (
        "after-0, after-1 and after-2 are the same capture (c.json): they are not samples of their "
        "own.",
    )


def test_without_a_fingerprint_the_path_tells() -> None:
    one, other = replace(FACTS, fingerprint=""), replace(FACTS, fingerprint="", path="b")
    assert compare_facts([one, one], [other]).blockers
    assert not compare_facts([one, other], [one, other]).blockers


# Result ---------------------------------------------------------------------------------------


def test_plain_data() -> None:
    other = replace(with_driver("b", "560"), stages=("prefill", "decode"))
    found = compare_facts([facts("a")], [other])
    assert json.loads(json.dumps(found.to_dict())) == {
        "differences": [
            {
                "what": "driver",
                "values": [
                    {"value": "550.54", "captures": ["before"]},
                    {"value": "560", "captures": ["after"]},
                ],
                "text": "The captures differ in driver: 550.54 (before), 560 (after).",
            }
        ],
        "blockers": ["The captures differ in steps: 3 (before), 2 (after)."],
    }
    assert found.warnings == (found.blockers[0], found.differences[0].text)
    Comparability(found.differences).raise_blockers()  # differences alone stop nothing


# Reading --------------------------------------------------------------------------------------

RECORD = {
    "version": 1,
    "kind": "session",
    "versions": {"torch": "2.11.0", "triton": None, "flash-linear-attention": "0.6.0"},
    "machine": {"gpus": [{"name": "H100"}], "driver": "580.159"},
    "world_size": None,
    "settings": {"stack": "python", "warmup": 8, "steps": 5, "shapes": True, "memory": False},
    "shapes": [
        {"module": "Model", "inputs": ["ids=int64[10, 1]"], "calls": 4},
        {"module": "Model", "inputs": ["ids=int64[10, 256]", "float32[2]"], "calls": 1},
    ],
    "workload": {
        "batch": 10,
        "hidden": 2048,
        "layers": True,
        "dtype": "bfloat16",
        "heads": {"key": 8, "dim": 128, "more": {}},
        "kernels": {"conv": "torch"},
    },
}
NAMES = ["nn.Module: GatedDeltaNet_0", "nn.Module: GatedDeltaNet_2", "nn.Module: GatedDeltaNet_0"]


def info(record: object, **metadata: Any) -> TraceInfo:
    return TraceInfo(
        path="a.json",
        host=None,
        gpus=("H100", "H100"),
        versions={"cuda driver": "13.0", "cupti": "130001"},
        flags=("with_stack", "record_shapes"),
        rank=None,
        world_size=2,
        backend=None,
        processes=(),
        start=0,
        duration=1,
        categories=(CategoryCount("python_function", 3, 3),),
        capture=record if isinstance(record, dict) else {},
        metadata=metadata,
    )


def test_facts_of_a_record() -> None:
    found = read_facts(info(RECORD, schemaVersion=1), names=NAMES, scopes=6, fingerprint="f")
    assert found.models == {"nn.Module: GatedDeltaNet": 2}
    assert (found.has_record, found.steps, found.fingerprint) == (True, "5", "f")
    assert found.shapes == "4 × (ids=[10, 1]), 1 × (ids=[10, 256], [2])"
    assert found.sizes == {"batch size": "10", "hidden size": "2048", "heads": "key 8, dim 128"}
    assert found.work["number of scopes"] == "6"
    assert found.conditions == {
        "GPU": "H100",
        "number of ranks": "1",
        "driver": "580.159",
        "torch": "2.11.0",
        "Triton": "none",
        "flash-linear-attention": "0.6.0",
        "stack": "python",
        "warm-up": "8",
        "recording of shapes": "yes",
        "recording of memory": "no",
        "Python frames": "yes",
        "module labels": "no",
        "counting of FLOPs": "no",
        "CUDA driver": "13.0",
        "CUPTI": "130001",
        "data type": "bfloat16",
        "data types of inputs": "float32, int64",
        "kernels of the workload": "conv torch",
    }


def test_facts_without_a_record_are_the_profilers() -> None:
    found = read_facts(info({}), names=[], scopes=0)
    assert (found.has_record, found.steps, found.shapes, found.models) == (False, "", "", {})
    # What is off is told by nobody but the profiler.
    assert found.conditions == {
        "GPU": "2 × H100",
        "number of ranks": "2",
        "Python frames": "yes",
        "recording of shapes": "yes",
        "CUDA driver": "13.0",
        "CUPTI": "130001",
    }
    of_profiler = read_facts(info({}, schemaVersion=1), names=[], scopes=0)
    assert of_profiler.conditions["recording of memory"] == "no"


def test_another_data_type_of_inputs_is_no_blocker() -> None:
    rows = [{"module": "M", "inputs": [f"{kind}[2, 3]"], "calls": 1} for kind in ("half", "float")]
    one, other = (read_facts(info({"shapes": [row]}), names=NAMES, scopes=1) for row in rows)
    found = compare_facts([one], [replace(other, path="b")])
    assert not found.blockers
    assert [item.what for item in found.differences] == ["data types of inputs"]


def test_the_record_of_a_whole_capture_does_not_block_a_part() -> None:
    longer = RECORD | {"shapes": RECORD["shapes"][:1], "settings": {"steps": 9}}  # type: ignore[index]
    parts = [
        read_facts(info(record), names=NAMES, scopes=3, stages=["decode"], is_part=True)
        for record in (RECORD, longer)
    ]
    found = compare_facts(parts[:1], [replace(parts[1], path="b")])
    assert not found.blockers
    assert {"steps", "shapes of inputs"} <= {item.what for item in found.differences}


@pytest.mark.parametrize(
    ("names", "models"),
    [
        ([], {}),
        (["<built-in f at 0x1a>", "<built-in f at 0x2b>"], {"<built-in f>": 1}),
        (["a.py(1): forward", "a.py(9): forward"], {"a.py: forward": 1}),
        (["nn.Module: A_0", "B", "nn.Module: A_1"], {"nn.Module: A": 2, "B": 1}),
    ],
)
def test_count_instances(names: list[str], models: dict[str, int]) -> None:
    assert count_instances(names) == models


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["versions", "settings", "workload", "shapes", "machine", "steps"])
VALUES = st.dictionaries(
    st.sampled_from(["heads", "batch", "dtype", "kernels", "einops", "gpus", "inputs", "calls"]),
    JSON,
)


@given(st.dictionaries(KEYS, JSON | VALUES | st.lists(VALUES, max_size=3)), st.lists(st.text()))
def test_any_record_is_read(record: dict[str, Any], names: list[str]) -> None:
    one = read_facts(info(record), names=names, scopes=len(names))
    found = compare_facts([one], [replace(FACTS, stages=("\x1b",))])
    assert all(text.isprintable() for text in found.warnings)
    json.dumps(found.to_dict())
