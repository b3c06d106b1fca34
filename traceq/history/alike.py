"""Whether captures can be one run: samples of the same code that do the same work.

The facts that a comparison rests on are compared in ``comparability``; what is refused and what is
only told is decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from traceq.comparability import check_run
from traceq.reading import Reading
from traceq.units import plural

_MOST = 3


def check_alike(captures: Sequence[Reading], force: bool) -> tuple[str, ...]:
    """Sentences on what differs. Raises UsageError for what a comparison would refuse.

    With ``force`` that is told as well.
    """
    found = check_run([item.facts for item in captures])
    if not force:
        found.raise_blockers(
            "these captures are not of one run",
            "A run is captures of the same code and work. Record these each by itself, or all the "
            "same with --force.",
        )
    return (*found.warnings, *_other_code(captures))


def _other_code(captures: Sequence[Reading]) -> list[str]:
    """What only some have: between sides it is the change, within a run another program."""
    numbers = Counter(op for item in captures for op in item.ops["op"].tolist())
    rare = sorted(op for op, number in numbers.items() if number < len(captures))
    if not rare:
        return []
    more = f" and {plural(len(rare) - _MOST, 'other op')}" if len(rare) > _MOST else ""
    return [f"Are they of the same code? Only some have {', '.join(rare[:_MOST])}{more}."]
