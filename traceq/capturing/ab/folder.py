"""The folder of a series: its manifest, the place where a trace grows, whether a trace is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from traceq.capturing.ab.commands import Command
from traceq.capturing.ab.process import Run
from traceq.capturing.record import without_secrets
from traceq.errors import CaptureError, UsageError
from traceq.units import printable

SCHEMA_VERSION = 1
"""Version of the manifest; raised when a key changes its meaning or goes away."""

MANIFEST = "ab.json"

_OWN_FILE = re.compile(r"[ab]-(warm-)?\d+\.(json\.gz|log)|ab\.json|\.ab-\w+")
"""What a series makes; the last are work folders, which only a killed one leaves."""

_LOG_LINES, _LOG_WIDTH, _LOG_BYTES = 5, 160, 1 << 14


def prepare(folder: Path, force: bool) -> Path:
    """The folder, made if need be; an earlier series in it goes, if that is wanted."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = [path for path in folder.iterdir() if _OWN_FILE.fullmatch(path.name)]
        if old and not force:
            raise UsageError(
                f"{folder} holds captures of an earlier 'capture ab'",
                hint="Name another folder with -o, or replace them with --force.",
            )
        for path in old:
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(folder: Path, error: OSError) -> CaptureError:
    return CaptureError(
        f"{folder}: cannot be written: {error.strerror or error}",
        hint="Choose another folder with -o.",
    )


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``ab.json``, through a temporary name."""
    head = {"schema": SCHEMA_VERSION, "kind": "ab-manifest"}
    text = json.dumps({**head, **values}, indent=2, ensure_ascii=False) + "\n"
    try:
        with work_folder(folder) as work:
            (work / MANIFEST).write_text(text, encoding="utf-8", errors="backslashreplace")
            os.replace(work / MANIFEST, folder / MANIFEST)
    except OSError as error:
        raise unwritable(folder, error) from error


def command_dict(command: Command) -> dict[str, Any]:
    """A side, for the manifest."""
    return {
        "text": command.shown,
        "form": command.form.value,
        "argv": without_secrets(command.argv),
        "environment": dict(
            word.split("=", 1)
            for word in without_secrets([f"{k}={v}" for k, v in command.environment.items()])
        ),
    }


def run_dict(run: Run) -> dict[str, Any]:
    """Paths by their names: a folder may be moved. The words stand with the command."""
    values = dataclasses.asdict(run)
    del values["argv"]
    names = {"trace": run.trace and run.trace.name, "log": run.log.name}
    return values | names | {"problem": run.problem or None}


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder on the same disk, so that a rename is all that is left to do."""
    try:
        work = Path(tempfile.mkdtemp(prefix=".ab-", dir=folder)).absolute()
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def last_lines(log: Path) -> list[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(-min(_LOG_BYTES, log.stat().st_size), os.SEEK_END)
        lines = file.read().decode("utf-8", "replace").splitlines()
        return [printable(line)[:_LOG_WIDTH] for line in lines if line.strip()][-_LOG_LINES:]
    return []


def trace_problem(path: Path) -> str:
    """What is wrong with the trace that a command has left; empty where it is whole."""
    if problem := _place_problem(path):
        return problem
    try:
        first, last = _ends(path)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        return f"wrote a trace that is cut off or damaged ({error})"
    if first not in (b"{", b"[") or last not in (b"}", b"]"):
        return "wrote a trace that is cut off, or is no JSON"
    return ""


def _place_problem(path: Path) -> str:
    """What is wrong with what lies in the trace's place, before it is read."""
    if not path.parent.is_dir():
        return "removed the folder that its trace was to go to"
    if path.is_symlink():  # what it leads to may go with the work folder
        return "wrote a link in the place of its trace"
    if not path.exists():
        others = sorted(item.name for item in path.parent.iterdir())
        instead = f", but {', '.join(others[:3])}: one trace a run is compared" if others else ""
        return f"wrote no trace{instead}"
    if not path.is_file():
        return "wrote something that is no file in the place of its trace"
    return "" if path.stat().st_size else "wrote an empty trace"


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last character of a trace that mean something, after reading all of it."""
    first = last = b""
    with path.open("rb") as file, _inflated(file) as data:
        while block := data.read(1 << 20):
            text = block.strip()
            first, last = first or text[:1], text[-1:] or last
    return first, last


def _inflated(file: IO[bytes]) -> IO[bytes]:
    """The bytes of a trace, told packed or plain by its first bytes as the reader does."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(file))
    if head == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return cast(IO[bytes], reader)
    return file
