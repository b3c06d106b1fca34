"""The history's file: a DuckDB database with a versioned schema, safe with writers beside.

A connection is held only while it reads or writes; another program waits for that. What is written
at once is one transaction: after a kill it is there whole, or not at all. Which runs are meant by a
word is decided in ``refs``.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traceq.errors import HistoryError, UsageError
from traceq.history.alike import check_alike
from traceq.history.pack import pack, unpack
from traceq.history.run import Run, in_order, options_of
from traceq.history.samples import kernel_samples, ops_samples, scope_samples
from traceq.history.schema import migrate, moment, transaction, workload_of
from traceq.library import check_database, history_query
from traceq.reading import Question, Reading, Words

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    Connection = duckdb.DuckDBPyConnection

PATIENCE = 60.0
"""Seconds to wait for another program that has the file open."""

NOTICE = 1.5
"""Seconds of waiting after which it is told."""

_PAUSE = 0.05

_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")

_MOST_TOLD = 4
"""Captures that a message names."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "default_block_size": "16384",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
"""Small blocks keep a new file of few captures small; nothing is fetched from a network."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The run of captures that were to be recorded, how many are new, how many were known.

    ``labels`` are those that the run has now, ``warnings`` tell in what the captures differ.
    """

    run: str
    new: int
    known: int
    labels: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """The runs in a file; each call opens it, and lets it go again.

    ``notify`` is told who is waited for, where that takes long; ``patience`` is how long (s).
    """

    path: Path
    patience: float = PATIENCE
    notify: Callable[[str], None] | None = None

    def record(
        self,
        captures: Sequence[Reading],
        question: Question,
        labels: Mapping[str, str],
        told: Mapping[str, str] | None = None,
        *,
        force: bool = False,
    ) -> Recorded:
        """Put captures in as one run, all or none; ``labels`` go over those that they ``told``.

        Where all are known, in one run, it stays as it is, but for ``labels`` that it does not
        have. Raises HistoryError where only some are known, or the run has other ``labels``;
        UsageError where there are no captures, copies of one, or (without ``force``) such as a
        comparison would refuse.
        """
        rows = _rows(captures, question)
        warnings = check_alike(captures, force)
        with self._connected(write=True) as connection, transaction(connection):
            known = _runs_of(connection, rows)
            if known:
                run = _run_of_all(rows, known)
                _check_labels(run, labels, _labels_of(connection, run))
            else:
                run = _insert_run(connection, rows)
                labels = {**(told or {}), **labels}
            _insert_labels(connection, run, labels)
            stored = _labels_of(connection, run)
        return Recorded(run, 0 if known else len(rows), len(known), stored, warnings)

    def runs(self) -> list[Run]:
        """All runs, the oldest first (see :func:`in_order`). Raises HistoryError."""
        with self._connected() as connection:
            found = connection.execute(history_query("runs")).fetchall()
        runs = [
            Run(
                run=run,
                captured=captured,
                recorded=recorded,
                labels=dict(labels),
                captures=captures,
                unders=tuple(map(tuple, unders)),
                paths=tuple(paths),
                asked=tuple(options_of(under, json.loads(within)) for under, within in asked),
            )
            for run, captured, recorded, labels, captures, unders, paths, asked in found
        ]
        return in_order(runs)

    def load(
        self, runs: Sequence[Run], question: Question, words: Words | None = None
    ) -> list[Reading]:
        """The captures of runs that were recorded under the question's scopes and limits."""
        values = {
            "runs": [item.run for item in runs],
            "under": [*question.under],
            "within": _within(question),
        }
        with self._connected() as connection:
            found = connection.execute(history_query("packed"), values).fetchall()
        return [
            _checked(unpack(data, words or question.words), path, sha256, tuple(under))
            for data, path, sha256, under in found
        ]

    def forget(self, runs: Sequence[Run]) -> int:
        """Take runs out; the number of captures that went. Raises HistoryError."""
        names = [item.run for item in runs]
        with self._connected(write=True) as connection, transaction(connection):
            gone = _keys_of(connection, names)
            for table in ("ops", "kernels", "scopes", "captures"):
                connection.execute(
                    f"DELETE FROM {table} WHERE list_contains($gone, capture)", {"gone": gone}
                )
            for table in ("labels", "runs"):
                connection.execute(
                    f"DELETE FROM {table} WHERE list_contains($names, run)", {"names": names}
                )
        return len(gone)

    def query(self, name: str, values: Mapping[str, Any]) -> pd.DataFrame:
        """The rows of queries/history/<name>.sql, with its parameters."""
        with self._connected() as connection:
            return connection.execute(history_query(name), dict(values)).df()

    @contextmanager
    def _connected(self, *, write: bool = False) -> Iterator[Connection]:
        check_database(self.path)
        if not write and not self.path.exists():
            raise HistoryError(
                f"{self.path}: there is no such file", hint="'traceq record' makes it."
            )
        import duckdb

        connection = self._connect(write)
        try:
            migrate(connection, self.path, write)
            yield connection
        except duckdb.Error as error:  # a damaged block is read only when it is asked for
            raise _unusable(self.path, error) from error
        finally:
            connection.close()

    def _connect(self, write: bool) -> Connection:
        """Open the file, waiting for whoever has it open. Raises HistoryError."""
        import duckdb

        start, told = time.monotonic(), self.notify is None
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=not write, config=_CONFIG)
            except duckdb.Error as error:
                if not _is_locked(error):
                    raise _unusable(self.path, error) from error
                waited, holder = time.monotonic() - start, _holder(error)
                if waited > self.patience:
                    raise HistoryError(
                        f"{self.path}: {holder} has had it open for {self.patience:.0f} s",
                        hint="Close it there (a notebook's connection, too), and try again.",
                    ) from error
                if self.notify and not told and waited > NOTICE:
                    self.notify(f"waiting for {self.path}, held by {holder}")
                    told = True
                time.sleep(_PAUSE)


