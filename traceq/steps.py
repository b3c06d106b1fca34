"""The steps of a capture: where they begin and end, what they cost, which are to be counted.

torch.profiler marks steps (ProfilerStep#N) where its ``step()`` is called. Engines do not call it:
their steps are found from the scope that repeats at the top. Tables in, a table out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from traceq.calltree import NONE, outermost, sum_by
from traceq.errors import UsageError
from traceq.gpu import BACKWARD_NODE, Activities
from traceq.model import Bools, Field, Ints, Shapes, SliceTable
from traceq.names import fold_name
from traceq.scopes import find_scope_slices
from traceq.selection import Selection, Windows, span_of
from traceq.timeline import busy_by_group
from traceq.units import duration

STEP_FIELDS = (
    Field("step", "LONG", "", "Number: the profiler's, or counted from 0."),
    Field("name", "STRING", "", "Name of the slice that is the step."),
    Field("ts", "LONG", "ns", "Start, on the trace's own clock."),
    Field("dur", "LONG", "ns", "Duration of that slice on the CPU."),
    Field(
        "stage",
        "STRING",
        "",
        "training, prefill, decode or mixed; empty: not told.",
    ),
    Field("launches", "LONG", "", "Calls in it that launched GPU work."),
    Field("activities", "LONG", "", "Kernels, copies and sets that were launched in it."),
    Field("gpu_total", "LONG", "ns", "Sum of their durations."),
    Field("gpu_busy", "LONG", "ns", "Time during which any of them ran."),
    Field("is_cold", "BOOL", "", "Whether it is the first and stands out by its duration."),
)
"""Columns of :func:`steps_table`."""

COLD_FACTOR = 1.5
COLD_PEERS = 3
"""The first step is cold where it took more than COLD_FACTOR times the median of the others of
its stage, of which there must be COLD_PEERS."""

MARKED = "marked by the profiler"
"""Source of steps that need no further word: others are found, and said to be."""

DRAFT_TOKENS = 16
"""Speculative decoding checks up to about so many tokens of a sequence at once."""

OUTSIDE_STEPS = "(outside the steps)"

PROFILER_STEP = re.compile(r"ProfilerStep#([0-9]{1,18})\Z")
_ENGINE_STEP = re.compile(r"step\[|execute_")
_SPLIT_BATCH = re.compile(r"context_(\d+).*?generation_(\d+)")
_STAGE = re.compile(
    r"step\[(?:(?P<prefill>PREFILL|EXTEND)|(?P<mixed>MIXED)|(?P<decode>DECODE))\b", re.I
)


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a trace in order of time.

    ``number``, ``slice`` (slice id), ``start`` and ``end`` (ns, without overlap) have one entry a
    step; ``source`` says how they were found, in words, and is empty where there are none.
    ``slices`` are the ids of all their slices: of a step there may be one on each of several
    threads.
    """

    number: Ints
    slice: Ints
    start: Ints
    end: Ints
    source: str
    slices: Ints

    def __len__(self) -> int:
        return len(self.number)


def find_steps(slices: SliceTable) -> Steps:
    """The steps that the profiler marked, else the scope that repeats at the top."""
    numbers = _profiler_steps(slices)
    if numbers:
        ids = np.array(list(numbers), np.int64)
        return _merge_same(slices, ids, np.array(list(numbers.values()), np.int64), MARKED)
    ids, name = _repeated_scope(slices)
    if not len(ids):
        return _merge_same(slices, ids, ids, "")
    # Calls at the same time are those of several threads or ranks: one step.
    start, end = slices.ts[ids], slices.ts[ids] + slices.dur[ids]
    begins = np.append(True, start[1:] >= np.maximum.accumulate(end)[:-1])
    calls = f"{len(ids)} calls" if len(ids) > 1 else "one call"
    return _merge_same(slices, ids, np.cumsum(begins) - 1, f"found from the {calls} of {name}")


def _profiler_steps(slices: SliceTable) -> dict[int, int]:
    """Slice id and number of each ProfilerStep label; its copies on the GPU are left out."""
    number = {}
    for index, name in enumerate(slices.names):
        if match := PROFILER_STEP.match(name):
            number[index] = int(match[1])
    if not number:
        return {}
    chosen = np.isin(slices.name, list(number)) & ~slices.of_category("gpu_user_annotation")
    ids = np.flatnonzero(outermost(slices.parent, chosen))
    return {item: number[int(slices.name[item])] for item in ids.tolist()}


