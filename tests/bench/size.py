"""Makes a large trace out of a real one, by repeating it in time; or a small one, by cutting it.

``python -m tests.bench.size TRACE OUT BYTES`` writes OUT (.json or .json.gz). Each copy begins
where the one before has ended; numbers that join events (correlation, External id, arrows, sequence
numbers) go on, so that no copy is joined with another. With ``vary`` each copy is another rank's
(of eight), with addresses and numbers of modules of its own: names that no copy has twice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import msgspec
from isal import igzip

RANKS = 8
"""Processes that a varied trace pretends to be of, in turn."""

_NUMBERS = rb'("(?:ts|correlation|External id|id|Sequence number|Ev Idx)": ?)(\d+)(?=[.,}\s])'
_VARIED = (
    rb'("(?:ts|correlation|External id|id|Sequence number|Ev Idx|Python id|Python parent id'
    rb'|pid|device)": ?(?=\d+[.,}\s])| at 0x|"nn\.Module: \w+_(?=\d+"))([\da-f]+)'
)
TIME = re.compile(rb'"ts": ?(\d+)')
_DEVICES = 64
"""Process numbers below it are GPUs."""


def repeat(source: Path, target: Path, size: int, *, vary: bool = False) -> int:
    """Write so many copies of ``source`` that the JSON has ``size`` bytes; how many these are."""
    trace = Text.read(source)
    copies = max(1, -(-size // len(trace.body)))
    write_copies(trace, target, copies, vary=vary)
    return copies


def write_copies(trace: Text, target: Path, copies: int, *, vary: bool = False) -> None:
    """Write a trace that is ``trace`` so many times, one after the other."""
    with _created(target) as file:
        file.write(trace.head)
        for number, copy in enumerate(_copies(trace.body, copies, vary)):
            file.write(b",\n" if number else b"\n")
            file.writelines(copy)
        file.write(b"\n" + trace.tail)


@dataclass(frozen=True)
class Text:
    """A trace's JSON: what stands before its events, these, and what stands behind them."""

    head: bytes
    body: bytes
    tail: bytes

    @classmethod
    def read(cls, source: Path) -> Text:
        with igzip.open(source) if source.suffix == ".gz" else source.open("rb") as file:
            text = file.read()
        begin = text.index(b"[", text.index(b'"traceEvents"')) + 1
        end = text.rindex(b"]")
        return cls(text[:begin], text[begin:end].strip(), text[end:])

    @cached_property
    def begin(self) -> int:
        """The first event's time, in whole µs."""
        return min(map(int, TIME.findall(self.body)))

    def cut(self, size: int) -> Text:
        """Its beginning, in time: the events of about ``size`` bytes that start first."""
        events = msgspec.json.decode(b"[" + self.body + b"]", type=list[msgspec.Raw])
        texts = [bytes(event) for event in events]
        found = [TIME.search(text) for text in texts]
        times = [int(match[1]) if match else self.begin for match in found]
        room, last = size, self.begin
        for item in sorted(range(len(texts)), key=times.__getitem__):
            last, room = times[item], room - len(texts[item])
            if room < 0:
                break
        kept = [text for text, time in zip(texts, times, strict=True) if time <= last]
        return Text(self.head, b",\n".join(kept), self.tail)


def _created(target: Path) -> IO[bytes]:
    if target.suffix == ".gz":
        return igzip.open(target, "wb", compresslevel=1)  # type: ignore[no-any-return]
    return target.open("wb")


def _copies(body: bytes, count: int, vary: bool) -> Iterator[list[bytes]]:
    """The events with all numbers moved, as texts between which the numbers stand."""
    parts = re.split(_VARIED if vary else _NUMBERS, body)  # text, key, number, text, ...
    kinds = [_kind(key, value) for key, value in zip(parts[1::3], parts[2::3], strict=True)]
    numbers = [
        int(value, 16 if kind == "address" else 10)
        for kind, value in zip(kinds, parts[2::3], strict=True)
    ]
    largest = dict.fromkeys(kinds, 0)
    for kind, number in zip(kinds, numbers, strict=True):
        largest[kind] = max(largest[kind], number)
    times = [number for kind, number in zip(kinds, numbers, strict=True) if kind == "time"]
    span = max(times) - min(times) + 1_000_000  # µs
    for copy in range(count):
        rank = copy % RANKS
        shifts = {"time": copy * span, "device": rank, "process": 1000 * rank}
        shifts |= {
            kind: copy * (largest.get(kind, 0) + 1) for kind in ("number", "address", "module")
        }
        parts[2::3] = [
            (b"%x" if kind == "address" else b"%d") % (number + shifts[kind])
            for kind, number in zip(kinds, numbers, strict=True)
        ]
        yield parts


def _kind(key: bytes, value: bytes) -> str:
    if key.startswith(b'"ts"'):
        return "time"
    if key == b" at 0x":
        return "address"
    if key.startswith(b'"nn.Module'):
        return "module"
    if key.startswith(b'"device"'):
        return "device"
    if key.startswith(b'"pid"'):
        return "device" if int(value) < _DEVICES else "process"
    return "number"


def main() -> None:
    """Write a large trace."""
    source, target, size = sys.argv[1:]
    print(repeat(Path(source), Path(target), int(float(size))))


if __name__ == "__main__":
    main()
