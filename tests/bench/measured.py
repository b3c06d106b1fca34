"""Runs one process and measures it and its children: wall time, CPU time, peak memory.

A process that takes longer, or more memory, than it may is ended; so is every process that it has
started. Memory is the sum of the resident sets of the tree, looked at ten times a second, or what
the system says of its largest process, whichever is more. Linux only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_LOOK_SECONDS, _WAIT_SECONDS = 0.1, 0.01
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Limits:
    """What one process may take."""

    seconds: float
    memory_mb: float


@dataclass
class Run:
    """One process. ``outcome``: ok, failed, or the limit that it went over (time, memory)."""

    outcome: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    reason: str = ""
    work_s: float | None = None
    answer: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(command: Sequence[str], env: Mapping[str, str], limits: Limits) -> Run:
    """Run a command whose last line of output is JSON with ``work_s`` and ``answer``."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen(
            list(command), stdout=out, stderr=err, env=dict(env), start_new_session=True
        )
        watch = _Watch(process.pid, started, limits)
        try:
            status, usage = watch.wait()
        except BaseException:  # Ctrl-C does not reach a session of its own
            os.killpg(process.pid, signal.SIGKILL)
            raise
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output, errors = (_text(file) for file in (out, err))
    peak = max(watch.peak, usage.ru_maxrss / 1024)
    run = Run(watch.over or "ok", wall, usage.ru_utime + usage.ru_stime, peak)
    if watch.over:
        run.reason = f"over the limit of {_limit(watch.over, limits)}"
    elif process.returncode:
        run.outcome, run.reason = "failed", _last_error(errors, process.returncode)
    else:
        _take_answer(run, output)
    return run


def _take_answer(run: Run, output: str) -> None:
    try:
        told = json.loads(output.strip().splitlines()[-1])
        run.work_s, run.answer = told["work_s"], told["answer"]
    except (IndexError, ValueError, LookupError, TypeError):
        run.outcome, run.reason = "failed", "it gave no answer"


class _Watch:
    """Waits for a process, and ends it when it is over a limit."""

    def __init__(self, pid: int, started: float, limits: Limits) -> None:
        self._pid, self._started, self._limits = pid, started, limits
        self.peak, self.over = 0.0, ""

    def wait(self) -> tuple[int, Any]:
        """The status and the usage of the process and its children."""
        looked = 0.0
        while True:
            found, status, usage = os.wait4(self._pid, os.WNOHANG)
            if found:
                return status, usage
            now = time.monotonic()
            if now - looked >= _LOOK_SECONDS:
                looked = now
                self._look(now)
            time.sleep(_WAIT_SECONDS)

    def _look(self, now: float) -> None:
        self.peak = max(self.peak, sum(map(_resident_mb, _tree(self._pid))))
        if self.peak > self._limits.memory_mb:
            self.over = "memory"
        elif now - self._started > self._limits.seconds:
            self.over = "time"
        if self.over:
            os.killpg(self._pid, signal.SIGKILL)


def _tree(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in children:
            yield from _tree(int(child))


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # the process has ended
        return 0.0
    return pages * _PAGE / 2**20


def _limit(over: str, limits: Limits) -> str:
    return f"{limits.seconds:.0f} s" if over == "time" else f"{limits.memory_mb / 1024:.1f} GB"


def _last_error(errors: str, code: int) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {code}")[:_REASON_LENGTH]


def _text(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode("utf-8", "replace")
    return text


def python_of(words: Sequence[str]) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *words]
