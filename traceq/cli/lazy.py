"""A group that imports a command when it is run, and lists its commands without importing any."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import click


class LazyGroup(click.Group):
    """``about`` has a line for each command, ``package`` the modules of the same names.

    ``before`` is called with a command's name and the words after it, before it is imported.
    """

    def __init__(
        self,
        *args: Any,
        about: dict[str, str],
        package: str,
        before: Callable[[str, Sequence[str]], None] = lambda *_: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.about = about
        self.package = package
        self.before = before

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.about)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        self.before(args[0], args[1:])
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in self.about:
            return None
        gc.disable()  # nothing that is imported becomes garbage: looking for it takes 40 ms
        try:
            command: click.Command = importlib.import_module(f"{self.package}.{name}").command
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(self.about.items()))
