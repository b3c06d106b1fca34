"""What one writes by hand: json.load, a data frame of the slices, containment by a stack."""

import json

import pandas as pd
import told

_KEYS = ("name", "pid", "tid", "ts", "dur")
_TOLERANCE = 0.002
"""Microseconds by which floats let a slice stick out of the one around it."""


def read(path):
    """The slices, each with whether it is below a scope; only the columns that are needed."""
    with open(path, encoding="utf-8", errors="replace") as file:
        events = json.load(file)["traceEvents"]
    rows = ([event[key] for key in _KEYS] for event in events if event.get("ph") == "X")
    frame = pd.DataFrame(rows, columns=_KEYS)
    del events
    frame["end"] = frame.ts + frame.dur
    frame = frame.sort_values(["ts", "dur"], ascending=[True, False])
    frame["is_scope"] = frame.name.str.contains(told.UNDER)
    threads = frame.groupby(["pid", "tid"], sort=False)
    below = pd.concat([_below(thread) for _, thread in threads])
    return frame.assign(below=below)


def _below(thread):
    """Whether each slice of a thread, in order of time, is below a scope."""
    ends, scopes, below = [], 0, []  # of the open slices; how many of them are scopes
    for start, end, is_scope in zip(thread.ts, thread.end, thread.is_scope, strict=True):
        while ends and (ends[-1][0] <= start or ends[-1][0] + _TOLERANCE < end):
            scopes -= ends.pop()[1]
        below.append(scopes > 0)
        ends.append((end, is_scope))
        scopes += is_scope
    return pd.Series(below, index=thread.index, dtype=bool)


def question(frame):
    """Calls and time of the op below the scopes."""
    calls = frame[frame.below & frame.name.str.contains(told.OP)]
    return {"events": len(frame), "calls": len(calls), "total_ns": told.whole_ns(calls.dur.sum())}


def diff(before, after):
    """All ops below the scopes of both sides, side by side; of them the op."""
    sides = [frame[frame.below].groupby("name").dur for frame in map(read, (before, after))]
    table = pd.concat([side.agg(["count", "sum"]) for side in sides], axis=1, keys=["b", "a"])
    rows = table[table.index.str.contains(told.OP)].fillna(0)
    return {
        "calls": [int(rows[side]["count"].sum()) for side in "ba"],
        "total_ns": [told.whole_ns(rows[side]["sum"].sum()) for side in "ba"],
    }


if __name__ == "__main__":
    told.run({"open": lambda path: question(read(path)), "diff": diff})
