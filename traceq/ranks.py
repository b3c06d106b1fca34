"""Several ranks of one run, side by side: what each did, who was waited for, what differs between.

Clocks of hosts differ, so that times of ranks are never compared, only durations. A collective ends
on all ranks at about the same time; who comes last is in it for the shortest time. What the others
are in it for longer is waiting. Readings in, tables out; how they look is left to ``report``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from traceq.errors import UsageError
from traceq.model import Field, Ints
from traceq.reading import Reading
from traceq.table import ResultTable

COLLECTIVE = re.compile(r"(?:nccl|rccl)", re.IGNORECASE)
"""In the names of the kernels that NCCL and RCCL run for a collective."""

_IN_NAME = re.compile(r"(?:^|[^a-z])(?:rank|TP)[-_]?(\d{1,9})(?!\d)", re.IGNORECASE)

RANK_FIELDS = (
    Field("rank", "LONG", "", "Number of the rank: that of the trace, else of the file's name."),
    Field("path", "STRING", "", "The file."),
    Field("scopes", "LONG", "", "Calls of the scopes; 0 for the whole trace."),
    Field("cpu", "LONG", "ns", "CPU time of the scopes, or own time of all threads."),
    Field("gpu", "LONG", "ns", "GPU time of what they launched, collectives included."),
    Field("working", "LONG", "ns", "GPU time outside of collectives."),
    Field("collectives", "LONG", "", "Number of collectives."),
    Field("collective", "LONG", "ns", "GPU time within collectives."),
    Field("waiting", "LONG", "ns", "Of it, what each took longer than on the quickest rank."),
    Field(
        "waited_for", "LONG", "", "Collectives in which this rank alone came last: others waited."
    ),
)
RANK_OP_FIELDS = (
    Field("op", "STRING", "", "The op, or the kernel."),
    Field("kind", "STRING", "", "cpu: an op; gpu: a kernel, copy or set."),
    Field("ranks", "LONG", "", "Number of ranks that have it."),
    Field("calls", "LONG", "", "Median of the calls over the ranks."),
    Field("total", "LONG", "ns", "Median of the total over the ranks that have it."),
    Field("least", "LONG", "ns", "Least total, and"),
    Field("least_rank", "LONG", "", "the rank that has it."),
    Field("most", "LONG", "ns", "Most, and"),
    Field("most_rank", "LONG", "", "the rank that has it."),
    Field("spread", "DOUBLE", "", "(most - least) / total."),
)
PAIR_FIELDS = (
    Field("rank", "LONG", "", "Number of the rank."),
    *(
        Field(f"{name}_{side}", "LONG", "ns", f"{text} {side}.")
        for name, text in (
            ("cpu", "CPU time"),
            ("gpu", "GPU time"),
            ("working", "GPU time outside of collectives"),
            ("waiting", "Waiting in collectives"),
        )
        for side in ("before", "after")
    ),
)


@dataclass(frozen=True)
class Ranks:
    """The ranks of one run: ``table`` (RANK_FIELDS), ``ops`` (RANK_OP_FIELDS), most spread first.

    ``unmatched`` are collectives that not all ranks have, in which waiting cannot be told.
    ``doubts`` are sentences on what would make the waiting wrong: several process groups, ranks
    left out.
    """

    table: ResultTable
    ops: ResultTable
    unmatched: int
    doubts: tuple[str, ...] = ()

    @property
    def straggler(self) -> int | None:
        """The one rank that came last in most collectives; None where there is no such one."""
        last = self.table["waited_for"].to_numpy(np.int64)
        if not last.any() or np.count_nonzero(last == last.max()) > 1:
            return None
        return int(self.table["rank"].to_numpy(np.int64)[last.argmax()])


def rank_of(capture: Reading) -> int:
    """The rank of a capture. Raises UsageError where neither trace nor file name tells."""
    if capture.facts.rank is not None:
        return capture.facts.rank
    found = _IN_NAME.findall(Path(capture.path).name)
    if not found:
        raise UsageError(
            f"{capture.path}: it is not known which rank this is",
            hint="Its distributedInfo does not tell; put 'rank0', 'rank1' ... into the file names.",
        )
    return int(found[-1])


def gather_ranks(captures: Sequence[Reading]) -> Ranks:
    """The ranks of one run, read with one question. Raises UsageError for a rank given twice."""
    by_rank = _by_rank(captures)
    waiting, last, unmatched = _waits([_collectives(item) for item in by_rank.values()])
    rows = []
    for place, (rank, item) in enumerate(by_rank.items()):
        collectives, gpu = _collectives(item), item.totals.gpu_here.total
        within = sum(int(dur.sum()) for dur in collectives.values())
        rows.append(
            {
                "rank": rank,
                "path": item.path,
                "scopes": item.totals.scopes,
                "cpu": item.totals.total,
                "gpu": gpu,
                "working": gpu - within,
                "collectives": sum(map(len, collectives.values())),
                "collective": within,
                "waiting": waiting[place],
                "waited_for": last[place],
            }
        )
    columns = [field.name for field in RANK_FIELDS]
    table = ResultTable.of(pd.DataFrame(rows, columns=columns), RANK_FIELDS)
    return Ranks(table, _ops(by_rank), unmatched, tuple(_doubts(by_rank)))


def _doubts(by_rank: Mapping[int, Reading]) -> Iterator[str]:
    """What the traces tell of their groups: collectives are matched as if all ranks were one."""
    infos = [item.info for item in by_rank.values()]
    told = [info.metadata.get("distributedInfo") for info in infos if info is not None]
    known = [item for item in told if isinstance(item, dict)]
    groups = max((_count(item.get("pg_count")) for item in known), default=1)
    if groups > 1:
        yield (
            f"There are {groups:,} process groups: collectives are matched as if all ranks were "
            "one, so waiting may be told of the wrong rank."
        )
    size = max((_count(item.get("world_size")) for item in known), default=0)
    if size > len(by_rank):
        yield f"{len(by_rank):,} of {size:,} ranks: others may have been waited for as well."


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def pair_ranks(before: Ranks, after: Ranks) -> ResultTable:
    """What each rank took before and after: ``PAIR_FIELDS``. Raises UsageError for other ranks."""
    one, other = (item.table.set_index("rank") for item in (before, after))
    if set(one.index) != set(other.index):
        alone = sorted(set(one.index) ^ set(other.index))
        raise UsageError(
            f"rank {alone[0]} is on one side only",
            hint="Give the same ranks before and after.",
        )
    found = pd.DataFrame({"rank": sorted(one.index)})
    for field in PAIR_FIELDS[1:]:
        name, _, side = field.name.rpartition("_")
        source = one if side == "before" else other
        found[field.name] = source.loc[found["rank"], name].to_numpy(np.int64)
    return ResultTable.of(found, PAIR_FIELDS)


def _by_rank(captures: Sequence[Reading]) -> dict[int, Reading]:
    named = sorted(((rank_of(item), item) for item in captures), key=lambda pair: pair[0])
    for rank, group in groupby(named, key=lambda pair: pair[0]):
        paths = [item.path for _, item in group]
        if len(paths) > 1:
            raise UsageError(
                f"rank {rank} is given twice: {paths[0]}, {paths[1]}",
                hint="Give one capture of each rank of one run.",
            )
    return dict(named)


def _collectives(capture: Reading) -> dict[str, Ints]:
    """How long (ns) each collective took, in the order of their launches, by the kernel's name."""
    names, work = capture.words.kernels.ops, capture.work
    found = {}
    for number in np.unique(work.short).tolist():
        if COLLECTIVE.search(names[number]):
            own = np.flatnonzero(work.short == number)
            found[names[number]] = work.dur[own[np.argsort(work.order[own], kind="stable")]]
    return found


