"""Names of ops: folding what varies from run to run, patterns over names, nearest names.

Pure text in, text out; the trace and the engine are not known here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from traceq.errors import PatternError

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LINE = re.compile(r"^(?P<file>[^()]+|<[^>]*>)\(\d+\): ")
_INSTANCE = re.compile(r"^(?P<module>nn\.Module: .+)_\d+$")
_STEP = re.compile(r"^(ProfilerStep)#\d+$")
_COMPILED = re.compile(r"(CompiledFxGraph) [0-9a-z]{20,}")
_FOLDED = (
    (" at 0x", _ADDRESS, ""),
    ("): ", _LINE, r"\g<file>: "),
    ("nn.Module: ", _INSTANCE, r"\g<module>"),
    ("ProfilerStep#", _STEP, r"\1"),
    ("CompiledFxGraph ", _COMPILED, r"\1"),
)


def fold_name(name: str) -> str:
    """The op that a slice name belongs to.

    >>> fold_name("<built-in method flatten of Tensor object at 0x7f3c94>")
    '<built-in method flatten of Tensor object>'
    >>> fold_name("einops/einops.py(561): rearrange")
    'einops/einops.py: rearrange'
    >>> fold_name("nn.Module: Qwen3_5GatedDeltaNet_3")
    'nn.Module: Qwen3_5GatedDeltaNet'
    """
    for part, pattern, kept in _FOLDED:
        if part in name:  # most names have none of these, and expressions are slow to say so
            name = pattern.sub(kept, name)
    return name


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern as the user wrote it: text, glob, or ``re:`` and a regular expression.

    Plain text matches as a case-sensitive part of the name; text with ``*`` or ``?`` is a glob
    over the whole name; after ``re:`` a Python regular expression is searched for.
    """

    text: str
    _regex: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern. Raises PatternError where it is empty or no valid expression."""
        if not text or text == "re:":
            raise PatternError("a pattern is empty", hint="Give a part of a name.")
        if text.startswith("re:"):
            try:
                return cls(text, re.compile(text[3:]))
            except (re.error, OverflowError, RecursionError) as error:
                raise PatternError(
                    f"{text!r} is not a regular expression: {error}",
                    hint="Drop 're:' to search for the text as it stands.",
                ) from error
        if "*" in text or "?" in text:
            return cls(text, re.compile(_glob_to_regex(text), re.DOTALL))
        return cls(text, re.compile(re.escape(text)))

    @property
    def glob(self) -> str | None:
        """The pattern for SQL's GLOB; None for a regular expression.

        >>> Pattern.parse("a[0]").glob
        '*a[[]0]*'
        """
        if self.text.startswith("re:"):
            return None
        if "*" in self.text or "?" in self.text:
            return self.text.replace("[", "[[]")
        return f"*{self.text.replace('[', '[[]')}*"

    def matches(self, name: str) -> bool:
        """Whether a slice name, or its folded form, matches."""
        return bool(self._regex.search(name) or self._regex.search(fold_name(name)))


def _glob_to_regex(glob: str) -> str:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in glob)
    return r"\A" + "".join(parts) + r"\Z"


def matching_names(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that any of the patterns matches. Raises PatternError where one matches none."""
    names = list(names)
    found: set[str] = set()
    for text in patterns:
        pattern = Pattern.parse(text)
        matched = [name for name in names if pattern.matches(name)]
        if not matched:
            raise PatternError(
                f"no slice in the trace matches {text!r}", hint=_nearest_hint(text, names)
            )
        found.update(matched)
    return sorted(found)


def _nearest_hint(text: str, names: Sequence[str]) -> str:
    nearest = nearest_names(text, names)
    if not nearest:
        return "'traceq info' lists the modules of a trace."
    return "Nearest: " + "; ".join(nearest)


def nearest_names(text: str, names: Iterable[str], count: int = 5) -> list[str]:
    """Ops whose name, or a word of it, is most like ``text``; best first."""
    wanted = text.removeprefix("re:").strip("*?").lower()
    scored = {op: _likeness(wanted, op.lower()) for op in {fold_name(name) for name in names}}
    best = sorted(scored, key=lambda op: (-scored[op], len(op), op))
    return [shorten(op, 60) for op in best[:count] if scored[op] >= 0.6]


def _likeness(wanted: str, name: str) -> float:
    if wanted in name:
        return 1.0
    words = [word for word in re.split(r"[^0-9a-z]+", name) if word]
    return max(
        (difflib.SequenceMatcher(None, wanted, word).ratio() for word in words[:20]), default=0.0
    )


_BUILT_IN = re.compile(r"^<built-in (?:method|function) (?P<core>.+?)(?: object)?>$")
_FRAME = re.compile(r"^(?P<path>[^:]*/)(?P<rest>[^/:]+\.py: .+)$")


def shorten(name: str, width: int) -> str:
    """Fit a name in ``width`` characters, keeping what tells it from others.

    >>> shorten("<built-in method reshape of Tensor object>", 28)
    '<…reshape of Tensor>'
    >>> shorten("transformers/models/qwen3_5/modeling_qwen3_5.py: forward", 32)
    '…/modeling_qwen3_5.py: forward'
    """
    if len(name) <= width:
        return name
    if match := _BUILT_IN.match(name):
        return middle_out(f"<…{match['core']}>", width)
    if match := _FRAME.match(name):
        return middle_out(f"…/{match['rest']}", width)
    return middle_out(name, width)


def middle_out(name: str, width: int) -> str:
    """Shorten a name to ``width`` characters by taking out its middle.

    >>> middle_out("void at::native::elementwise_kernel<128, 4>", 21)
    'void at::n…el<128, 4>'
    """
    if len(name) <= width:
        return name
    left = (width - 1) // 2
    right = width - 1 - left
    return f"{name[:left]}…{name[len(name) - right :]}"