def _checked(capture: Reading, path: str, sha256: str | None, under: tuple[str, ...]) -> Reading:
    """Raises HistoryError where what was packed is not the capture of its row."""
    if (capture.path, capture.sha256, capture.under) != (path, sha256, under):
        raise HistoryError(
            f"what is recorded as {path} is another capture", hint="Record its trace again."
        )
    return capture


def _is_locked(error: Exception) -> bool:
    text = str(error)
    return "Could not set lock" in text or "different configuration" in text


def _holder(error: Exception) -> str:
    """Who has the file open, as DuckDB's error tells."""
    if found := _HOLDER.search(str(error)):
        return f"{found[1]} (process {found[2]})"
    return "this process" if "different configuration" in str(error) else "another program"


def _unusable(path: Path, error: Exception) -> HistoryError:
    return HistoryError(
        f"{path}: cannot be used as a history: {str(error).splitlines()[0]}",
        hint="Name a file that 'traceq record' made, or a new one.",
    )


# Rows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A capture that is to be put in."""

    key: str
    capture: Reading
    within: str
    place: int

    @classmethod
    def of(cls, capture: Reading, question: Question, place: int) -> _Row:
        """The key is made of what was read: the file, the scopes, the limits of time."""
        within = _within(question)
        text = json.dumps([_content(capture), list(capture.under), within])
        return cls(hashlib.sha256(text.encode()).hexdigest()[:32], capture, within, place)

    def insert(self, connection: Connection, run: str) -> None:
        capture, totals = self.capture, self.capture.totals
        connection.execute(
            "INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                self.key,
                run,
                self.place,
                capture.path,
                capture.sha256,
                [*capture.under],
                self.within,
                capture.steps,
                totals.scopes,
                totals.total,
                totals.gpu_here.total,
                totals.gpu_here.activities,
                pack(capture),
                moment(capture.facts.time),
                _content(capture),
                workload_of(capture.facts),
            ],
        )
        for name, samples in (
            ("ops", ops_samples(capture)),
            ("kernels", kernel_samples(capture)),
            ("scopes", scope_samples(capture)),
        ):
            if len(samples):
                connection.register("samples", samples)
                connection.execute(
                    f"INSERT INTO {name} BY NAME SELECT $capture AS capture, * FROM samples",
                    {"capture": self.key},
                )
                connection.unregister("samples")


