"""What differs in the conditions of two sides' captures, and what makes comparing them meaningless.

Facts in, sentences out: another machine or version is told (a difference), another model or other
work stops the comparison (a blocker). Which slices are the scopes and which steps count is the
caller's business; whether a difference of times is real is not asked here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, groupby
from typing import Any

from traceq.conditions import GPU, RANKS, conditions, counted, distinct, shorter
from traceq.errors import UsageError
from traceq.info import TraceInfo
from traceq.names import fold_name
from traceq.units import plural, printable

MODULE = "nn.Module: "
SIDES = ("before", "after")

_STEPS, _SHAPES, _SCOPES = "steps", "shapes of inputs", "number of scopes"
_FRAMES, _CUDA_DRIVER, _CUDA_RUNTIME = "Python frames", "CUDA driver", "CUDA runtime"
_TYPES, _CLASSES = "data types of inputs", "classes of the scopes"

_TOLD_BY_RECORD = {_FRAMES: "stack", _CUDA_DRIVER: "driver", _CUDA_RUNTIME: "CUDA"}
"""What the profiler wrote, and what a record says of the same thing, mostly more exactly."""

_FLAGS = {
    "record_shapes": "recording of shapes",
    "profile_memory": "recording of memory",
    "with_modules": "module labels",
    "with_flops": "counting of FLOPs",
}
_PACKAGES = ("einops", "flash-linear-attention", "causal-conv1d", "sglang", "vllm")
_SIZES = {
    "batch": "batch size",
    "prompt": "prompt length",
    "hidden": "hidden size",
    "layers": "layers",
    "heads": "heads",
}
_UPPER = frozenset({"cuda", "cupti", "hip", "rocm", "nccl", "xpu"})

_VALUE_WIDTH, _NAME_WIDTH = 80, 40
"""A file may hold texts of any length."""

_MOST_CAPTURES, _MOST_VALUES, _MOST_CLASSES, _MOST_VERSIONS, _MOST_BLOCKERS = 6, 6, 3, 20, 3

_TYPED = re.compile(r"(?<!\w)(\w+)(\[[^\[\]]*\])\Z")
"""The end of an input as the record has it: ``ids=int64[10, 1]``."""


@dataclass(frozen=True, slots=True)
class CaptureFacts:
    """What is known of one capture; empty where nothing tells.

    ``conditions`` are texts by what they are called, ``models`` the scopes' classes with the
    number of their instances, ``scopes`` and ``activities`` the number of scope calls and of the
    GPU activities below them, ``stages`` has one entry a step in order of time (empty: not told).
    ``steps`` is their number by the record, used where ``stages`` is empty. ``shapes`` are those
    of the inputs without data types, ``sizes`` those of the model, ``time`` (seconds since the
    epoch) is when it was made, ``rank`` which of a run's ranks it is of. Captures of one
    ``fingerprint`` (or, without, of one path) are the
    same.
    """

    path: str
    conditions: Mapping[str, str] = field(default_factory=dict)
    has_record: bool = False
    models: Mapping[str, int] = field(default_factory=dict)
    scopes: int = 0
    activities: int = 0
    stages: tuple[str, ...] = ()
    steps: str = ""
    shapes: str = ""
    sizes: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    time: float | None = None
    rank: int | None = None

    @property
    def work(self) -> dict[str, str]:
        """What must be equal for times to compare, by what it is called; what is told of it."""
        found = {
            _STEPS: str(len(self.stages)) if self.stages else self.steps,
            _SCOPES: str(self.scopes),
            _SHAPES: self.shapes,
            **self.sizes,
        }
        return {name: text for name, text in found.items() if text}

    @property
    def workload(self) -> dict[str, str]:
        """The same with the classes of the scopes, in one text."""
        classes = [f"{_class(kind)} × {count}" for kind, count in sorted(self.models.items())]
        return self.work | ({_CLASSES: ", ".join(classes)} if classes else {})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs, or is not known to be equal.

    ``values`` has each value with the names of its captures (``before-1``), ``text`` is the
    sentence to print. Without values it is unknown.
    """

    what: str
    values: tuple[tuple[str, tuple[str, ...]], ...]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        values = [{"value": value, "captures": list(names)} for value, names in self.values]
        return {"what": self.what, "values": values, "text": self.text}


