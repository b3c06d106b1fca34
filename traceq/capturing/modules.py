"""Labels on modules, and the shapes that the outermost ones are called with.

Labels are record_function ranges named as torch.profiler's own Python tracer names modules,
``nn.Module: Class_n``, ``n`` counting a class's instances by first call. They come from hooks on
all modules, told apart by class: a module made or copied in the window has its label too. The
modules around those that match, and the outermost ones, are looked for among the live objects, so
a program need not hand over its model.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.profiler import record_function
from torch.utils.hooks import RemovableHandle

from traceq.names import Pattern

ShapeKey = tuple[str, tuple[str, ...]]
_SHAPE_LIMIT = 200
"""Most different sets of input shapes that are told apart; further ones are counted together."""


def live_modules() -> list[torch.nn.Module]:
    """Every nn.Module that exists now, plain containers and uncalled ones included."""
    frozen = gc.get_freeze_count()
    if frozen:  # servers freeze what they have loaded, and frozen objects are not listed
        gc.unfreeze()
    try:
        return [item for item in gc.get_objects() if _is_module(item)]
    finally:
        if frozen:
            gc.freeze()


def _is_module(item: object) -> bool:
    # Asked of the type: isinstance() would wake proxies and lazy objects through __class__.
    return issubclass(type(item), torch.nn.Module) and "_modules" in vars(item)


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether torch.compile made it. Told by name: importing its class would load the compiler."""
    return type(module).__name__ == "OptimizedModule"


def classes_around(
    modules: Sequence[torch.nn.Module], patterns: Sequence[str]
) -> set[type[torch.nn.Module]]:
    """The classes among ``modules`` that match a pattern, and those of the modules around them."""
    parents = _parents(modules)
    found: dict[int, torch.nn.Module] = {}
    waiting = [module for module in modules if class_matches(type(module), patterns)]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting.extend(parents[id(module)])
    return {type(module) for module in found.values()}


def class_matches(kind: type[torch.nn.Module], patterns: Sequence[str]) -> bool:
    """Whether a class's label matches; without patterns each does."""
    return not patterns or any(
        Pattern.parse(text).matches(f"{_label(kind)}_0") for text in patterns
    )


