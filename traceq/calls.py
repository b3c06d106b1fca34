"""Single calls as rows: those of scopes, and those of chosen ops.

Tables in, a table out; sums over calls are made in ``ops`` and ``scopes``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from traceq.calltree import NONE, nearest, outermost, plant
from traceq.gpu import at
from traceq.model import Bools, Field, Ints, SliceTable
from traceq.selection import GPU_LABEL, Selection
from traceq.steps import Steps, step_of

SCOPE_CALL_FIELDS = (
    Field("id", "LONG", "", "Slice id of the scope."),
    Field("ts", "LONG", "ns", "Start, on the trace's own clock."),
    Field("dur", "LONG", "ns", "Duration."),
    Field("name", "STRING", "", "Name as it stands in the trace."),
    Field("self", "LONG", "ns", "Duration less that of its direct children on the same lane."),
)
"""Columns of :func:`scope_calls_table`."""

CALL_FIELDS = (
    Field("id", "LONG", "", "Slice id of the call."),
    Field("ts", "LONG", "ns", "Start, on the trace's own clock."),
    Field("dur", "LONG", "ns", "Duration."),
    Field("name", "STRING", "", "Name as it stands in the trace."),
    Field("op", "STRING", "", "Name of the op, folded."),
    Field("scope_id", "LONG", "", "Slice id of the scope that it is under; NULL: whole trace."),
    Field("scope", "STRING", "", "Name of that scope; NULL for the whole trace."),
    Field("step", "LONG", "", "Number of the step during which it started; NULL for none."),
    Field("is_outermost", "BOOL", "", "Whether no other of the calls is around it: these add up."),
)
"""Columns of :func:`calls_table`."""


def scope_calls_table(slices: SliceTable, selection: Selection) -> pd.DataFrame:
    """The outermost slices that match, in order of time; columns: :data:`SCOPE_CALL_FIELDS`."""
    chosen = outermost(slices.parent, selection.marks(slices))
    counted = selection.counted(slices)
    ids = np.flatnonzero(chosen if counted is None else chosen & counted)
    everything = plant(slices, np.ones(len(slices), np.bool_))
    return pd.DataFrame(
        {
            "id": ids,
            "ts": slices.ts[ids],
            "dur": slices.dur[ids],
            "name": _texts(slices.names)[slices.name[ids]],
            "self": everything.self_time[ids],
        }
    )


def calls_table(
    slices: SliceTable,
    fold: Sequence[str],
    steps: Steps,
    selection: Selection,
    match: Sequence[str],
) -> pd.DataFrame:
    """The calls with one of some names in the selected part; columns: :data:`CALL_FIELDS`."""
    wanted = set(match)
    named = np.array([name in wanted for name in slices.names], np.bool_)
    chosen = named[slices.name] if len(slices) else np.zeros(0, np.bool_)
    chosen = chosen & ~slices.of_category(GPU_LABEL)
    scope = np.full(len(slices), NONE, np.int64)
    if selection.under is not None:
        scopes = outermost(slices.parent, selection.marks(slices))
        scope = at(nearest(slices.parent, scopes), slices.parent)
        chosen &= scope >= 0
    is_outermost = outermost(slices.parent, chosen)
    counted = selection.counted(slices)
    ids = np.flatnonzero(chosen if counted is None else chosen & counted)
    names, scope, step = _texts(slices.names), scope[ids], step_of(steps, slices.ts[ids])
    return pd.DataFrame(
        {
            "id": ids,
            "ts": slices.ts[ids],
            "dur": slices.dur[ids],
            "name": names[slices.name[ids]],
            "op": _texts(fold)[slices.name[ids]],
            "scope_id": nullable(scope, scope < 0),
            "scope": named_or_none(names, slices.name, scope),
            "step": nullable(_at_position(steps.number, step), step < 0),
            "is_outermost": is_outermost[ids],
        }
    )


def _at_position(values: Ints, position: Ints) -> Ints:
    return values[position] if len(values) else position


def _texts(texts: Sequence[str]) -> NDArray[np.object_]:
    return np.array(texts, object)


def nullable(values: Ints, missing: Bools) -> pd.arrays.IntegerArray:
    """Integers of which some are NULL."""
    return pd.arrays.IntegerArray(np.where(missing, 0, values), missing)


def named_or_none(names: NDArray[np.object_], name: Ints, ids: Ints) -> pd.Series[str]:
    """The name of each slice; None where there is none."""
    if not len(name):
        return pd.Series([], dtype=object)
    return pd.Series(names[name[ids]], dtype=object).where(ids >= 0, None)
