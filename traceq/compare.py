"""Compares captures of two sides under a scope: open traces in, one :class:`Diff` out.

The steps of a comparison are modules of their own: ``reading`` (one capture), ``combine`` (those
of a side), ``groups`` (what replaced what), ``evidence`` (what is more than noise), ``decompose``
(why), ``comparability`` (what else differs). How it looks is left to ``report`` and ``render``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from traceq.checks import check, subject_of
from traceq.columns import FINDING_FIELDS, fields_of
from traceq.combine import combine
from traceq.comparability import Comparability, compare_facts
from traceq.decompose import by_shape, parts_of
from traceq.errors import UsageError
from traceq.evidence import BOUND, LEVEL, Evidence, Finding, weigh
from traceq.gate import Outcome, parse_condition
from traceq.groups import Group, Groups, align_captures, align_kernels
from traceq.library import duckdb_query
from traceq.maps import JOINED, map_row, parse_map
from traceq.model import Ints, Tally, tally_dict
from traceq.names import fold_name, matching_names, shorten
from traceq.part import Part
from traceq.reading import Question, Reading, ScopeTotals, read
from traceq.samples import CPU, Asked, RowKey
from traceq.selection import Patterns
from traceq.stats import LEAST_LEVEL, Interval, Verdict
from traceq.table import records
from traceq.trace import Trace, not_under_scope
from traceq.units import plural

if TYPE_CHECKING:
    import pandas as pd

    from traceq.diff_plots import DiffPlots
    from traceq.gathering import LeftOut

SCHEMA_VERSION = 2
"""Version of :meth:`Diff.to_dict`; raised when a key changes its meaning or goes away."""

STATUS_ORDER = ("replaced", "changed", "added", "removed", "uneven", "same")
"""``uneven``: the calls differ, but in some scopes or captures alone."""

_MOST_LEFT_OUT = 5
_NOT_CHANGED = ("same", "uneven")


@dataclass(frozen=True, slots=True)
class CaptureTotals:
    """One capture of a side: its file and the totals of its scopes.

    ``sha256`` is that of the file (None: it was no file), ``events`` what became of all that is in
    it (None: loaded by another program).
    """

    path: str
    totals: ScopeTotals
    sha256: str | None = None
    events: Tally | None = None

    @classmethod
    def of(cls, capture: Reading) -> CaptureTotals:
        return cls(capture.path, capture.totals, capture.sha256, capture.events)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sides: its captures, in the order given."""

    captures: tuple[CaptureTotals, ...]

    @property
    def path(self) -> str:
        """The files."""
        return ", ".join(item.path for item in self.captures)

    @property
    def totals(self) -> ScopeTotals:
        """Those of the capture with the median CPU time."""
        in_order = sorted(self.captures, key=lambda item: item.totals.total)
        return in_order[(len(in_order) - 1) // 2].totals


@dataclass(frozen=True, repr=False)
class Diff:
    """The comparison of two sides.

    ``table`` has one row an op, replaced pairs first, then changed, added, removed ones, and those
    of the same calls; times in ns are medians over a side's captures, and ``attrs["fields"]`` has
    the meaning of each column. ``ops`` are all of them as they are, without ``maps`` and ``match``.
    ``kernels`` has one row a kernel, copy or set.
    ``groups`` and ``kernel_groups`` tell what replaced what,
    ``evidence`` what the samples say of each row, ``outcomes`` what became of the conditions of
    ``fail_if``. ``within`` holds the limits of time as they were
    asked for, and how steps were found on each side. ``warnings`` belong to the result: they are
    shown wherever it is. ``kept`` are the captures of both sides call by call, which pages and
    plots show; a result that was pickled has lost them.
    """

    before: Side
    after: Side
    under: tuple[str, ...]
    match: tuple[str, ...]
    maps: tuple[str, ...]
    table: pd.DataFrame
    ops: pd.DataFrame
    kernels: pd.DataFrame
    groups: Groups
    kernel_groups: Groups
    evidence: Evidence
    comparability: Comparability
    within: dict[str, Any]
    outcomes: tuple[Outcome, ...] = ()
    warnings: tuple[str, ...] = ()
    kept: tuple[tuple[Reading, ...], tuple[Reading, ...]] = field(default=((), ()), compare=False)

    def lacking(self, left: Sequence[LeftOut]) -> Diff:
        """The same, told to lack captures that could not be read."""
        told = [str(item) for item in left[:_MOST_LEFT_OUT]]
        if more := len(left) - len(told):
            told.append(f"left out: {plural(more, 'more capture')} that could not be read")
        return dataclasses.replace(self, warnings=(*told, *self.warnings)) if told else self

    @property
    def changes(self) -> pd.DataFrame:
        """The rows of other calls than before, and those that are declared faster or slower."""
        return self.table[_is_change(self.table)].reset_index(drop=True)

    @property
    def unchanged(self) -> pd.DataFrame:
        """The rows with as many calls as before that are not declared changed."""
        is_same = (self.table["status"] == "same") & ~_is_change(self.table)
        return self.table[is_same].reset_index(drop=True)

    @property
    def uneven(self) -> pd.DataFrame:
        """The rows with other calls in some scopes or captures alone, not declared changed."""
        is_uneven = (self.table["status"] == "uneven") & ~_is_change(self.table)
        return self.table[is_uneven].reset_index(drop=True)

    @property
    def has_gpu(self) -> bool:
        """Whether the GPU ran anything on either side."""
        sides = (*self.before.captures, *self.after.captures)
        return any(item.totals.gpu.all.activities for item in sides)

    @property
    def steady_groups(self) -> tuple[tuple[str, Group], ...]:
        """The groups that are no accident of single scopes, with their number in the evidence."""
        rows = enumerate(self.groups.rows)
        return tuple((str(number), group) for number, group in rows if group.is_steady)

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
            "comparability": self.comparability.to_dict(),
            "conditions": [item.to_dict() for item in self.outcomes],
            "evidence": self.evidence.to_dict(),
            "scopes": {
                name: finding_dict(self.evidence.of("scopes", name)) for name in ("cpu", "gpu")
            },
            "groups": _groups_dict(self.groups, self.evidence, "groups"),
            "kernel_groups": _groups_dict(self.kernel_groups, self.evidence, "kernel_groups"),
            "rows": records(self.table),
            "kernels": records(self.kernels),
        }

    def to_markdown(self, *, show_all: bool = False) -> str:
        """The comparison as a comment on a pull request: at most 65,536 bytes of Markdown."""
        from traceq.render.markdown import to_markdown
        from traceq.report import pull_request_report

        return to_markdown(pull_request_report(self, show_all=show_all))

    def to_page(self, title: str = "traceq") -> str:
        """The comparison as one self-contained HTML page: call tree, tables, calls one by one.

        Raises UsageError where the captures are gone (``kept``).
        """
        from traceq.render.page import to_page
        from traceq.report.page import diff_page

        return to_page(title, diff_page(self))

    @property
    def readings(self) -> tuple[tuple[Reading, ...], tuple[Reading, ...]]:
        """The captures of both sides. Raises UsageError where they are gone (``kept``)."""
        if not self.kept[0]:
            raise UsageError(
                "this result was pickled, without its captures", hint="Compare them again."
            )
        return self.kept

    def calls_of(self, *ops: str) -> tuple[Ints, Ints]:
        """How long (ns) each call of an op took under the scopes, in all captures of each side.

        Of several ops the calls with none of the others around them. Raises UsageError where the
        captures are gone (``kept``).
        """
        one, other = (
            [np.zeros(0, np.int64), *(item.calls_of(*ops) for item in side)]
            for side in self.readings
        )
        return np.concatenate(one), np.concatenate(other)

    def ops_matching(self, match: Patterns) -> list[str]:
        """The ops under the scopes, on either side, of which a name matches.

        Raises PatternError where there is none, UsageError where the captures are gone (``kept``).
        """
        names = {name for side in self.readings for item in side for name in item.names}
        chosen = {fold_name(name) for name in matching_names(_patterns(match), names)}
        found = [op for op in self.ops["op"] if op in chosen]
        if not found:
            raise not_under_scope(match)
        return found

    @property
    def plot(self) -> DiffPlots:
        """Figures of the comparison, as matplotlib's own objects (the extra ``plot``)."""
        from traceq.diff_plots import DiffPlots

        return DiffPlots(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"kept": ((), ())}

    def __repr__(self) -> str:
        from traceq.report import diff_report

        return f"<Diff: {diff_report(self).headline}>"

    def _repr_html_(self) -> str:
        from traceq.render.html import to_html
        from traceq.report import diff_report

        return to_html(diff_report(self))


