"""``traceq ops`` of several traces: added up, each by itself, or as the ranks of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from traceq.cli.comparison import leave, read_ranks
from traceq.cli.opening import how_to_open, reading
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.cli.part import limit_words
from traceq.errors import UsageError
from traceq.many import Workers
from traceq.op_sums import OpSums, ask_ops, read_ops
from traceq.ops import OP_FIELDS
from traceq.ranks import Ranks
from traceq.reading import Question
from traceq.report import SORT_KEYS, Part, cut, ops_report, sorted_ops
from traceq.report.ranks import ranks_report
from traceq.table import records
from traceq.units import plural

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """What of the traces is to be shown, and how."""

    by: str | None
    under: tuple[str, ...]
    match: tuple[str, ...]
    sort: str | None
    within: dict[str, Any]
    limit: int | None
    format_: str
    path: str | None


def show_ops(paths: Sequence[str], shown: Shown, opening: dict[str, Any], workers: Workers) -> None:
    """Write the ops of several traces, and leave with an error's code if any could not be read."""
    if shown.by == "trace" and shown.format_ not in ("json", "csv"):
        raise UsageError(
            "rows of each trace are too many to print", hint="Add --format csv, or json."
        )
    if shown.by == "rank":
        _check_ranks(shown)
        question = Question(under=shown.under, **shown.within)
        ranks, left = read_ranks(paths, question, opening, workers)
        text = _ranks_text(ranks, shown)
    else:
        asked = ask_ops(shown.under, shown.match, shown.within)
        with reading(paths) as progress:
            sums = read_ops(paths, asked, how_to_open(opening), workers, progress)
        left, text = [*sums.left_out], _sums_text(sums, shown)
    write(text, shown.path)
    leave((), None, left)


def _check_ranks(shown: Shown) -> None:
    """Raises UsageError for options that would be left unheard."""
    for value, option in ((shown.match, "--match"), (shown.sort, "--sort")):
        if value:
            raise UsageError(
                f"{option} does not go with --by rank, which lists what differs between ranks",
                hint=f"Leave {option} away, or use --by trace.",
            )


def _ranks_text(ranks: Ranks, shown: Shown) -> str:
    ops = ranks.ops if shown.limit is None else ranks.ops.head(shown.limit)
    if shown.format_ == "csv":
        return records_to_csv(records(ops), list(ops.columns))
    if shown.format_ == "json":
        return to_json(
            {
                "schema": SCHEMA_VERSION,
                "kind": "ranks",
                "under": list(shown.under),
                "within": shown.within,
                "straggler": ranks.straggler,
                "unmatched": ranks.unmatched,
                "warnings": list(ranks.doubts),
                "ranks": records(ranks.table),
                "rows": records(ops),
            }
        )
    report = ranks_report(ranks, shown.under, limit=shown.limit)
    return render(report, shown.format_, shown.path)


def _sums_text(sums: OpSums, shown: Shown) -> str:
    part, sort = _part(sums, shown), shown.sort or SORT_KEYS[0]
    if shown.format_ in ("json", "csv"):
        rows, columns, total = _rows(sums, shown, sort)
        if shown.format_ == "csv":
            return records_to_csv(rows, columns)
        return to_json(_head(sums, part, shown) | {"rows_total": total, "rows": rows})
    matched = bool(shown.match)
    report = ops_report(sums.table, part, sort=sort, limit=shown.limit, matched=matched)
    return render(report, shown.format_, shown.path)


def _rows(sums: OpSums, shown: Shown, sort: str) -> tuple[list[dict[str, Any]], list[str], int]:
    """The rows (of each trace as if it were alone), their columns, and how many there are."""
    if shown.by != "trace":
        table = sorted_ops(sums.table, sort)
        return cut(table, "op", shown.limit).plain, list(table.columns), len(table)
    rows = [
        {"path": item.path, **row}
        for item in sums.each
        for row in cut(sorted_ops(item.ops, sort), "op", shown.limit).plain
    ]
    columns = ["path", *(field.name for field in OP_FIELDS)]
    return rows, columns, sum(len(item.ops) for item in sums.each)


def _head(sums: OpSums, part: Part, shown: Shown) -> dict[str, Any]:
    head = part.as_dict()
    del head["path"]
    traces = [
        {
            "path": item.path,
            "scopes": item.scopes,
            "scopes_total": item.scopes_total,
            "gpu": asdict(item.gpu),
        }
        for item in sums.each
    ]
    left = [{"path": item.path, "reason": item.error.message} for item in sums.left_out]
    return {
        "schema": SCHEMA_VERSION,
        "kind": "ops-by-trace" if shown.by == "trace" else "ops-sum",
        "traces": traces,
        "left_out": left,
        **head,
        "match": list(shown.match),
    }


def _part(sums: OpSums, shown: Shown) -> Part:
    """What the sums are of, in the words of a report of one trace."""
    first = sums.each[0]
    sources = {item.step_source for item in sums.each}
    doubts = [f"{item.path}: {text}" for item in sums.each for text in item.doubts]
    return Part(
        path=first.path,
        under=shown.under,
        scopes=sums.scopes,
        scopes_total=sums.scopes_total,
        within="; ".join(limit_words(shown.within)),
        limits={**shown.within, "source": sources.pop() if len(sources) == 1 else None},
        gpu=sums.gpu,
        warnings=(*_first_few([*map(str, sums.left_out)]), *_first_few(doubts)),
        traces=len(sums.each),
    )


_MOST = 5


def _first_few(texts: Sequence[str]) -> list[str]:
    """So many that they can be read; how many more there are."""
    more = len(texts) - _MOST
    return [*texts[:_MOST], *([f"{plural(more, 'more remark')} of this kind"] if more > 0 else [])]