def roots(modules: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The modules that are part of no other."""
    parents = _parents(modules)
    return [module for module in modules if id(module) not in parents]


def _parents(modules: Iterable[torch.nn.Module]) -> defaultdict[int, list[torch.nn.Module]]:
    found: defaultdict[int, list[torch.nn.Module]] = defaultdict(list)
    for module in modules:
        # Not through named_children(): of scripted modules _modules is no dictionary.
        for child in vars(module)["_modules"].values():
            if child is not None:
                found[id(child)].append(module)
    return found


def _label(kind: type[torch.nn.Module]) -> str:
    return f"nn.Module: {kind.__name__}"


class ModuleLabels:
    """Labels around the calls of modules whose class is wanted; ``count`` is how many there were.

    Each thread has a stack of its own: modules may be called from several at a time.
    """

    def __init__(self) -> None:
        self.count = 0
        self._patterns: Sequence[str] = ()
        self._wanted: dict[type[torch.nn.Module], bool] = {}
        self._names: dict[int, str] = {}
        self._numbers: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []
        self._lock = threading.Lock()
        self._open = threading.local()

    def begin(self, modules: Sequence[torch.nn.Module], patterns: Sequence[str]) -> None:
        """Label calls from here on; of classes not among ``modules``, those that match."""
        self._patterns = patterns
        self._wanted = dict.fromkeys(classes_around(modules, patterns), True)
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    def restart(self) -> None:
        """Count from here."""
        with self._lock:
            self.count = 0
            self._names.clear()
            self._numbers.clear()

    def end(self) -> None:
        """Label no more, and close what is open in this thread: the window ends within it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        stack = self._stack()
        while stack:
            _leave_range(stack.pop()[1])

    def _stack(self) -> list[tuple[int, Any]]:
        if not hasattr(self._open, "stack"):
            self._open.stack = []
        return cast(list[tuple[int, Any]], self._open.stack)

    def _enter(self, module: torch.nn.Module, _args: Any) -> None:
        # Compiled code cannot open a range; its outermost module runs eagerly and has its label.
        if torch.compiler.is_compiling() or not self._is_wanted(type(module)):
            return
        stack = self._stack()
        if stack and stack[-1][0] == id(module) and is_compiled(module):
            stack.append((id(module), None))  # torch.compile runs its module's hooks twice
            return
        opened = record_function(self._name(module))
        opened.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        stack.append((id(module), opened))

    def _leave(self, module: torch.nn.Module, _args: Any, _output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        stack = self._stack()
        if stack and stack[-1][0] == id(module):  # not where the call began before the window
            _leave_range(stack.pop()[1])

    def _is_wanted(self, kind: type[torch.nn.Module]) -> bool:
        wanted = self._wanted.get(kind)
        if wanted is None:
            wanted = self._wanted[kind] = class_matches(kind, self._patterns)
        return wanted

    def _name(self, module: torch.nn.Module) -> str:
        with self._lock:
            self.count += 1
            name = self._names.get(id(module))
            if name is None:
                label = _label(type(module))
                name = self._names[id(module)] = f"{label}_{self._numbers[label]}"
                self._numbers[label] += 1
            return name


def _leave_range(opened: Any) -> None:
    if opened is not None:
        opened.__exit__(None, None, None)


class InputShapes:
    """Counts the shapes that modules are called with, one hook a module."""

    def __init__(self) -> None:
        self.seen: Counter[ShapeKey] = Counter()
        self._handles: list[RemovableHandle] = []
        self._is_on = False

    def begin(self, modules: Iterable[torch.nn.Module]) -> None:
        """Watch ``modules``; scripted ones take no hooks."""
        self._is_on = True
        for module in modules:
            with contextlib.suppress(RuntimeError):  # scripted modules take no hooks
                self._handles.append(module.register_forward_pre_hook(self._note, with_kwargs=True))

    def restart(self) -> None:
        """Count from here."""
        self.seen.clear()

    def end(self) -> None:
        """Watch no more. A module copied meanwhile keeps its hook, which then does nothing."""
        self._is_on = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _note(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_on and not torch.compiler.is_compiling():
            self.seen[type(module).__name__, input_shapes(args, kwargs)] += 1

    def table(self) -> list[dict[str, Any]]:
        """As JSON values, most frequent first; what is over the limit is counted in a last row."""
        ranked = self.seen.most_common()
        rows: list[dict[str, Any]] = [
            {"module": module, "inputs": list(inputs), "calls": calls}
            for (module, inputs), calls in ranked[:_SHAPE_LIMIT]
        ]
        if rest := ranked[_SHAPE_LIMIT:]:
            calls = sum(calls for _, calls in rest)
            rows.append({"module": f"({len(rest)} more)", "inputs": [], "calls": calls})
        return rows


def input_shapes(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[str, ...]:
    """Shapes and types of the tensors among arguments, one level into lists and dicts.

    >>> input_shapes([torch.zeros(2, 3), 5], {"ids": torch.zeros(4, dtype=torch.long)})
    ('float32[2, 3]', 'ids=int64[4]')
    """
    named = [*(("", value) for value in args), *((f"{key}=", kwargs[key]) for key in kwargs)]
    return tuple(
        f"{name}{str(item.dtype).removeprefix('torch.')}{list(item.shape)}"
        for name, value in named
        for item in _flat(value)
        if isinstance(item, torch.Tensor)
    )


def _flat(value: Any) -> Iterable[Any]:
    if type(value) in (list, tuple):
        return cast(Iterable[Any], value)
    return value.values() if type(value) is dict else (value,)