def _repeated_scope(slices: SliceTable) -> tuple[Ints, str]:
    """The calls of the outermost scope that repeats (of several, that with most time); its name."""
    found = find_scope_slices(slices, Selection())
    top = np.flatnonzero(outermost(slices.parent, found.chosen))
    groups = {index: _step_group(slices.names[index]) for index in found.kind}
    time: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for item in top.tolist():
        group = groups[int(slices.name[item])]
        time[group] += int(slices.dur[item])
        calls[group] += 1
    repeated = [name for name in time if calls[name] > 1 or _ENGINE_STEP.match(name)]
    if not repeated:
        return np.zeros(0, np.int64), ""
    best = max(repeated, key=lambda name: (time[name], name))
    ids = [item for item in top.tolist() if groups[int(slices.name[item])] == best]
    return np.array(ids, np.int64), best


def _step_group(name: str) -> str:
    """Labels that differ in numbers alone (batch sizes) are steps of one kind."""
    return name if name.startswith("nn.Module: ") else re.sub(r"\d+", "N", fold_name(name))


def _merge_same(slices: SliceTable, ids: Ints, number: Ints, source: str) -> Steps:
    """Steps from their slices: those of one number (of several threads or ranks) are one."""
    numbers, group = np.unique(number, return_inverse=True)
    start = np.full(len(numbers), np.iinfo(np.int64).max)
    end = np.full(len(numbers), np.iinfo(np.int64).min)
    first = np.full(len(numbers), np.iinfo(np.int64).max)
    np.minimum.at(start, group, slices.ts[ids])
    np.maximum.at(end, group, slices.ts[ids] + slices.dur[ids])
    np.minimum.at(first, group, ids)
    in_time = np.argsort(start, kind="stable")
    start, end = start[in_time], end[in_time]
    end[:-1] = np.minimum(end[:-1], start[1:])
    return Steps(numbers[in_time], first[in_time], start, end, source, np.sort(ids))


def steps_table(
    slices: SliceTable, activities: Activities, steps: Steps, embeddings: pd.DataFrame
) -> pd.DataFrame:
    """One row a step; columns: :data:`STEP_FIELDS`.

    ``embeddings`` are the embedding lookups with their shapes (queries/embeddings.sql), which tell
    prefill from decode. GPU work counts where it was launched; what was launched outside of all
    steps is the last row, so that ``gpu_total`` adds up to the trace's GPU time.
    """
    ts = np.where(activities.launch >= 0, slices.ts[activities.launch], activities.ts)
    step = step_of(steps, ts)
    group = np.where(step >= 0, step, len(steps))
    size = len(steps) + 1
    launched = activities.launch >= 0
    _, first = np.unique(activities.launch[launched], return_index=True)
    table = pd.DataFrame(
        {
            "step": pd.array([*steps.number.tolist(), None], dtype="Int64"),
            "name": [*(slices.names[slices.name[item]] for item in steps.slice), OUTSIDE_STEPS],
            "ts": pd.array([*steps.start.tolist(), None], dtype="Int64"),
            "dur": pd.array([*slices.dur[steps.slice].tolist(), None], dtype="Int64"),
            "stage": [*_stages(slices, steps, embeddings), ""],
            "launches": np.bincount(group[launched][first], minlength=size),
            "activities": np.bincount(group, minlength=size),
            "gpu_total": sum_by(group, activities.dur, size),
            "gpu_busy": busy_by_group(group, activities.ts, activities.ts + activities.dur, size),
            "is_cold": False,
        }
    )
    if _first_is_cold(table.iloc[:-1]):
        table.loc[0, "is_cold"] = True
    return table if table["activities"].iloc[-1] else table.iloc[:-1].reset_index(drop=True)


def embedding_lookups(slices: SliceTable, shapes: Shapes) -> pd.DataFrame:
    """As queries/embeddings.sql: id, ts and shapes (JSON; None where not recorded), by time."""
    name = slices.names.index("aten::embedding") if "aten::embedding" in slices.names else NONE
    ids = np.flatnonzero((slices.name == name) & slices.of_category("cpu_op"))
    recorded = np.isin(shapes.id, ids)
    texts = dict(zip(shapes.id[recorded].tolist(), shapes.text[recorded].tolist(), strict=True))
    dims = [shapes.texts[texts[item]] if item in texts else None for item in ids.tolist()]
    return pd.DataFrame({"id": ids, "ts": slices.ts[ids], "dims": dims})


