"""Short forms of GPU kernel names: which kernel it is, in a column of a table.

A C++ name, demangled or not, is read into a tree of names and template arguments. Of the tree are
kept the function's own name and the arguments that tell it from its siblings: the functor of
``elementwise_kernel``, else plain numbers. Namespaces, parameter lists, data types and what only
carries data go. Names of generated kernels (Tensile, xmma) lose their tuning parameters; all
other names stay as they stand.

Pure text in, text out. Fitting a short form into a width is ``traceq.names.shorten``'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

_NO_NAME = "[No name]"  # as the reader calls events without one


@lru_cache(maxsize=65_536)
def short_kernel(name: str) -> str:
    """A kernel's name in a short form: never empty, and no longer than the name.

    >>> short_kernel("void at::native::reduce_kernel<512, 1, at::native::MeanOps<float> >(int)")
    'reduce_kernel<MeanOps>'
    >>> short_kernel("void (anonymous namespace)::softmax_warp_forward<float, 10, true>(float*)")
    'softmax_warp_forward<10, 1>'
    >>> short_kernel("_ZN5aiter24add_rmsnorm_quant_kernelIDF16bLi256ELb0EEEvPT_")
    'add_rmsnorm_quant_kernel<256, 0>'
    >>> short_kernel("Memcpy DtoD (Device -> Device)")
    'Memcpy DtoD (Device -> Device)'
    """
    if not name:
        return _NO_NAME
    # Until nothing gets shorter, so that the short form of a short form is itself.
    while (shorter := _shorten_once(name)) and len(shorter) < len(name):
        name = shorter
    return name


_MEMORY = re.compile(r"Mem(?:cpy|set)\b")
_RETURNS_NOTHING = re.compile(r"\A(?:void )+")


def _shorten_once(name: str) -> str:
    name = _without_suffix(name.strip())
    if _MEMORY.match(name):
        return name
    if name.startswith(("_Z", "__Z")):
        return _render(_Mangled(name).root)
    if "<" in name or "(" in name or "::" in name:
        return _render(_Demangled(name).root)
    name = _RETURNS_NOTHING.sub("", name, count=1)
    return _short_generated(name)


def _without_suffix(name: str) -> str:
    """A name without what AMD's compiler (``.kd``) or an optimizer (``[clone ...]``) appends."""
    while name.endswith(".kd"):
        name = name[:-3]
    start = name.rfind(" [clone ")
    return name[:start] if start > 0 and name.endswith("]") else name


# Generated names ------------------------------------------------------------------------------

_TENSILE = re.compile(r"Cijk_\w*?_MT\d+x\d+x\d+(?=_)")
_CUDNN = "cudnn_generated_fort_native_"
_XMMA_TYPE = re.compile(r"(?:[a-z]{1,2}\d+)+")


def _short_generated(name: str) -> str:
    if match := _TENSILE.match(name):
        return match[0]  # operands, types and macro tile; the rest tunes the same product
    if name.startswith(_CUDNN):
        return "cudnn_" + name.removeprefix(_CUDNN).removesuffix("_kernel0_0")
    if "_xmma_" in name:
        return _short_xmma(name)
    return name


def _short_xmma(name: str) -> str:
    """Operation, type of the first operand, layouts, tile, and whether the sum is split."""
    words = name.split("_")
    tile = next((place for place, word in enumerate(words) if word.startswith("tilesize")), None)
    if tile is None:
        return name
    types = [place for place in range(2, tile) if _XMMA_TYPE.fullmatch(words[place])]
    dropped = set(types[1:])
    kept = [word for place, word in enumerate(words[:tile]) if place not in dropped]
    split = [mark for mark in ("split_k", "segment_k") if f"_{mark}_" in name]
    return "_".join([*kept, words[tile].removeprefix("tilesize"), *split])


# The tree -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """One component of a qualified name: ``text<args>``, or a lambda (number from 1, no text)."""

    text: str
    args: list[_Name] = field(default_factory=list)
    number: int = 0
    arity: int = 0

    @property
    def is_operator(self) -> bool:
        return self.text.startswith("operator")