@dataclass(frozen=True, slots=True)
class Comparability:
    """What is to be told above a comparison; ``blockers`` (sentences) speak against making it."""

    differences: tuple[Difference, ...] = ()
    blockers: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """All sentences, the blockers first: for a comparison that was forced."""
        return (*self.blockers, *(item.text for item in self.differences))

    def raise_blockers(
        self,
        what: str = "these captures cannot be compared",
        hint: str = "Choose equal parts with --steps or --window, or compare them all the same "
        "with --force.",
    ) -> None:
        """Raises UsageError where there is a blocker."""
        if not self.blockers:
            return
        more = len(self.blockers) - _MOST_BLOCKERS
        told = [*self.blockers[:_MOST_BLOCKERS], *([f"({more} more)"] if more > 0 else [])]
        raise UsageError(f"{what}: {' '.join(told)}", hint=hint)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "differences": [item.to_dict() for item in self.differences],
            "blockers": list(self.blockers),
        }


# Facts of one capture -------------------------------------------------------------------------


def read_facts(
    info: TraceInfo,
    *,
    names: Iterable[str],
    scopes: int,
    activities: int = 0,
    stages: Sequence[str] = (),
    fingerprint: str = "",
    is_part: bool = False,
) -> CaptureFacts:
    """The facts of a capture; ``names`` are those of its scopes' slices.

    ``is_part`` where only some steps or a window are compared: the record's steps and shapes of
    inputs tell of the whole capture, so that they are no blockers then.
    """
    record = info.capture
    known = _conditions(info)
    shapes, types = _inputs(record)
    steps = ""
    if is_part and shapes:
        known[_SHAPES] = shapes
    elif not is_part:
        known.pop(_SHAPES, None)
        steps = known.pop(_STEPS, "")
    return CaptureFacts(
        path=info.path,
        conditions=known | ({_TYPES: types} if types else {}),
        has_record=bool(record),
        models=count_instances(names),
        scopes=scopes,
        activities=activities,
        stages=tuple(stages),
        steps=steps,
        shapes="" if is_part else shapes,
        sizes=_sizes(_mapping(record.get("workload"))),
        fingerprint=fingerprint,
        time=_time(record.get("time")),
        rank=info.rank,
    )


