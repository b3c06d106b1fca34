"""What several commands ask of a trace: the part that ``--under``, ``--steps`` and so on choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traceq.report import Part, cold_warning
from traceq.selection import Windows
from traceq.steps import MARKED
from traceq.trace import Trace


@dataclass(frozen=True, slots=True)
class Limits:
    """The time that is asked for: in spans, in words, and as data for JSON."""

    windows: Windows | None
    words: str
    data: dict[str, Any]
    warnings: tuple[str, ...]


def read_limits(trace: Trace, within: dict[str, Any]) -> Limits:
    """The steps and window of the options; a warning where the first step should be left out."""
    windows = trace.windows(**within)
    found = trace.steps()
    source = (
        str(found.attrs["source"]) if within["steps"] is not None or within["skip_first"] else None
    )
    words = limit_words(within)
    words += [f"steps {source}"] if source not in (None, MARKED) else []
    cold = cold_warning(found) if windows is None else ()
    return Limits(windows, "; ".join(words), {**within, "source": source}, cold)


def limit_words(within: dict[str, Any]) -> list[str]:
    """The steps and window of the options, as a report has them."""
    words = [f"steps {within['steps']}"] if within["steps"] is not None else []
    words += ["without the first step"] if within["skip_first"] else []
    return [*words, *([f"window {within['window']}"] if within["window"] is not None else [])]


def read_part(trace: Trace, under: tuple[str, ...], limits: Limits, *, cold: bool = True) -> Part:
    """The part of the trace below the scopes and within the limits, with its GPU account."""
    scopes, total = _count_scopes(trace, under, limits.windows)
    return Part(
        path=trace.path,
        under=under,
        scopes=scopes,
        scopes_total=total,
        within=limits.words,
        limits=limits.data,
        gpu=trace.gpu_account(under, windows=limits.windows),
        warnings=(*trace.doubts(), *(limits.warnings if cold else ())),
    )


def _count_scopes(
    trace: Trace, under: tuple[str, ...], windows: Windows | None
) -> tuple[int | None, int | None]:
    if not under:
        return None, None
    calls = trace.scope_calls(under, windows=windows)
    return len(calls), int(calls["dur"].sum())
