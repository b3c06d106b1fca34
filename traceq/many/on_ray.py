"""Tasks on a Ray cluster, one a trace. Which machines, and retries on others, are Ray's business.

Every node needs traceq in its Python, and the traces under the same paths. Where a task is retried
it gives the same, as it only reads. Until all results are taken, what this process prints goes to
stderr, as Ray's own words do.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stdout
from itertools import islice
from typing import Any

from traceq.errors import EngineError, TraceReadError
from traceq.many import RAY, Done, Result, Task, Workers
from traceq.many.local import is_ours, memory_of, too_large, try_task
from traceq.progress import Progress

_RETRIES = 2
"""Of a task whose process or machine has died."""

_AHEAD = 4
"""Tasks for each core of the cluster that it is given before their results are taken."""

_NODE_PART = 0.8
"""Of the memory of the largest machine: what a task may ask for at most, or it would never run."""


def run_on_ray(
    task: Task[Result], paths: Sequence[str], workers: Workers, progress: Progress | None
) -> Generator[Done[Result]]:
    """See :func:`traceq.many.run_each`. Raises EngineError where there is no Ray, or no cluster."""
    # Ray prints of workers that died, on a thread of its own: no results, so not on stdout.
    with redirect_stdout(sys.stderr), _cluster(workers.on) as ray:
        given = _give(ray, task, paths)
        cores = int(ray.cluster_resources().get("CPU", 1))
        ahead = deque(islice(given, _AHEAD * max(cores, 4)))
        try:
            for number, path in enumerate(paths):
                reference = ahead[0]
                yield try_task(task, path) if reference is None else _take(ray, reference, path)
                ahead.popleft()
                ahead.extend(islice(given, 1))
                if progress is not None:
                    progress("captures", number + 1, len(paths))
        finally:
            # Not by force: Ray 2.60 ends this process where a result comes in at that moment.
            for reference in filter(None, ahead):
                ray.cancel(reference)


def _give(ray: Any, task: Task[Any], paths: Sequence[str]) -> Iterator[Any]:
    """A reference to the coming result of each path; None for what is read here."""
    remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_in_folder)
    shared, folder, most = ray.put(task), os.getcwd(), _node_memory(ray)
    for path in paths:
        memory = min(memory_of(path), most)
        yield None if is_ours(path) else remote.options(memory=memory).remote(shared, path, folder)


def _node_memory(ray: Any) -> int:
    nodes = [node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]]
    return int(_NODE_PART * max(nodes, default=0))


def _take(ray: Any, reference: Any, path: str) -> Done[Any]:
    """The result of a task, once it is there; what killed its processes is the file's error."""
    try:
        return ray.get(reference)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        if not any(words in str(error) for words in _NOT_IMPORTED):
            raise  # a defect of the task, with its own traceback
        raise EngineError(
            f"a machine of the cluster has another Python than this one: {_lines(error)[-1]}",
            hint="Install the same traceq in the Python of all its machines.",
        ) from error
    except ray.exceptions.RayError as error:
        text = f"the cluster could not read it in {1 + _RETRIES} tries ({_lines(error)[0]})"
        return Done(path, error=too_large(path, text, "Give its machines more memory."))
    except ConnectionError as error:
        raise EngineError(
            f"the connection to the cluster is lost: {_lines(error)[0]}",
            hint="Run the command again, on a machine of the cluster if it is lost again.",
        ) from error


_NOT_IMPORTED = ("failed to import", "ModuleNotFoundError", "ImportError")
"""What is said of a task that a machine's Python does not know, or of which it lacks a part."""


def _lines(error: BaseException) -> list[str]:
    """What an error says; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()


def _in_folder(task: Task[Any], path: str, folder: str) -> Done[Any]:
    """Runs on the cluster: paths mean there what they mean to the caller."""
    with ExitStack() as stack:
        try:
            stack.enter_context(chdir(folder))
        except OSError:
            if not os.path.isabs(path):
                hint = "Name the traces by their full paths."
                text = f"{path}: a machine of the cluster has no folder {folder}"
                return Done(path, error=TraceReadError(text, hint=hint))
        return try_task(task, path)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected for a time; one that was connected before stays so."""
    try:
        import ray
    except ImportError as error:
        raise EngineError("Ray is not installed", hint="Install the extra traceq[ray].") from error
    if ray.is_initialized():
        yield ray
        return
    # Counting users is done over the network, and nobody has agreed to that here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is in the error
            ray.init(
                address=None if address == RAY else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, ImportError, TimeoutError) as error:
        place = os.environ.get("RAY_ADDRESS", address) if address == RAY else address
        raise EngineError(
            f"there is no Ray cluster at {place}: {_lines(error)[0]}",
            hint="Check the address; --on ray uses the cluster of RAY_ADDRESS, or this machine. Of "
            "a cluster that wants a token, RAY_AUTH_MODE=token takes yours.",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
