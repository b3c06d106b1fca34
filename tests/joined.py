"""Compares what joins a trace's slices: found in the file's columns, and asked of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from traceq import library
from traceq.asking import AskedTrace
from traceq.engine import Engine
from traceq.model import Joined

MODULES = {**library.modules(), "traceq.op_names": library.op_names_module({})}


def asked(engine: Engine) -> AskedTrace:
    """The trace that an engine holds."""
    engine.register_package(library.PACKAGE, MODULES)
    return AskedTrace(lambda query: engine.query(query).to_pandas())


def check_same(found: Joined, other: Joined) -> None:
    """Fails where any slice, launch, forward op or shape differs."""
    for one, two in (
        (found.slices, other.slices),
        (found.launches, other.launches),
        (found.forward_ops, other.forward_ops),
        (found.shapes, other.shapes),
    ):
        assert _plain(one) == _plain(two)


def _plain(table: Any) -> dict[str, Any]:
    """Columns as lists, texts in place of their numbers."""
    columns = {name: getattr(table, name) for name in table.__slots__}
    for number, texts in (("name", "names"), ("category", "categories"), ("text", "texts")):
        if texts in columns:
            values = np.array([*columns.pop(texts), ""], object)
            columns[number] = values[columns[number]]
    return {name: column.tolist() for name, column in columns.items()}
