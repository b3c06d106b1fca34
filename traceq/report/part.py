"""The part of a trace that a report is about, and the account of its GPU work.

Rows in parentheses hold the GPU time that no other row of a table has; what they are called is
settled by the tables, and that they are always shown is settled here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from traceq import units
from traceq.kernels import GpuAccount, GpuWork
from traceq.report.words import activities, plural, quoted
from traceq.scopes import NO_MODULE
from traceq.selection import BACKWARD, OUTSIDE, THE_SCOPES, UNKNOWN
from traceq.table import records

ACCOUNT_NAMES = frozenset({BACKWARD, NO_MODULE, OUTSIDE, THE_SCOPES, UNKNOWN})
"""Names of rows without calls, which hold the GPU time that no other row has."""

CPU_REMARK = "CPU times do not hold the GPU's work."


@dataclass(frozen=True, slots=True)
class Part:
    """What was asked for, and what must be known of it before a figure is believed.

    ``scopes`` and ``scopes_total`` (ns) are None where there is no pattern; ``within`` says in
    words to which steps or window the report is limited, ``limits`` in data. ``traces``
    is of how many traces this is the sum.
    """

    path: str
    under: tuple[str, ...]
    scopes: int | None
    scopes_total: int | None
    within: str
    limits: dict[str, Any]
    gpu: GpuAccount
    warnings: tuple[str, ...] = ()
    traces: int = 1

    @property
    def has_gpu(self) -> bool:
        """Whether the GPU ran anything in the time that was asked for."""
        return self.gpu.all.activities > 0

    @property
    def place(self) -> str:
        """Where the report looks, to end a headline."""
        many = f" of {plural(self.traces, 'trace')}" if self.traces > 1 else ""
        if self.scopes is None:
            if self.within:
                return f"in the chosen time{many}"
            return f"in {self.traces:,} whole traces" if many else "in the whole trace"
        inside = f" in {plural(self.traces, 'trace')}" if many else ""
        return f"under {plural(self.scopes, 'scope')} of {quoted(self.under)}{inside}"

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The limits of time, if there are any."""
        return (("within", self.within),) if self.within else ()

    def as_dict(self) -> dict[str, Any]:
        """The keys that the JSON of each report begins with."""
        return {
            "path": self.path,
            "under": list(self.under),
            "within": self.limits,
            "scopes": self.scopes,
            "scopes_total": self.scopes_total,
            "gpu": asdict(self.gpu),
            "warnings": list(self.warnings),
        }


def gpu_remark(part: Part) -> str:
    """One line that tells where all of the GPU time is: its parts add up."""
    gpu = part.gpu
    if not part.has_gpu:
        return (
            f"GPU: no kernels, copies or sets in the {'chosen time' if part.within else 'trace'}."
        )
    if part.scopes is None:
        known = f"GPU: {activities(gpu.all.activities)}, {units.micros(gpu.all.total)} µs"
        return f"{known} in all{_left(gpu)}."
    backward = f" (backward {_work(gpu.backward)})" if gpu.backward.activities else ""
    return (
        f"GPU: {gpu.under.activities:,} of {activities(gpu.all.activities)}, "
        f"{units.micros(gpu.under.total)} of {units.micros(gpu.all.total)} µs under the scopes"
        f"{backward}; outside {_work(gpu.outside)}{_left(gpu)}."
    )


def _left(gpu: GpuAccount) -> str:
    if not gpu.unknown.activities:
        return ""
    return f"; launch not in the trace {_work(gpu.unknown)}"


def _work(work: GpuWork) -> str:
    return f"{work.activities:,}, {units.micros(work.total)} µs"


@dataclass(frozen=True, slots=True)
class Cut:
    """A table cut to a number of rows: ``shown``, ``left`` out, and ``account``, never left out.

    The account is the rows in parentheses, which hold the GPU time that no other row has.
    """

    shown: pd.DataFrame
    left: pd.DataFrame
    account: pd.DataFrame

    @property
    def all_shown(self) -> list[dict[str, Any]]:
        """What is shown, as records; the account last, marked by a status for renderers."""
        return [
            *records(self.shown),
            *(row | {"status": "account"} for row in records(self.account)),
        ]

    @property
    def plain(self) -> list[dict[str, Any]]:
        """What is shown as records, with the columns of the table alone."""
        return [*records(self.shown), *records(self.account)]


def cut(table: pd.DataFrame, name: str, limit: int | None) -> Cut:
    """Cut a table, with names in the column ``name``, to at most ``limit`` rows and the account."""
    kind = table["category" if "category" in table else "kind"]
    account = table[name].isin(ACCOUNT_NAMES) & kind.isin(["", "account"])
    rows = table[~account]
    size = len(rows) if limit is None else limit
    return Cut(rows.head(size), rows.iloc[size:], table[account])


def left_note(left: pd.DataFrame, what: str, sums: dict[str, str]) -> str:
    """What a table has left out, with sums of columns that add up; ``sums`` has their titles."""
    if left.empty:
        return ""
    totals = {title: int(left[column].sum()) for column, title in sums.items()}
    told = ", ".join(
        f"{title} {units.micros(total)} µs" for title, total in totals.items() if total
    )
    return f"{len(left):,} more {what}{f' ({told})' if told else ''}: --limit 0 shows all."