@dataclass(slots=True)
class _Name:
    """A qualified name, or a literal (one part: the number as text)."""

    parts: list[_Part] = field(default_factory=list)
    has_parameters: bool = False

    @property
    def base(self) -> int:
        """Where the last part stands that is a name of its own; -1 where none is."""
        for place in range(len(self.parts) - 1, -1, -1):
            part = self.parts[place]
            if part.text and not part.is_operator:
                return place
        return -1

    @property
    def text(self) -> str:
        """The last part's text, without namespaces and arguments."""
        return self.parts[self.base].text if self.base >= 0 else ""

    @property
    def args(self) -> list[_Name]:
        """Template arguments of the last part, and of call operators and lambdas in it."""
        return [arg for part in self.parts[max(self.base, 0) :] for arg in part.args]


# Writing --------------------------------------------------------------------------------------

_WIDTHS = (3, 1, 0)
"""How many telling arguments are shown of the kernel, of its arguments, and of theirs."""
_LONGEST = 80
"""No second and third argument is shown where the short form would get longer than this."""
_MOST_LITERALS = 10
_DEEPEST_WRAPPER = 20

# Names that only pass on what they are given: their arguments stand for them.
_WRAPPERS = frozenset(
    [
        *("gpu_kernel_impl", "gpu_kernel_impl_nocast", "gpu_index_kernel", "ReduceOp"),
        *("func_wrapper_t", "normal_and_transform", "uniform_and_transform"),
        *("Kernel", "Kernel2", "device_kernel", "kentry", "kentry2"),
        *("trampoline_kernel", "_kernel_agent", "static_kernel"),
        *("enable_sm90", "enable_sm90_or_later", "enable_sm80_to_sm89"),
    ]
)
# Names that say little without the scope they stand in, and scopes that do not help.
_VAGUE = _WRAPPERS | {"kernel", "globalKernel", "run", "main", "type"}
_VAGUE_SCOPES = frozenset(["impl", "detail", "internal"])

_LITERAL = re.compile(r"(?P<value>-?\d+(?:\.\d+)?)[uUlLf]*")
_BOOLS = {"true": "1", "false": "0"}
_DATA_TYPE = re.compile(
    r"""(?:signed|unsigned|char|short|int|long|float|double|bool|void|auto|decltype|nullptr(?:_t)?
    |u?int\d*(?:_t)?|(?:char|short|int|uint|long|float|double)[1-4]|size_t|wchar_t|__int128
    |(?:_*(?:nv_|hip_)?)?(?:b?float|bf|fp|tf|half|fnuz)\d*(?:_t)?|_*(?:half2?|nv_bfloat16\d*)
    |_*(?:hip_|nv_)bfloat\w*|BFloat16|Half|tfloat32_t|_Float16|_*(?:nv_|hip_)?f(?:p|loat)[468]_?\w*
    |Float[48]_\w+|[cC]omplex)""",
    re.VERBOSE,
)
# What carries data or tunes a kernel, and does not say what is computed.
_PLUMBING = re.compile(
    r"""\w*(?:Array|array|OffsetCalculator|[Tt]raits|Policy\d*|TileState|Metadata|Params?
    |Shape|[Cc]onfig|TensorInfo|Accessor|GeneratorImpl\w*|Mode_t)
    |(?:Load|Store)With\w*|OpaqueType|HIP_vector_type|cublasGemv\w*|distribution_nullary_kernel
    |tuple|C|integral_constant|basic_string|allocator""",
    re.VERBOSE,
)


def _render(name: _Name, depth: int = 0) -> str:
    if depth == 0:
        name = _unwrapped(name)
    inner = _shown(name, depth)
    if depth == 0 and not inner:
        inner = list(_literals(name.args))[:_MOST_LITERALS]
    label = _label(name, with_scope=depth == 0)
    while len(inner) > 1 and len(label) + sum(map(len, inner)) + 2 * len(inner) > _LONGEST:
        inner.pop()
    return f"{label}<{', '.join(inner)}>" if inner else label


def _shown(name: _Name, depth: int) -> list[str]:
    """The arguments that tell the name from its siblings, each once."""
    if not _WIDTHS[depth]:
        return []
    telling = list(dict.fromkeys(_render(arg, depth + 1) for arg in _telling(name.args)))
    # A flag of an argument may be half of what it says: gather and scatter are one template.
    flags = [arg.text for arg in name.args if arg.text in _BOOLS] if depth and telling else []
    return [*flags[:1], *telling[: _WIDTHS[depth]]]


