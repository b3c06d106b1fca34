"""TraceLens: its tree of events with Python functions, its TraceDiff of two trees.

Its diff keeps what launches GPU work, and tells kernel times: not the time of an op on the CPU.
"""

import told
from TraceLens import TraceDiff, TreePerfAnalyzer


def open_one(path):
    """The events of the op that have a scope above them in the tree."""
    tree = TreePerfAnalyzer.from_file(path, add_python_func=True).tree
    events = [event for event in tree.events if event.get("ph") == "X"]
    found = [event for event in events if told.OP in event["name"] and _is_below(tree, event)]
    total = sum(told.whole_ns(event["dur"]) for event in found)
    return {"events": len(events), "calls": len(found), "total_ns": total}


def _is_below(tree, event):
    while (event := tree.get_parent_event(event)) is not None:
        if told.UNDER in event["name"]:
            return True
    return False


def diff(before, after):
    """Its report's tables, in memory."""
    trees = [
        TreePerfAnalyzer.from_file(path, add_python_func=True).tree for path in (before, after)
    ]
    report = TraceDiff(*trees)
    report.generate_tracediff_report()
    rows = len(report.diff_stats_df)
    return {"note": f"kernel times of {rows:,} ops: no CPU time of one"}


if __name__ == "__main__":
    told.run({"open": open_one, "diff": diff})
