"""Makes trace files for tests: events to bytes in the styles of writers, and random traces."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import zstandard
from hypothesis import strategies as st

Event = dict[str, Any]


def complete(name: str, ts: Any, dur: Any, **fields: Any) -> Event:
    """An X event; process 1 and thread 2 unless said otherwise."""
    return (
        {"ph": "X", "name": name, "cat": "cpu_op", "pid": 1, "tid": 2}
        | fields
        | {
            "ts": ts,
            "dur": dur,
        }
    )


def event(ph: str, **fields: Any) -> Event:
    """An event of any phase, of process 1 and thread 2 unless said otherwise."""
    return {"ph": ph, "pid": 1, "tid": 2} | fields


def compact(events: Iterable[Event], **metadata: Any) -> bytes:
    """All on one line, metadata first."""
    document = {**metadata, "traceEvents": list(events)}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def spaced(
    events: Iterable[Event], before: Event | None = None, after: Event | None = None
) -> bytes:
    """As Kineto writes: keys of an event over a few lines, metadata before, after or both."""
    lines = ["{"]
    lines += [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in (before or {}).items()]
    lines.append('  "traceEvents": [')
    lines.append(",\n".join(_spaced_event(item) for item in events))
    tail = ",".join(
        f"\n  {json.dumps(key)}: {json.dumps(value)}" for key, value in (after or {}).items()
    )
    lines.append("  ]" + ("," + tail if tail else "") + "\n}\n")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _spaced_event(item: Event) -> str:
    head = [(key, value) for key, value in item.items() if key != "args"]
    parts = ", ".join(
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head[:5]
    )
    if head[5:]:
        rest = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head[5:])
        parts += f",\n    {rest}"
    if "args" in item:
        args = ", ".join(
            f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in item["args"].items()
        )
        parts += f',\n    "args": {{\n      {args}\n    }}'
    return f"  {{\n    {parts}\n  }}"


def with_events_text(texts: Sequence[str]) -> bytes:
    """A trace of events that are given as JSON text, broken or not."""
    return ('{"traceEvents": [\n' + ",\n".join(texts) + "\n]}").encode("utf-8", "surrogatepass")


def gz(text: bytes, members: int = 1) -> bytes:
    """gzip, in one or several members."""
    step = -(-len(text) // members) or 1
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def zst(text: bytes) -> bytes:
    """zstandard, in one frame."""
    return zstandard.ZstdCompressor().compress(text)


def zipped(*texts: bytes) -> bytes:
    """A zip archive with one file for each text."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"trace{number}.json", text)
    return out.getvalue()


# Random traces -------------------------------------------------------------------------------

