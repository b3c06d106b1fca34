"""The errors a user can meet, each carrying the next step to take.

Every failure that a user can cause is a :class:`TraceqError`; the command line prints it once,
on stderr, and exits with :attr:`TraceqError.exit_code`. Bugs are left to raise as what they are.
"""

from __future__ import annotations

from typing import Any


class TraceqError(Exception):
    """Base of all errors that a user can cause.

    ``message`` says what is wrong in one line; ``hint`` says what to do next, if anything can be.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """For errors of other processes: a class may have taken other arguments."""
        return _rebuilt, (type(self), self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def _rebuilt(kind: type[TraceqError], message: str, hint: str | None) -> TraceqError:
    error = kind.__new__(kind, message)
    TraceqError.__init__(error, message, hint=hint)
    return error


class TraceReadError(TraceqError):
    """The input is not a trace that can be read."""


class EngineError(TraceqError):
    """The query engine could not be started, or broke."""


class QueryError(TraceqError):
    """The engine refused a query; the message is the engine's own, with its position."""


class QueryTimeoutError(TraceqError):
    """A query ran past the time it was given and was ended."""


class PatternError(TraceqError):
    """A pattern is malformed, or matches nothing in the trace."""


class UsageError(TraceqError):
    """Options that do not go together, or a value out of range."""


class CaptureError(TraceqError):
    """A capture could not be made; nothing is left under the name it was to have."""


class CaptureWarning(UserWarning):
    """A capture was made, but not as asked for; its record's notes hold it too."""


class HistoryError(TraceqError):
    """The history cannot be read or written, or holds no such run."""