def _time(text: object) -> float | None:
    """The record's time; None where it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def count_instances(names: Iterable[str]) -> dict[str, int]:
    """The classes of scopes, with how many instances of each the names tell apart.

    Only names of modules carry an instance's number; addresses in others vary from run to run.

    >>> count_instances(["nn.Module: Linear_0", "nn.Module: Linear_1", "nn.Module: Linear_1"])
    {'nn.Module: Linear': 2}
    """
    distinct = dict.fromkeys(n if n.startswith(MODULE) else _label(n) for n in names)
    return dict(Counter(fold_name(name) for name in distinct))


def _label(name: str) -> str:
    """A label without its numbers: those of an engine's steps tell batches, not models.

    >>> _label("step[DECODE bs=31]"), _label("f.py(12): g")
    ('step[DECODE bs=N]', 'f.py: g')
    """
    return re.sub(r"\d+", "N", fold_name(name))


def _conditions(info: TraceInfo) -> dict[str, str]:
    """What the record tells, and what the profiler wrote where the record is silent."""
    found = conditions(info.capture)
    found |= _told(_more_of_record(info.capture))
    by_profiler = {
        GPU: counted(info.gpus) if info.gpus else "",
        RANKS: "" if info.world_size is None else str(info.world_size),
        **_flags(info),
        **_versions(info),
    }
    return _told(by_profiler) | found


def _told(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: printable(text) for name, text in texts.items() if text}


def _more_of_record(record: Mapping[str, Any]) -> dict[str, str]:
    """Packages that bring kernels of their own, and what the workload says of them."""
    versions, workload = _mapping(record.get("versions")), _mapping(record.get("workload"))
    found = {key: _plain(versions[key]) for key in _PACKAGES if key in versions}
    kernels = _mapping(workload.get("kernels")).items()
    found["kernels of the workload"] = ", ".join(
        f"{name} {kernel}" for name, kernel in kernels if isinstance(kernel, str)
    )
    return found | {"data type": _plain(workload.get("dtype", ""))}


def _flags(info: TraceInfo) -> dict[str, str]:
    """The profiler writes only the switches that are on: a file not its own tells of none."""
    frames = any(item.category == "python_function" and item.slices for item in info.categories)
    is_profilers = "schemaVersion" in info.metadata
    found = {_FRAMES: "yes" if frames else "no"} if info.categories else {}
    for flag, name in _FLAGS.items():
        if flag in info.flags or is_profilers:
            found[name] = "yes" if flag in info.flags else "no"
    return found


def _versions(info: TraceInfo) -> dict[str, str]:
    """Versions that the profiler wrote, by names as they are usually written."""
    return {
        shorter(printable(_in_capitals(name)), _NAME_WIDTH): text
        for name, text in list(info.versions.items())[:_MOST_VERSIONS]
    }


def _in_capitals(name: str) -> str:
    return " ".join(word.upper() if word in _UPPER else word for word in name.split())


def _inputs(record: Mapping[str, Any]) -> tuple[str, str]:
    """The shapes of the inputs without their data types, and the data types."""
    rows = record.get("shapes")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    texts = [_texts(row.get("inputs")) for row in rows]
    types = {match[1] for text in chain(*texts) if (match := _TYPED.search(text))}
    bare = [
        row | {"inputs": [_TYPED.sub(r"\2", text) for text in inputs]}
        for row, inputs in zip(rows, texts, strict=True)
    ]
    shapes = conditions({"shapes": bare}).get(_SHAPES, "")
    return shapes, printable(", ".join(sorted(types)))


def _sizes(workload: Mapping[str, Any]) -> dict[str, str]:
    found = {name: _size(workload.get(key)) for key, name in _SIZES.items()}
    return {name: text for name, text in found.items() if text}


def _size(value: object) -> str:
    """A whole number, or several by name."""
    if isinstance(value, dict):
        parts = [(key, _size(item)) for key, item in value.items() if not isinstance(item, dict)]
        return printable(", ".join(f"{key} {text}" for key, text in parts if text))
    if isinstance(value, int) and not isinstance(value, bool):
        # Python writes no more than 4,300 digits.
        return str(value) if value.bit_length() <= 64 else "a number beyond 64 bits"
    return ""


def _plain(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# Two sides ------------------------------------------------------------------------------------


def compare_facts(before: Sequence[CaptureFacts], after: Sequence[CaptureFacts]) -> Comparability:
    """What differs among all captures of two sides, within a side as well.

    Captures are called by their side, and ``before-0``, ``before-1`` where it has several.
    """
    captures = _Captures.of(before, after)
    renamed = _renamed(captures)
    others = [] if renamed else _other_models(captures)
    work = list(_other_work(captures))
    counts = [item for item in work if item.what == _SCOPES]  # a module may be called once less
    differences = [renamed, *counts, *_other_conditions(captures), *_other_activities(captures)]
    blocking = [*others, *(item.text for item in work if item not in counts)]
    return Comparability(
        differences=(
            *_same_on_both(before, after),
            *_one_after_the_other(before, after),
            *(item for item in differences if item),
            *_unknown(captures),
        ),
        blockers=(
            *_copies(captures),
            *_ranks("The captures before", before),
            *_ranks("The captures after", after),
            *blocking,
        ),
    )


def check_run(captures: Sequence[CaptureFacts]) -> Comparability:
    """What differs among captures that are to be one run: samples of the same code and work.

    Captures are called by their paths.
    """
    if len(captures) < 2:
        return Comparability()
    facts = {shorter(printable(item.path), _VALUE_WIDTH): item for item in captures}
    named = _Captures(facts, {"all": tuple(facts)})
    work = [*_other_work(named)]
    counts = [item for item in work if item.what == _SCOPES]
    blocking = [*_other_models(named), *(item.text for item in work if item not in counts)]
    others = [*counts, *_other_conditions(named), *_other_activities(named), *_unknown(named)]
    return Comparability(tuple(others), (*_ranks("These captures", captures), *blocking))


def _ranks(who: str, captures: Sequence[CaptureFacts]) -> Iterator[str]:
    """Ranks of one run share its noise: taken for captures they would make any change certain."""
    ranks = sorted({item.rank for item in captures if item.rank is not None})
    if len(ranks) > 1:
        shown = ", ".join(map(str, ranks[:_MOST_VALUES]))
        shown += ", ..." if len(ranks) > _MOST_VALUES else ""
        yield (
            f"{who} are of ranks {shown}: ranks of one run are no samples of "
            "each other (--by rank shows them)."
        )


def _same_on_both(
    before: Sequence[CaptureFacts], after: Sequence[CaptureFacts]
) -> Iterator[Difference]:
    """One capture on both sides is mostly a path that was set wrong."""
    shared = {item.fingerprint for item in before} & {item.fingerprint for item in after} - {""}
    if shared:
        yield Difference("captures", (), "A capture is on both sides: it has no change.")


def _one_after_the_other(
    before: Sequence[CaptureFacts], after: Sequence[CaptureFacts]
) -> Iterator[Difference]:
    """Captures that were not made in turns: the machine may have changed in between."""
    one, other = ([item.time for item in side if item.time is not None] for side in (before, after))
    if min(len(one), len(other)) < 2:
        return
    if max(one) < min(other) or max(other) < min(one):
        yield Difference(
            "order",
            (),
            "All captures of one side were made before those of the other: what changed in the "
            "machine meanwhile counts as a change. Make them in turns ('traceq capture ab').",
        )


@dataclass(frozen=True, slots=True)
class _Captures:
    """The captures of both sides by name, and the names of each side."""

    facts: Mapping[str, CaptureFacts]
    sides: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, before: Sequence[CaptureFacts], after: Sequence[CaptureFacts]) -> _Captures:
        facts: dict[str, CaptureFacts] = {}
        sides = {}
        for side, items in zip(SIDES, (before, after), strict=True):
            sides[side] = tuple(f"{side}-{n}" for n in range(len(items)))
            if len(items) == 1:
                sides[side] = (side,)
            facts |= zip(sides[side], items, strict=True)
        return cls(facts, sides)

    def who(self, names: Collection[str]) -> str:
        """Captures by their names; all of a side by its word."""
        words: list[str] = []
        for side, own in self.sides.items():
            chosen = [name for name in own if name in names]
            words += [side] if chosen and len(chosen) == len(own) else chosen
        more = len(words) - _MOST_CAPTURES
        return ", ".join([*words[:_MOST_CAPTURES], *([f"{more} more"] if more > 0 else [])])

    def difference(self, what: str, texts: Mapping[str, str]) -> Difference | None:
        """What the captures' texts (by their names) differ in; None where they are equal."""
        names: dict[str, list[str]] = {}
        for name, text in texts.items():
            names.setdefault(text, []).append(name)
        if len(names) < 2:
            return None
        values = tuple(zip(distinct(list(names)), map(tuple, names.values()), strict=True))
        told = [f"{value} ({self.who(own)})" for value, own in values[:_MOST_VALUES]]
        more = len(values) - _MOST_VALUES
        told += [f"{more} other values"] if more > 0 else []
        return Difference(what, values, f"The captures differ in {what}: {', '.join(told)}.")


