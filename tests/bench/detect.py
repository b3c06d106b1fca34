"""How often a planted change is found, by its size; and what a diff of the large trace costs.

Planting is done on what was read of a capture: times grow as in a rewritten trace (``planting``;
tests/test_planted.py shows that the findings are the same), at a hundredth of the cost. ``python -m
tests.bench.detect load|diff BEFORE AFTER`` is one measured run: prints what it took as JSON. With
``plant`` it writes AFTER, BEFORE with a planted change, and prints what was planted.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import traceq
from traceq.calltree import NONE, outermost, sum_by
from traceq.compare import compare
from traceq.evidence import LEVEL, Evidence, weigh
from traceq.groups import Groups, align_captures, align_kernels
from traceq.model import Ints
from traceq.reading import Question, Reading, read
from traceq.samples import RowKey
from traceq.stats import Verdict

UNDER = "GatedDeltaNet"
FACTORS = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 5.0)
DRAWS = 24
"""Comparisons of each design: all that there are, or so many of them at random."""
SEED = 20_250_101
DECODE = range(1, 30)
"""Steps of the large trace that do the same work: the first is the prefill."""

OPS = (
    "<built-in function softplus>",
    "<built-in method sigmoid of Tensor object>",
    "torch/functional.py: split",
)
KERNELS = ("conv_depthwise2d_forward_kernel_generic", "l2norm_fwd_kernel")
LARGE_KERNELS = (KERNELS[0], "fused_recurrent_gated_delta_rule_fwd_kernel")
"""Those that the steps of a decode have."""


# Planting ---------------------------------------------------------------------------------


def plant(reading: Reading, row: RowKey, factor: float) -> Reading:
    """A capture in which an op (each outermost call), or a kernel, takes so many times as long.

    Of its tables only the total times follow, which are all that the evidence takes.
    """
    return (_scale_op if row.table == "ops" else _scale_kernel)(reading, row.name, factor)


def _scale_op(reading: Reading, op: str, factor: float) -> Reading:
    outline, words = reading.outline, reading.words.ops.ops
    below = outline.parent >= 0
    calls = outermost(outline.parent, (outline.op == words.index(op)) & below)
    own = np.where(calls, _extra(outline.dur, factor), 0)
    until = np.append(0, np.cumsum(own))
    node = np.arange(len(outline))
    grown = until[node + outline.size] - until[node]
    sums = dict(zip(words, sum_by(outline.op[below], grown[below], len(words)), strict=True))
    table = reading.ops.assign(total=reading.ops["total"] + reading.ops["op"].map(sums))
    totals = dataclasses.replace(reading.totals, total=reading.totals.total + int(own.sum()))
    outline = dataclasses.replace(
        outline, dur=outline.dur + grown, self_time=outline.self_time + own
    )
    return dataclasses.replace(reading, outline=outline, ops=table, totals=totals)


def _scale_kernel(reading: Reading, kernel: str, factor: float) -> Reading:
    work, table, gpu = reading.work, reading.kernels, reading.totals.gpu
    chosen = work.short == reading.words.kernels.ops.index(kernel)
    own = np.where(chosen, _extra(work.dur, factor), 0)
    grown = int(own.sum())
    under = dataclasses.replace(gpu.under, total=gpu.under.total + grown)
    whole = dataclasses.replace(gpu.all, total=gpu.all.total + grown)
    gpu = dataclasses.replace(gpu, under=under, all=whole)
    return dataclasses.replace(
        reading,
        work=dataclasses.replace(work, dur=work.dur + own),
        kernels=table.assign(total=table["total"] + grown * (table["kernel"] == kernel)),
        totals=dataclasses.replace(reading.totals, gpu=gpu),
    )


def _extra(dur: Ints, factor: float) -> Ints:
    return np.rint(dur * (factor - 1)).astype(np.int64)


def take_steps(reading: Reading, steps: Sequence[int]) -> Reading:
    """A capture of which only these steps count, in this order."""
    place = np.full(reading.steps + 1, NONE)
    place[list(steps)] = np.arange(len(steps))
    outline = dataclasses.replace(reading.outline, step=place[reading.outline.step])
    facts = dataclasses.replace(reading.facts, stages=("",) * outline.steps)
    return dataclasses.replace(reading, outline=outline, facts=facts)


# Looking ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What a comparison says; ``rows`` holds the time after of each row, to tell what grew.

    Groups are named by their ops here: their numbers go by time.
    """

    evidence: Evidence
    verdicts: dict[RowKey, Verdict]
    p_values: dict[RowKey, float]
    rows: dict[RowKey, int]

    @classmethod
    def at(cls, before: Sequence[Reading], after: Sequence[Reading]) -> Look:
        """Compare, without the tables."""
        groups, kernel_groups = align_captures(before, after), align_kernels(before, after)
        found = weigh(before, after, groups, kernel_groups)
        names = dict(_names("groups", groups)) | dict(_names("kernel_groups", kernel_groups))
        verdicts = {names.get(key, key): item.verdict for key, item in found.findings.items()}
        p_values = {names.get(key, key): item.p or 1.0 for key, item in found.findings.items()}
        rows = _times(after) | _group_times("groups", groups)
        return cls(found, verdicts, p_values, rows | _group_times("kernel_groups", kernel_groups))

    @property
    def declared(self) -> set[RowKey]:
        """The rows that are called faster or slower."""
        changed = (Verdict.FASTER, Verdict.SLOWER)
        return {key for key, verdict in self.verdicts.items() if verdict in changed}

    @property
    def passing(self) -> set[RowKey]:
        """The rows that the test alone would declare, without the floor of one capture a side."""
        return {key for key, p in self.p_values.items() if p <= LEVEL}


