"""The samples of a capture as tables: its ops, kernels and scopes, in all and by step.

They are what SQL over a history is asked of; exact calls are in ``pack``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from traceq.calltree import sum_by
from traceq.model import Ints
from traceq.reading import Reading

_OP_COLUMNS = ["op", "category", "calls", "total", "self", "min", "max", "gpu_total"]
_KERNEL_COLUMNS = ["kernel", "category", "calls", "total", "min", "max"]


def ops_samples(capture: Reading) -> pd.DataFrame:
    """The ops with ``calls_by_step`` and ``total_by_step``: lists of ns, last outside of steps."""
    outline = capture.outline
    below = outline.parent >= 0 if capture.under else np.ones(len(outline), np.bool_)
    nodes = np.flatnonzero(below)
    table = capture.ops[_OP_COLUMNS]
    return _by_step(
        capture, table, "op", capture.words.ops.ops, outline.op[nodes], nodes, outline.dur[nodes]
    )


def kernel_samples(capture: Reading) -> pd.DataFrame:
    """The kernels, in the same way."""
    work, table = capture.work, capture.kernels[_KERNEL_COLUMNS]
    return _by_step(
        capture, table, "kernel", capture.words.kernels.ops, work.short, work.node, work.dur
    )


def scope_samples(capture: Reading) -> pd.DataFrame:
    """The scopes by name: calls, time, GPU time (ns) in all and by step; empty without scopes."""
    outline, work, steps = capture.outline, capture.work, capture.steps + 1
    if not capture.under:
        return pd.DataFrame(columns=["scope", "calls", "total", "gpu"])
    names = [*dict.fromkeys(outline.name)]
    number = {name: place for place, name in enumerate(names)}
    of_scope = np.array([number[name] for name in outline.name], np.int64)
    cell = of_scope * steps + _placed(outline.step, capture.steps)
    of_work = np.searchsorted(outline.scopes, work.node, side="right") - 1
    sums = {
        "calls": _sums(cell, np.ones(len(cell), np.int64), len(names), steps),
        "total": _sums(cell, outline.dur[outline.scopes], len(names), steps),
        "gpu": _sums(cell[of_work], work.dur, len(names), steps),
    }
    whole = {name: values.sum(axis=1) for name, values in sums.items()}
    lists = {f"{name}_by_step": values.tolist() for name, values in sums.items()}
    return pd.DataFrame({"scope": names, **whole, **lists})


def _by_step(
    capture: Reading,
    table: pd.DataFrame,
    key: str,
    words: Sequence[str],
    name: Ints,
    nodes: Ints,
    dur: Ints,
) -> pd.DataFrame:
    """The table with lists by step; what no node of the outline has is outside of steps."""
    steps = capture.steps + 1
    known = {word: number for number, word in enumerate(words)}
    cell = name * steps + _placed(capture.outline.step_of(nodes), capture.steps)
    number = [known.get(text, -1) for text in table[key].tolist()]
    found = table.copy()
    for column, values in (("calls", np.ones(len(cell), np.int64)), ("total", dur)):
        sums = np.vstack([_sums(cell, values, len(words), steps), np.zeros((1, steps), np.int64)])
        chosen = sums[number]
        chosen[:, -1] += table[column].to_numpy(np.int64) - chosen.sum(axis=1)
        found[f"{column}_by_step"] = chosen.tolist()
    return found


def _placed(step: Ints, outside: int) -> Ints:
    return np.where(step >= 0, step, outside)


def _sums(cell: Ints, values: Ints, rows: int, steps: int) -> Ints:
    return sum_by(cell, values, rows * steps).reshape(rows, steps)
