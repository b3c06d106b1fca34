"""What a trace says of its own capture: machine, GPUs, versions, ranks, flags, span.

Read from the top-level keys that Kineto writes; no query is run here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traceq.layout import number_densely
from traceq.model import TraceData

_MAJOR, _MINOR = 1000, 10


@dataclass(frozen=True, slots=True)
class CategoryCount:
    """Number of slices of a category and the sum of their durations (ns)."""

    category: str
    slices: int
    total: int


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """The facts of a capture; None or empty where the trace does not tell.

    ``start`` and ``duration`` are ns (``start`` on the trace's own clock), ``flags`` are the
    profiler's switches that were on, ``versions`` by component, ``capture`` the record that
    ``traceq capture`` put into the file (README, "The record"), as it stands there.
    """

    path: str
    host: str | None
    gpus: tuple[str, ...]
    versions: dict[str, str]
    flags: tuple[str, ...]
    rank: int | None
    world_size: int | None
    backend: str | None
    processes: tuple[str, ...]
    start: int
    duration: int
    categories: tuple[CategoryCount, ...]
    capture: dict[str, Any]
    metadata: dict[str, Any]


def describe(data: TraceData, path: str) -> TraceInfo:
    """Gather the facts of a trace from its metadata and columns."""
    metadata, slices = data.metadata, data.slices
    distributed = _mapping(metadata.get("distributedInfo"))
    start = int(slices.ts.min()) if len(slices) else 0
    end = int((slices.ts + slices.dur).max()) if len(slices) else 0
    return TraceInfo(
        path=path,
        host=_text(metadata.get("host_name")),
        gpus=_gpus(metadata),
        versions=_versions(metadata),
        flags=tuple(
            key
            for key in (
                "with_stack",
                "record_shapes",
                "profile_memory",
                "with_flops",
                "with_modules",
            )
            if metadata.get(key) in (1, True)
        ),
        rank=_whole(distributed.get("rank")),
        world_size=_whole(distributed.get("world_size")),
        backend=_text(distributed.get("backend")),
        processes=_processes(data),
        start=start,
        duration=end - start,
        categories=_categories(data),
        capture=_mapping(metadata.get("traceq")),
        metadata={key: value for key, value in metadata.items() if key != "traceq"},
    )


def _gpus(metadata: dict[str, Any]) -> tuple[str, ...]:
    devices = metadata.get("deviceProperties")
    if not isinstance(devices, list):
        return ()
    return tuple(str(_mapping(item).get("name", "unknown GPU")) for item in devices)


def _versions(metadata: dict[str, Any]) -> dict[str, str]:
    """Versions by component; CUDA and HIP write theirs as one number."""
    versions = {}
    for key, value in metadata.items():
        if key.endswith("_version") and isinstance(value, (str, int, float)):
            name = key.removesuffix("_version").replace("_", " ")
            versions[name] = _cuda_version(value) if key.startswith("cuda_") else str(value)
    return versions


def _cuda_version(number: Any) -> str:
    """CUDA writes 1000 * major + 10 * minor.

    >>> _cuda_version(12040)
    '12.4'
    """
    if not isinstance(number, int):
        return str(number)
    return f"{number // _MAJOR}.{number % _MAJOR // _MINOR}"


def _processes(data: TraceData) -> tuple[str, ...]:
    tracks, _ = number_densely(data.slices.track)
    used = {data.tracks[track].pid for track in tracks.tolist()}
    names = {
        pid: data.process_names.get(pid) or str(pid)
        for pid in used
        if isinstance(pid, int) and pid >= 0
    }
    return tuple(
        f"{name} ({pid}{', ' + data.labels[pid] if data.labels.get(pid) else ''})"
        for pid, name in sorted(names.items())
    )


def _categories(data: TraceData) -> tuple[CategoryCount, ...]:
    slices = data.slices
    used, number = number_densely(slices.category + 1)  # 0: none
    count = np.bincount(number, minlength=len(used))
    total = np.zeros(len(used), np.int64)
    np.add.at(total, number, slices.dur)
    names = ["", *data.strings]
    rows = [
        CategoryCount(names[index], *figures)
        for index, *figures in zip(used.tolist(), count.tolist(), total.tolist(), strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.slices, row.category)))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