def _waits(ranks: Sequence[dict[str, Ints]]) -> tuple[list[int], list[int], int]:
    """Of each rank: ns of waiting, and in how many collectives it came last; those not matched.

    The first collective of a kernel is the first on every rank, and so on. Kernels of which the
    ranks have different numbers tell nothing.
    """
    waiting, last, unmatched = [0] * len(ranks), [0] * len(ranks), 0
    for name in dict.fromkeys(name for item in ranks for name in item):
        sides = [item.get(name, np.zeros(0, np.int64)) for item in ranks]
        if len({len(side) for side in sides}) > 1:
            unmatched += max(map(len, sides))
            continue
        if len(ranks) < 2:
            continue
        times = np.stack(sides)
        least = times.min(axis=0)
        for place, row in enumerate(times):
            waiting[place] += int((row - least).sum())
        is_last = times == least
        alone = np.count_nonzero(is_last, axis=0) == 1  # of two that come last, neither is to blame
        for place, row in enumerate(is_last):
            last[place] += int(np.count_nonzero(row & alone))
    return waiting, last, unmatched


def _ops(by_rank: dict[int, Reading]) -> ResultTable:
    rows = [*_op_rows(by_rank, "ops", "op", "cpu"), *_op_rows(by_rank, "kernels", "kernel", "gpu")]
    table = pd.DataFrame(rows, columns=[field.name for field in RANK_OP_FIELDS])
    by_range = (table["most"] - table["least"]).sort_values(ascending=False, kind="stable").index
    return ResultTable.of(table.loc[by_range].reset_index(drop=True), RANK_OP_FIELDS)


def _op_rows(
    by_rank: dict[int, Reading], table: str, key: str, kind: str
) -> Iterator[dict[str, Any]]:
    found: dict[str, list[tuple[int, int, int]]] = {}
    for rank, item in by_rank.items():
        rows = getattr(item, table)
        for name, calls, total in zip(
            rows[key].tolist(), rows["calls"].tolist(), rows["total"].tolist(), strict=True
        ):
            found.setdefault(name, []).append((total, rank, calls))
    for name, times in found.items():
        least, most = min(times), max(times, key=lambda item: (item[0], -item[1]))
        total = round(float(np.median([item[0] for item in times])))
        yield {
            "op": name,
            "kind": kind,
            "ranks": len(times),
            "calls": round(float(np.median([item[2] for item in times]))),
            "total": total,
            "least": least[0],
            "least_rank": least[1],
            "most": most[0],
            "most_rank": most[1],
            "spread": (most[0] - least[0]) / total if total else 0.0,
        }
