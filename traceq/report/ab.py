"""The report of ``traceq capture ab``: what the ranges say, the captures, what to run next.

The diff of the chosen pair has its own report.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from traceq import units
from traceq.ab_result import AbResult, Range, Sample
from traceq.capturing.ab import SIDES
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.words import plural, quoted

_SAMPLES = (
    Column("name", "run", Unit.TEXT),
    Column("cpu", "CPU µs", Unit.MICROS),
    Column("gpu", "GPU µs", Unit.MICROS),
    Column("scopes", "scopes", Unit.COUNT, 2),
    Column("calls", "calls", Unit.COUNT, 1),
    Column("mark", "", Unit.TEXT),
    Column("path", "file", Unit.NAME, 3),
)
_RANGES = (
    Column("side", "side", Unit.TEXT),
    Column("time", "time", Unit.TEXT),
    Column("min", "min µs", Unit.MICROS),
    Column("median", "median µs", Unit.MICROS),
    Column("max", "max µs", Unit.MICROS),
    Column("spread", "max − min", Unit.SHARE),
)
_SCOPED = {
    "cpu": "CPU: the scopes' time, children included.",
    "gpu": "GPU: the kernels, copies and sets that they launched.",
}
_WHOLE = {"cpu": "CPU: own time of all threads.", "gpu": "GPU: all kernels, copies and sets."}
_UNRECORDED = (
    "The traces hold no record of traceq capture: whether versions, settings and inputs were the "
    "same is not known."
)
_MEDIANS = (
    "Median: a capture's own figure, of an even number the lower one; max − min is in % of it."
)


def ab_report(result: AbResult) -> Report:
    """The captures in their order, the range of each side, and what to run next."""
    several = len(result.samples) > len(SIDES)
    meaning = _SCOPED if result.under else _WHOLE
    words = " ".join(meaning[measure] for measure in result.measures)
    where = f"under {quoted(result.under)}" if result.under else "of whole traces"
    return Report(
        headline=f"A B A B …: {plural(len(result.of('a')), 'capture')} a side, times {where}.",
        facts=tuple(_facts(result)),
        tables=(_sample_table(result), *((_range_table(result),) if several else ())),
        warnings=result.warnings,
        remarks=(words, *_remarks(result), *_next_steps(result)),
    )


def _facts(result: AbResult) -> Iterator[tuple[str, str]]:
    yield from result.commands.items()
    for measure in result.measures if result.diff is None else ():  # which says what they tell
        if result.overlap(measure) is not None:
            yield f"{measure.upper()} time", _verdict(result, measure)
    one, other = result.pair
    yield (
        "median pair",
        f"{one.path} and {other.path}, by {result.measures[-1].upper()} time",
    )


def _verdict(result: AbResult, measure: str) -> str:
    """What the ranges say by themselves; that they lie apart is no test of significance."""
    one, other = (result.range(side, measure) for side in SIDES)
    if one.overlaps(other):
        word = measure.upper()
        return f"the ranges overlap: these captures do not show a difference in {word} time"
    apart = f"the ranges lie apart{_doubt(result)}"
    if result.is_same_command:
        return f"{apart}; it is one and the same command: chance, or something else (order?)"
    less = "less" if other.max < one.min else "more"
    change = units.signed_micros(other.median - one.median)
    return (
        f"{apart}: each of b took {less} than each of a; medians Δ {change} µs, "
        f"ratio {units.ratio(one.median / other.median if other.median else None)}"
    )


def _doubt(result: AbResult) -> str:
    """Few captures take the weight out of the sentence itself."""
    if result.chances is None:
        return ""
    count = len(result.of("a"))
    return (
        f" in these {count} captures a side, as by chance alone in 1 of {result.chances} "
        "comparisons"
    )


def _sample_table(result: AbResult) -> Table:
    wanted = {"gpu": "gpu" in result.measures, "scopes": bool(result.under)}
    columns = tuple(column for column in _SAMPLES if wanted.get(column.key, True))
    chosen = {sample.name for sample in result.pair}
    rows = tuple(_row(sample, sample.name in chosen) for sample in result.samples)
    return Table("Captures, in the order of their runs", columns, rows)


def _row(sample: Sample, is_median: bool) -> dict[str, Any]:
    return {
        "name": sample.name,
        "cpu": sample.cpu,
        "gpu": sample.gpu.total,
        "scopes": sample.totals.scopes,
        "calls": sample.calls,
        "mark": "median" if is_median else "",
        "path": sample.path,
    }


def _range_table(result: AbResult) -> Table:
    rows = [
        _range_row(side, measure, result.range(side, measure))
        for measure in result.measures
        for side in SIDES
    ]
    return Table("Ranges", _RANGES, tuple(rows))


def _range_row(side: str, measure: str, times: Range) -> dict[str, Any]:
    row = {"side": side, "time": measure.upper(), **asdict(times)}
    return row | {"spread": times.spread}


def _remarks(result: AbResult) -> Iterator[str]:
    if len(result.samples) > len(SIDES):
        yield _MEDIANS
    if not any(sample.has_record for sample in result.samples):
        yield _UNRECORDED


def _next_steps(result: AbResult) -> Iterator[str]:
    words = ["traceq", "diff"]
    for side, option in zip(SIDES, ("--before", "--after"), strict=True):
        words += [word for item in result.of(side) for word in (option, item.path)]
    words += [word for pattern in result.under for word in ("--under", pattern)]
    maps = result.diff.maps if result.diff else ()
    words += [word for text in maps for word in ("--map", text)]
    yield f"All of it: {shlex.join([*words, '--all'])}"
