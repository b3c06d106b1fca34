"""The history in a few words of Python: put open traces in, follow a figure.

What a file holds is the business of ``store``, which runs are meant that of ``refs``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from traceq.history.labels import known_labels, parse_labels
from traceq.history.refs import runs_named
from traceq.history.series import Measure, Series, follow
from traceq.history.store import History, Recorded
from traceq.reading import Question, Reading, read
from traceq.selection import Patterns
from traceq.trace import Trace

FILE = "traceq.duckdb"


def record(
    traces: Trace | Sequence[Trace],
    db: str | Path = FILE,
    *,
    under: Patterns = None,
    labels: Mapping[str, str] | None = None,
    steps: str | None = None,
    skip_first: bool = False,
    window: str | None = None,
    force: bool = False,
) -> Recorded:
    """Put open traces, captures of one code, into a history as one run.

    Commit, branch, GPU and torch become labels where the captures tell; ``labels`` go over these.
    Captures that are recorded already, in one run, stay as they are. What a comparison would refuse
    as captures of one side is refused without ``force``; what it would tell is in ``warnings``.
    ``steps``, ``skip_first`` and ``window`` limit the time, see :meth:`Trace.windows`. Raises
    HistoryError where the file cannot be written, or has some of the captures, or all with other
    labels, UsageError for captures that are not of one run, PatternError where a pattern matches
    nothing.
    """
    question = _question(under, steps, skip_first, window)
    captures = [
        read(trace, question) for trace in ([traces] if isinstance(traces, Trace) else traces)
    ]
    given = parse_labels([f"{key}={value}" for key, value in (labels or {}).items()])
    return History(Path(db)).record(captures, question, given, labels_of(captures), force=force)


def trend(
    name: str | None = None,
    db: str | Path = FILE,
    *,
    under: Patterns = None,
    of: str | None = None,
    measure: Measure = "total",
    steps: str | None = None,
    skip_first: bool = False,
    window: str | None = None,
) -> Series:
    """A figure of an op or a kernel (None: of the scopes) over the runs, and where it changed.

    ``of`` keeps the runs of a branch, commit or other label; ``measure`` is ``total``, ``average``,
    ``gpu`` (ns) or ``calls``. The scopes and limits are those that were recorded. Raises
    HistoryError and PatternError where there is no such thing.
    """
    history = History(Path(db))
    runs = history.runs() if of is None else runs_named(of, history.runs())
    return follow(history, runs, _question(under, steps, skip_first, window), name, measure)


def labels_of(captures: Sequence[Reading]) -> dict[str, str]:
    """What captures tell of their code and machine, else the job that records them."""
    return known_labels([item.info for item in captures], os.environ)


def _question(under: Patterns, steps: str | None, skip_first: bool, window: str | None) -> Question:
    patterns = (under,) if isinstance(under, str) else tuple(under or ())
    return Question(under=patterns, steps=steps, skip_first=skip_first, window=window)
