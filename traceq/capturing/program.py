"""Runs a Python program, as ``python`` would, with a capture around a part of it.

What a step is, is told in one of three ways: a function (each call is one), else the first call of
a module that has parameters (each call of that module begins one), or the whole program is the
window. How a capture goes is left to ``session``.
"""

from __future__ import annotations

import ast
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
import types
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from traceq.capturing.session import Capture
from traceq.errors import CaptureError, UsageError

_STEP_NAME = "__traceq_step__"


@dataclass(frozen=True, slots=True)
class Program:
    """A script's path or, with ``is_module``, a module's name; and its arguments."""

    name: str
    arguments: tuple[str, ...]
    is_module: bool = False

    @property
    def argv(self) -> list[str]:
        return [self.name, *self.arguments]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a module, or of the program itself (``module`` is ``__main__``)."""

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Function:
        """``pkg.mod:function``, ``pkg.mod:Class.method``, or a name in the program itself."""
        module, colon, name = text.rpartition(":")
        words = [*module.split("."), *name.split(".")] if colon else name.split(".")
        if not all(word.isidentifier() for word in words):
            raise UsageError(
                f"{text!r} names no function",
                hint="Write pkg.mod:function, pkg.mod:Class.method, or a name in the program.",
            )
        return cls(module or "__main__", name)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def run_program(
    program: Program, capture: Capture, *, function: Function | None = None, whole: bool = False
) -> int:
    """Run ``program`` to its end and return its exit code; the capture is written on the way.

    ``function``: each call of it is a step. Without it, each call of the first module that has
    parameters begins a step. ``whole``: the window is the whole program. Raises CaptureError where
    the program cannot be found or never made enough steps; what the program itself raises is
    printed as Python does, and the exit code is 1.
    """
    source = _find_source(program)
    sys.argv = [source.path if program.is_module else program.name, *program.arguments]
    capture.program = Path(source.path)
    if function is not None and function.module == Path(program.name).stem:
        function = Function("__main__", function.name)  # as it is called when imported
    boundary: _Boundary
    if whole:
        boundary = _Whole(capture)
    elif function is not None:
        boundary = _Calls(capture, function)
    else:
        boundary = _Forwards(capture)
    boundary.install()
    code = _execute(source, boundary)
    boundary.end(code)
    return code


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a program's text lies; ``spec`` for a module, ``folder`` goes first on sys.path."""

    path: str
    folder: str
    spec: importlib.machinery.ModuleSpec | None = None


def _find_source(program: Program) -> _Source:
    if program.is_module:
        return _find_module(program.name)
    path = Path(program.name)
    if path.is_dir() and (path / "__main__.py").is_file():
        return _Source(str(path / "__main__.py"), str(path.resolve()))
    if not path.is_file():
        raise CaptureError(
            f"there is no program {program.name!r}",
            hint="Name a Python file, or a module after -m.",
        )
    if zipfile.is_zipfile(path):
        raise CaptureError(
            f"{program.name!r} is a zip application", hint="Unpack it, and name its __main__.py."
        )
    return _Source(str(path.absolute()), str(path.resolve().parent))


def _find_module(name: str) -> _Source:
    sys.path.insert(0, os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, ValueError) as error:
        raise CaptureError(f"{name!r} cannot be imported: {error}", hint=_NAME_A_MODULE) from error
    finally:
        del sys.path[0]
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise CaptureError(f"there is no Python module {name!r} to run", hint=_NAME_A_MODULE)
    return _Source(spec.origin, os.getcwd(), spec)


_NAME_A_MODULE = "Name it as for python -m, in the folder where that works."


def _execute(source: _Source, boundary: _Boundary) -> int:
    """The exit code that ``python`` would end with."""
    sys.path.insert(0, source.folder)
    try:
        _run_source(source, boundary)
    except SystemExit as error:
        return _exit_code(error)
    except (CaptureError, KeyboardInterrupt):
        boundary.capture.abandon()
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the program raises
        boundary.capture.abandon()
        _print_like_python(error)
        return 1
    return 0


