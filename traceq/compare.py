"""Compares the ops of two traces under a scope: tables in, one table out.

One capture a side is compared here; what its numbers can and cannot tell is said in the result's
warnings. How it looks is left to ``report`` and ``render``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from traceq.errors import PatternError, UsageError
from traceq.gpu import CATEGORIES
from traceq.kernel_names import short_kernel
from traceq.kernels import GpuAccount
from traceq.library import duckdb_query
from traceq.names import fold_name, matching_names
from traceq.selection import Windows
from traceq.trace import Patterns, Trace, not_under_scope

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Version of :meth:`Diff.to_dict`; raised when a key changes its meaning or goes away."""

SHIFT_FACTOR = 1.5
SHIFT_SHARE = 0.01
LARGE_SHARE = 0.1
"""An op with as many calls as before is ``shifted`` where its average call moved by more than
SHIFT_FACTOR and its total by SHIFT_SHARE of the scopes' time, or its total by LARGE_SHARE of that.
This decides what is shown, not what is significant."""

ONE_CAPTURE = (
    "One capture on each side: times cannot be told from noise, call counts can. "
    "Repeat both captures before you quote a time."
)

NO_CPU = (*CATEGORIES, "gpu_user_annotation", "Trace")
"""Categories of slices that are no CPU time: kernels have a table of their own."""

JOINED = " + "
"""Stands between ops that were replaced together."""

STATUS_ORDER = ("replaced", "changed", "shifted", "added", "removed", "same")