BY_TIMES, BY_DRIFT_FREE = "times", "drift_free"
"""What tells of a change."""

ADDED = tuple(field.name for field in FINDING_FIELDS)
"""Columns that the evidence adds to both tables."""


def diff(
    before: Trace | Part | Iterable[Trace | Part],
    after: Trace | Part | Iterable[Trace | Part],
    *,
    under: Patterns = None,
    match: Patterns = None,
    maps: Sequence[str] = (),
    fail_if: Sequence[str] = (),
    steps: str | None = None,
    skip_first: bool = False,
    window: str | None = None,
    level: float = LEVEL,
    bound: float = BOUND,
    force: bool = False,
) -> Diff:
    """Compare open traces: one capture a side, or several; or parts of them, all chosen alike.

    ``under`` limits both sides to what is below matching slices, ``match`` keeps only ops that
    match on either side, each of ``maps`` (``OLD=>NEW``, two patterns) puts a replaced op and its
    replacement on one row; ``fail_if`` are conditions as ``cpu > 2%``, of which ``outcomes`` tells.
    ``steps``, ``skip_first`` and ``window`` limit the time on both sides,
    see :meth:`Trace.windows`. ``level`` is the share of comparisons of unchanged code in which any
    row may be declared changed, ``bound`` the relative change within which a row is the same.
    Raises PatternError where a pattern matches nothing, UsageError where the captures cannot be
    compared (other work, other model), unless ``force`` is set, and for parts that differ.
    """
    asked = Question(under=_patterns(under), steps=steps, skip_first=skip_first, window=window)
    sides = _parts_of(before), _parts_of(after)
    question = _question_of([*sides[0], *sides[1]], asked)
    one, other = ([read(part.trace, question) for part in side] for side in sides)
    return compare(
        one,
        other,
        question,
        match=match,
        maps=maps,
        fail_if=fail_if,
        level=level,
        bound=bound,
        force=force,
    )


