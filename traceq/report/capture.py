"""What a trace's record of its own capture says, in a report's words.

The record comes from a file, so anything may stand in it: what is not of the documented type is
passed over here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traceq import units
from traceq.report.words import plural


def capture_facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of each fact of a record (README, 'The record'); empty texts where untold."""
    if not record:
        return []
    settings = _mapping(record, "settings")
    return [
        ("captured", _captured(record)),
        ("program", " ".join(_texts(record, "argv"))),
        ("commit", _commit(_mapping(record, "git"))),
        ("driver", _text(_mapping(record, "machine").get("driver"))),
        ("software", _software(_mapping(record, "versions"))),
        ("settings", _settings(settings)),
        ("profiler's cost", _cost(_mapping(record, "cost"))),
        ("inputs", _inputs(record.get("shapes"))),
        ("workload", _pairs(_mapping(record, "workload"))),
        ("load", _pairs(_mapping(record, "load"))),
        ("server", _pairs(_mapping(record, "server"))),
    ]


def capture_notes(record: Mapping[str, Any]) -> list[str]:
    """What the capture itself had to say of its trace."""
    return _texts(record, "notes")


def _captured(record: Mapping[str, Any]) -> str:
    url, engine = _text(record.get("url")), _text(record.get("engine"))
    where = f"from {engine} at {url}" if engine and url else ""
    return ", ".join(filter(None, (_text(record.get("time")), where)))


def _commit(git: Mapping[str, Any]) -> str:
    commit = _text(git.get("commit"))
    if not commit:
        return ""
    branch = _text(git.get("branch"))
    on = f" on {branch}" if branch and branch != "HEAD" else ""
    return f"{commit[:12]}{on}{', with changes' if git.get('dirty') is True else ''}"


def _software(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in versions.items() if _text(value))


def _settings(settings: Mapping[str, Any]) -> str:
    words = [f"stack={_text(settings.get('stack'))}"] if settings.get("stack") else []
    for key in ("warmup", "steps"):
        if isinstance(settings.get(key), int):
            words.append(f"{key}={settings[key]}")
    for key in ("seconds", "device", "prefix"):
        if value := _text(settings.get(key)):
            words.append(f"{key}={value}")
    if under := _texts(settings, "under"):
        words.append(f"under={' '.join(under)}")
    words += [
        f"{key}={'yes' if settings[key] is True else 'no'}"
        for key in ("shapes", "memory", "by_stage")
        if isinstance(settings.get(key), bool)
    ]
    return ", ".join(words)


def _cost(cost: Mapping[str, Any]) -> str:
    figures = [cost.get(key) for key in ("without", "with", "steps_without")]
    counts = [value for value in figures if isinstance(value, int) and 0 < value < 2**62]
    if len(counts) != len(figures):
        return ""
    without, with_, steps = counts
    if with_ < without:
        return ""  # the steps before were not warm, or did more: nothing can be told
    return (
        f"about {with_ / without:.1f}x: a step took {units.duration(with_)} with it, "
        f"{units.duration(without)} without (median of {plural(steps, 'step')} before the window)"
    )


def _inputs(rows: object) -> str:
    told = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("calls"), int):
            inputs = ", ".join(_texts(row, "inputs"))
            told.append(f"{_text(row.get('module'))}({inputs}) × {row['calls']}")
    shown = told[:4]
    return "; ".join([*shown, f"{len(told) - 4} more"] if len(told) > 4 else shown)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_text(value)}" for key, value in values.items() if _text(value))


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _texts(record: Mapping[str, Any], key: str) -> list[str]:
    value = record.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Plain values as text; nested ones have no place in a line."""
    return "" if value is None or isinstance(value, (dict, list)) else str(value)