@dataclass(frozen=True, slots=True)
class ScopeTotals:
    """The scopes of one side: how many, the sum of their durations and of their own time (ns).

    Without ``--under`` there are no scopes (0): ``total`` is the own time of all slices then.
    ``gpu`` tells which part of the GPU's work is theirs.
    """

    scopes: int
    total: int
    self: int
    gpu: GpuAccount


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two traces: where it came from and the totals of its scopes."""

    path: str
    totals: ScopeTotals


@dataclass(frozen=True)
class Diff:
    """The comparison of two traces.

    ``table`` has one row an op (columns: queries/duckdb/diff.sql; times in ns), replaced pairs
    first, then changed, shifted, added, removed and, last, the ops of the same calls. ``kernels``
    has one row a kernel, copy or set (queries/duckdb/kernels.sql). ``within`` holds the limits of
    time as they were asked for, and how steps were found on each side. ``warnings`` belong to the
    result: they are shown wherever it is.
    """

    before: Side
    after: Side
    under: tuple[str, ...]
    match: tuple[str, ...]
    maps: tuple[str, ...]
    table: pd.DataFrame
    kernels: pd.DataFrame
    within: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())

    @property
    def changes(self) -> pd.DataFrame:
        """The rows that are not ``same``."""
        return self.table[self.table["status"] != "same"].reset_index(drop=True)

    @property
    def unchanged(self) -> pd.DataFrame:
        """The rows with as many calls as before and no large shift of time."""
        return self.table[self.table["status"] == "same"].reset_index(drop=True)

    @property
    def has_gpu(self) -> bool:
        """Whether the GPU ran anything on either side."""
        return any(side.totals.gpu.all.activities for side in (self.before, self.after))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, versioned by ``schema``; times in ns."""
        return {
            "schema": SCHEMA_VERSION,
            "kind": "diff",
            "under": list(self.under),
            "match": list(self.match),
            "maps": list(self.maps),
            "within": self.within,
            "before": _side_dict(self.before),
            "after": _side_dict(self.after),
            "warnings": list(self.warnings),
            "rows": records(self.table),
            "kernels": records(self.kernels),
        }

    def to_markdown(self, *, show_all: bool = False) -> str:
        """The comparison as GitHub Markdown."""
        from traceq.render.markdown import to_markdown
        from traceq.report import diff_report

        return to_markdown(diff_report(self, show_all=show_all))

    def _repr_html_(self) -> str:
        from traceq.render.html import to_html
        from traceq.report import diff_report

        return to_html(diff_report(self))


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of one trace that is compared, and its tables."""

    trace: Trace
    under: Patterns
    windows: Windows | None
    ops: pd.DataFrame
    kernels: pd.DataFrame
    variants: dict[str, frozenset[str]]
    totals: ScopeTotals

    @classmethod
    def read(cls, trace: Trace, under: Patterns, windows: Windows | None) -> _Part:
        """Rows that have no calls are left out: the totals tell the GPU time that they hold."""
        ops = trace.ops(under=under, windows=windows)
        kernels = trace.kernels(under=under, windows=windows)
        return cls(
            trace,
            under,
            windows,
            ops[(ops["calls"] > 0) & ~ops["category"].isin(NO_CPU)],
            kernels[kernels["category"] != ""],
            _variants(trace.kernels(under=under, full_names=True, windows=windows)),
            scope_totals(trace, under, ops, windows),
        )


def diff(
    before: Trace,
    after: Trace,
    *,
    under: Patterns = None,
    match: Patterns = None,
    maps: Sequence[str] = (),
    steps: str | None = None,
    skip_first: bool = False,
    window: str | None = None,
) -> Diff:
    """Compare two open traces.

    ``under`` limits both sides to what is below matching slices, ``match`` keeps only ops that
    match on either side, each of ``maps`` (``OLD=>NEW``, two patterns) puts a replaced op and its
    replacement on one row. ``steps``, ``skip_first`` and ``window`` limit the time on both sides,
    see :meth:`Trace.windows`. Raises PatternError where a pattern matches nothing.
    """
    pairs = [parse_map(text) for text in maps]
    time = {"steps": steps, "skip_first": skip_first, "window": window}
    one, other = _read_part(before, under, time), _read_part(after, under, time)
    table = _join("diff", "ops", one, other)
    for old, new in pairs:
        table = _map(table, one, other, old, new)
    if match is not None:
        names = {*before.names, *after.names}
        table = _keep_matching(table, matching_names(_patterns(match), names))
        if table.empty:
            raise not_under_scope(match)
    return Diff(
        before=Side(before.path, one.totals),
        after=Side(after.path, other.totals),
        under=_patterns(under),
        match=_patterns(match),
        maps=tuple(maps),
        table=table,
        kernels=_join_kernels(one, other),
        within=_limits(one, other, time),
        warnings=tuple(_warnings(one, other)),
    )


def parse_map(text: str) -> tuple[str, str]:
    """Read ``OLD=>NEW``. Raises UsageError where it is not of that form.

    >>> parse_map("rearrange=>flatten")
    ('rearrange', 'flatten')
    """
    old, arrow, new = text.partition("=>")
    if not arrow or not old.strip() or not new.strip():
        raise UsageError(
            f"{text!r} is not a mapping",
            hint="Write it as 'OLD=>NEW', in quotes: 'rearrange=>flatten'.",
        )
    return old.strip(), new.strip()


def _patterns(patterns: Patterns) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def _read_part(trace: Trace, under: Patterns, time: dict[str, Any]) -> _Part:
    """One side; an error says of which file it speaks."""
    try:
        return _Part.read(trace, under, trace.windows(**time))
    except PatternError as error:
        raise PatternError(f"{trace.path}: {error.message}", hint=error.hint) from error
    except UsageError as error:
        raise UsageError(f"{trace.path}: {error.message}", hint=error.hint) from error


def _limits(before: _Part, after: _Part, time: dict[str, Any]) -> dict[str, Any]:
    by_steps = time["steps"] is not None or time["skip_first"]
    sources = [part.trace.step_source if by_steps else None for part in (before, after)]
    found = {**time, "steps_before": sources[0], "steps_after": sources[1]}
    spans = [None if part.windows is None else len(part.windows.start) for part in (before, after)]
    return found | {"spans_before": spans[0], "spans_after": spans[1]}


def scope_totals(
    trace: Trace, under: Patterns, ops: pd.DataFrame, windows: Windows | None = None
) -> ScopeTotals:
    """The totals of a trace's scopes, given all the ops under them."""
    gpu = trace.gpu_account(under, windows=windows)
    if not _patterns(under):
        return ScopeTotals(0, int(ops.loc[~ops["category"].isin(NO_CPU), "self"].sum()), 0, gpu)
    scopes = trace.scope_calls(under, windows=windows)
    return ScopeTotals(len(scopes), int(scopes["dur"].sum()), int(scopes["self"].sum()), gpu)


