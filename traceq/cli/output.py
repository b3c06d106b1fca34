"""Writes results: to stdout, where pipes take them, or to a file that is never half written."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from traceq.errors import UsageError
from traceq.report import Report

PIPE_WIDTH = 120
"""Columns of a table where stdout is no terminal and COLUMNS is not set."""


_INPUTS: set[tuple[int, int]] = set()
"""Device and number of the files that the command has read."""


def remember_input(path: str) -> None:
    """Let no result be written over a file that was read."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        _INPUTS.add((found.st_dev, found.st_ino))


def write(text: str, path: str | None) -> None:
    """Write a whole result. Raises UsageError where the file cannot be written."""
    with _telling(path):
        if path is None:
            _print(text)
        else:
            _write_file(Path(path), [text.encode("utf-8")])


def write_bytes(chunks: Iterable[bytes], path: str) -> None:
    """Write a file of bytes, in the same way."""
    with _telling(path):
        _write_file(Path(path), chunks)


@contextlib.contextmanager
def _telling(path: str | None) -> Iterator[None]:
    """Turns a failure to write into a UsageError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        path = path or "standard output"
        raise UsageError(
            f"{path}: cannot be written: {error.strerror}", hint="Choose another file with -o."
        ) from error


def _print(text: str) -> None:
    if sys.stdout is None:  # closed by the caller
        return
    # Not by click, which takes escape sequences out of names where stdout is no terminal.
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (head, less): no error, and what is to be said by exit code still is.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Through a temporary name, so that a reader never sees half of it."""
    if path.exists() and not path.is_file():  # /dev/stdout, a named pipe
        with path.open("wb") as stream:
            stream.writelines(chunks)
        return
    path = Path(os.path.realpath(path))  # through a link, not in its place
    mode = 0o666 & ~_umask()
    if path.exists():
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if (found.st_dev, found.st_ino) in _INPUTS:
            raise UsageError(
                f"{path}: the result would take the place of what was read",
                hint="Choose another file with -o.",
            )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def render(report: Report, format_: str, path: str | None) -> str:
    """A report as ``table`` for this terminal, or as ``markdown``."""
    if format_ == "markdown":
        from traceq.render.markdown import to_markdown

        return to_markdown(report)
    from traceq.render.terminal import to_terminal

    on_terminal = path is None and sys.stdout is not None and sys.stdout.isatty()
    return to_terminal(
        report,
        width=terminal_width(on_terminal),
        color=on_terminal and "NO_COLOR" not in os.environ,
    )


def terminal_width(on_terminal: bool) -> int:
    """Columns to fill: the terminal's, or COLUMNS, or a width that suits a log."""
    if on_terminal or os.environ.get("COLUMNS", "").isdigit():
        return max(40, shutil.get_terminal_size((80, 24)).columns)
    return PIPE_WIDTH


def to_json(data: Any) -> str:
    """Plain data as indented JSON."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def nested_to_json(
    head: dict[str, Any], key: str, nodes: Sequence[tuple[int, dict[str, Any]]]
) -> str:
    """Plain data as JSON, and under ``key`` a tree, one line a node with its ``children``.

    ``nodes`` are depths and values, parents before children. Trees may be nested deeper than
    Python recurses, so this does not.
    """
    lines = [to_json(head).rstrip("}\n").rstrip() + f",\n  {json.dumps(key)}: ["]
    above = -1
    for depth, values in nodes:
        lines.append(_end_of_node(above, depth) + _start_of_node(values))
        above = depth
    lines.append(_end_of_node(above, 0).rstrip(",\n") + "]\n}\n")
    return "".join(lines)


def _start_of_node(values: dict[str, Any]) -> str:
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return text.removesuffix("}") + ', "children": ['


def _end_of_node(above: int, depth: int) -> str:
    """What stands between a node at the depth ``above`` and the next one."""
    return "\n" if above < depth else "]}" * (above - depth + 1) + ",\n"


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV with a header; absent values are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        # Readers take a carriage return for the end of a row; Python quotes line feeds alone.
        broken = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (_quoting(file) if broken else writer).writerow(row)
    return file.getvalue()


def _quoting(file: io.StringIO) -> Any:
    return csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)


def records_to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Records as CSV."""
    return to_csv(columns, ([row[column] for column in columns] for row in rows))
