"""Runs one way of a rival's script and tells what came of it: one line of JSON, the last one.

``python SCRIPT WAY TRACE [TRACE]``. An answer has ``calls`` and ``total_ns`` of the op under the
scopes (a list of both sides' for a diff), and ``events``: slices that the tool has. What it cannot
say is left out; ``note`` says in a few words what was asked instead.
"""

import json
import sys
import time

OP, UNDER = "rearrange", "GatedDeltaNet"


def run(ways):
    """Run the way that the command line names; ``work_s`` is the time without imports."""
    way, *paths = sys.argv[1:]
    started = time.monotonic()
    answer = ways[way](*paths)
    told = {"work_s": time.monotonic() - started, "answer": answer}
    print("\n" + json.dumps(told), flush=True)


def whole_ns(microseconds):
    """Microseconds of a float, as whole nanoseconds."""
    return round(float(microseconds) * 1000)