def _join(query: str, tables: str, before: _Part, after: _Part) -> pd.DataFrame:
    """The rows of both sides; what a shift is measured against are the scopes' CPU and GPU time."""
    cpu = max(part.totals.total for part in (before, after))
    gpu = max(part.totals.gpu.under.total for part in (before, after))
    parameters = {
        "small": _at_least_one(cpu * SHIFT_SHARE),
        "large": _at_least_one(cpu * LARGE_SHARE),
        "gpu_small": _at_least_one(gpu * SHIFT_SHARE),
        "gpu_large": _at_least_one(gpu * LARGE_SHARE),
        "factor": SHIFT_FACTOR,
    }
    used = {key: value for key, value in parameters.items() if f"${key}" in duckdb_query(query)}
    sides = {"before": getattr(before, tables), "after": getattr(after, tables)}
    return _whole_numbers(_duckdb(query, used, **sides))


def _at_least_one(time: float) -> int:
    return max(1, round(time))


def _join_kernels(before: _Part, after: _Part) -> pd.DataFrame:
    """Kernels of one short name and other full ones (a data type, a tile) have changed as well."""
    table = _join("kernels", "kernels", before, after)
    names = table["kernel"].tolist()
    other = np.array([before.variants.get(n) != after.variants.get(n) for n in names], np.bool_)
    table["status"] = table["status"].mask((table["status"] == "same") & other, "changed")
    rank = {status: index for index, status in enumerate(STATUS_ORDER)}
    in_order = table["status"].map(rank).sort_values(kind="stable").index
    return table.loc[in_order].reset_index(drop=True)


def _variants(kernels: pd.DataFrame) -> dict[str, frozenset[str]]:
    """The full names of each short one."""
    found: dict[str, set[str]] = {}
    for name in kernels.loc[kernels["category"] != "", "kernel"].tolist():
        found.setdefault(short_kernel(name), set()).add(name)
    return {name: frozenset(names) for name, names in found.items()}