def _parts_of(side: Trace | Part | Iterable[Trace | Part]) -> list[Part]:
    """The captures of a side, as parts; a trace is its whole. Raises UsageError for others."""
    is_one = isinstance(side, (str, Trace, Part)) or not isinstance(side, Iterable)
    items: Iterable[object] = (side,) if is_one else cast("Iterable[object]", side)
    found = []
    for item in items:
        if not isinstance(item, (Trace, Part)):
            raise UsageError(
                f"{item!r} is no open trace", hint="Open its file first: traceq.open(PATH)."
            )
        found.append(item if isinstance(item, Part) else item.whole)
    return found


def _question_of(parts: Sequence[Part], asked: Question) -> Question:
    """What is asked of all parts: what they were chosen by, or the options of :func:`diff`."""
    choices = {(part.levels, part.step_range, part.is_without_first, part.span) for part in parts}
    if choices <= {_WHOLE}:
        return asked
    if len(choices) > 1 or (asked.under, *asked.limits.values()) != _WHOLE:
        raise UsageError(
            "the parts to compare were not chosen alike",
            hint="Choose the same of each, or give traces, and under=, steps=, ... to diff().",
        )
    ((levels, steps, skip_first, window),) = choices
    if len(levels) > 1:
        raise UsageError(
            "parts under several levels of scopes cannot be compared",
            hint="Chain one under() alone: that of the innermost scopes.",
        )
    under = levels[0] if levels else ()
    return Question(under=under, steps=steps, skip_first=skip_first, window=window)


