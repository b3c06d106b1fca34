"""The report of ``traceq capture cost``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from traceq import units
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.words import plural

if TYPE_CHECKING:
    from traceq.capturing.cost import Costs, LevelCost

_COLUMNS = (
    Column("level", "profiler", Unit.TEXT),
    Column("decode", "decode µs", Unit.MICROS),
    Column("decode_ratio", "× none of it", Unit.RATIO),
    Column("prefill", "prefill µs", Unit.MICROS),
    Column("prefill_ratio", "× none of it", Unit.RATIO, 1),
    Column("file_size", "bytes a step", Unit.COUNT, 2),
    Column("write", "to write µs a step", Unit.MICROS, 3),
)
_DRIFT = 0.1
"""Part by which times without the profiler may differ before a reader is warned."""

KINDS = ("decode", "prefill")


def cost_report(costs: Costs) -> Report:
    """Medians per level, and how much longer than without the profiler."""
    work = costs.workload
    return Report(
        headline=f"Median time of a step on {work['device']}, {plural(work['repeat'], 'step')} of "
        "each kind, by what the profiler records:",
        facts=tuple(_facts(work)),
        tables=(Table("", _COLUMNS, tuple(cost_row(costs, level) for level in costs.levels)),),
        warnings=drift_warnings(costs),
        remarks=(
            "Levels took turns; the device was waited for around each step. The profiled ones are "
            "captures of 'traceq capture' (--stack none, modules, python), warm-up left out.",
            *costs.notes,
        ),
    )


def cost_row(costs: Costs, level: LevelCost) -> dict[str, Any]:
    """Medians in ns, as whole numbers; ratios to no profiler; bytes and ns per step."""
    row: dict[str, Any] = {"level": level.level}
    for kind in KINDS:
        row[kind] = round(getattr(level, kind))
        row[f"{kind}_ratio"] = costs.ratio(level, kind)
    for key in ("file_size", "write"):
        value = getattr(level, key)
        row[key] = None if value is None else round(value / level.steps)
    return row


def drift_warnings(costs: Costs) -> tuple[str, ...]:
    """What to think of times without the profiler that were others before it ever ran."""
    first = costs.levels[0]
    drifts = {kind: 1 / costs.ratio(first, kind) - 1 for kind in KINDS}
    told = ", ".join(
        f"{kind} {units.percent(abs(part))} {'longer' if part > 0 else 'shorter'}"
        for kind, part in drifts.items()
        if abs(part) > _DRIFT
    )
    if not told:
        return ()
    return (
        f"Without the profiler, steps took another time in turn with it than before: {told}. "
        "After-effects of profiling, or other load on the machine: repeat this on a quiet one.",
    )


def _facts(work: dict[str, Any]) -> list[tuple[str, str]]:
    heads, kernels = work["heads"], work["kernels"]
    versions = ", ".join(f"{name} {text}" for name, text in work["versions"].items() if text)
    return [
        (
            "model",
            f"{work['layers']} layers ({work['gdn_layers']} GatedDeltaNet), hidden "
            f"{work['hidden']}, {heads['value']} heads of {heads['dim']}, {work['dtype']}",
        ),
        ("tokens", f"prefill {work['batch']} × {work['prompt']}, decode {work['batch']} × 1"),
        ("kernels", f"delta rule: {kernels['delta_rule']}, convolution: {kernels['conv']}"),
        ("CPU threads", str(work["threads"])),
        ("versions", versions),
    ]
