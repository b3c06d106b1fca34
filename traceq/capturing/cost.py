"""Measures what the profiler itself costs: the GDN workload with and without it, step by step.

Each level is captured as a user would capture it, with warm-up of its own; the device is waited
for around every step that is timed. Levels take turns, so that drift of the machine falls on all
alike; what the process took before any profiler ran shows after-effects. How the result looks is
``report``'s.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from traceq.capturing import capture
from traceq.capturing.device import choose_device, synchronize
from traceq.capturing.gdn.settings import SCOPE, GdnSettings
from traceq.capturing.gdn.variants import find_variant
from traceq.capturing.gdn.workload import Run, Workload, describe, failures_told
from traceq.capturing.session import Capture
from traceq.capturing.settings import Stack
from traceq.errors import UsageError

LEAST_REPEAT = 3
"""Steps of a kind below which a median says nothing."""

ROUNDS = 4
"""Turns that each level takes, every second one in the other order."""

BEFORE, WITHOUT = "no profiler, before any", "no profiler"
_LEVELS: tuple[tuple[str, Stack | None], ...] = (
    (WITHOUT, None),
    ("none", "none"),
    ("modules", "modules"),
    ("python", "python"),
)


@dataclass(frozen=True, slots=True)
class LevelCost:
    """Times (ns) of the steps of one level; of a profiled one the files (bytes) and their writing.

    ``write`` (ns) is the time of ``step()`` at the ends of windows: the profiler stops, and the
    whole file is written. It and ``file_size`` are sums over the captures.
    """

    level: str
    prefills: tuple[int, ...]
    decodes: tuple[int, ...]
    file_size: int | None = None
    write: int | None = None

    @property
    def steps(self) -> int:
        """Steps that were timed, of both kinds."""
        return len(self.prefills) + len(self.decodes)

    @property
    def prefill(self) -> float:
        """Median of the prefills, ns."""
        return statistics.median(self.prefills)

    @property
    def decode(self) -> float:
        """Median of the decodes, ns."""
        return statistics.median(self.decodes)


@dataclass(frozen=True, slots=True)
class Costs:
    """The time before any profiler, then the levels; the workload; what the captures noted."""

    workload: dict[str, Any]
    levels: tuple[LevelCost, ...]
    notes: tuple[str, ...] = field(default=())

    def ratio(self, level: LevelCost, kind: str) -> float:
        """Time of a level's ``kind`` ("prefill", "decode") over that without the profiler."""
        (without,) = (item for item in self.levels if item.level == WITHOUT)
        return float(getattr(level, kind) / getattr(without, kind))


def measure_cost(settings: GdnSettings, repeat: int, folder: Path) -> Costs:
    """Measure every level: ``repeat`` prefills and as many decodes each, traces into ``folder``.

    Raises UsageError and CaptureError.
    """
    if repeat < LEAST_REPEAT:
        raise UsageError(f"repeat is {repeat}", hint=f"Give {LEAST_REPEAT} or more.")
    if settings.forwards_before < 2:
        raise UsageError(
            f"warmup is {settings.forwards_before}",
            hint="Give 2 or more: a prefill and a decode at least must be warm.",
        )
    variant, device = find_variant(settings.variant), choose_device(settings.device)
    workload = Workload.build(settings, variant, device, decodes=repeat)
    bench = _Bench(workload, device, folder)
    with failures_told(settings, variant):
        levels = (bench.measure(BEFORE, None, repeat), *_take_turns(bench, repeat))
    described = describe(settings, device)
    for key in ("steps", "gdn_calls", "forwards"):  # of a capture's window, which this is none of
        del described[key]
    return Costs({**described, "repeat": repeat}, levels, tuple(dict.fromkeys(bench.notes)))


def _take_turns(bench: _Bench, repeat: int) -> list[LevelCost]:
    """``repeat`` steps of a kind for each level, in turns of nearly equal length."""
    rounds = min(ROUNDS, repeat)
    parts: dict[str, list[LevelCost]] = {name: [] for name, _ in _LEVELS}
    for turn in range(rounds):
        count = repeat * (turn + 1) // rounds - repeat * turn // rounds
        for name, stack in _LEVELS[:: -1 if turn % 2 else 1]:
            parts[name].append(bench.measure(name, stack, count))
    return [_merge(name, part) for name, part in parts.items()]


def _merge(name: str, parts: list[LevelCost]) -> LevelCost:
    sizes = [part.file_size for part in parts if part.file_size is not None]
    writes = [part.write for part in parts if part.write is not None]
    return LevelCost(
        name,
        tuple(time for part in parts for time in part.prefills),
        tuple(time for part in parts for time in part.decodes),
        sum(sizes) if sizes else None,
        sum(writes) if writes else None,
    )


class _Bench:
    """The workload, timed level by level."""

    def __init__(self, workload: Workload, device: str, folder: Path) -> None:
        self.notes: list[str] = []
        self._workload = workload
        self._device = device
        self._folder = folder

    def measure(self, name: str, stack: Stack | None, count: int) -> LevelCost:
        """The level's times of ``count`` prefills and as many decodes; its trace is removed."""
        gc.collect()  # of what the level before has left
        with torch.inference_mode():
            if stack is None:
                prefills, decodes, _ = self._steps(count, lambda: None)
                return LevelCost(name, prefills, decodes)
            with self._capture(stack, 2 * count) as captured:
                prefills, decodes, write = self._steps(count, captured.step)
        self.notes += captured.notes
        return LevelCost(name, prefills, decodes, _size_and_remove(captured.path), write)

    def _capture(self, stack: Stack, steps: int) -> Capture:
        return capture(
            self._folder / f"{stack}.json.gz",
            under=SCOPE,
            stack=stack,
            warmup=self._warmup(steps // 2),
            steps=steps,
            device=self._device,
        )

    def _warmup(self, count: int) -> int:
        """Forwards before ``count`` steps of a kind: as long a run, so that its memory is there."""
        return max(self._workload.settings.forwards_before, count + 1)

    def _steps(
        self, count: int, step: Callable[[], None]
    ) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Warm up, then time prefills and decodes (ns), and the ``step()`` that ends the last."""
        run = Run(self._workload)
        for _ in range(self._warmup(count)):
            run.forward()
            step()
        prefills, decodes = [], []
        for _ in range(count):
            run = Run(self._workload)
            prefills.append(self._timed(run.forward))
            step()
        for _ in range(count - 1):
            decodes.append(self._timed(run.forward))
            step()
        decodes.append(self._timed(run.forward))
        return tuple(prefills), tuple(decodes), _elapsed(step)

    def _timed(self, forward: Callable[[], object]) -> int:
        synchronize(self._device)
        begin = time.perf_counter_ns()
        forward()
        synchronize(self._device)
        return time.perf_counter_ns() - begin


def _elapsed(function: Callable[[], object]) -> int:
    begin = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - begin


def _size_and_remove(path: Path | None) -> int | None:
    if path is None:
        return None
    size = path.stat().st_size
    with contextlib.suppress(OSError):
        path.unlink()
    return size