_WHOLE = ((), None, False, None)
"""The choices of a part that is the whole trace."""


def compare(
    before: Sequence[Reading],
    after: Sequence[Reading],
    question: Question,
    *,
    match: Patterns = None,
    maps: Sequence[str] = (),
    fail_if: Sequence[str] = (),
    level: float = LEVEL,
    bound: float = BOUND,
    force: bool = False,
) -> Diff:
    """Compare captures that were read with one question; see :func:`diff`."""
    pairs, conditions = map(parse_map, maps), [parse_condition(text) for text in fail_if]
    _check_limits(level, bound)
    if not before or not after:
        raise UsageError("a side has no capture", hint="Give at least one trace before and after.")
    comparability = compare_facts([r.facts for r in before], [r.facts for r in after])
    if not force:
        comparability.raise_blockers()
    groups, kernel_groups = align_captures(before, after), align_kernels(before, after)
    ops, kernels = _ops(before, after, groups), _kernels(before, after, kernel_groups)
    table, named = ops, []
    for old, new in pairs:
        table, pair = _with_pair(table, before, after, old, new)
        named.append(pair)
    subjects = [subject_of(condition, before, after) for condition in conditions]
    asked = [*named, *(item.row for item in subjects if item.row is not None)]
    evidence = weigh(before, after, groups, kernel_groups, asked=asked, level=level, bound=bound)
    table = _with_evidence(table, evidence, "ops", "op", named)
    if match is not None:
        table = _keep_matching(table, match, (*before, *after))
    return Diff(
        before=Side(tuple(map(CaptureTotals.of, before))),
        after=Side(tuple(map(CaptureTotals.of, after))),
        under=question.under,
        match=_patterns(match),
        maps=tuple(maps),
        table=table,
        ops=_with_evidence(ops, evidence, "ops", "op"),
        kernels=_with_evidence(kernels, evidence, "kernels", "kernel"),
        groups=groups,
        kernel_groups=kernel_groups,
        evidence=evidence,
        comparability=comparability,
        within=_limits(before[0], after[0], question),
        outcomes=tuple(check(item, before, after, evidence) for item in subjects),
        warnings=(*comparability.warnings, *_mixed(groups), *_doubts(before, after)),
        kept=(tuple(before), tuple(after)),
    )


def _check_limits(level: float, bound: float) -> None:
    if not LEAST_LEVEL <= level < 1:
        raise UsageError(
            f"the level {level} is none", hint=f"Give a share from {LEAST_LEVEL} to below 1: 0.1."
        )
    if not 0 <= bound < 1:
        raise UsageError(f"the bound {bound} is none", hint="Give a part from 0 to below 1: 0.01.")


def _patterns(patterns: Patterns) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def _limits(before: Reading, after: Reading, question: Question) -> dict[str, Any]:
    by_steps = question.steps is not None or question.skip_first
    captures = {"before": before, "after": after}
    found: dict[str, Any] = dict(question.limits)
    for side, item in captures.items():
        found[f"steps_{side}"] = item.step_source if by_steps else None
    for side, item in captures.items():
        found[f"spans_{side}"] = item.spans
    return found


def _mixed(groups: Groups) -> list[str]:
    """Said where captures of one side differ in their code: a wrong file, or a wrong commit."""
    for group in groups.rows:
        if min(group.instances) == 0 and 2 * max(group.instances) > max(group.scopes):
            ops = JOINED.join(group.key.before or group.key.after)
            return [
                f"The captures of a side do not all run the same code: {shorten(ops, 80)} differs "
                f"in {max(group.instances):,} of {max(group.scopes):,} scopes between some of "
                "them, and in none between others."
            ]
    return []


def _doubts(before: Sequence[Reading], after: Sequence[Reading]) -> list[str]:
    captures = {item.path: item for item in (*before, *after)}
    return [f"{path}: {text}" for path, item in captures.items() for text in item.doubts]


# Tables -----------------------------------------------------------------------------------


