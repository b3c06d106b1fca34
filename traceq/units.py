"""Numbers to text: ns to µs, counts, ratios, bytes. Scaling happens here and nowhere else."""

from __future__ import annotations

import re

MICRO = 1000
NOTHING = "–"


def micros(ns: float | None) -> str:
    """Nanoseconds as microseconds with three places, which is exact.

    >>> micros(827462)
    '827.462'
    """
    return NOTHING if ns is None else _thousandths(ns)


def signed_micros(ns: float | None) -> str:
    """A difference in ns as µs with its sign.

    >>> signed_micros(-616962), signed_micros(0)
    ('−616.962', '0.000')
    """
    if ns is None:
        return NOTHING
    sign = "+" if ns > 0 else "−" if ns < 0 else ""
    return sign + _thousandths(abs(ns))


def _thousandths(number: float) -> str:
    """Whole numbers are divided as such: a float would round above 2**53."""
    if isinstance(number, int):
        whole, rest = divmod(abs(number), MICRO)
        return f"{'-' if number < 0 else ''}{whole:,}.{rest:03}"
    return f"{number / MICRO:,.3f}"


def count(number: int | None) -> str:
    """A count with thousands separated.

    >>> count(464904)
    '464,904'
    """
    return NOTHING if number is None else f"{number:,}"


def ratio(value: float | None) -> str:
    """Before over after: above 1 is faster.

    >>> ratio(3.9309)
    '3.93x'
    """
    if value is None:
        return NOTHING
    return f"{value:,.2f}x" if value >= 0.01 else f"{value:.1g}x"


def percent(part: float | None) -> str:
    """A part of a whole; one that is not nothing is never shown as such.

    >>> percent(0.42968), percent(0.0002), percent(0.0)
    ('43.0%', '<0.1%', '0.0%')
    """
    if part is None:
        return NOTHING
    return "<0.1%" if 0 < part < 0.0005 else f"{part * 100:,.1f}%"


def decimal(number: float | None) -> str:
    """A number with one place.

    >>> decimal(3.7), decimal(1080)
    ('3.7', '1,080.0')
    """
    return NOTHING if number is None else f"{number:,.1f}"


def duration(ns: int) -> str:
    """A span of time in the unit that suits its size.

    >>> duration(2_473_186_228), duration(827_462)
    ('2.473 s', '827.462 µs')
    """
    for size, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "µs")):
        if abs(ns) >= size:
            return f"{ns / size:,.3f} {unit}"
    return f"{ns} ns"


def plural(number: int, noun: str, several: str | None = None) -> str:
    """A count and what is counted.

    >>> plural(1, "op"), plural(1080, "op"), plural(2, "activity", "activities")
    ('1 op', '1,080 ops', '2 activities')
    """
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def file_size(size: int) -> str:
    """Bytes in the unit that suits them, decimal as disks and downloads count.

    >>> file_size(640), file_size(305_000_000)
    ('640 B', '305.0 MB')
    """
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def percent_floor(part: float) -> str:
    """A confidence in percent, never rounded up.

    >>> percent_floor(0.9), percent_floor(0.9375)
    ('90%', '93%')
    """
    return f"{int(part * 100 + 1e-9)}%"


def printable(text: str) -> str:
    """Text with everything that does not print written as an escape: no name can steer a terminal.

    >>> printable("a\\x1b[2Jb\\u202ec")
    'a\\\\x1b[2Jb\\\\u202ec'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*\Z")


def parse_bytes(text: str) -> int | None:
    """A size in bytes, with a decimal unit or none; None for what is no size.

    >>> parse_bytes("500 MB"), parse_bytes("0"), parse_bytes("many")
    (500000000, 0, None)
    """
    found = _SIZE.match(text)
    return round(float(found[1]) * 1000 ** " kMGT".index(found[2] or " ")) if found else None
