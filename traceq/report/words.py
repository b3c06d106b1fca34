"""Words and small steps that several reports share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from traceq import units
from traceq.units import plural

__all__ = ["activities", "plural", "quoted", "without_zeros"]


def activities(number: int) -> str:
    """So many kernels, copies and sets."""
    return plural(number, "activity", "activities")


def quoted(patterns: Sequence[str]) -> str:
    """Patterns as they are named in a sentence."""
    return ", ".join(units.printable(pattern) for pattern in patterns)


def without_zeros(row: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A row in which nothing stands in place of 0: a dash is seen to be empty at a glance."""
    return row | {key: row[key] or None for key in keys}
