"""What others wrote, made fit for a message and for JSON."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 3


def sound(text: str) -> str:
    """The text with lone surrogates replaced, which json writes and other readers refuse."""
    return text.encode("utf-8", "replace").decode()


def few(names: Iterable[str]) -> str:
    """Names in a sentence, the first of them where they are many.

    >>> few(["c", "b"]), few("edcba")
    ('b, c', 'a, b, c and 2 more')
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more
