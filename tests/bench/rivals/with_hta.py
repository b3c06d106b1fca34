"""HolisticTraceAnalysis: its trace, its call graph, its TraceDiff.

The environment asks for whole nanoseconds (HTA_DISABLE_NS_ROUNDING): with times rounded to
microseconds its call graph ends in an error on traces with Python frames. Its diff has no scopes
and wants a ProfilerStep: it is asked for the op in the whole trace, of traces that were given one.
"""

import pandas as pd
import told
from hta.common.trace import Trace
from hta.common.trace_call_graph import CallGraph
from hta.trace_analysis import TraceAnalysis
from hta.trace_diff import LabeledTrace, TraceDiff


def open_one(path):
    """The slices of the op whose path to the root of the call graph has a scope."""
    trace = TraceAnalysis(trace_files={0: path}, include_last_profiler_step=True).t
    symbols = pd.Series(trace.symbol_table.get_sym_table())
    events = len(trace.get_trace(0))
    graph = CallGraph(trace)
    frame = trace.get_trace(0)
    names = frame["name"].map(symbols)
    scopes = set(frame.index[names.str.contains(told.UNDER)])
    found = [
        index
        for index in frame.index[names.str.contains(told.OP)]
        if scopes.intersection(graph.get_csg_of_node(index).get_path_to_root(index))
    ]
    total = told.whole_ns(frame.loc[found, "dur"].sum())
    return {"events": events, "calls": len(found), "total_ns": total}


def diff(before, after):
    """Its table of ops in both traces; of it the op."""
    sides = [LabeledTrace("b", Trace({0: before})), LabeledTrace("a", Trace({0: after}))]
    table = TraceDiff.compare_traces(*sides)
    rows = table[table.index.str.contains(told.OP)]
    return {
        "calls": [int(rows[f"{side}_counts"].sum()) for side in "ba"],
        "total_ns": [told.whole_ns(rows[f"{side}_total_duration"].sum()) for side in "ba"],
        "note": "whole trace: it has no scopes",
    }


if __name__ == "__main__":
    told.run({"open": open_one, "diff": diff})