def _copies(captures: _Captures) -> Iterator[str]:
    """Captures that were given twice on one side; on both sides it is an A/A, which is fine."""
    for names in captures.sides.values():
        same: dict[str, list[str]] = {}
        for name in names:
            item = captures.facts[name]
            same.setdefault(item.fingerprint or item.path, []).append(name)
        for twice in same.values():
            if len(twice) > 1:
                several = "two samples" if len(twice) == 2 else "samples of their own"
                who = " and ".join(filter(None, (", ".join(twice[:-1]), twice[-1])))
                file = shorter(printable(captures.facts[twice[0]].path), _VALUE_WIDTH)
                yield f"{who} are the same capture ({file}): they are not {several}."


# Models ---------------------------------------------------------------------------------------


def _renamed(captures: _Captures) -> Difference | None:
    """One class each side that the other has not, with as many instances: renamed on purpose."""
    models = {side: _model(captures, side) for side in SIDES}
    one, other = (models[side] for side in SIDES)
    gone, come = one.items() - other.items(), other.items() - one.items()
    if not len(gone) == len(come) == 1:
        return None
    (old, count), (new, count_after) = *gone, *come
    if count != count_after or old == new:
        return None
    texts = {"before": _class(old), "after": _class(new)}
    values = tuple((texts[side], captures.sides[side]) for side in SIDES)
    told = ", ".join(f"{text} ({side})" for side, text in texts.items())
    what = "class of the scopes"
    each = f"{plural(count, 'instance')} each, so taken as renamed"
    text = f"The captures differ in the {what}: {told}; {each}."
    return Difference(what, values, text)


def _model(captures: _Captures, side: str) -> Mapping[str, int]:
    """The classes of a side; nothing where its captures do not agree."""
    models = [captures.facts[name].models for name in captures.sides[side]]
    return models[0] if models and all(model == models[0] for model in models) else {}


def _other_models(captures: _Captures) -> list[str]:
    """Classes with other numbers of instances, each in one sentence."""
    models = {name: item.models for name, item in captures.facts.items() if item.models}
    sentences = []
    for kind in dict.fromkeys(chain.from_iterable(models.values())):
        numbers = {name: f"{model.get(kind, 0) or 'none'}" for name, model in models.items()}
        if found := captures.difference(f"instances of {_class(kind)}", numbers):
            sentences.append(found.text)
    more = len(sentences) - _MOST_CLASSES
    rest = [f"They differ in {plural(more, 'more class', 'more classes')} of scopes."]
    return [*sentences[:_MOST_CLASSES], *(rest if more > 0 else [])]


