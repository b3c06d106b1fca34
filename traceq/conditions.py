"""What a trace's record tells of the conditions of its capture, as texts that can be compared.

The record comes from a file, so anything may stand in it: what is not of the documented type
(README, "The record") is passed over. The command line and the workload differ on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from traceq.units import printable

GPU, RANKS = "GPU", "number of ranks"

_VERSIONS = {
    "python": "Python",
    "torch": "torch",
    "cuda": "CUDA",
    "hip": "HIP",
    "triton": "Triton",
    "transformers": "transformers",
}
_SETTINGS = {
    "stack": "stack",
    "warmup": "warm-up",
    "device": "device",
    "shapes": "recording of shapes",
    "memory": "recording of memory",
}
_NONE = "none"
_NOTE_WIDTH = 300
_VALUE_WIDTH = 80
"""Values are shown from where they differ, and no longer than this."""


def conditions(record: Mapping[str, Any]) -> dict[str, str]:
    """The conditions that a record tells, by what they are called.

    >>> conditions({"versions": {"torch": "2.13.0", "triton": None}, "settings": {"warmup": 3}})
    {'torch': '2.13.0', 'Triton': 'none', 'warm-up': '3'}
    """
    machine, settings = _mapping(record, "machine"), _mapping(record, "settings")
    found = [
        (GPU, _gpus(machine.get("gpus"))),
        ("driver", _plain(machine, "driver")),
        ("CPU", _cpu(_mapping(machine, "cpu"))),
        *_named(_mapping(record, "versions"), _VERSIONS),
        *_named(settings, _SETTINGS),
        ("steps", _steps(_mapping(record, "steps"), settings)),
        ("shapes of inputs", _inputs(record.get("shapes"))),
        (RANKS, _ranks(record)),
    ]
    return {name: printable(text) for name, text in found if text}


def notes(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What went otherwise than asked for, one printable line each."""
    return tuple(
        shorter(printable(" ".join(text.split())), _NOTE_WIDTH)
        for text in _list(record.get("notes"))
        if isinstance(text, str) and text.strip()
    )


def counted(names: Iterable[str]) -> str:
    """Equal names once, with their number.

    >>> counted(["H100", "H100"]), counted([])
    ('2 × H100', 'none')
    """
    several = Counter(names).items()
    return ", ".join(f"{n} × {name}" if n > 1 else name for name, n in several) or _NONE


def shorter(text: str, width: int) -> str:
    """A text of at most ``width`` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def distinct(values: Sequence[str]) -> list[str]:
    """Different values, short enough for a sentence: from a little before where they part."""
    columns = enumerate(zip(*values, strict=False))
    parting = next((at for at, chars in columns if len(set(chars)) > 1), min(map(len, values)))
    cut = max(0, parting - _VALUE_WIDTH // 4) if max(map(len, values)) > _VALUE_WIDTH else 0
    return [shorter("…" + value[cut:] if cut else value, _VALUE_WIDTH) for value in values]


def _named(values: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, name in names.items():
        yield name, _plain(values, key)


def _gpus(devices: object) -> str:
    if not isinstance(devices, list):
        return ""
    names = [item.get("name") if isinstance(item, dict) else None for item in devices]
    return counted(name if isinstance(name, str) else "unknown GPU" for name in names)


def _cpu(cpu: Mapping[str, Any]) -> str:
    name, cores = _plain(cpu, "name"), _plain(cpu, "cores")
    return f"{name}, {cores} cores" if name and cores else name


def _steps(times: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The steps that the window holds; where that is not told, those that were asked for."""
    recorded = len(_list(times.get("window")))
    return str(recorded) if recorded else _plain(settings, "steps")


def _inputs(rows: object) -> str:
    """What the outermost modules were given, whatever they are called: they may differ by name."""
    calls: Counter[str] = Counter()
    for row in _list(rows):
        if isinstance(row, dict) and isinstance(row.get("calls"), int):
            inputs = [item for item in _list(row.get("inputs")) if isinstance(item, str)]
            calls[f"({', '.join(inputs)})"] += row["calls"]
    return ", ".join(f"{_text(calls[inputs])} × {inputs}" for inputs in sorted(calls))


def _ranks(record: Mapping[str, Any]) -> str:
    """The record of a single process has null there."""
    if record.get("kind") == "session" and record.get("world_size", 0) is None:
        return "1"
    return _plain(record, "world_size") if record.get("world_size") is not None else ""


def _plain(values: Mapping[str, Any], key: str) -> str:
    """A plain value as text: ``none`` for null, empty where there is no such value."""
    return _text(values[key]) if key in values else ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):  # Python writes no more than 4,300 digits
        return str(value) if value.bit_length() <= 64 else "a number beyond 64 bits"
    if isinstance(value, (str, float)):
        return str(value)
    return _NONE if value is None else ""


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
