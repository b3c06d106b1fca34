"""traceq: an op's calls under a scope, and ``traceq diff`` as a user runs it."""

import contextlib
import io
import json
import sys

import told

import traceq
from traceq.cli import group


def open_one(path):
    """The table of ops; the second time the cache has what was read."""
    with traceq.open(path) as trace:
        ops = trace.ops(under=told.UNDER, match=f"*{told.OP}*")
        tallies = trace.ledger.tallies.items()
        events = sum(tally.loaded for (phase, _), tally in tallies if phase == "X")
    return {"events": events, "calls": int(ops.calls.sum()), "total_ns": int(ops.total.sum())}


def diff(before, after):
    """The whole report, as JSON; of it the op's row."""
    words = ["diff", before, after, "--under", told.UNDER, "--format", "json"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        group.main(words, standalone_mode=False)
    report = json.loads(text.getvalue())
    rows = [row for row in report["rows"] if told.OP in row["op"]]
    sums = {
        key: [sum(row[f"{key}_{side}"] for row in rows) for side in ("before", "after")]
        for key in ("calls", "total")
    }
    return {"calls": sums["calls"], "total_ns": sums["total"]}


if __name__ == "__main__":
    sys.argv[0] = "traceq"
    told.run({"open": open_one, "diff": diff})
