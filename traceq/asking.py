"""Asks an engine for a trace's slices and what joins them.

For traces that another program has loaded, and for those of which ``joins`` leaves that to the
engine. One answer is made at its first use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from traceq.model import ForwardOps, Ints, Launches, Shapes, SliceTable

Ask = Callable[[str], pd.DataFrame]
"""Runs PerfettoSQL."""


class AskedTrace:
    """:class:`traceq.model.Joined`, asked of an engine."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    @cached_property
    def slices(self) -> SliceTable:
        table = self._ask(
            "SELECT ts, dur, COALESCE(name, '') AS name, COALESCE(category, '') AS category, "
            "COALESCE(parent_id, -1) AS parent_id FROM slice ORDER BY id"
        )
        # Not traceq_adopted: what that module adds for SQL grows with the depth of the nesting.
        adopted = self._ask(
            "SELECT id, EXTRACT_ARG(arg_set_id, 'traceq.parent') AS parent_id FROM slice "
            "WHERE (SELECT COUNT(*) FROM args WHERE flat_key = 'traceq.parent') > 0 "
            "AND arg_set_id IS NOT NULL AND EXTRACT_ARG(arg_set_id, 'traceq.parent') IS NOT NULL"
        )
        parent = _integers(table["parent_id"]).copy()
        parent[_integers(adopted["id"])] = _integers(adopted["parent_id"])
        name, names = _factorize(table["name"])
        category, categories = _factorize(table["category"])
        return SliceTable(
            ts=_integers(table["ts"]),
            dur=_integers(table["dur"]),
            name=name,
            category=category,
            parent=parent,
            adopted=_integers(adopted["id"]),
            names=names,
            categories=categories,
        )

    @cached_property
    def launches(self) -> Launches:
        # Not the names: those of kernels are long, and 65,000 of them take as long as all the rest.
        found = self._ask(
            "INCLUDE PERFETTO MODULE traceq.activities; SELECT id, COALESCE(device, -1) AS device, "
            "COALESCE(stream, -1) AS stream, COALESCE(launch_id, -1) AS launch_id "
            "FROM _traceq_launched"
        ).sort_values("id")
        return Launches(
            *(_integers(found[name]) for name in ("id", "device", "stream", "launch_id"))
        )

    @cached_property
    def forward_ops(self) -> ForwardOps:
        links = self._ask(
            "INCLUDE PERFETTO MODULE traceq.backward; SELECT id, forward_id FROM traceq_backward"
        ).sort_values("id")
        return ForwardOps(_integers(links["id"]), _integers(links["forward_id"]))

    @cached_property
    def shapes(self) -> Shapes:
        table = self._ask(
            "INCLUDE PERFETTO MODULE traceq.shapes; SELECT id, dims FROM traceq_shapes"
        )
        text, texts = _factorize(table["dims"])
        return Shapes(_integers(table["id"]), text, texts)


def _integers(column: pd.Series[Any]) -> Ints:
    return column.to_numpy(np.int64)


def _factorize(column: pd.Series[Any]) -> tuple[Ints, list[str]]:
    code, values = pd.factorize(column, sort=True)
    return code.astype(np.int64), [str(value) for value in values]
