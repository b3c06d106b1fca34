"""Reads of one open capture all that a comparison needs, so that its engine can go afterwards.

Arrays and tables of one trace; putting several captures together is left to ``compare``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from traceq.calltree import NONE, outermost, sum_by
from traceq.comparability import CaptureFacts, read_facts
from traceq.content import file_sha256
from traceq.errors import PatternError, UsageError
from traceq.gpu import Activities, at
from traceq.info import TraceInfo
from traceq.kernel_names import short_kernel
from traceq.kernels import GpuAccount, GpuWork, scope_homes
from traceq.model import Ints, Tally
from traceq.names import fold_name
from traceq.outline import NO_CPU, Outline, Vocabulary, lay_out_kernels
from traceq.part import Part
from traceq.selection import Patterns, Windows
from traceq.trace import Trace

SCOPE_OF_KERNELS = "(kernels of a scope)"


@dataclass(frozen=True, slots=True)
class Words:
    """The vocabularies that all captures of a comparison share."""

    ops: Vocabulary = field(default_factory=Vocabulary)
    kernels: Vocabulary = field(default_factory=lambda: Vocabulary(SCOPE_OF_KERNELS))
    full_names: Vocabulary = field(default_factory=lambda: Vocabulary(SCOPE_OF_KERNELS))


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every capture of a comparison: the scopes, and the limits of time."""

    under: tuple[str, ...] = ()
    steps: str | None = None
    skip_first: bool = False
    window: str | None = None
    words: Words = field(default_factory=Words)

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of time, as :meth:`Trace.windows` takes them."""
        return {"steps": self.steps, "skip_first": self.skip_first, "window": self.window}

    def part_of(self, trace: Trace) -> Part:
        """What the question chooses of a trace."""
        levels = (self.under,) if self.under else ()
        return Part(trace, levels, self.steps, self.skip_first, self.window)


@dataclass(frozen=True, slots=True)
class ScopeTotals:
    """The scopes of a capture: how many, the sum of their durations and of their own time (ns).

    Without ``--under`` (``is_whole``) there are no scopes (0): ``total`` is the own time of all
    slices then. ``gpu`` tells which part of the GPU's work is theirs.
    """

    scopes: int
    total: int
    self: int
    gpu: GpuAccount
    is_whole: bool = False

    @property
    def gpu_here(self) -> GpuWork:
        """The GPU work to compare: without scopes also what no launch in the trace explains."""
        return self.gpu.all if self.is_whole else self.gpu.under


@dataclass(frozen=True, slots=True)
class ScopeWork:
    """The GPU activities of the scopes, one entry each.

    ``node`` is that of the outline that each belongs to, ``order`` the slice id of its launch (its
    own where unknown), ``dur`` in ns; ``short`` and ``full`` number its name.
    """

    node: Ints
    order: Ints
    dur: Ints
    short: Ints
    full: Ints


@dataclass(frozen=True)
class Reading:
    """One capture, read: all that a comparison asks of it.

    ``spans`` is the number of windows that limit the time (None: no limit), ``step_source`` how
    steps were found, ``facts`` the conditions of the capture, ``names`` all names of its slices,
    ``doubts`` what of the file is missing. ``ops`` and ``kernels`` are its tables without the rows
    that have no calls, ``variants`` the full names of each kernel in short, ``outline`` and
    ``work`` what is below the scopes, one by one; ``shapes`` gives the number of the input shapes
    of each node of the outline (-1: none), ``outside`` the calls of each op outside of the scopes.
    ``sha256`` is that of the file (None: it is none), ``events`` what became of all that is in it
    (None: loaded by another program), ``info`` what it tells of itself (None: the same, or it is a
    record). ``again`` opens what was read, for what was not asked at first (None: a record).
    """

    path: str
    under: tuple[str, ...]
    spans: int | None
    step_source: str
    facts: CaptureFacts
    names: tuple[str, ...]
    doubts: tuple[str, ...]
    ops: pd.DataFrame
    kernels: pd.DataFrame
    variants: dict[str, frozenset[str]]
    totals: ScopeTotals
    outline: Outline
    work: ScopeWork
    shapes: Ints
    outside: dict[str, int]
    words: Words
    sha256: str | None = None
    events: Tally | None = None
    info: TraceInfo | None = None
    again: Callable[[], AbstractContextManager[Part]] | None = None

    @property
    def steps(self) -> int:
        """How many steps have scopes."""
        return self.outline.steps

    @cached_property
    def kernel_outline(self) -> Outline:
        """The kernels of each scope in the order of their launches, as an outline."""
        work = self.work
        return lay_out_kernels(self.outline, work.node, work.order, work.dur, work.short, work.full)

    @cached_property
    def own_time(self) -> Ints:
        """The own time (ns) of each node of the outline: of a scope, these add up to its duration.

        What is on a lane of its own overlaps what is on the scope's: below scopes it counts as 0,
        in a whole trace for itself.
        """
        outline = self.outline
        if not self.under:
            return outline.self_time
        apart = np.flatnonzero(~outline.on_lane & (outline.parent >= 0))
        mark = np.zeros(len(outline) + 1, np.int64)
        np.add.at(mark, apart, 1)
        np.subtract.at(mark, apart + outline.size[apart], 1)
        return np.where(np.cumsum(mark[:-1]) > 0, 0, outline.self_time)

    def calls_of(self, *ops: str) -> Ints:
        """How long (ns) each call of an op took under the scopes, in their order.

        Of several ops the calls with none of the others around them.
        """
        outline = self.outline
        chosen = self.words.ops.among(ops)[outline.op]
        return outline.dur[outermost(outline.parent, chosen) if len(ops) > 1 else chosen]

    def scope_time(self, steps: int) -> Ints:
        """Time (ns) of the scopes by step, and last outside of steps."""
        step = self.outline.step_of(np.arange(len(self.outline)))
        return sum_by(np.where(step >= 0, step, steps), self.own_time, steps + 1)

    def op_time(self, ops: Collection[str]) -> Ints:
        """Time (ns) of some ops by step, and last the rest; one below another is a part of it."""
        outline = self.outline
        chosen = self.words.ops.among(ops)[outline.op]
        if self.under:
            chosen &= outline.parent >= 0
        nodes = np.flatnonzero(outermost(outline.parent, chosen))
        found = self._sum_by_step(nodes, outline.dur[nodes])
        whole = int(outline.dur[outermost(outline.around, chosen)].sum())
        found[-1] = whole - int(found[:-1].sum())  # of a frame around steps what is not in them
        return found

    def kernel_time(self, kernels: Collection[str]) -> Ints:
        """Time (ns) of some kernels (their short names), in the same way."""
        chosen = self.words.kernels.among(kernels)[self.work.short]
        found = self._sum_by_step(self.work.node[chosen], self.work.dur[chosen])
        whole = int(self.kernels.loc[self.kernels["kernel"].isin([*kernels]), "total"].sum())
        found[-1] = whole - int(found[:-1].sum())  # also what no launch in the trace explains
        return found

    def _sum_by_step(self, nodes: Ints, dur: Ints) -> Ints:
        step = self.outline.step_of(nodes)
        return sum_by(np.where(step >= 0, step, self.steps), dur, self.steps + 1)

    def by_step(self, steps: int) -> dict[str, dict[str, Ints]]:
        """Time (ns) of each op and kernel, and of all scopes, by step; arrays of ``steps``.

        Keys are ``cpu`` and ``gpu`` (with the one key ``""``), ``ops`` and ``kernels``.
        """
        outline, work = self.outline, self.work
        below = np.flatnonzero(outline.parent >= 0) if self.under else np.arange(len(outline))
        below = below[outline.step_of(below) >= 0]
        launched = np.flatnonzero(outline.step_of(work.node) >= 0)
        nodes = work.node[launched]
        return {
            "cpu": {"": self.scope_time(steps)[:-1]},
            "gpu": {"": sum_by(outline.step_of(nodes), work.dur[launched], steps)},
            "ops": _by_name(
                self.words.ops, outline.op[below], outline.step_of(below), outline.dur[below], steps
            ),
            "kernels": _by_name(
                self.words.kernels,
                work.short[launched],
                outline.step_of(nodes),
                work.dur[launched],
                steps,
            ),
        }


def _by_name(words: Vocabulary, name: Ints, step: Ints, dur: Ints, steps: int) -> dict[str, Ints]:
    used, number = np.unique(name, return_inverse=True)
    sums = sum_by(number * steps + step, dur, len(used) * steps).reshape(len(used), steps)
    ops = words.ops
    return {ops[item]: row for item, row in zip(used.tolist(), sums, strict=True)}


def read(trace: Trace, question: Question) -> Reading:
    """Read a capture. Errors (PatternError, UsageError) name its file."""
    try:
        return _read(trace, question, trace.windows(**question.limits))
    except PatternError as error:
        raise PatternError(f"{trace.path}: {error.message}", hint=error.hint) from error
    except UsageError as error:
        raise UsageError(f"{trace.path}: {error.message}", hint=error.hint) from error


def _read(trace: Trace, question: Question, windows: Windows | None) -> Reading:
    under: Patterns = question.under or None
    ops = trace.ops(under, windows=windows)
    kernels = trace.kernels(under, full_names=True, windows=windows)
    outline = trace.outline(question.words.ops, under, windows=windows)
    totals = scope_totals(trace, under, ops, windows)
    return Reading(
        path=trace.path,
        under=question.under,
        spans=None if windows is None else len(windows.start),
        step_source=trace.step_source,
        facts=_facts(trace, outline, totals, windows, question),
        names=trace.names,
        doubts=tuple(trace.doubts()),
        ops=ops[(ops["calls"] > 0) & ~ops["category"].isin(NO_CPU)],
        kernels=_without_account(trace.kernels(under, windows=windows)),
        variants=_variants(_without_account(kernels)),
        totals=totals,
        outline=outline,
        work=_scope_work(trace, under, windows, outline, question.words),
        shapes=_shapes(trace, outline),
        outside=_calls_outside(trace, outline, windows),
        words=question.words,
        sha256=file_sha256(trace.path),
        events=None if trace.facts is None else trace.ledger.total,
        info=trace.facts,
        again=lambda: nullcontext(question.part_of(trace)),
    )


def _facts(
    trace: Trace,
    outline: Outline,
    totals: ScopeTotals,
    windows: Windows | None,
    question: Question,
) -> CaptureFacts:
    """What is known of a capture; only what has scopes on both sides can be compared by them."""
    if trace.facts is None:  # loaded by another program
        return CaptureFacts(trace.path, scopes=totals.scopes)
    return read_facts(
        trace.facts,
        names=outline.name if question.under else (),
        scopes=totals.scopes,
        activities=totals.gpu_here.activities,
        stages=("",) * outline.steps,
        fingerprint=trace.fingerprint,
        is_part=windows is not None,
    )


def _without_account(kernels: pd.DataFrame) -> pd.DataFrame:
    """Rows that are no kernel are left out: the totals tell the GPU time that they hold."""
    return kernels[kernels["category"] != ""]


def _variants(kernels: pd.DataFrame) -> dict[str, frozenset[str]]:
    """The full names of each short one."""
    found: dict[str, set[str]] = {}
    for name in kernels["kernel"].tolist():
        found.setdefault(short_kernel(name), set()).add(name)
    return {name: frozenset(names) for name, names in found.items()}


def scope_totals(
    trace: Trace, under: Patterns, ops: pd.DataFrame, windows: Windows | None = None
) -> ScopeTotals:
    """The totals of a trace's scopes, given all the ops under them."""
    gpu = trace.gpu_account(under, windows=windows)
    if not under:
        total = int(ops.loc[~ops["category"].isin(NO_CPU), "self"].sum())
        return ScopeTotals(0, total, 0, gpu, is_whole=True)
    scopes = trace.scope_calls(under, windows=windows)
    return ScopeTotals(len(scopes), int(scopes["dur"].sum()), int(scopes["self"].sum()), gpu)