def _class(name: str) -> str:
    return shorter(printable(name.removeprefix(MODULE)), _VALUE_WIDTH)


# Work and conditions --------------------------------------------------------------------------


def _other_work(captures: _Captures) -> Iterator[Difference]:
    """What must be equal and is not."""
    work = {name: item.work for name, item in captures.facts.items()}
    for what in dict.fromkeys(chain.from_iterable(work.values())):
        texts = {name: told[what] for name, told in work.items() if what in told}
        if found := captures.difference(what, texts):
            yield found
    if found := _other_order(captures):
        yield found


def _other_order(captures: _Captures) -> Difference | None:
    """As many steps, of which one is of another stage; what no stage is told of may be equal."""
    told = {name: item.stages for name, item in captures.facts.items() if any(item.stages)}
    if len({len(stages) for stages in told.values()}) != 1:
        return None
    if all(len({*at} - {""}) < 2 for at in zip(*told.values(), strict=True)):
        return None
    texts = {name: _in_order(stages) for name, stages in told.items()}
    return captures.difference("the order of stages", texts)


def _in_order(stages: Sequence[str]) -> str:
    runs = [(stage or "not told", len(list(run))) for stage, run in groupby(stages)]
    return printable(", ".join(f"{n} × {stage}" if n > 1 else stage for stage, n in runs))


def _other_conditions(captures: _Captures) -> Iterator[Difference]:
    for what, texts in _by_condition(captures).items():
        if found := captures.difference(what, texts):
            yield found


def _by_condition(captures: _Captures) -> dict[str, dict[str, str]]:
    """Texts by condition and capture, less what all records tell more exactly."""
    found: dict[str, dict[str, str]] = {}
    for name, item in captures.facts.items():
        for what, text in item.conditions.items():
            found.setdefault(what, {})[name] = text
    for what, better in _TOLD_BY_RECORD.items():
        texts = [item.conditions.get(better, "none") for item in captures.facts.values()]
        if "none" not in texts:
            found.pop(what, None)
    return found


def _other_activities(captures: _Captures) -> Iterator[Difference]:
    """Within a side alone: fewer kernels after may be what the change was made for."""
    for names in captures.sides.values():
        numbers = {name: f"{captures.facts[name].activities:,}" for name in names}
        if found := captures.difference("number of GPU activities", numbers):
            yield found


# What is not known ----------------------------------------------------------------------------


def _unknown(captures: _Captures) -> Iterator[Difference]:
    """What is missing, in one sentence for records and one for all else."""
    without = [name for name, item in captures.facts.items() if not item.has_record]
    if without:
        text = (
            f"No record of the conditions of {captures.who(without)}: beyond what the profiler "
            "wrote, whether they were equal is not known."
        )
        yield Difference("record of the conditions", (), text)
    missing = [f"{what} ({captures.who(names)})" for what, names in _untold(captures).items()]
    if missing:
        more = len(missing) - _MOST_VALUES
        told = [*missing[:_MOST_VALUES], *([f"{more} more"] if more > 0 else [])]
        text = f"Not told by all captures, so not known to be equal: {', '.join(told)}."
        yield Difference("what is told", (), text)


def _untold(captures: _Captures) -> dict[str, list[str]]:
    """The captures that do not tell what others do; one without a record is spoken of already."""
    told = _by_condition(captures)
    for what in (_SHAPES, *_SIZES.values()):
        told[what] = {n: item.work[what] for n, item in captures.facts.items() if what in item.work}
    recorded = [name for name, item in captures.facts.items() if item.has_record]
    found = {what: [n for n in recorded if n not in texts] for what, texts in told.items() if texts}
    return {what: names for what, names in (found | _unseen(captures)).items() if names}


def _unseen(captures: _Captures) -> dict[str, list[str]]:
    """The same of what the events tell, with a record or without."""
    tells = {
        _STEPS: [name for name, item in captures.facts.items() if _STEPS in item.work],
        "stages": [name for name, item in captures.facts.items() if any(item.stages)],
        _CLASSES: [name for name, item in captures.facts.items() if item.models],
    }
    names = captures.facts
    return {what: [n for n in names if n not in own] for what, own in tells.items() if own}