def _unwrapped(name: _Name) -> _Name:
    for _ in range(_DEEPEST_WRAPPER):
        if name.text not in _WRAPPERS:
            break
        inner = next(_telling(name.args), None)
        if inner is None:
            break
        name = inner
    return name


def _telling(args: list[_Name], depth: int = 0) -> Iterator[_Name]:
    """The arguments that say what is computed, wrappers replaced by theirs."""
    for arg in args:
        text = arg.text
        if not text or _literal(text) or _DATA_TYPE.fullmatch(text) or _PLUMBING.fullmatch(text):
            continue
        inner = []
        if text in _WRAPPERS and depth < _DEEPEST_WRAPPER:
            inner = list(_telling(arg.args, depth + 1))
        yield from inner or [arg]


def _literals(args: list[_Name]) -> Iterator[str]:
    for arg in args:
        if value := _literal(arg.text):
            yield value
        elif arg.text.endswith("raits"):
            # The first number of the traits of an attention kernel is the head's dimension.
            yield from list(_literals(arg.args))[:1]


def _literal(text: str) -> str:
    match = _LITERAL.fullmatch(text)
    return match["value"] if match else _BOOLS.get(text, "")


def _label(name: _Name, *, with_scope: bool) -> str:
    text = name.text + _lambda_mark(name)
    if with_scope and name.text in _VAGUE:
        scopes = [part.text for part in name.parts[: name.base]]
        scopes = [scope for scope in scopes if scope and scope not in _VAGUE_SCOPES]
        text = "::".join([*scopes[-1:], text])
    return text


def _lambda_mark(name: _Name) -> str:
    """Which of a function's lambdas it is, where that tells what is computed.

    The lambdas of a dispatch (``f()::{lambda()#1}::operator()() const::...``) stand for data
    types, which fold; only those of gelu are its two formulas. A second lambda beside another is
    another computation, and so is one with more elements as parameters.
    """
    lambdas = [part for part in name.parts[name.base + 1 :] if part.number]
    if not lambdas:
        return ""
    if "gelu" in name.text.lower():
        return f"#{lambdas[0].number}"
    last = lambdas[-1]
    arity = f"/{last.arity}" if len(lambdas) == 1 and last.arity > 2 else ""
    return arity + (f"#{last.number}" if last.number > 1 else "")


# Reading demangled names ----------------------------------------------------------------------

_ANONYMOUS = re.compile(r"(?:\(anonymous namespace\)|<unnamed>|\{anonymous\})(?:::)?")
_TOKEN = re.compile(
    r"\boperator ?(?:\(\)|\[\]|<=>|<<=?(?=[ (<])|>>=?(?=[ (<])|->\*?|[<>]=?(?=[ (<]))"
    r"|::|->|[<>(){}\[\],]"
    r"|(?:[^\s<>(){}\[\],:-]|-(?!>)|:(?!:))+"
)
_CLOSING = {")": "(", "]": "[", "}": "{"}
_OPENING = frozenset(_CLOSING.values())
_QUALIFIERS = frozenset(["const", "volatile", "__restrict__", "restrict", "noexcept"])
_LLVM_LAMBDA = re.compile(r"'lambda(?P<number>\d{0,6})'")
_LAMBDA_NUMBER = re.compile(r"(?:#|\binstance )(\d{1,6})")


