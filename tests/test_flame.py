"""The tree of both sides: merged by path, all time kept, also where small nodes are one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import traceq
from tests.conftest import ROOT
from tests.tracemaker import compact, complete
from traceq import flame
from traceq.flame import Flame, grow_flame
from traceq.reading import Question, Reading, read

SAMPLES = ROOT / "sample_traces"
UNDER = Question(under=("GatedDeltaNet",))


def reading(path: Path, question: Question) -> Reading:
    with traceq.open(path) as trace:
        return read(trace, question)


@pytest.fixture(scope="module")
def sides() -> tuple[list[Reading], list[Reading]]:
    before, after = (
        [reading(SAMPLES / f"{kind}-{number}.json.gz", UNDER) for number in range(2)]
        for kind in ("einops", "flatten")
    )
    return before, after


def paths(tree: Flame) -> dict[tuple[str, ...], int]:
    """The node of each path of names."""
    found: dict[int, tuple[str, ...]] = {0: ()}
    for node in range(1, len(tree)):
        name = tree.names[tree.name[node]]
        found[node] = (*found[int(tree.parent[node])], name)
    assert len(set(found.values())) == len(tree)
    return {path: node for node, path in found.items()}


def test_calls_of_one_path_are_one_node(tmp_path: Path) -> None:
    events = [complete("nn.Module: S_0", 0, 100), complete("a", 10, 20), complete("b", 12, 5)]
    events += [complete("nn.Module: S_0", 200, 100), complete("a", 210, 30), complete("c", 212, 5)]
    path = tmp_path / "trace.json"
    path.write_bytes(compact(events))
    tree = grow_flame([reading(path, Question(under=("S_0",)))])
    scope = ("nn.Module: S",)
    node = paths(tree)
    assert set(node) == {(), scope, (*scope, "a"), (*scope, "a", "b"), (*scope, "a", "c")}
    assert tree.calls[0, node[(*scope, "a")]] == 2
    assert tree.cpu[0, node[(*scope, "a")]] == 50_000
    assert tree.cpu[0, 0] == 200_000
    assert not tree.cpu[1].any()


def test_all_time_of_both_sides_is_at_the_root(sides: tuple[list[Reading], list[Reading]]) -> None:
    tree = grow_flame(*sides)
    for side, items in enumerate(sides):
        assert tree.cpu[side, 0] == sum(item.totals.total for item in items)
        assert tree.gpu[side, 0] == sum(item.totals.gpu.under.total for item in items)
        kernels = tree.kind == flame.KERNEL
        assert tree.gpu[side, kernels].sum() == tree.gpu[side, 0]
    assert tree.captures == (2, 2)
    assert (tree.parent[1:] < np.arange(1, len(tree))).all()


def test_calls_are_those_of_plain_paths(sides: tuple[list[Reading], list[Reading]]) -> None:
    tree = grow_flame(*sides)
    node = paths(tree)
    for side, items in enumerate(sides):
        counted: Counter[tuple[str, ...]] = Counter()
        for item in items:
            ops, above = item.words.ops.ops, {-1: ()}
            for place in range(len(item.outline)):
                parent = int(item.outline.parent[place])
                above[place] = (*above[parent], ops[item.outline.op[place]])  # type: ignore[assignment]
                counted[above[place]] += 1
        for path, number in counted.items():
            assert tree.calls[side, node[path]] == number


@pytest.mark.parametrize("most", [3, 50, 400])
def test_what_is_put_together_keeps_its_time(
    sides: tuple[list[Reading], list[Reading]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = grow_flame(*sides)
    monkeypatch.setattr(flame, "MOST_NODES", most)
    tree = grow_flame(*sides)
    assert len(tree) <= most < len(whole)
    rest = np.flatnonzero(tree.kind == flame.REST)
    assert tree.folded.sum() == tree.folded[rest].sum() == len(whole) - (len(tree) - len(rest))
    assert (tree.calls[:, rest].sum(axis=1) > 0).all()
    assert tree.calls[:, 1:].sum() == whole.calls[:, 1:].sum()
    in_whole = paths(whole)
    for path, node in paths(tree).items():
        if tree.kind[node] == flame.REST:
            continue
        same = in_whole[path]
        for key in ("cpu", "gpu", "calls"):
            one, other = getattr(tree, key), getattr(whole, key)
            assert (one[:, node] == other[:, same]).all()
        # Below each node that is kept, the children have the time that they had, or are gone.
        for key in ("cpu", "gpu"):
            kept, all_ = (
                getattr(item, key)[:, item.parent == place].sum(axis=1)
                for item, place in ((tree, node), (whole, same))
            )
            assert (kept == all_).all()


def test_a_whole_trace_has_the_time_of_its_threads() -> None:
    whole = Question()
    captures = [reading(SAMPLES / f"{kind}-0.json.gz", whole) for kind in ("einops", "flatten")]
    tree = grow_flame(captures[:1], captures[1:])
    for side, item in enumerate(captures):
        assert tree.cpu[side, 0] == item.totals.total
        assert tree.gpu[side, 0] == item.totals.gpu.all.total
        assert tree.cpu[side, tree.parent == 0].sum() == item.totals.total
    assert tree.names[tree.name[0]] == "whole trace"