def _run_source(source: _Source, boundary: _Boundary) -> None:
    text = Path(source.path).read_bytes()
    main = types.ModuleType("__main__")
    main.__file__ = source.path
    main.__spec__ = source.spec
    main.__package__ = source.spec.parent if source.spec else None
    vars(main)["__builtins__"] = builtins
    vars(main).update(boundary.names())
    sys.modules["__main__"] = main  # pickle and dataclasses look here for the program's names
    tree = boundary.transform(ast.parse(text, source.path))
    exec(compile(tree, source.path, "exec", dont_inherit=True), vars(main))


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _print_like_python(error: BaseException) -> None:
    """The traceback from the program's own first frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in (__file__, ast.__file__):
        frames = frames.tb_next
    sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))


class _Boundary:
    """Where steps end. ``names`` and ``transform`` let it into the program's own source."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    def install(self) -> None:
        """Before the program begins."""

    def names(self) -> dict[str, Any]:
        """Names that the transformed source needs."""
        return {}

    def transform(self, tree: ast.Module) -> ast.Module:
        """The program with steps told in it."""
        return tree

    def end(self, code: int) -> None:
        """After the program has ended. Raises CaptureError where there is no trace."""
        try:
            self.capture.finish()
            if self.capture.path is None:
                raise CaptureError(self.reason(), hint=None if self.capture.notes else self.hint)
        except CaptureError:
            if code == 0:  # else the program's own failure is what matters
                raise

    hint = "Say what a step is with --from pkg.mod:function, or record it --whole."

    def reason(self) -> str:
        """Why there is no trace."""
        return "; ".join(self.capture.notes) or "nothing was recorded: no step was made"


class _Whole(_Boundary):
    """The window is the whole program."""

    def install(self) -> None:
        self.capture.start()


