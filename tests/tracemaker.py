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
