"""Makes a large trace out of a real one, by repeating it in time.

``python -m tests.bench.size TRACE OUT BYTES`` writes OUT (.json or .json.gz). Each copy begins
where the one before has ended; numbers that join events (correlation, External id, arrows, sequence
numbers) go on, so that no copy is joined with another.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from isal import igzip

_NUMBERS = re.compile(
    rb'("(?:ts|correlation|External id|id|Sequence number|Ev Idx)": ?)(\d+)(?=[.,}\s])'
)


def repeat(source: Path, target: Path, size: int) -> int:
    """Write so many copies of ``source`` that the JSON has ``size`` bytes; how many these are."""
    with igzip.open(source) if source.suffix == ".gz" else source.open("rb") as file:
        text = file.read()
    begin = text.index(b"[", text.index(b'"traceEvents"')) + 1
    end = text.rindex(b"]")
    head, body, tail = text[:begin], text[begin:end].strip(), text[end:]
    del text
    copies = max(1, -(-size // len(body)))
    with _created(target) as file:
        file.write(head)
        for number, copy in enumerate(_copies(body, copies)):
            file.write(b",\n" if number else b"\n")
            file.writelines(copy)
        file.write(b"\n" + tail)
    return copies


def _created(target: Path) -> IO[bytes]:
    if target.suffix == ".gz":
        return igzip.open(target, "wb", compresslevel=1)  # type: ignore[no-any-return]
    return target.open("wb")


def _copies(body: bytes, count: int) -> Iterator[list[bytes]]:
    """The events with all numbers moved, as texts between which the numbers stand."""
    parts = _NUMBERS.split(body)  # text, key, number, text, ...
    keys, numbers = parts[1::3], [int(number) for number in parts[2::3]]
    is_time = [key.startswith(b'"ts"') for key in keys]
    times = [number for number, chosen in zip(numbers, is_time, strict=True) if chosen]
    span = max(times) - min(times) + 1_000_000  # µs
    step = max(
        (number for number, time in zip(numbers, is_time, strict=True) if not time), default=0
    )
    for copy in range(count):
        shifts = (copy * (step + 1), copy * span)
        parts[2::3] = [
            b"%d" % (number + shifts[time]) for number, time in zip(numbers, is_time, strict=True)
        ]
        yield parts


def main() -> None:
    """Write a large trace."""
    source, target, size = sys.argv[1:]
    print(repeat(Path(source), Path(target), int(float(size))))


if __name__ == "__main__":
    main()
