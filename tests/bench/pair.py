"""Makes two traces to compare, of any size, and says what is true of them.

``python -m tests.bench.pair TRACE FOLDER BYTES`` writes ``before.json`` and ``after.json`` to
FOLDER and prints the truth as JSON. ``before`` is TRACE, cut in time or repeated (ranks and names
varied) to about BYTES; in ``after`` each call of an op under the scopes takes twice as long. The
truth is counted by plain containment over the JSON, with no code of the reader that is measured.
Both are made from a base of at most one copy, which is kept in FOLDER for the next size.
``--step TRACE OUT`` writes a copy with one ProfilerStep over everything, which some tools want.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import re
import shutil
from pathlib import Path
from typing import Any

from tests import oracle, planting
from tests.bench.size import TIME, Text, write_copies

OP, UNDER = "einops/einops.py: rearrange", "GatedDeltaNet"
WORD = "rearrange"
"""What the raw names of OP's calls have, and those of no other slice."""
FACTOR = 2
_CUT = 0.75
"""Below this part of TRACE a size is made by cutting it."""
_AFTERWARDS = 10_000_000
"""Microseconds that a step lasts after the last event has begun."""
_WHERE = re.compile(
    rb'"ph": ?"X", ?"cat": ?"[^"]*", ?"name": ?"[^"]*", ?"pid": ?(\d+), ?"tid": ?(\d+)'
)


def make(source: Path, folder: Path, size: int) -> dict[str, Any]:
    """Write both traces; the truth about them, and what they are."""
    text = Text.read(source)
    is_cut = size < _CUT * len(text.body)
    copies = 1 if is_cut else max(1, round(size / len(text.body)))
    origin = _sha256(source)
    base = folder / f"base-{origin[:12]}-{size if is_cut else 'whole'}"
    if not (base / "truth.json").exists():
        base.mkdir(parents=True, exist_ok=True)
        write_copies(text.cut(size) if is_cut else text, base / "before.json", 1)
        _plant(base)
    truth: dict[str, Any] = json.loads((base / "truth.json").read_text())
    for name, side in truth.items():
        path = folder / f"{name}.json"
        write_copies(Text.read(base / path.name), path, copies, vary=True)
        for key in ("events", "calls", "total_ns"):
            side[key] *= copies
        side |= {"json_bytes": path.stat().st_size, "sha256": _sha256(path)}
    return {"source_sha256": origin, "copies": copies, "is_cut": is_cut, **truth}


def _plant(base: Path) -> None:
    trace = planting.RealTrace.read(base / "before.json")
    planting.scale(trace, OP, FACTOR, UNDER).trace.write(base / "after.json")
    del trace
    truth = {name: _count(base / f"{name}.json") for name in ("before", "after")}
    (base / "truth.json").write_text(json.dumps(truth))


def _count(path: Path) -> dict[str, int]:
    """X events, and the calls and time of the op under the scopes."""
    events = oracle.complete_events(oracle.parse(oracle.plain_text(path)))
    of = {event.index: parent for event, parent in _parents(events)}
    total = [event.dur for event in events if WORD in event.name and _is_below(event, of)]
    return {"events": len(events), "calls": len(total), "total_ns": sum(total)}


def _parents(events: list[oracle.Complete]) -> Any:
    return zip(events, oracle.parents_of_events(events), strict=True)


def _is_below(event: oracle.Complete, of: dict[int, oracle.Complete | None]) -> bool:
    here = of[event.index]
    while here is not None:
        if UNDER in here.name:
            return True
        here = of[here.index]
    return False


def add_step(path: Path, target: Path) -> None:
    """Write a trace with a ProfilerStep over all of it, on the thread of its first event."""
    with (
        path.open("rb") as source,
        mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as text,
        target.open("wb") as file,
    ):
        begin = text.find(b"[", text.find(b'"traceEvents"')) + 1
        times = [int(found[1]) for found in TIME.finditer(text)]
        where = _WHERE.search(text)
        pid, tid = (int(number) for number in where.groups()) if where else (0, 0)
        step = {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#0"}
        step |= {"pid": pid, "tid": tid, "ts": min(times) - 10, "args": {}}
        step["dur"] = max(times) - min(times) + _AFTERWARDS
        file.write(text[:begin] + b"\n" + json.dumps(step).encode() + b",")
        source.seek(begin)
        shutil.copyfileobj(source, file, 16 << 20)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Make two traces, or add a step to one."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pair", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="folder; with --step: file to write")
    parser.add_argument("size", type=float, nargs="?", default=0)
    parser.add_argument("--step", action="store_true")
    options = parser.parse_args()
    if options.step:
        add_step(options.source, options.target)
    else:
        print(json.dumps(make(options.source, options.target, int(options.size))))


if __name__ == "__main__":
    main()
