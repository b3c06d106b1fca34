"""What memory may be used, and what glibc's allocator is told about its use.

Reading takes and frees the same megabytes for each chunk of text. By default glibc returns them to
the system each time, which then has to clear them anew: a fifth of the time of reading.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

from traceq.errors import UsageError
from traceq.units import parse_bytes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names, malloc.h
_KEPT, _FROM_SYSTEM = 64 << 20, 16 << 20
"""Bytes that are kept at most at the end of the heap, and from which on a block is the system's."""


def keep_freed() -> None:
    """From now on in this process, freed blocks of some megabytes stay for the next ones.

    glibc does about the same by itself, later: its thresholds rise as large blocks are freed.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _FROM_SYSTEM)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def give_back() -> None:
    """Return what has been freed to the system: the engine needs as much at once.

    glibc keeps freed small blocks; on the large trace that is 195 MB of the peak.
    """
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


# What is free -------------------------------------------------------------------------------

LIMIT = "TRACEQ_MEMORY"
"""The variable that sets a limit in place of what is free."""

_GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that may be used: ``TRACEQ_MEMORY``, else what is free; None where that is unknown.

    Raises UsageError where TRACEQ_MEMORY is no size.
    """
    text = os.environ.get(LIMIT)
    if text:
        size = parse_bytes(text)
        if size is None:
            raise UsageError(f"{LIMIT} is {text!r}, which is no size", hint="Write 500MB or 4GB.")
        return size
    found = [
        size for size in (_free_in_system(), *map(_free_in, _own_groups())) if size is not None
    ]
    return min(found, default=None)


def _free_in_system() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    sizes = re.findall(r"^(?:MemAvailable|SwapFree):\s+(\d+) kB", text, re.MULTILINE)
    return sum(map(int, sizes)) * 1024 if sizes else None


def _own_groups() -> list[Path]:
    """The control groups (version 2) that this process is in: its own, and those around it."""
    try:
        found = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    except OSError:
        return []
    own = _GROUPS / (found[1] if found else "")
    return [group for group in (own, *own.parents) if group.is_relative_to(_GROUPS)]


def _free_in(group: Path) -> int | None:
    """What a group, a container say, may still have; None where it has no limit.

    The files that it has read are counted as its own, though they can go at any time.
    """
    try:
        most, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        files = re.search(
            r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE
        )
    except (OSError, ValueError):
        return None
    return max(0, most - used + (int(files[1]) if files else 0))