PIDS = st.sampled_from([0, 1, 7, 1234, -1, -(2**31), 2**32 + 7, 2**53 + 1, "Spans", "Spür", "12"])
TIDS = st.sampled_from([0, 1, 7, 99, -5, 2**33 + 9, 2**62, "PyTorch Profiler", "7"])
NAMES = st.one_of(
    st.sampled_from(
        ["aten::mul", "aten::add", "kernel<int, float>", "", "größe 漢字 🙂", "a" * 700]
    ),
    st.sampled_from(
        ["tab\there", "line\nbreak", 'quote"d', "back\\slash", "\x01\x1f", "}, {", "}]"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
CATEGORIES = st.sampled_from([None, "", "cpu_op", "kernel", "python_function", "gpu_memcpy"])
# In nanoseconds and few, so that starts and ends often meet.
TIMES = st.one_of(st.integers(0, 40), st.integers(0, 60_000))
ARGS = st.dictionaries(
    st.sampled_from(["correlation", "External id", "stream", "Input Dims", "note", "flag"]),
    st.one_of(
        st.integers(-(2**70), 2**70),
        st.booleans(),
        st.none(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=6),
        st.lists(st.integers(0, 9), max_size=3),
        st.dictionaries(st.sampled_from(["name", "a", "ph"]), st.integers(0, 3), max_size=2),
    ),
    max_size=4,
)


def microseconds(nanoseconds: int) -> float | int:
    """As JSON holds it: a whole number, or three places."""
    return nanoseconds // 1000 if nanoseconds % 1000 == 0 else nanoseconds / 1000


@st.composite
def events(draw: Any, *, phases: str = "XXXXXXXXBEiCstfMbeZ") -> Event:
    """One event of any phase, readable but not always meaningful."""
    ph = draw(st.sampled_from(phases))
    item: Event = {"ph": ph, "name": draw(NAMES), "pid": draw(PIDS), "tid": draw(TIDS)}
    category = draw(CATEGORIES)
    if category is not None:
        item["cat"] = category
    if ph != "M":
        item["ts"] = microseconds(draw(TIMES))
    if ph == "X":
        item["dur"] = microseconds(draw(TIMES))
    if ph in "stfbe":
        item["id"] = draw(st.integers(0, 3))
    if ph == "f" and draw(st.booleans()):
        item["bp"] = "e"
    if ph == "M":
        item["name"] = draw(st.sampled_from(["process_name", "thread_name", "process_sort_index"]))
        item["args"] = {"name": draw(NAMES)}
    elif ph == "C":
        item["args"] = draw(st.dictionaries(st.sampled_from("ab"), st.integers(-5, 5), max_size=2))
    elif draw(st.booleans()):
        item["args"] = draw(ARGS)
    return item


def traces(*, phases: str = "XXXXXXXXBEiCstfMbeZ", max_size: int = 25) -> Any:
    """Lists of at least one event."""
    return st.lists(events(phases=phases), min_size=1, max_size=max_size)


# Random traces of CPU and GPU -------------------------------------------------------------------

STREAMS = (7, 8)
_CPU_SLICES = st.sampled_from(
    [
        ("nn.Module: A_0", "python_function"),
        ("nn.Module: A_1", "python_function"),
        ("nn.Module: B_0", "python_function"),
        ("label", "user_annotation"),
        ("m.py(3): f", "python_function"),
        ("m.py(9): forward", "python_function"),
        ("aten::x", "cpu_op"),
        ("aten::y", "cpu_op"),
        ("aten::y", "cpu_op"),
    ]
)
_CPU_SPANS = st.tuples(st.integers(0, 24), st.sampled_from([1, 2, 3, 5, 8, 12, 20]))
_MAYBE_NUMBER = st.one_of(st.none(), st.integers(0, 6))


@st.composite
def _threads(draw: Any, pid: int, modules: bool, hard: bool) -> list[Event]:
    """Slices of three threads, nested, touching or overlapping; the last runs backward ops."""
    found = []
    for tid in (1, 2, 3):
        for (name, category), (ts, dur) in draw(
            st.lists(st.tuples(_CPU_SLICES, _CPU_SPANS), max_size=9)
        ):
            if name.startswith("nn.Module") and not modules:
                continue
            args: Event = {}
            if category == "cpu_op":
                args = _given(
                    {
                        "External id": draw(st.one_of(st.none(), st.integers(0, 5))),
                        "Sequence number": draw(st.one_of(st.none(), st.integers(-1, 4))),
                        "Fwd thread id": 1 if tid == 3 and draw(st.booleans()) else None,
                    }
                )
                if not hard and tid == 3:
                    args.pop("External id", None)
            at = ts + 40 * (tid == 3)
            found.append(complete(name, at, dur, cat=category, pid=pid, tid=tid, args=args))
    return found


def _given(values: Event) -> Event:
    return {key: value for key, value in values.items() if value is not None}


@st.composite
def gpu_traces(draw: Any, *, hard: bool = True) -> list[Event]:
    """Slices on the CPU, calls that launch, and what the GPU did; joined by all means, or by none.

    Correlation numbers, ids and arrows are few and drawn apart from each other, so that one call
    often launches several activities and some activities have no launch, or several that might be.
    ``hard``: calls and activities may be without their numbers, and a backward op may launch.
    """
    pids = draw(st.sampled_from([(1,), (1,), (1, 2)]))
    modules = draw(st.integers(0, 3)) > 0
    found: list[Event] = []
    for pid in pids:
        found += draw(_threads(pid, modules, hard))
    calls = draw(st.lists(_calls(pids, hard), max_size=10))
    work = draw(st.lists(_activities(hard), max_size=14))
    labels = draw(st.lists(_gpu_labels(), max_size=2))
    ops = [item for item in found if item["cat"] == "cpu_op"]
    arrows: list[Event] = []
    if work and (calls or ops):
        pairs = st.tuples(st.sampled_from(calls + ops), st.sampled_from(work))
        for source, sink in draw(st.lists(pairs, max_size=5)):
            arrows += _arrow("ac2g", len(arrows), source, sink)
    forward, backward = ([item for item in ops if (item["tid"] == 3) is late] for late in (0, 1))
    if forward and backward:
        pairs = st.tuples(st.sampled_from(forward), st.sampled_from(backward))
        for source, sink in draw(st.lists(pairs, max_size=4)):
            arrows += _arrow("fwdbwd", len(arrows), source, sink)
    steps = draw(st.lists(st.integers(0, 60), max_size=3, unique=True))
    marks = [
        complete(f"ProfilerStep#{number}", ts, 8, cat="user_annotation", tid=4)
        for number, ts in enumerate(sorted(steps), 5)
    ]
    start = complete("aten::x", 0, 1, tid=9)  # a trace holds at least one slice
    return [start, *found, *calls, *work, *labels, *arrows, *marks]


@st.composite
def _calls(draw: Any, pids: Sequence[int], hard: bool) -> Event:
    tid = draw(st.sampled_from([1, 2, 3]))
    return complete(
        draw(st.sampled_from(["cudaLaunchKernel", "cudaGraphLaunch"])),
        draw(st.integers(0, 30)) + 40 * (tid == 3),
        draw(st.sampled_from([1, 1, 2])),
        cat=draw(st.sampled_from(["cuda_runtime", "cuda_driver"])),
        pid=draw(st.sampled_from(pids)),
        tid=tid,
        args=_given({"correlation": draw(_MAYBE_NUMBER if hard else st.integers(0, 6))}),
    )


@st.composite
def _activities(draw: Any, hard: bool) -> Event:
    stream = draw(st.sampled_from(STREAMS))
    external = st.one_of(st.none() if hard else st.just(0), st.integers(0, 5))
    return complete(
        draw(st.sampled_from(["k1<int>", "k1<float>", "k2"])),
        draw(st.integers(0, 90)),
        draw(st.integers(0, 12)),
        cat=draw(st.sampled_from(["kernel", "kernel", "gpu_memcpy", "gpu_memset"])),
        pid=0,
        tid=stream,
        args=_given(
            {
                "correlation": draw(_MAYBE_NUMBER),
                "External id": draw(external),
                "stream": draw(st.sampled_from([None, stream])),
                "device": draw(st.sampled_from([None, 0, 1])),
            }
        ),
    )


@st.composite
def _gpu_labels(draw: Any) -> Event:
    return complete(
        "label",
        draw(st.integers(0, 60)),
        draw(st.integers(1, 60)),
        cat="gpu_user_annotation",
        pid=0,
        tid=draw(st.sampled_from(STREAMS)),
        args={"correlation": draw(st.integers(0, 6))},
    )


def _arrow(category: str, number: int, source: Event, sink: Event) -> list[Event]:
    found = []
    for ph, end in (("s", source), ("f", sink)):
        ends = {"pid": end["pid"], "tid": end["tid"], "ts": end["ts"]}
        found.append({"ph": ph, "name": category, "cat": category, "id": number} | ends)
    found[1]["bp"] = "e"
    return found