class _Demangled:
    """Reads a demangled name in one pass; brackets that do not match are passed over."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = _TOKEN.findall(_ANONYMOUS.sub("", text))
        self.closing = _matching(self.tokens)
        self.root = self.name = _Name()
        self.outer: list[_Name] = []  # of each open template argument list, the name before it
        self.is_joined = False  # whether a '::' came last
        place = 0
        while place < len(self.tokens):
            place = self._take(place)

    def _take(self, place: int) -> int:
        """Take the token at ``place`` and return where the next one stands."""
        token = self.tokens[place]
        if token in _OPENING:
            return self._take_bracket(place)
        if match := _LLVM_LAMBDA.fullmatch(token):
            return self._take_llvm_lambda(place + 1, match["number"])
        if token == "::":
            self.is_joined = True
        elif token == "<":
            self._open()
        elif token == ">" and self.outer:
            self.name = self.outer.pop()
        elif token == "," and self.outer:
            self._next_argument()
        else:
            self._take_word(token.strip("&*"))
        return place + 1

    def _take_bracket(self, place: int) -> int:
        """Pass over parameters and casts, look into ``&(function)``, take up a lambda."""
        token = self.tokens[place]
        if token == "(" and place and self.tokens[place - 1] == "&" and not self.name.parts:
            return place + 1
        end = self.closing.get(place, len(self.tokens))
        if token == "(":
            self.name.has_parameters = bool(self.name.parts)
        elif self.tokens[place + 1 : place + 2] == ["lambda"]:
            number, arity = _lambda_of(self.tokens[place + 2 : end])
            self._append(_Part("", number=number, arity=arity))
        return end + 1

    def _take_llvm_lambda(self, place: int, number: str) -> int:
        """Take up ``'lambda'(float)``, the first one, or ``'lambda0'(float)``, the second."""
        end = self.closing.get(place, place)
        _, arity = _lambda_of(self.tokens[place : end + 1])
        self._append(_Part("", number=int(number) + 2 if number else 1, arity=arity))
        return end + 1 if end > place else place

    def _open(self) -> None:
        if not self.name.parts:
            self.name.parts.append(_Part(""))
        self.outer.append(self.name)
        self._next_argument()

    def _next_argument(self) -> None:
        self.name = _Name()
        self.outer[-1].parts[-1].args.append(self.name)
        self.is_joined = False

    def _take_word(self, word: str) -> None:
        if not word or word in _QUALIFIERS or word in _CLOSING:
            return
        if not self.is_joined:
            if self.name.has_parameters:
                return  # what stands behind a function is no name
            self.name.parts.clear()  # what stood before it was a return type
        self._append(_Part(word))

    def _append(self, part: _Part) -> None:
        self.name.parts.append(part)
        self.name.has_parameters = self.is_joined = False


def _matching(tokens: list[str]) -> dict[int, int]:
    """Where each bracket that is not a template's closes."""
    waiting: dict[str, list[int]] = {opening: [] for opening in _OPENING}
    found: dict[int, int] = {}
    for place, token in enumerate(tokens):
        if token in _OPENING:
            waiting[token].append(place)
        elif token in _CLOSING and waiting[_CLOSING[token]]:
            found[waiting[_CLOSING[token]].pop()] = place
    return found


def _lambda_of(tokens: list[str]) -> tuple[int, int]:
    """Number and count of parameters of ``(int, float)#2``; pointers are no elements: 0."""
    level = commas = 0
    for token in tokens:
        level += (token in ("(", "<", "{", "[")) - (token in (")", ">", "}", "]"))
        commas += token == "," and level == 1
    numbers = _LAMBDA_NUMBER.findall(" ".join(tokens[-4:]))
    has_elements = tokens[1:2] != [")"] and not any("*" in token for token in tokens)
    return int(numbers[-1]) if numbers else 1, commas + 1 if has_elements else 0


# Reading mangled names ------------------------------------------------------------------------


class _UnreadableError(Exception):
    """The text is no Itanium name, or more of one than is read here."""


_DEEPEST = 40
_LENGTH = re.compile(r"\d{1,5}")
_SUBSTITUTION = re.compile(r"S(?:[0-9A-Z]*_|[absiod])|T[0-9A-Z]*_")
_SIMPLE_TYPE = re.compile(r"[a-z]|DF\d+[bx_]?|D[a-hnsi]")
_PREFIX = re.compile(r"[PROKVrGC]|Dp|Dv\d+_|A\d*_")
_VALUE = re.compile(r"(n?\d+)E")
_OPERATOR = re.compile(r"[a-z][a-zA-Z]")
_CONSTRUCTOR = re.compile(r"[CD]\d")
_QUALIFIER = re.compile(r"[LKVrRO]")  # of a member function; L: internal linkage
_CLOSURE_END = re.compile(r"E(\d{0,6})_")


