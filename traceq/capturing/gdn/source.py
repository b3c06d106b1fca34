"""Changes a function's source at run time and compiles it under its own file name and lines.

A profiler then shows the frame that it would show without the change. Nothing is patched here: the
changed function is a new one, with a copy of its module's globals. No torch in this file.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from traceq.errors import CaptureError


class ForwardSource:
    """The source of ``function``, in which parts are replaced; ``origin`` names its package.

    ``device`` is where it will run ("cpu", "cuda", "xpu"), for a variant to choose by.
    Raises CaptureError where the source cannot be had, or the function is a closure.
    """

    def __init__(self, function: Callable[..., Any], *, origin: str, device: str = "cpu") -> None:
        self.device = device
        self.origin = origin
        self._function = inspect.unwrap(function)
        self._globals: dict[str, Any] = {}
        self._tree = self._parse()

    def replace(self, old: str, new: str, **names: object) -> None:
        """Replace ``old``, an expression or a statement, which must occur exactly once.

        Occurrences are found by structure: spaces, line breaks, quotes and comments do not matter.
        ``names`` are made known to the function, and to it alone. Raises CaptureError otherwise.
        """
        replacer = _Replacer(_one_node(old), _one_node(new))
        replacer.visit(self._tree)
        if replacer.count != 1:
            raise CaptureError(
                f"{self.name} of {self.origin} has {replacer.count or 'no'} {old!r}",
                hint=f"A variant replaces what occurs once in {self._place()}. Those of traceq "
                "fit transformers 5.17 to 5.23.",
            )
        self.define(**names)

    def define(self, **names: object) -> None:
        """Make ``names`` known to the function, in place of its module's globals of that name."""
        self._globals |= names

    @property
    def name(self) -> str:
        """The function's qualified name."""
        return str(self._function.__qualname__)

    @property
    def text(self) -> str:
        """The source as it is now, without comments; decorators included."""
        return ast.unparse(self._tree)

    def compiled(self) -> Callable[..., Any]:
        """The function as it is now, decorated as it was."""
        code = compile(self._tree, self._function.__code__.co_filename, "exec", dont_inherit=True)
        made: dict[str, Callable[..., Any]] = {}
        exec(code, {**self._function.__globals__, **self._globals}, made)
        return made[self._function.__name__]

    def _parse(self) -> ast.Module:
        try:
            lines, first = inspect.getsourcelines(self._function)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError) as error:
            raise self._unusable("its source cannot be read") from error
        if self._function.__code__.co_freevars:
            raise self._unusable("it is a closure")
        ast.increment_lineno(tree, first - 1)
        return tree

    def _place(self) -> str:
        code = self._function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def _unusable(self, reason: str) -> CaptureError:
        return CaptureError(
            f"{self.name} of {self.origin} cannot be changed: {reason}",
            hint="Install transformers from its wheel, 5.17 to 5.23.",
        )


class _Replacer(ast.NodeTransformer):
    """Puts ``new`` in place of every node equal to ``old``, at the lines of what it replaces."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._kind = type(old)
        self._old = ast.dump(old)
        self._new = new
        self.count = 0

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, self._kind) or ast.dump(node) != self._old:
            return self.generic_visit(node)
        self.count += 1
        new = copy.deepcopy(self._new)
        for part in ast.walk(new):
            ast.copy_location(part, node)
        return new


def _one_node(text: str) -> ast.AST:
    """An expression, or one statement."""
    try:
        body = ast.parse(text.strip()).body
    except SyntaxError as error:
        raise CaptureError(f"the variant's {text!r} is no Python: {error.msg}") from error
    if len(body) != 1:
        raise CaptureError(f"the variant's {text!r} is not one expression or statement")
    return body[0].value if isinstance(body[0], ast.Expr) else body[0]
