"""Tasks in processes of this machine: children that are given one path after the other.

A child that dies (killed for memory, say) costs its task one more try, at the end, in a process of
its own. Few tasks are shared with this process, which has no start to wait for; of many it does
none, so that no trace can end it.
"""

from __future__ import annotations

import importlib
import os
import pickle
import stat
import struct
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Self

from traceq.errors import TraceqError, TraceReadError
from traceq.many import Done, Result, Task, Workers
from traceq.memory import LIMIT as MEMORY_LIMIT
from traceq.memory import free_memory
from traceq.progress import Progress, file_bytes

FEW = 8
"""Up to so many traces are read by this process too."""

WORTHWHILE = 3_000_000
"""Bytes of all files together from which on starting processes pays."""

_MEMORY, _MEMORY_PLAIN = 20, 2
"""Bytes of memory for a byte of a packed file while it is read, and of plain JSON; measured.

Twice what slices take (``fitting``), so that no file need be opened to know it.
"""

_TRIES = 2

_early: list[subprocess.Popen[bytes]] = []
"""Children that have been started and wait for their task."""


def start_early(paths: Sequence[str], module: str) -> None:
    """Start the children that :func:`run_here` will want for these paths, to import a module.

    A process that has much to import itself gains that time: its children import meanwhile.
    """
    share = _Share.of(paths, Workers())
    for _ in range(share.children):
        with suppress(OSError):  # no memory, no processes: it is tried again when there is a task
            _early.append(_start_child(share.memory, module))


def end_early() -> None:
    """End those that no task came for."""
    while _early:
        _end(_early.pop())


def run_here(
    task: Task[Result], paths: Sequence[str], workers: Workers, progress: Progress | None
) -> Generator[Done[Result]]:
    """See :func:`traceq.many.run_each`."""
    board = _Board(paths)
    share = _Share.of(paths, workers)
    helpers = _Helpers(task, board, share.memory)
    try:
        helpers.start(share.children)
        for number, path in enumerate(paths):
            while (done := board.result(number)) is None:
                _do_or_wait(task, board, helpers, progress)
            if isinstance(done, str):  # no file's fault
                raise RuntimeError(f"reading {path} failed in a process of its own:\n{done}")
            yield done
    finally:
        helpers.stop()


def _do_or_wait(
    task: Task[Any], board: _Board, helpers: _Helpers, progress: Progress | None
) -> None:
    """What this process does while the next result is not there: a task, or nothing."""
    paths = board.paths
    number = board.take_here(is_shared=len(paths) <= FEW, are_helpers=helpers.are_there)
    if number is None:
        board.wait()
    else:
        told = _of_one(progress, paths[number], len(paths))
        board.put(number, try_task(task, paths[number], told))
    if progress is not None and len(paths) > 1:
        progress("captures", board.finished, len(paths))


def _of_one(progress: Progress | None, path: str, number: int) -> Progress | None:
    """The progress of reading one of so many files: each has its lines where they are few."""
    if progress is None or number == 1 or number > FEW:
        return progress if number == 1 else None
    told, name = progress, os.path.basename(path)
    return lambda stage, done, total: told(f"{stage} {name}", done, total)


def try_task(task: Task[Result], path: str, progress: Progress | None = None) -> Done[Result]:
    """What becomes of one path; an error that the file explains is one of the results."""
    try:
        return Done(path, task(path, progress))
    except TraceqError as error:
        return Done(path, error=error)
    except MemoryError:
        return Done(path, error=too_large(path, "it does not fit into memory"))