class _Calls(_Boundary):
    """Each call of a function is a step."""

    def __init__(self, capture: Capture, function: Function) -> None:
        super().__init__(capture)
        self.function = function
        self._found = False

    def install(self) -> None:
        if self.function.module != "__main__":
            loaded = sys.modules.get(self.function.module)
            if loaded is not None:
                self._wrap_in(loaded)
            else:
                sys.meta_path.insert(0, _AfterImport(self.function.module, self._wrap_in))

    def names(self) -> dict[str, Any]:
        return {_STEP_NAME: self._wrap_any}

    def transform(self, tree: ast.Module) -> ast.Module:
        if self.function.module != "__main__":
            return tree
        found = _find_function(tree, self.function.name.split("."))
        if found is None:
            raise CaptureError(
                f"the program defines no function {self.function.name!r}",
                hint="For one of a module: --from pkg.mod:function.",
            )
        # Outermost: what torch.compile is given must not hold the capture's own code.
        step = ast.copy_location(ast.Name(_STEP_NAME, ast.Load()), found)
        found.decorator_list.insert(0, step)
        return tree

    def reason(self) -> str:
        if self._found and not self.capture.notes:
            return f"nothing was recorded: {self.function} was never called"
        if not self._found:
            return f"nothing was recorded: the program never imported {self.function.module}"
        return super().reason()

    def _wrap_in(self, module: types.ModuleType) -> None:
        *holders, name = self.function.name.split(".")
        holder: Any = module
        for part in holders:
            holder = getattr(holder, part, None)
        function = None if holder is None else inspect.getattr_static(holder, name, None)
        if function is None:
            raise CaptureError(
                f"{self.function.module} has no {self.function.name!r}",
                hint="Write pkg.mod:function or pkg.mod:Class.method.",
            )
        try:
            setattr(holder, name, self._wrap_any(function))
        except TypeError as error:
            raise CaptureError(
                f"{self.function} cannot be followed: {error}", hint="Name a Python function."
            ) from error

    def _wrap_any(self, function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(self._wrap(function.__func__))
        if not callable(function):
            raise CaptureError(
                f"{self.function} is a {type(function).__name__}, no function",
                hint="Name one that is called once a step.",
            )
        return self._wrap(function)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self._found = True
        return self.capture(function)


def _find_function(
    tree: ast.AST, path: Sequence[str]
) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The last definition of a name, as the one that the program will use."""
    for node in reversed(getattr(tree, "body", [])):
        if isinstance(node, ast.If | ast.Try):
            if found := _find_function(node, path):
                return found
        elif isinstance(node, ast.ClassDef) and node.name == path[0] and len(path) > 1:
            return _find_function(node, path[1:])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and [node.name] == [*path]:
            return node
    return None


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls ``then`` with a module as soon as it is imported, before its importer goes on."""

    def __init__(self, name: str, then: Callable[[types.ModuleType], None]) -> None:
        self._name = name
        self._then = then
        self._is_asking = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as finders are called
        target: types.ModuleType | None = None,  # noqa: ARG002 - as finders are called
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name or self._is_asking:
            return None
        self._is_asking = True  # the finders behind this one find it
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Following(spec.loader, self._then)
        return spec


class _Following(importlib.abc.Loader):
    """A loader in front of another: one loader may serve many modules, so it is not changed."""

    def __init__(self, loader: Any, then: Callable[[types.ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        made: types.ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)


class _Forwards(_Boundary):
    """Each call of the first module that has parameters begins a step.

    ``__call__`` of its class is replaced until the window has ended: a hook runs within the
    module's own call, and the step's label would cross it.
    """

    def __init__(self, capture: Capture) -> None:
        super().__init__(capture)
        self._is_inside = False
        self._begun = False
        self._name = ""
        self._search: Any = None
        self._restore: Callable[[], object] = lambda: None

    def install(self) -> None:
        # A hook, not another Module.__call__: torch.compile keeps the one it finds for good.
        self._search = register_module_forward_pre_hook(self._look_at)

    def _look_at(self, module: torch.nn.Module, _args: Any) -> None:
        """Runs for calls of any module until the one is found, and no longer."""
        if torch.compiler.is_compiling() or next(module.parameters(), None) is None:
            return
        self._search.remove()
        self._follow(module)
        if self.capture.settings.warmup > 1:
            self._begin()  # within its call, where nothing is labelled yet
        elif not self.capture.settings.warmup:
            self.capture.tell(
                f"the first call of {self._name} is not recorded: it told which module to follow"
            )

    def _begin(self) -> None:
        self._begun = True
        self.capture.is_forward_alone = True
        self.capture.start(label=False)

    def _follow(self, anchor: torch.nn.Module) -> None:
        holder = type(anchor)
        had_its_own, original = "__call__" in vars(holder), holder.__call__
        self._name = holder.__name__

        def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or module is not anchor or self._is_inside:
                return original(module, *args, **kwargs)
            return self._step(original, module, args, kwargs)

        def restore() -> None:
            if had_its_own:
                holder.__call__ = original  # type: ignore[method-assign]  # as it was
            else:
                del holder.__call__

        holder.__call__ = call  # type: ignore[method-assign]  # until the window has ended
        self._restore = restore

    def _step(self, call: Callable[..., Any], module: Any, args: Any, kwargs: Any) -> Any:
        if self._begun:
            self.capture.advance()
        else:
            self._begin()
        if self.capture.is_over:
            self._restore()
            return call(module, *args, **kwargs)
        self._is_inside = True
        try:
            with self.capture.label():
                return call(module, *args, **kwargs)
        finally:
            self._is_inside = False

    def end(self, code: int) -> None:
        if self.capture.is_running:
            self.capture.tell(
                f"the last step holds all that the program did after its last call of {self._name}"
            )
            self.capture.advance()
        super().end(code)

    def reason(self) -> str:
        if self._begun:
            return super().reason()
        return "nothing was recorded: the program called no module that has parameters"
