"""Starts the processes that will read the traces of a command line, before anything is imported.

Which files there are, and how they are read, is settled later: a guess that is wrong costs a
process that waits in vain.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import click

READS_MANY = frozenset({"ops", "diff", "report", "record"})
"""Commands that read several traces."""

_SAID = ("-j", "--jobs", "--on")
"""Options by which it is said how traces are read."""


def start_readers(command: str, words: Sequence[str]) -> None:
    """Start what will read the files among the words of a command, where they are several."""
    if command not in READS_MANY or any(word.startswith(_SAID) for word in words):
        return
    paths = [path for word in words for path in _files(word)]
    if len(paths) > 1:
        from traceq.many.local import end_early, start_early

        click.get_current_context().call_on_close(end_early)
        start_early(paths, "traceq.gathering")


def _files(word: str) -> list[str]:
    found = glob.glob(word) if glob.has_magic(word) else [word]
    return [path for path in found if os.path.isfile(path)]