def _scope_work(
    trace: Trace, under: Patterns, windows: Windows | None, outline: Outline, words: Words
) -> ScopeWork:
    """The GPU activities that belong to nodes of the outline."""
    node, activities = _homes(trace, under, windows, outline)
    activities, node = activities.where(node >= 0), node[node >= 0]
    name = trace.slices.name[activities.id]
    used, position = np.unique(name, return_inverse=True)
    names = [trace.slices.names[item] for item in used.tolist()]
    short, full = words.kernels.number([*map(short_kernel, names)]), words.full_names.number(names)
    launch = activities.launch
    return ScopeWork(
        node=node,
        order=np.where(launch >= 0, launch, activities.id),
        dur=activities.dur,
        short=short[position] if len(used) else position,
        full=full[position] if len(used) else position,
    )


def _homes(
    trace: Trace, under: Patterns, windows: Windows | None, outline: Outline
) -> tuple[Ints, Activities]:
    """The node of each activity: that of the op that launched it, or of that op's forward op."""
    selection = trace.selection(under, windows)
    activities = selection.activities(trace.slices, trace.gpu)
    anchor, launch = activities.op, activities.launch
    inside = np.ones(len(activities), np.bool_)
    if selection.under is not None:
        scope, homes = scope_homes(trace.slices, activities, selection)
        anchor = np.where(homes.is_backward, activities.forward, anchor)
        inside = scope >= 0
    node = at(outline.node_of, anchor)
    node = np.where(node >= 0, node, at(outline.node_of, launch))
    return np.where(inside, node, NONE), activities


