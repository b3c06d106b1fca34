"""Compares the ops of two traces under a scope: tables in, one table out.

One capture a side is compared here; what its numbers can and cannot tell is said in the result's
warnings. How it looks is left to ``report`` and ``render``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from traceq.errors import PatternError, UsageError
from traceq.library import duckdb_query
from traceq.names import fold_name, matching_names
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

JOINED = " + "
"""Stands between ops that were replaced together."""

STATUS_ORDER = ("replaced", "changed", "shifted", "added", "removed", "same")


@dataclass(frozen=True, slots=True)
class ScopeTotals:
    """The scopes of one side: how many, the sum of their durations and of their own time (ns).

    Without ``--under`` there are no scopes (0): ``total`` is the own time of all slices then.
    """

    scopes: int
    total: int
    self: int


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two traces: where it came from and the totals of its scopes."""

    path: str
    totals: ScopeTotals


@dataclass(frozen=True)
class Diff:
    """The comparison of two traces.

    ``table`` has one row an op (columns: queries/duckdb/diff.sql; times in ns), replaced pairs
    first, then changed, shifted, added, removed and, last, the ops of the same calls.
    ``warnings`` belong to the result: they are shown wherever it is.
    """

    before: Side
    after: Side
    under: tuple[str, ...]
    match: tuple[str, ...]
    maps: tuple[str, ...]
    table: pd.DataFrame
    warnings: tuple[str, ...] = field(default=())

    @property
    def changes(self) -> pd.DataFrame:
        """The rows that are not ``same``."""
        return self.table[self.table["status"] != "same"].reset_index(drop=True)

    @property
    def unchanged(self) -> pd.DataFrame:
        """The rows with as many calls as before and no large shift of time."""
        return self.table[self.table["status"] == "same"].reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, versioned by ``schema``; times in ns."""
        return {
            "schema": SCHEMA_VERSION,
            "kind": "diff",
            "under": list(self.under),
            "match": list(self.match),
            "maps": list(self.maps),
            "before": _side_dict(self.before),
            "after": _side_dict(self.after),
            "warnings": list(self.warnings),
            "rows": records(self.table),
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


def diff(
    before: Trace,
    after: Trace,
    *,
    under: Patterns = None,
    match: Patterns = None,
    maps: Sequence[str] = (),
) -> Diff:
    """Compare two open traces.

    ``under`` limits both sides to what is below matching slices, ``match`` keeps only ops that
    match on either side, each of ``maps`` (``OLD=>NEW``, two patterns) puts a replaced op and its
    replacement on one row. Raises PatternError where a pattern matches nothing.
    """
    pairs = [parse_map(text) for text in maps]
    sides = [_read_side(trace, under) for trace in (before, after)]
    (before_ops, before_totals), (after_ops, after_totals) = sides
    scope_time = max(before_totals.total, after_totals.total)
    table = _join(before_ops, after_ops, scope_time)
    for old, new in pairs:
        table = _map(table, before, after, under, old, new)
    if match is not None:
        names = {*before.names, *after.names}
        table = _keep_matching(table, matching_names(_patterns(match), names))
        if table.empty:
            raise not_under_scope(match)
    return Diff(
        before=Side(before.path, before_totals),
        after=Side(after.path, after_totals),
        under=_patterns(under),
        match=_patterns(match),
        maps=tuple(maps),
        table=table,
        warnings=tuple(_warnings(before, after, before_totals, after_totals)),
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


def _read_side(trace: Trace, under: Patterns) -> tuple[pd.DataFrame, ScopeTotals]:
    try:
        ops = trace.ops(under=under)
        return ops, scope_totals(trace, under, ops)
    except PatternError as error:
        raise PatternError(f"{trace.path}: {error.message}", hint=error.hint) from error


def scope_totals(trace: Trace, under: Patterns, ops: pd.DataFrame) -> ScopeTotals:
    """The totals of a trace's scopes, given all the ops under them."""
    if not _patterns(under):
        return ScopeTotals(0, int(ops["self"].sum()), 0)
    scopes = trace.scopes(under)
    return ScopeTotals(len(scopes), int(scopes["dur"].sum()), int(scopes["self"].sum()))