def step_of(steps: Steps, ts: Ints) -> Ints:
    """The position of the step during which each time lies; -1 for none."""
    if not len(steps):
        return np.full(len(ts), NONE, np.int64)
    step = np.searchsorted(steps.start, ts, side="right") - 1
    return np.where((step >= 0) & (ts < steps.end[np.maximum(step, 0)]), step, NONE)


def _first_is_cold(table: pd.DataFrame) -> bool:
    if len(table) < 2:
        return False
    peers = table[(table["stage"] == table["stage"].iloc[0])]["dur"].iloc[1:]
    if len(peers) < COLD_PEERS:
        return False
    return bool(table["dur"].iloc[0] > COLD_FACTOR * peers.median())


# Stages -----------------------------------------------------------------------------------


def _stages(slices: SliceTable, steps: Steps, embeddings: pd.DataFrame) -> list[str]:
    by_label = [stage_of_label(slices.names[slices.name[item]]) for item in steps.slice]
    by_shape = _stages_by_shape(steps, embeddings)
    inner = _stages_of_inner_labels(slices, steps)
    trained = _with_backward(slices, steps)
    told = zip(trained, by_label, inner, by_shape, strict=True)
    return [next((stage for stage in stages if stage), "") for stages in told]


def _with_backward(slices: SliceTable, steps: Steps) -> list[str]:
    """``training`` for each step in which autograd ran a backward pass."""
    is_node = np.array([name.startswith(BACKWARD_NODE) for name in slices.names], np.bool_)
    ids = np.flatnonzero(is_node[slices.name]) if len(slices) else np.zeros(0, np.int64)
    trained = set(step_of(steps, slices.ts[ids]).tolist())
    return ["training" if step in trained else "" for step in range(len(steps))]


def stage_of_label(name: str) -> str:
    """The stage that an engine's label tells; empty where it tells none.

    >>> stage_of_label("step[DECODE bs=32]"), stage_of_label("execute_context_1(8)_generation_0(0)")
    ('decode', 'prefill')
    """
    if match := _SPLIT_BATCH.search(name):
        context, generation = int(match[1]), int(match[2])
        return "mixed" if context and generation else "prefill" if context else "decode"
    if match := _STAGE.match(name):
        return str(match.lastgroup)
    return ""


def _stages_of_inner_labels(slices: SliceTable, steps: Steps) -> list[str]:
    """Stages from labels within steps; ``mixed`` where they do not agree."""
    telling = {i: stage for i, name in enumerate(slices.names) if (stage := stage_of_label(name))}
    found: list[set[str]] = [set() for _ in range(len(steps))]
    chosen = slices.of_category("user_annotation") & np.isin(slices.name, list(telling))
    ids = np.flatnonzero(chosen)
    for item, step in zip(ids.tolist(), step_of(steps, slices.ts[ids]).tolist(), strict=True):
        if step >= 0:
            found[step].add(telling[int(slices.name[item])])
    return [next(iter(item)) if len(item) == 1 else "mixed" if item else "" for item in found]


def _stages_by_shape(steps: Steps, embeddings: pd.DataFrame) -> list[str]:
    """The stage of each step from the tokens of its first embedding lookup.

    Tokens come as (sequences, tokens of each): one token of each is decode, more than
    DRAFT_TOKENS prefill; in between it may be the check of a draft. A flat list does not tell.
    """
    found = [""] * len(steps)
    at = step_of(steps, embeddings["ts"].to_numpy(np.int64)).tolist()
    for step, dims in zip(reversed(at), reversed(embeddings["dims"].tolist()), strict=True):
        if step >= 0:
            found[step] = _stage_of_dims(dims)
    return found


def _stage_of_dims(dims: object) -> str:
    try:
        shape = json.loads(str(dims))[1]
    except (ValueError, IndexError, KeyError, TypeError):
        return ""
    if not isinstance(shape, list) or len(shape) != 2:
        return ""
    if shape[1] == 1:
        return "decode"
    return "prefill" if isinstance(shape[1], int) and shape[1] > DRAFT_TOKENS else ""


# Choosing ---------------------------------------------------------------------------------


