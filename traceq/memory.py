"""Tells glibc's allocator what reading a large file is like; elsewhere it does nothing.

Reading takes and frees the same megabytes for each chunk of text. By default glibc returns them to
the system each time, which then has to clear them anew: a fifth of the time of reading.
"""

from __future__ import annotations

import ctypes
import sys

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