class _Mangled:
    """Reads a mangled name (Itanium C++ ABI) as far as a short form needs it.

    Substitutions are left empty: what they repeat has been spelled out before. Where the text
    cannot be read on, the tree is what has been read of it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = text.index("Z") + 1
        self.depth = 0
        self.root = _Name()
        try:
            self._name(self.root)
        except _UnreadableError:
            if self.root.base < 0:
                self.root = _Name([_Part(text)])

    def _accept(self, prefix: str) -> bool:
        if not self.text.startswith(prefix, self.place):
            return False
        self.place += len(prefix)
        return True

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if match := pattern.match(self.text, self.place):
            self.place = match.end()
        return match

    def _until_end(self, read: Callable[[], object]) -> int:
        """Read up to the E that closes; how often."""
        count = 0
        while not self._accept("E"):
            self._nested(read)
            count += 1
        return count

    def _nested(self, read: Callable[[], object]) -> None:
        self.depth += 1
        if self.depth > _DEEPEST or self.place >= len(self.text):
            raise _UnreadableError
        read()
        self.depth -= 1

    def _name(self, name: _Name) -> None:
        if self._accept("Z"):
            self._local(name)
        elif self._accept("N"):
            self._until_end(lambda: self._part(name))
        else:
            self._part(name)
            while self.text[self.place : self.place + 1] == "I":
                self._part(name)

    def _local(self, name: _Name) -> None:
        """A name inside a function: the function, then the name."""
        self._nested(lambda: self._name(name))
        self._until_end(lambda: self._type(_Name()))
        if self._accept("s"):
            raise _UnreadableError  # a string literal
        self._nested(lambda: self._name(name))

    def _part(self, name: _Name) -> None:
        if length := self._match(_LENGTH):
            self._identifier(name, int(length[0]))
        elif self._accept("I"):
            self._arguments(name)
        elif self._accept("Ul"):
            self._closure(name)
        elif self._accept("B"):
            self._part(_Name())  # a tag
        elif self._accept("cv"):
            self._type(_Name())
        elif self._accept("St"):
            self._part(name)
        elif self._match(_SUBSTITUTION) or self._match(_CONSTRUCTOR) or self._match(_QUALIFIER):
            pass
        elif self._match(_OPERATOR):
            name.parts.append(_Part("operator"))
        else:
            raise _UnreadableError

    def _identifier(self, name: _Name, length: int) -> None:
        text = self.text[self.place : self.place + length]
        if len(text) < length or not length:
            raise _UnreadableError
        self.place += length
        if not text.startswith("_GLOBAL__N"):  # an anonymous namespace
            name.parts.append(_Part(text))

    def _arguments(self, name: _Name) -> None:
        if not name.parts:
            name.parts.append(_Part(""))
        part = name.parts[-1]
        self._until_end(lambda: self._argument(part.args))

    def _closure(self, name: _Name) -> None:
        start = self.place
        arity = self._parameters()
        end = self._match(_CLOSURE_END)
        if end is None:
            raise _UnreadableError
        if self.text[start] in "vP":
            arity = 0
        name.parts.append(_Part("", number=int(end[1]) + 2 if end[1] else 1, arity=arity))

    def _parameters(self) -> int:
        count = 0
        while not self.text.startswith("E", self.place):
            self._nested(lambda: self._type(_Name()))
            count += 1
        return count

    def _argument(self, args: list[_Name]) -> None:
        if self._accept("Tn"):
            self._type(_Name())  # of the argument that follows
            return
        if self._accept("J"):
            self._until_end(lambda: self._argument(args))
            return
        name = _Name()
        args.append(name)
        if self._accept("L"):
            self._literal(name)
        elif self._accept("X"):
            self._expression(name)
        else:
            self._type(name)

    def _literal(self, name: _Name) -> None:
        if self._accept("_Z"):
            self._name(name)
            self._until_end(lambda: self._type(_Name()))
            return
        is_flag = self.text.startswith("b", self.place)
        self._type(_Name())
        value = self._match(_VALUE)
        if value is None:
            raise _UnreadableError
        flag = "false" if value[1] == "0" else "true"
        name.parts.append(_Part(flag if is_flag else value[1].replace("n", "-")))

    def _expression(self, name: _Name) -> None:
        """Only ``&function`` is read."""
        if not self._accept("adL_Z"):
            raise _UnreadableError
        self._name(name)
        self._until_end(lambda: self._type(_Name()))
        if not self._accept("E"):
            raise _UnreadableError

    def _type(self, name: _Name) -> None:
        while self._match(_PREFIX):
            pass
        if self._accept("F"):
            self._until_end(lambda: self._type(_Name()))
        elif self._accept("M"):
            self._nested(lambda: self._type(_Name()))
            self._nested(lambda: self._type(_Name()))
        elif self._match(_SIMPLE_TYPE):
            name.parts.append(_Part("int"))  # whichever it is: data types fold
        else:
            self._nested(lambda: self._name(name))