def _ops(before: Sequence[Reading], after: Sequence[Reading], groups: Groups) -> pd.DataFrame:
    """The ops of both sides, with the parts of their changes."""
    table = _joined("diff", before, after, "ops", "op")
    table = _told_apart(table, "op", groups.steady_ops)
    return table.join(parts_of(table, by_shape(before), by_shape(after)))


def _kernels(before: Sequence[Reading], after: Sequence[Reading], groups: Groups) -> pd.DataFrame:
    """The kernels; where the full names behind a short one differ (a type, a tile): changed."""
    table = _joined("kernels", before, after, "kernels", "kernel")
    table = _told_apart(table, "kernel", groups.steady_ops)
    sides = [_variants(side) for side in (before, after)]
    names = table["kernel"].tolist()
    other = np.array([sides[0].get(name) != sides[1].get(name) for name in names], np.bool_)
    table["status"] = table["status"].mask((table["status"] == "same") & other, "changed")
    return _in_order(table)


def _joined(
    query: str, before: Sequence[Reading], after: Sequence[Reading], tables: str, key: str
) -> pd.DataFrame:
    sides = {
        side: combine([getattr(item, tables) for item in captures], key)
        for side, captures in (("before", before), ("after", after))
    }
    return _whole_numbers(_duckdb(query, **sides))


def _told_apart(table: pd.DataFrame, key: str, steady: frozenset[str]) -> pd.DataFrame:
    """Rows whose calls differ by accident are uneven: in no steady group, or as between captures.

    Accidents are what a cache that is filled once, or a garbage collection, does.
    """
    differ = table["status"] != "same"
    low, high = (
        table[[f"calls_{end}_before", f"calls_{end}_after"]].fillna(0).astype("int64")
        for end in ("low", "high")
    )
    overlap = (low.iloc[:, 0] <= high.iloc[:, 1]) & (low.iloc[:, 1] <= high.iloc[:, 0])
    accident = overlap | ~table[key].isin(steady)
    table["status"] = table["status"].mask(differ & accident, "uneven")
    return _in_order(table)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    rank = {status: index for index, status in enumerate(STATUS_ORDER)}
    in_order = table["status"].map(rank).sort_values(kind="stable").index
    return table.loc[in_order].reset_index(drop=True)


def _variants(captures: Sequence[Reading]) -> dict[str, frozenset[str]]:
    """The full names of each kernel over a side's captures."""
    found: dict[str, frozenset[str]] = {}
    for item in captures:
        for name, names in item.variants.items():
            found[name] = found.get(name, frozenset()) | names
    return found


def _duckdb(name: str, **tables: pd.DataFrame) -> pd.DataFrame:
    """Run one of queries/duckdb/ over data frames."""
    import duckdb  # loads slowly, and only comparisons need it

    with duckdb.connect(":memory:") as connection:
        for table_name, table in tables.items():
            connection.register(table_name, table)
        connection.execute(duckdb_query("status"))
        return connection.execute(duckdb_query(name)).df()


_FRACTIONS = ("ratio", "average_before", "average_after")
_TEXTS = ("status", "op", "replaced_by", "kernel", "category", "ops_before", "ops_after")


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Give counts and times back their integer type, which an absent side has cost them."""
    types = {name: "Int64" for name in table.columns if name not in (*_FRACTIONS, *_TEXTS)}
    return table.astype(types)


def _with_pair(
    table: pd.DataFrame, before: Sequence[Reading], after: Sequence[Reading], old: str, new: str
) -> tuple[pd.DataFrame, Asked]:
    """The table with a replaced pair on one row, after those that were named before; its ops."""
    import pandas as pd

    rest, row, ops = map_row(table, before, after, old, new)
    asked = Asked(RowKey("maps", f"{old}=>{new}"), CPU, ops)
    row |= _pair_parts(row)
    pair = _whole_numbers(pd.DataFrame([row], columns=table.columns))
    first = rest["status"] == "replaced"
    return pd.concat([rest[first], pair, rest[~first]], ignore_index=True), asked


def _pair_parts(row: dict[str, Any]) -> dict[str, int]:
    """The parts of a pair's change: its calls, and the rest; its shapes are those of two ops."""
    before, after = row["calls_before"], row["calls_after"]
    calls = round((after - before) * row["total_before"] / before) if before else row["delta"]
    return {"calls_part": calls, "shapes_part": 0, "cost_part": row["delta"] - calls}


