"""A recorded run, and which of two times puts runs in order.

Where runs are kept is left to ``store``, which of them a word means to ``refs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Clock = Literal["captured", "recorded"]
"""Which time puts runs in order."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was recorded at once.

    ``captured`` is when its first capture was made (None: no record tells), ``recorded`` when it
    was put in (None: a version of traceq that did not keep it put it in); both in UTC. ``unders``
    are the patterns of the scopes of its captures, ``asked`` the options with which they were
    recorded.
    """

    run: str
    captured: datetime | None
    recorded: datetime | None
    labels: Mapping[str, str]
    captures: int
    unders: tuple[tuple[str, ...], ...]
    paths: tuple[str, ...]
    asked: tuple[str, ...] = ()


def options_of(under: Sequence[str], limits: Mapping[str, object]) -> str:
    """Scopes and limits of time as the command line has them.

    >>> options_of(["Attention"], {"steps": "2:", "skip_first": True, "window": None})
    '--under Attention --steps 2: --skip-first'
    """
    texts = [f"--under {text}" for text in under] or ["no --under"]
    for name, value in limits.items():
        flag = f"--{name.replace('_', '-')}"
        texts += [flag if value is True else f"{flag} {value}"] if value else []
    return " ".join(texts)


def clock_of(runs: Iterable[Run]) -> Clock:
    """The time of capture where all runs tell it, else the time of recording."""
    return "captured" if all(run.captured for run in runs) else "recorded"


def in_order(runs: Sequence[Run]) -> list[Run]:
    """The oldest first, by one clock for all of them."""
    clock = clock_of(runs)
    return sorted(runs, key=lambda run: (*_times(run, clock), run.run))


def _times(run: Run, clock: Clock) -> tuple[datetime, datetime]:
    """What was recorded before recording times were kept comes first, in the order of capture."""
    first = getattr(run, clock) or datetime.min
    return first, run.captured or datetime.min
