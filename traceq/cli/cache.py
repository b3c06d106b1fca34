"""``traceq cache``: what is kept of traces, so that opening them again takes no time."""

from __future__ import annotations

import click

from traceq.cache import user_cache
from traceq.units import file_size, plural

SCHEMA_VERSION = 1


@click.group("cache")
def command() -> None:
    """What is kept of traces: where, how much, and how to let it go.

    TRACEQ_CACHE_DIR names another folder, TRACEQ_CACHE_SIZE the most that is kept (4 GB; 0:
    nothing). What was used longest ago goes first.
    """


@command.command("path")
def path() -> None:
    """Print the folder."""
    click.echo(user_cache().folder)


@command.command("info")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print the result.",
)
def info(format_: str) -> None:
    """Print the folder, the number of entries, and their size."""
    cache = user_cache()
    entries = cache.entries()
    size = sum(entry.size for entry in entries)
    if format_ == "json":
        from traceq.cli.output import to_json

        facts = {"folder": str(cache.folder), "entries": len(entries), "bytes": size}
        click.echo(
            to_json({"schema": SCHEMA_VERSION, "kind": "cache", **facts, "limit": cache.limit}),
            nl=False,
        )
        return
    kept = "; nothing is kept" if not cache.limit else f" of at most {file_size(cache.limit)}"
    click.echo(
        f"{cache.folder}: {plural(len(entries), 'entry', 'entries')}, {file_size(size)}{kept}"
    )


@command.command("clear")
def clear() -> None:
    """Remove all entries."""
    removed = user_cache().clear()
    size = sum(entry.size for entry in removed)
    click.echo(f"removed {plural(len(removed), 'entry', 'entries')}, {file_size(size)}", err=True)