def _keep_matching(
    table: pd.DataFrame, match: Patterns, captures: Sequence[Reading]
) -> pd.DataFrame:
    """Keep rows of which a raw or folded name is chosen, on either side. Raises PatternError."""
    names = {name for item in captures for name in item.names}
    chosen = {fold_name(name) for name in matching_names(_patterns(match), names)}

    def is_chosen(ops: str | None) -> bool:
        return isinstance(ops, str) and not chosen.isdisjoint(ops.split(JOINED))

    keep = table["op"].map(is_chosen) | table["replaced_by"].map(is_chosen)
    if not keep.any():
        raise not_under_scope(match)
    return table[keep].reset_index(drop=True)


# Evidence ---------------------------------------------------------------------------------


def _with_evidence(
    table: pd.DataFrame, evidence: Evidence, family: str, key: str, named: Sequence[Asked] = ()
) -> pd.DataFrame:
    """The table with the columns of :data:`ADDED`."""
    names = table[key].tolist()
    findings = [evidence.of(family, name) for name in names]
    findings[: len(named)] = [evidence.of(*pair.key) for pair in named]  # these come first
    added = [finding_dict(item) for item in findings]
    types = dict.fromkeys(ADDED, "float64") | {"captures_needed": "Int64", "verdict": "object"}
    types |= {"told_by": "object"}
    table = table.assign(**{name: [row[name] for row in added] for name in ADDED}).astype(types)
    table.attrs["fields"] = fields_of(map(str, table.columns))
    return table


def finding_dict(finding: Finding | None) -> dict[str, Any]:
    """A finding as plain data, by the names of :data:`ADDED`."""
    if finding is None:
        return dict.fromkeys(ADDED)
    sides, change = (*_ends(finding.before), *_ends(finding.after)), finding.change
    free = _ends(finding.drift_free) if finding.drift_free else (None, None, None)
    by_what = BY_DRIFT_FREE if finding.by_drift_free else BY_TIMES
    told_by = by_what if finding.verdict.is_change else None
    rest = (finding.noise, finding.p, str(finding.verdict), told_by, finding.needed)
    values = (*sides, *_ends(change), change.confidence, *free, *rest)
    return dict(zip(ADDED, values, strict=True))


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _is_change(table: pd.DataFrame) -> pd.Series[bool]:
    declared = table["verdict"].isin([str(verdict) for verdict in Verdict if verdict.is_change])
    return ~table["status"].isin(_NOT_CHANGED) | declared


# Plain data -------------------------------------------------------------------------------


def _side_dict(side: Side) -> dict[str, Any]:
    return {
        "captures": [
            {
                "path": item.path,
                "sha256": item.sha256,
                "events": None if item.events is None else tally_dict(item.events),
                "scopes": item.totals.scopes,
                "total": item.totals.total,
                "self": item.totals.self,
                "gpu": dataclasses.asdict(item.totals.gpu),
            }
            for item in side.captures
        ]
    }


def _groups_dict(groups: Groups, evidence: Evidence, family: str) -> dict[str, Any]:
    """The groups with their sums by capture; with ``unchanged`` they are the scopes' time."""
    rows = []
    for number, group in enumerate(groups.rows):
        finding = evidence.of(family, str(number))
        per_call = finding and finding.per_call
        rows.append(
            group.to_dict()
            | finding_dict(finding)
            | {"per_call": None if per_call is None else dataclasses.asdict(per_call)}
        )
    unchanged = groups.unchanged.to_dict()
    kept = {key: value for key, value in unchanged.items() if key.startswith(("time", "gpu"))}
    return {"rows": rows, "unchanged": kept, "scopes_alone": list(groups.alone)}
