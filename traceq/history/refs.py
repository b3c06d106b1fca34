"""Which recorded runs a word of the command line means.

``REF`` is the value of any label (a branch, a commit, a name), ``KEY=VALUE``, or the beginning of a
run's id. The runs that are meant are always those of one commit: ``REF@latest`` takes the newest
commit among them, ``REF@latest~1`` the one before, ``REF@COMMIT`` that one (its beginning
does), and ``REF`` alone is refused where they are of several. A run without a commit stands for
itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from traceq.errors import HistoryError
from traceq.history.run import Run, in_order
from traceq.units import plural

LATEST = "latest"
_LATEST = re.compile(rf"{LATEST}(?:~(\d{{1,9}}))?")
_LEAST = 4
"""So many characters of an id or a commit are enough."""


def runs_meant(ref: str, runs: Sequence[Run]) -> list[Run]:
    """The runs of one commit, the oldest first. Raises HistoryError where none is meant."""
    word, _, which = ref.rpartition("@") if "@" in ref else (ref, "", "")
    if "@" in ref and any(_fits(run, ref) for run in runs):  # the label itself has one
        word, which = ref, ""
    found = runs_named(word, runs)
    commits = [*dict.fromkeys(_commit(run) for run in found)]
    if back := _LATEST.fullmatch(which):
        commits = _before_last(word, commits, int(back[1] or 0))
    elif which:
        commits = [item for item in commits if _begins(item, which)]
    if not commits:
        raise HistoryError(
            f"no run of {word!r} has a commit that begins with {which!r}",
            hint=f"Give {_LEAST} characters of one at least, {word}@{LATEST}, or "
            f"{word}@{LATEST}~1 for the one before; 'traceq runs' lists them.",
        )
    if len(commits) > 1:
        shown = ", ".join(item[:12] for item in commits[-5:])
        raise HistoryError(
            f"{ref!r} means runs of {len(commits)} commits: {'' if len(commits) < 6 else '... '}"
            f"{shown}",
            hint=f"Name one: {word}@{LATEST}, or {word}@{commits[-1][:12]}.",
        )
    return [run for run in found if _commit(run) == commits[0]]


def _before_last(word: str, commits: Sequence[str], back: int) -> list[str]:
    """The commit so many before the newest. Raises HistoryError."""
    if back >= len(commits):
        raise HistoryError(
            f"{word!r} means runs of {plural(len(commits), 'commit')}: there is no {LATEST}~{back}",
            hint=f"The oldest is {commits[0][:12]}.",
        )
    return [commits[-1 - back]]


def runs_named(word: str, runs: Sequence[Run]) -> list[Run]:
    """All runs that a word fits, of any commit, the oldest first.

    Raises HistoryError where there is none.
    """
    key, sign, value = word.partition("=")
    if sign and any(key in run.labels for run in runs):
        found = [run for run in runs if run.labels.get(key) == value]
    else:
        found = [run for run in runs if _fits(run, word)]
    if found:
        return in_order(found)
    known = sorted({text for run in runs for text in run.labels.values()})
    near = difflib.get_close_matches(word, known, 3)
    listed = "'traceq runs' lists them"
    if len(word) < _LEAST:
        listed += f"; of a commit or an id give {_LEAST} characters at least"
    hint = f"Near: {', '.join(near)}." if near else f"{listed}."
    raise HistoryError(f"no recorded run is meant by {word!r}", hint=hint)


def _fits(run: Run, word: str) -> bool:
    commit = run.labels.get("commit", "")
    return word in run.labels.values() or _begins(run.run, word) or _begins(commit, word)


def _begins(text: str, start: str) -> bool:
    return len(start) >= _LEAST and text.startswith(start)


def _commit(run: Run) -> str:
    return run.labels.get("commit") or run.run