def _duckdb(name: str, parameters: dict[str, Any], **tables: pd.DataFrame) -> pd.DataFrame:
    """Run one of queries/duckdb/ over data frames."""
    import duckdb  # loads slowly, and only comparisons need it

    with duckdb.connect(":memory:") as connection:
        for table_name, table in tables.items():
            connection.register(table_name, table)
        connection.execute(duckdb_query("status"))
        return connection.execute(duckdb_query(name), parameters).df()


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Give counts and times back their integer type, which an absent side has cost them."""
    fractional = ("ratio", "average_before", "average_after")
    texts = ("status", "op", "replaced_by", "kernel", "category", "ops_before", "ops_after")
    types = {name: "Int64" for name in table.columns if name not in (*fractional, *texts)}
    return table.astype(types)


# Replaced pairs ---------------------------------------------------------------------------


def _map(table: pd.DataFrame, before: _Part, after: _Part, old: str, new: str) -> pd.DataFrame:
    """Put the ops of ``old`` and of ``new`` on one row, and take their own rows away.

    Ops on one side only are meant first: ``flatten`` is the new call, not the flattening that both
    sides do elsewhere. Only where there is none are all ops that match taken. Either way both sides
    are summed over the same ops, so what is left of the old one counts as well.
    """
    import pandas as pd

    gone = _chosen_ops(table, before.trace, old, "removed")
    come = _chosen_ops(table, after.trace, new, "added")
    ops = {*gone, *come}
    sums = {
        side: part.trace.sum_ops(ops, part.under, windows=part.windows)
        for side, part in (("before", before), ("after", after))
    }
    taken = table["op"].isin(ops) & (table["status"] != "replaced")
    row = _pair_row(table[taken], gone, come, sums)
    pair = _whole_numbers(pd.DataFrame([row], columns=table.columns))
    rest = table[~taken]
    first = rest["status"] == "replaced"
    return pd.concat([rest[first], pair, rest[~first]], ignore_index=True)


def _chosen_ops(table: pd.DataFrame, trace: Trace, pattern: str, status: str) -> list[str]:
    try:
        matched = {fold_name(name) for name in trace.resolve(pattern)}
    except PatternError as error:
        raise PatternError(f"{trace.path}: {error.message}", hint=error.hint) from error
    here = table[table["op"].isin(matched) & (table["status"] != "replaced")]
    one_sided = here[here["status"] == status]
    side = "calls_before" if status == "removed" else "calls_after"
    chosen = one_sided if len(one_sided) else here[here[side].notna()]
    if chosen.empty:
        raise PatternError(
            f"{trace.path}: what matches {pattern!r} is not under the scope",
            hint="Another --map may have taken it; 'traceq ops --match' shows where it is called.",
        )
    return sorted(str(op) for op in chosen["op"])


def _pair_row(
    rows: pd.DataFrame, gone: list[str], come: list[str], sides: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The row of a replacement, in place of the rows of its ops."""
    row: dict[str, Any] = {"status": "replaced", "op": _joint_name(gone)}
    row["replaced_by"] = _joint_name(come)
    for side, sums in sides.items():
        row |= {f"{key}_{side}": value for key, value in sums.items()}
    row["category"] = rows.loc[rows["op"].isin(come), "category"].iloc[0]
    row["delta"] = row["total_after"] - row["total_before"]
    row["self_delta"] = row["self_after"] - row["self_before"]
    row["gpu_delta"] = row["gpu_total_after"] - row["gpu_total_before"]
    row["ratio"] = row["total_before"] / row["total_after"] if row["total_after"] else None
    return row


def _joint_name(ops: list[str]) -> str:
    return JOINED.join(ops)


def _keep_matching(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Keep rows of which a raw or folded name is chosen, on either side."""
    chosen = {fold_name(name) for name in names}

    def is_chosen(ops: str | None) -> bool:
        return isinstance(ops, str) and not chosen.isdisjoint(ops.split(JOINED))

    keep = table["op"].map(is_chosen) | table["replaced_by"].map(is_chosen)
    return table[keep].reset_index(drop=True)


# Warnings ---------------------------------------------------------------------------------


def _warnings(before: _Part, after: _Part) -> list[str]:
    found = [ONE_CAPTURE]
    numbers = before.totals.scopes, after.totals.scopes
    if numbers[0] != numbers[1]:
        found.append(
            f"The scopes differ in number ({numbers[0]} before, {numbers[1]} after): "
            "totals compare different amounts of work."
        )
    spans = [part.windows and len(part.windows.start) for part in (before, after)]
    if spans[0] != spans[1]:
        found.append(
            f"{spans[0]} steps or spans of time before, {spans[1]} after: "
            "totals compare different amounts of work."
        )
    for part in (before, after):
        found += [f"{part.trace.path}: {text}" for text in part.trace.doubts()]
    return found


def _side_dict(side: Side) -> dict[str, Any]:
    totals = side.totals
    return {
        "path": side.path,
        "scopes": totals.scopes,
        "total": totals.total,
        "self": totals.self,
        "gpu": dataclasses.asdict(totals.gpu),
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data, absent values as None."""
    columns = [_plain(table.iloc[:, place]) for place in range(table.shape[1])]
    names = [str(name) for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(column: pd.Series[Any]) -> list[Any]:
    values = column.tolist()
    missing = column.isna().to_numpy()
    if missing.any():
        values = [None if gone else v for v, gone in zip(values, missing.tolist(), strict=True)]
    return [value.item() if isinstance(value, np.generic) else value for value in values]