def _rows(captures: Sequence[Reading], question: Question) -> list[_Row]:
    """Raises UsageError where there is none, or one twice: copies are no captures of their own."""
    if not captures:
        raise UsageError("there is no capture to record", hint="Name one at least.")
    rows = [_Row.of(capture, question, place) for place, capture in enumerate(captures)]
    first: dict[str, _Row] = {}
    for row in rows:
        if (same := first.setdefault(row.key, row)) is not row:
            raise UsageError(
                f"{same.capture.path} and {row.capture.path} are the same capture",
                hint="Name it once: a run is made of several captures.",
            )
    return rows


def _content(capture: Reading) -> str:
    """What copies of one capture share, packed in whatever way."""
    return capture.facts.fingerprint or capture.sha256 or capture.path


def _within(question: Question) -> str:
    return json.dumps(question.limits, sort_keys=True)


def _run_id(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:12]


def _runs_of(connection: Connection, rows: Sequence[_Row]) -> dict[str, str]:
    """The run of each capture (by its content) that is known under its scopes and limits."""
    values = {
        "contents": [_content(row.capture) for row in rows],
        "under": [*rows[0].capture.under],
        "within": rows[0].within,
    }
    return dict(connection.execute(history_query("known"), values).fetchall())


def _run_of_all(rows: Sequence[_Row], known: Mapping[str, str]) -> str:
    """The one run that has all captures. Raises HistoryError where there is none."""
    runs = [known.get(_content(row.capture)) for row in rows]
    if runs[0] is not None and len({*runs}) == 1:
        return runs[0]
    told = [f"{row.capture.path} in run {run}" for row, run in zip(rows, runs, strict=True) if run]
    more = f"; {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    raise HistoryError(
        f"{len(told)} of these {len(rows)} captures are recorded already: "
        f"{'; '.join(told[:_MOST_TOLD])}{more}",
        hint="Record the others by themselves, or take what is there out first: "
        f"'traceq forget {next(filter(None, runs))}'.",
    )


def _check_labels(run: str, given: Mapping[str, str], stored: Mapping[str, str]) -> None:
    """Raises HistoryError where a run has other labels than those that are given."""
    others = [f"{key}={stored[key]}" for key in given if stored.get(key, given[key]) != given[key]]
    if others:
        raise HistoryError(
            f"these captures are recorded already, in run {run} with {', '.join(others)}",
            hint=f"Leave these labels away, or 'traceq forget {run}' first.",
        )


def _keys_of(connection: Connection, runs: Sequence[str]) -> list[str]:
    rows = connection.execute(
        "SELECT capture FROM captures WHERE list_contains($runs, run)", {"runs": [*runs]}
    )
    return [key for (key,) in rows.fetchall()]


def _insert_run(connection: Connection, rows: Sequence[_Row]) -> str:
    run = _run_id([row.key for row in rows])
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute("INSERT INTO runs VALUES (?, ?, ?)", [run, now, version("traceq")])
    for row in rows:
        row.insert(connection, run)
    return run


def _labels_of(connection: Connection, run: str) -> dict[str, str]:
    rows = connection.execute("SELECT key, value FROM labels WHERE run = ? ORDER BY key", [run])
    return dict(rows.fetchall())


def _insert_labels(connection: Connection, run: str, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        connection.execute("INSERT OR IGNORE INTO labels VALUES (?, ?, ?)", [run, key, value])