def too_large(
    path: str,
    reason: str,
    hint: str = "Read fewer at a time (--jobs 1), or on a machine with more memory.",
) -> TraceReadError:
    """The error for a trace that no process could read to its end."""
    return TraceReadError(f"{path}: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Share:
    """How many children there are to be, and what memory each of them may use (None: unknown)."""

    children: int
    memory: int | None

    @classmethod
    def of(cls, paths: Sequence[str], workers: Workers) -> Self:
        """One child fewer than there is work for where this process does some."""
        free = free_memory()
        processes = _number_of_processes(paths, workers, free)
        is_shared = len(paths) <= FEW or processes == 1
        memory = free // max(processes, 1) if free is not None else None
        return cls(processes - 1 if is_shared else processes, memory)


def _number_of_processes(paths: Sequence[str], workers: Workers, free: int | None) -> int:
    if workers.jobs is not None:
        return min(workers.jobs, len(paths))
    if len(paths) < 2 or sum(map(file_bytes, paths)) < WORTHWHILE:
        return 1
    need = max(map(memory_of, paths)) + 1
    room = 2 if free is None else max(1, free // need)
    return min(_cores(), len(paths), room)


def memory_of(path: str) -> int:
    """About how many bytes of memory reading a file takes."""
    return file_bytes(path) * (_MEMORY_PLAIN if path.endswith(".json") else _MEMORY)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Board:
    """What is to be done and what has been, for all threads: numbers of paths, in their order."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.finished = 0
        self._left = deque(range(len(paths)))
        self._tries = [0] * len(paths)
        self._done: dict[int, Done[Any] | str] = {}
        self._changed = threading.Condition()

    def result(self, number: int) -> Done[Any] | str | None:
        """What became of a path, once; the traceback of a task that raised what it should not."""
        with self._changed:
            return self._done.pop(number, None)

    def put(self, number: int, done: Done[Any] | str) -> None:
        with self._changed:
            self._done[number] = done
            self.finished += 1
            self._changed.notify_all()

    def take(self) -> int | None:
        """The next one for a child; what cannot be read elsewhere is left to the caller."""
        with self._changed:
            for number in self._left:
                if not is_ours(self.paths[number]):
                    return self._begin(number)
            return None

    def take_here(self, *, is_shared: bool, are_helpers: bool) -> int | None:
        """What the calling process should do now; None: wait for the others.

        What has killed a child is left to other children, or given up where there are none.
        """
        with self._changed:
            for number in [*self._left]:
                if self._tries[number] and not are_helpers:
                    self._left.remove(number)
                    self._give_up(number, "the process that read it was killed")
                elif not self._tries[number] and (
                    is_shared or not are_helpers or is_ours(self.paths[number])
                ):
                    return self._begin(number)
            return None

    def _give_up(self, number: int, reason: str) -> None:
        path = self.paths[number]
        self.put(number, Done(path, error=too_large(path, reason)))

    def _begin(self, number: int) -> int:
        self._left.remove(number)
        self._tries[number] += 1
        return number

    def give_back(self, number: int, code: int | None) -> None:
        """A child has died over it: once more, at the end, or never again."""
        with self._changed:
            if self._tries[number] < _TRIES:
                self._left.append(number)
                self._changed.notify_all()
                return
        self._give_up(number, f"the process that read it was killed twice (exit code {code})")

    def wait(self) -> None:
        """Until something has changed, or a moment for the bar's clock."""
        with self._changed:
            self._changed.wait(0.2)

    def clear(self) -> None:
        """Nothing more is to be begun."""
        with self._changed:
            self._left.clear()


_OF_A_PROCESS = ("/dev/std", "/dev/fd/", "/proc/self/")
"""Paths that lead each process to files of its own."""


def is_ours(path: str) -> bool:
    """Whether only this process can read it: its standard input, what a shell hands it, a pipe."""
    if path == "-" or path.startswith(_OF_A_PROCESS):
        return True
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


class _Helpers:
    """The children, and a thread for each that gives it paths."""

    def __init__(self, task: Task[Any], board: _Board, memory: int | None) -> None:
        self._task = pickle.dumps(task)
        self._board = board
        self._memory = memory
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._is_over = False

    @property
    def are_there(self) -> bool:
        """Whether any may still do something."""
        return any(thread.is_alive() for thread in self._threads)

    def start(self, number: int) -> None:
        for _ in range(number):
            thread = threading.Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End all children, whatever they do."""
        self._is_over = True
        self._board.clear()
        for child in self._children:
            child.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Children, one after the other as they die, until nothing is left to do."""
        with suppress(OSError):  # no memory, no processes: the others do it, or the caller
            while not self._is_over and self._serve_one():
                pass

    def _serve_one(self) -> bool:
        """Give paths to a child; whether it died over one, so that another is needed."""
        try:
            child = _early.pop()
        except IndexError:
            child = _start_child(self._memory)
        self._children.append(child)
        try:
            return self._feed(child)
        finally:
            _end(child)

    def _feed(self, child: subprocess.Popen[bytes]) -> bool:
        assert child.stdin is not None
        assert child.stdout is not None
        if self._is_over or not _send(child.stdin, self._task) or _receive(child.stdout) is None:
            return False  # it cannot even start
        while (number := self._board.take()) is not None:
            answer = None
            if _send(child.stdin, os.fsencode(self._board.paths[number])):
                answer = _receive(child.stdout)
            if answer is None:
                if not self._is_over:
                    self._board.give_back(number, child.wait())
                return True
            self._board.put(number, _unpacked(answer, self._board.paths[number]))
        return False


def _unpacked(answer: bytes, path: str) -> Done[Any] | str:
    """What a child has sent; whatever happens, each path gets an answer."""
    try:
        found: Done[Any] | str = pickle.loads(answer)
    except MemoryError:
        return Done(path, error=too_large(path, "what it gives does not fit into memory"))
    except Exception:  # noqa: BLE001  # a defect is the caller's to raise
        return traceback.format_exc()
    return found


def _start_child(memory: int | None, *modules: str) -> subprocess.Popen[bytes]:
    share = {} if memory is None else {MEMORY_LIMIT: str(memory)}
    return subprocess.Popen(
        # -P: what lies beside the traces is not to be imported.
        [sys.executable, "-P", "-c", "from traceq.many.local import serve; serve()", *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the caller's to answer
        env={**os.environ, **share, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):  # what was not written yet has no reader
            if pipe is not None:
                pipe.close()


_LENGTH = struct.Struct("<Q")


def _send(pipe: IO[bytes], message: bytes) -> bool:
    """Write a message; False where nobody reads any more."""
    try:
        pipe.write(_LENGTH.pack(len(message)) + message)
        pipe.flush()
    except (OSError, ValueError):
        return False
    return True


def _receive(pipe: IO[bytes]) -> bytes | None:
    """Read a message; None where nobody writes any more."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    message = pipe.read(_LENGTH.unpack(head)[0])
    return message if len(message) == _LENGTH.unpack(head)[0] else None


# In the child -------------------------------------------------------------------------------


def serve() -> None:
    """Import what is named, get the task, then paths; answer each with what became of it."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # prints are no answers
    for module in sys.argv[1:]:
        importlib.import_module(module)
    if (task_text := _receive(requests)) is None:
        return
    task = pickle.loads(task_text)
    _send(answers, b"ready")
    while (path := _receive(requests)) is not None:
        _send(answers, _answer(task, os.fsdecode(path)))


def _answer(task: Task[Any], path: str) -> bytes:
    try:
        return pickle.dumps(try_task(task, path))
    except MemoryError:
        error = too_large(path, "what it gives does not fit into memory")
        return pickle.dumps(Done(path, error=error))
    except Exception:  # noqa: BLE001  # a defect is the caller's to raise
        return pickle.dumps(traceback.format_exc())