def _join(before: pd.DataFrame, after: pd.DataFrame, scope_time: int) -> pd.DataFrame:
    parameters = {
        "small": max(1, round(scope_time * SHIFT_SHARE)),
        "large": max(1, round(scope_time * LARGE_SHARE)),
        "factor": SHIFT_FACTOR,
    }
    return _whole_numbers(_duckdb("diff", parameters, before=before, after=after))


def _duckdb(name: str, parameters: dict[str, Any], **tables: pd.DataFrame) -> pd.DataFrame:
    """Run one of queries/duckdb/ over data frames."""
    import duckdb  # loads slowly, and only comparisons need it

    with duckdb.connect(":memory:") as connection:
        for table_name, table in tables.items():
            connection.register(table_name, table)
        return connection.execute(duckdb_query(name), parameters).df()


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Give counts and times back their integer type, which an absent side has cost them."""
    fractional = ("ratio", "average_before", "average_after")
    texts = ("status", "op", "replaced_by", "category")
    types = {name: "Int64" for name in table.columns if name not in (*fractional, *texts)}
    return table.astype(types)


# Replaced pairs ---------------------------------------------------------------------------


def _map(
    table: pd.DataFrame, before: Trace, after: Trace, under: Patterns, old: str, new: str
) -> pd.DataFrame:
    """Put the ops of ``old`` and of ``new`` on one row, and take their own rows away.

    Ops on one side only are meant first: ``flatten`` is the new call, not the flattening that both
    sides do elsewhere. Only where there is none are all ops that match taken. Either way both sides
    are summed over the same ops, so what is left of the old one counts as well.
    """
    import pandas as pd

    gone = _chosen_ops(table, before, old, "removed")
    come = _chosen_ops(table, after, new, "added")
    ops = [*gone, *(op for op in come if op not in gone)]
    parts = {side: _sum_calls(trace, ops, under) for side, trace in _sides(before, after)}
    taken = table["op"].isin(ops) & (table["status"] != "replaced")
    row = _pair_row(table[taken], gone, come, parts)
    pair = _whole_numbers(pd.DataFrame([row], columns=table.columns))
    rest = table[~taken]
    first = rest["status"] == "replaced"
    return pd.concat([rest[first], pair, rest[~first]], ignore_index=True)


def _sides(before: Trace, after: Trace) -> tuple[tuple[str, Trace], tuple[str, Trace]]:
    return ("before", before), ("after", after)


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


def _sum_calls(trace: Trace, ops: list[str], under: Patterns) -> dict[str, Any]:
    """Outermost calls of some ops: number, total, average, min, max (ns)."""
    table = _duckdb("matched", {}, calls=trace.calls_of_ops(ops, under))
    return dict(zip(table.columns, table.iloc[0].tolist(), strict=True))


def _pair_row(
    rows: pd.DataFrame, gone: list[str], come: list[str], parts: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The row of a replacement, in place of the rows of its ops."""
    row: dict[str, Any] = {"status": "replaced", "op": _joint_name(gone)}
    row["replaced_by"] = _joint_name(come)
    for side, sums in parts.items():
        row |= {f"{key}_{side}": value for key, value in sums.items()}
        row[f"outermost_{side}"] = row[f"total_{side}"]
        row[f"self_{side}"] = int(rows[f"self_{side}"].sum())
    row["category"] = rows.loc[rows["op"].isin(come), "category"].iloc[0]
    row["delta"] = row["total_after"] - row["total_before"]
    row["self_delta"] = row["self_after"] - row["self_before"]
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


def _warnings(
    before: Trace, after: Trace, before_totals: ScopeTotals, after_totals: ScopeTotals
) -> list[str]:
    found = [ONE_CAPTURE]
    if before_totals.scopes != after_totals.scopes:
        found.append(
            f"The scopes differ in number ({before_totals.scopes} before, {after_totals.scopes} "
            "after): totals compare different amounts of work."
        )
    found += [f"{trace.path}: {text}" for trace in (before, after) for text in trace.doubts()]
    return found


def _side_dict(side: Side) -> dict[str, Any]:
    totals = side.totals
    return {
        "path": side.path,
        "scopes": totals.scopes,
        "total": totals.total,
        "self": totals.self,
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data, absent values as None."""
    import pandas as pd

    return [
        {
            str(key): None if pd.isna(value) else getattr(value, "item", lambda v=value: v)()
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]