def choose_steps(steps: Steps, wanted: str | None, *, skip_first: bool) -> Steps:
    """Some of the steps: ``wanted`` is ``FIRST:LAST`` by number; LAST is left out.

    Either may be empty; negative numbers count from the end. Raises UsageError where there are no
    such steps.
    """
    if not len(steps):
        raise UsageError(
            "the trace has no steps",
            hint="Neither ProfilerStep labels nor a repeated module or label: use --window.",
        )
    chosen = np.ones(len(steps), np.bool_)
    if skip_first:
        chosen[0] = False
    if wanted is not None:
        chosen &= _in_range(steps, wanted)
    if not chosen.any():
        first, last = int(steps.number.min()), int(steps.number.max())
        raise UsageError(
            f"no step is left of the {len(steps)} in the trace",
            hint=f"They are numbered {first} to {last}; 'traceq steps' lists them.",
        )
    part = (steps.number[chosen], steps.slice[chosen], steps.start[chosen], steps.end[chosen])
    return Steps(*part, steps.source, steps.slices)


def _in_range(steps: Steps, wanted: str) -> Bools:
    match = re.fullmatch(r"\s*(-?\d+)?\s*(:)?\s*(-?\d+)?\s*", wanted)
    if not match or not (match[1] or match[2]) or (match[3] and not match[2]):
        raise UsageError(f"{wanted!r} names no steps", hint="Write 3, 2:5, 2: or -3: .")
    first = _number(steps, match[1], int(steps.number.min()))
    last = int(steps.number.max()) + 1
    end = _number(steps, match[3], last) if match[2] else first + 1
    found: Bools = (steps.number >= first) & (steps.number < end)
    return found


def _number(steps: Steps, text: str | None, default: int) -> int:
    if not text:
        return default
    number = int(text)
    return number if number >= 0 else int(steps.number.max()) + 1 + number


_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|ms|us|µs|μs|ns)?\s*")
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "μs": 10**3, "ns": 1, None: 10**9}


def parse_window(text: str, start: int, end: int) -> Windows:
    """Read ``1.2s:3.4s``, counted from the trace's ``start``; an empty side is its start or end.

    Raises UsageError where it is not of that form, or empty.
    """
    first, colon, last = text.partition(":")
    try:
        if not colon:
            raise ValueError
        since = start + _nanoseconds(first) if first.strip() else start
        until = start + _nanoseconds(last) if last.strip() else max(end, since) + 1
    except ValueError:
        raise UsageError(
            f"{text!r} is no window of time", hint="Write it as 1.2s:3.4s, 500ms: or :2s ."
        ) from None
    if max(since, until) >= 2**62:
        raise UsageError(f"the window {text!r} ends after all time", hint="Leave its end empty.")
    if until <= since:
        raise UsageError(f"the window {text!r} is empty", hint="Its end must be after its start.")
    return Windows(np.array([since]), np.array([until]))


def _nanoseconds(text: str) -> int:
    """A time with a unit (seconds if none) as whole ns, without rounding through a float."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(text)
    whole, _, part = match[1].partition(".")
    scale = _UNITS[match[2]]
    return int(whole) * scale + int(part or 0) * scale // int(10 ** len(part))


def step_windows(steps: Steps) -> Windows:
    """The spans of the steps."""
    return Windows(steps.start, steps.end)


def intersect(one: Windows | None, other: Windows | None) -> Windows | None:
    """What lies within both; None stands for all time."""
    if one is None or other is None:
        return one if other is None else other
    start = np.maximum(one.start[:, None], other.start[None, :]).ravel()
    end = np.minimum(one.end[:, None], other.end[None, :]).ravel()
    some = np.flatnonzero(start < end)
    some = some[np.argsort(start[some])]
    return Windows(start[some], end[some])


def choose_windows(
    steps: Steps, slices: SliceTable, wanted: str | None, skip_first: bool, window: str | None
) -> Windows | None:
    """The spans that ``wanted`` steps, or all but the first, and a ``window`` leave; None for all.

    Raises UsageError where nothing is left.
    """
    found = None
    if wanted is not None or skip_first:
        found = step_windows(choose_steps(steps, wanted, skip_first=skip_first))
    if window is not None:
        start, end = span_of(slices)
        asked = parse_window(window, start, end)
        if int(asked.start[0]) > end:
            raise UsageError(
                f"the window {window!r} begins after the trace",
                hint=f"What was recorded lasts {duration(end - start)}.",
            )
        found = intersect(found, asked)
    if found is not None and not len(found.start):
        raise UsageError("the steps and the window have no time in common")
    return found