def _names(table: str, groups: Groups) -> Iterator[tuple[RowKey, RowKey]]:
    for number, group in enumerate(groups.rows):
        yield RowKey(table, str(number)), RowKey(table, str(group.key))


def _group_times(table: str, groups: Groups) -> dict[RowKey, int]:
    return {RowKey(table, str(item.key)): sum(item.sums("after", "time")) for item in groups.rows}


def _times(captures: Iterable[Reading]) -> dict[RowKey, int]:
    found: dict[RowKey, int] = {}
    for item in captures:
        rows = {RowKey("ops", op): int(ns) for op, ns in item.ops[["op", "total"]].values.tolist()}
        kernels = item.kernels[["kernel", "total"]].values.tolist()
        rows |= {RowKey("kernels", name): int(ns) for name, ns in kernels}
        rows[RowKey("scopes", "cpu")] = item.totals.total
        rows[RowKey("scopes", "gpu")] = item.totals.gpu_here.total
        found |= {key: found.get(key, 0) + ns for key, ns in rows.items()}
    return found


# Designs ----------------------------------------------------------------------------------


Sides = tuple[Sequence[Reading], Sequence[Reading]]


class Trial(NamedTuple):
    """One comparison: captures before, and those after that a change is planted in."""

    before: Sequence[Reading]
    after: Sequence[Reading]
    finish: Callable[[Sequence[Reading]], Sequence[Reading]] = list
    """What is done to the captures after, once the change is planted."""

    def look(self, row: RowKey | None = None, factor: float = 1.0) -> Look:
        """Compare with a change planted, or as they are."""
        after = self.after if row is None else [plant(item, row, factor) for item in self.after]
        return Look.at(self.before, self.finish(after))


@dataclass
class Rates:
    """Counts over the trials of a design, of one row and factor."""

    trials: int = 0
    found: int = 0
    passing: int = 0
    others: int = 0

    def add(self, row: RowKey, plain: Look, look: Look) -> None:
        """Count a trial; a row is another one where what was planted is no part of its time."""
        grown = {key for key, ns in look.rows.items() if ns != plain.rows.get(key)}
        self.trials += 1
        self.found += look.verdicts.get(row) is Verdict.SLOWER
        self.passing += row in look.passing
        self.others += bool(look.declared - grown)


@dataclass
class Design:
    """A way to compare, with what came out of its trials."""

    title: str
    rows: Sequence[RowKey]
    trials: Sequence[Trial]
    by_step: bool
    null: Rates = field(default_factory=Rates)
    rates: dict[tuple[RowKey, float], Rates] = field(default_factory=dict)

    def run(self) -> None:
        """Make all comparisons."""
        for trial in self.trials:
            plain = trial.look()
            self.null.trials += 1
            self.null.others += bool(plain.declared)
            self.null.passing += bool(plain.passing)
            for row, factor in itertools.product(self.rows, FACTORS):
                rates = self.rates.setdefault((row, factor), Rates())
                rates.add(row, plain, trial.look(row, factor))

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"{self.title}: {len(self.trials)} comparisons"
        yield f"  {'share in which the planted row is':44}" + _cells(f"x {x:g}" for x in FACTORS)
        yield from self._table("slower", "found")
        if self.by_step:
            yield from self._table("p <= level alone", "passing")
        yield from self._table("any other row declared", "others")
        null = f"  A/A: any row declared {self.null.others} of {self.null.trials}"
        if self.by_step:
            null += f"; by the test alone, without the floor, {self.null.passing}"
        yield f"{null}; level {LEVEL}"
        yield ""

    def _table(self, title: str, name: str) -> Iterator[str]:
        yield f"  {title}:"
        for row in self.rows:
            taken = (self.rates[row, factor] for factor in FACTORS)
            shares = (f"{getattr(item, name) / item.trials:.2f}" for item in taken)
            yield f"    {_short(row.name):42}" + _cells(shares)


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"{text:>8}" for text in texts)


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"