def _calls_outside(trace: Trace, outline: Outline, windows: Windows | None) -> dict[str, int]:
    """Calls of CPU ops that are in no scope of the outline."""
    slices = trace.slices
    left = (outline.node_of < 0) & ~slices.of_category(*NO_CPU)
    if windows is not None:
        left &= windows.contain(slices.ts)
    counts = np.bincount(slices.name[left], minlength=len(slices.names)).tolist()
    found: dict[str, int] = {}
    for name, number in zip(slices.names, counts, strict=True):
        if number:
            op = fold_name(name)
            found[op] = found.get(op, 0) + number
    return found


def _shapes(trace: Trace, outline: Outline) -> Ints:
    """The number of each node's input shapes, the same for all captures."""
    table = trace.shapes()
    of_slice = np.full(len(trace.slices), NONE, np.int64)
    of_slice[table["id"].to_numpy(np.int64)] = _digest(table["dims"].tolist())
    return of_slice[outline.slice]


def _digest(texts: Sequence[str]) -> Ints:
    """A number for each text that depends on nothing else: 62 bits of its hash."""
    known: dict[str, int] = {}
    for text in dict.fromkeys(texts):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        known[text] = int.from_bytes(digest, "big") >> 2
    return np.array([known[text] for text in texts], np.int64)