def of_folder(folder: Path) -> Iterator[Design]:
    """One capture a side; and several, where the folder has enough captures of the same code."""
    question = Question(under=(UNDER,))
    sides = [_read_all(folder, name, question) for name in ("einops", "flatten")]
    rows = [*(RowKey("ops", op) for op in OPS), *(RowKey("kernels", name) for name in KERNELS)]
    for n, m in ((1, 1), (3, 3), (4, 4), (5, 3)):
        trials = _drawn([trial for side in sides for trial in _splits(side, n, m)])
        if trials:
            title = f"{folder.name}: {n} v {m} captures of the same code"
            yield Design(title, rows, trials, by_step=n == 1)


def _read_all(folder: Path, name: str, question: Question) -> list[Reading]:
    return [_read(path, question) for path in sorted(folder.glob(f"{name}-*.json.gz"))]


def _read(path: Path, question: Question) -> Reading:
    with traceq.open(path) as trace:
        return read(trace, question)


def _splits(side: Sequence[Reading], n: int, m: int) -> Iterator[Trial]:
    """All ways to take n captures before and m others after."""
    for before in itertools.combinations(range(len(side)), n):
        left = [item for item in range(len(side)) if item not in before]
        for after in itertools.combinations(left, m):
            yield Trial([side[i] for i in before], [side[i] for i in after])


def _drawn(trials: list[Trial]) -> list[Trial]:
    return random.Random(SEED).sample(trials, min(DRAWS, len(trials)))


def of_steps(path: Path) -> Design:
    """The decode steps of one capture, drawn into pairs at random."""
    reading = _read(path, Question(under=(UNDER,)))
    rows = [RowKey("ops", op) for op in OPS] + [RowKey("kernels", item) for item in LARGE_KERNELS]
    generator = np.random.default_rng(SEED)
    trials = []
    for _ in range(DRAWS):
        one, other = paired(generator, DECODE)
        trials.append(Trial([take_steps(reading, one)], [reading], _taking(other)))
    title = f"{path.parent.name}: {len(one)} pairs of decode steps of one capture"
    return Design(title, rows, trials, by_step=True)


def _taking(steps: Sequence[int]) -> Callable[[Sequence[Reading]], list[Reading]]:
    return lambda captures: [take_steps(item, steps) for item in captures]


def paired(generator: np.random.Generator, steps: Sequence[int]) -> tuple[list[int], list[int]]:
    """Steps in random pairs, each in one of them at most: those before, and those after."""
    order = generator.permutation(list(steps)).tolist()
    half = len(order) // 2
    return order[:half], order[half : 2 * half]


# One measured run -------------------------------------------------------------------------


def load(paths: Sequence[str]) -> list[int]:
    """Load the traces into an engine, one after the other; the events of each."""
    found = []
    for path in paths:
        with traceq.open(path) as trace:
            trace.start_engine()
            found.append(trace.ledger.total.read)
    return found


def diff(paths: Sequence[str]) -> list[int]:
    """As ``traceq diff BEFORE AFTER --under``, without what it prints; the change of CPU time."""
    question = Question(under=(UNDER,))
    before, after = (_read(Path(path), question) for path in paths)
    result = compare([before], [after], question)
    return [result.after.totals.total - result.before.totals.total, len(result.steady_groups)]


def write_planted(trace: str, path: str) -> dict[str, Any]:
    """Write a copy in which one op takes twice as long; what was planted."""
    from tests import planting

    planted = planting.scale(planting.RealTrace.read(trace), OPS[0], 2, UNDER)
    planted.trace.write(path)
    return dataclasses.asdict(planted.truth)


def main() -> None:
    """Run one way on two traces."""
    way, *paths = sys.argv[1:]
    if way == "plant":
        print(json.dumps(write_planted(*paths)))
        return
    started = time.monotonic()
    answer = (load if way == "load" else diff)(paths)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - started,
        "peak_mb": usage.ru_maxrss / 1024,
        "answer": answer,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
