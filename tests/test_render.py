"""Renderers against hostile names: none may steer a terminal, a table or a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from traceq import units
from traceq.align import GroupKey, Kind
from traceq.comparability import Comparability
from traceq.compare import STATUS_ORDER, CaptureTotals, Diff, Side, finding_dict
from traceq.evidence import Evidence, Finding
from traceq.groups import Group, Groups, Work
from traceq.kernels import GpuAccount, GpuWork
from traceq.reading import ScopeTotals
from traceq.render.html import to_html
from traceq.render.markdown import NAME_WIDTH, code, escape, to_markdown
from traceq.render.terminal import to_terminal
from traceq.report import (
    Column,
    Part,
    Report,
    Table,
    Unit,
    diff_report,
    kernels_report,
    ops_report,
    scopes_report,
    steps_report,
    timeline_report,
    tree_report,
)
from traceq.samples import RowKey
from traceq.samples import Unit as SampleUnit
from traceq.selection import OUTSIDE
from traceq.stats import Interval, Verdict
from traceq.timeline import Timeline

HOSTILE = {
    "html": "<img src=x onerror=alert(1)>",
    "script": "</td></table><script>alert(1)</script>",
    "entity": "&lt;b&gt; &amp; &#64;",
    "comment": "<!-- -->",
    "pipe": "a|b || c|",
    "escaped pipe": r"a\|b \\| c",
    "backtick": "a`b",
    "backticks": "``` `` `",
    "only backticks": "``",
    "mention": "@someone and @org/team",
    "issue": "fixes #1, owner/repo#2, GH-3",
    "newline": "one\ntwo\r\nthree",
    "blank line": "one\n\n# two",
    "escape": "a\x1b[2Jb\x1b]0;title\x07c",
    "c1": "a\x9b31mb\x85c",
    "nul": "a\x00b\x7f\x08",
    "right to left": "abc\u202ecba\u2066x\u2069\u200f",
    "zero width": "a\u200bb\ufeffc\u2028d",
    "long": "kernel<" + "int, " * 2_000 + ">",
    "strong": "**bold** __bold__ ~~gone~~ _em_",
    "link": "[x](https://example.org) ![y](z) <https://a.b>",
    "bare link": "https://example.org/a www.example.org a@b.org",
    "heading": "# heading",
    "list": "- item",
    "quote": "> quote",
    "rule": "---",
    "table": "| a | b |\n| --- | --- |\n| 1 | 2 |",
    "wide": "漢字" * 60,
    "emoji": "🙂" * 40 + "👩‍👩‍👧‍👦",
    "combining": "e\u0301" * 40,
    "spaces": "  a   b  ",
    "backslash": "\\",
    "empty": "",
    "math": "$x$ $$y$$",
    "markup": "[bold red]x[/] [link=http://a]y",
}
WIDTHS = (40, 47, 80, 120, 250)
MARKDOWNS = (
    MarkdownIt("gfm-like", {"linkify": False}),
    MarkdownIt("commonmark").enable("table"),
)


# Reports to render ------------------------------------------------------------------------------


LONG = 9_876_543_210_123
GPU = GpuAccount(
    all=GpuWork(9, 900),
    under=GpuWork(6, 600),
    backward=GpuWork(2, 200),
    outside=GpuWork(2, 250),
    unknown=GpuWork(1, 50),
    busy=550,
    launches=5,
)
_GPU_VALUES = {
    "gpu_total": 7_000,
    "gpu_self": 6_000,
    "gpu_busy": 5_000,
    "launches": 3,
    "activities": 4,
    "activities_self": 4,
    "kernels_per_call": 1.5,
}


def part_of(names: list[str], scopes: int | None = 3) -> Part:
    return Part(
        path=names[0],
        under=(names[0],),
        scopes=scopes,
        scopes_total=None if scopes is None else 5_000,
        within="steps 1:2",
        limits={},
        gpu=GPU,
        warnings=(f"doubt about {names[0]}",),
    )


def with_account(rows: list[dict[str, Any]], name: str, **values: Any) -> pd.DataFrame:
    """Rows, and last the one that holds the GPU time of no other."""
    return pd.DataFrame([*rows, rows[0] | {name: OUTSIDE, "calls": 0} | values])


def ops_table(names: list[str]) -> pd.DataFrame:
    rows = [
        {
            "op": name,
            "category": "cpu_op",
            "calls": 1_234_567,
            "total": LONG + number,
            "self": 1_000,
            "average": 1_234.5,
            "min": 0,
            "max": 7_000_000,
            "outermost": 9_000,
            **_GPU_VALUES,
        }
        for number, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


def ops_of(names: list[str]) -> Report:
    return ops_report(ops_table(names), part_of(names))


def kernels_of(names: list[str]) -> Report:
    rows = [
        {
            "kernel": name,
            "category": "kernel",
            "variants": 2,
            "calls": 1_234_567,
            "total": LONG,
            "average": 12.5,
            "min": 1,
            "max": 99_000,
            "busy": 9_000,
            "share": 0.5,
            "launches": 7,
            "backward": 1,
            "delay": None,
            "ops": f"{name} ×3",
        }
        for name in names
    ]
    table = with_account(rows, "kernel", category="", calls=8)
    return kernels_report(table, part_of(names))


def scopes_of(names: list[str]) -> Report:
    cpu = {"kind": "module", "calls": 2, "instances": 1, "total": LONG, "self": 5, "average": 1.5}
    shares = {"share": None, "backward": 3, "gpu_share": 0.0001}
    rows = [{"scope": name, **cpu, **_GPU_VALUES, **shares} for name in names]
    return scopes_report(with_account(rows, "scope", kind="", total=0), part_of(names))


def tree_of(names: list[str]) -> Report:
    rows = [
        {
            "node": number,
            "parent": number - 1,
            "depth": number,
            "name": name,
            "kind": "op",
            "calls": 1,
            "total": LONG,
            "self": 1_000,
            "gpu_total": 7_000,
            "gpu_busy": 7_000,
            "launches": 1,
            "activities": 1,
        }
        for number, name in enumerate(names)
    ]
    account = {"node": len(rows), "parent": -1, "depth": 0, "kind": "account", "total": 0}
    return tree_report(with_account(rows, "name", **account), part_of(names), by="gpu")


def steps_of(names: list[str]) -> Report:
    rows = [
        {
            "step": number,
            "name": name,
            "ts": LONG,
            "dur": 1_000,
            "stage": name,
            **_GPU_VALUES,
            "is_cold": False,
        }
        for number, name in enumerate(names)
    ]
    table = pd.DataFrame(rows)
    table.attrs["source"] = f"found from {names[0]}"
    return steps_report(table, origin=LONG)


def timeline_of(names: list[str]) -> Report:
    numbers = ("activities", "total", "busy", "compute", "communication", "copy", "hidden")
    streams = pd.DataFrame([{"device": 0, "stream": -1, **dict.fromkeys(numbers, LONG)}])
    states = [{"device": item, "state": "compute", "time": 5, "share": 1.0} for item in (0, 1)]
    gaps = [
        {"device": 0, "ts": LONG, "dur": 5, "cause": "idle: CPU", "next_name": name}
        for name in names
    ]
    timeline = Timeline(0, 5, pd.DataFrame(states), streams, pd.DataFrame(gaps), 9, 9)
    return timeline_report(timeline, origin=0, within=names[0])


_DIFF_FIELDS = (
    *("calls", "total", "average", "min", "max", "self", "outermost"),
    *("gpu_total", "gpu_self", "gpu_busy", "launches", "activities"),
)


def finding_of(number: int) -> Finding:
    """One of each verdict in turn, with figures that need room."""
    verdict = list(Verdict)[number % len(Verdict)]
    sample = Interval(LONG, LONG - 1, LONG + 1, 0.9375)
    change = Interval(12.345, -0.5, 1234.5, 0.9375)
    per_call = None if number % 2 else Interval(-LONG, -LONG - 1, LONG, 0.9375)
    return Finding(sample, sample, change, 0.05, 0.0625, verdict, 7, per_call)


def work_of(number: int) -> dict[str, list[Any]]:
    return {name: [np.array([LONG, number])] for name in Work.__slots__}


def groups_of(names: list[str]) -> Groups:
    """A group of each kind in turn, and the code that is the same."""
    rows = []
    for number, name in enumerate(names):
        kind = list(Kind)[number % len(Kind)]
        gone = () if kind is Kind.ADDED else (name, name, names[0])
        come = () if kind is Kind.REMOVED else (names[-1 - number], name)
        key = GroupKey(kind, name if number % 3 else "", gone, come)
        found = Group(key, [12], [1_234], number % 2 == 0, number % 5 != 4, outside=3)
        found.before, found.after = work_of(number), work_of(number + 1)
        rows.append(found)
    unchanged = Group(GroupKey(Kind.REPLACED, "", (), ()), [12], [1_234])
    unchanged.before, unchanged.after = work_of(0), work_of(0)
    return Groups(tuple(rows), unchanged, (1, 0), frozenset(names))


def evidence_of(names: list[str]) -> Evidence:
    keys = [RowKey("scopes", name) for name in ("cpu", "gpu")]
    keys += [
        RowKey(table, str(number))
        for table in ("groups", "kernel_groups")
        for number in range(len(names))
    ]
    findings = {key: finding_of(number) for number, key in enumerate(keys)}
    floors = {"cpu": (-0.2, 0.9), "gpu": (0.0, 0.1)}
    noise = {"cpu": 0.05, "gpu": None}
    return Evidence(SampleUnit.STEP, (5, 5), 0.1, 0.01, True, noise, floors, findings)


def diff_of(names: list[str]) -> Report:
    rows = []
    for number, name in enumerate(names):
        status = STATUS_ORDER[number % len(STATUS_ORDER)]
        row: dict[str, Any] = {
            "status": status,
            "op": name,
            "replaced_by": names[-1 - number] if status == "replaced" else None,
            "category": "cpu_op",
            "delta": -123_456_789 - number,
            "self_delta": 5,
            "ratio": None if status in ("added", "removed") else 12.5,
            "gpu_delta": -5,
            **dict.fromkeys(("calls_part", "shapes_part", "cost_part"), -LONG),
            **finding_dict(None if status in ("added", "removed") else finding_of(number)),
        }
        for field in _DIFF_FIELDS:
            row[f"{field}_before"] = None if status == "added" else 1_000 + number
            row[f"{field}_after"] = None if status == "removed" else 2_000_000
        rows.append(row)
    table = pd.DataFrame(rows, dtype=object).astype(
        {f"{field}_{side}": "Int64" for field in _DIFF_FIELDS for side in ("before", "after")}
    )
    before, after = ScopeTotals(1, 5_000, 0, GPU), ScopeTotals(2, 6_000, 0, GPU)
    result = Diff(
        before=Side((CaptureTotals(names[0], before),)),
        after=Side(tuple(CaptureTotals(name, after) for name in (names[-1], names[0]))),
        under=(names[0] or "x",),
        match=(),
        maps=(),
        within={
            "steps": names[0],
            "skip_first": True,
            "window": None,
            "steps_before": names[0],
            "steps_after": names[-1],
        },
        table=table,
        ops=table,
        kernels=table.rename(columns={"op": "kernel"}).drop(columns="replaced_by"),
        groups=groups_of(names),
        kernel_groups=groups_of(names),
        evidence=evidence_of(names),
        comparability=Comparability(),
        warnings=(f"{names[0]}: a warning", f"a warning of {names[-1]}"),
    )
    return diff_report(result)


OTHERS = {
    "kernels": kernels_of,
    "scopes": scopes_of,
    "tree": tree_of,
    "steps": steps_of,
    "timeline": timeline_of,
}
REPORTS = {
    "all ops": ops_of(list(HOSTILE.values())),
    **{f"{kind} of all": make(list(HOSTILE.values())) for kind, make in OTHERS.items()},
    "all diff": diff_of(list(HOSTILE.values())),
    **{f"ops {key}": ops_of([name]) for key, name in HOSTILE.items()},
    **{f"diff {key}": diff_of([name, "aten::mul"]) for key, name in HOSTILE.items()},
}
each_report = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())


def cells_of(report: Report, *units_: Unit) -> Iterator[str]:
    for table in report.tables:
        for row in table.rows:
            for column in table.columns:
                if column.unit in units_ and row[column.key] is not None:
                    yield column.unit.show(row[column.key])


# Terminal -----------------------------------------------------------------------------------------


def assert_plain(text: str) -> None:
    for char in text:
        assert char == "\n" or char.isprintable(), f"{char!r} in {text[:200]!r}"
        assert unicodedata.bidirectional(char) not in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI")


@pytest.mark.parametrize("width", WIDTHS)
def test_terminal_lines_are_plain_and_never_longer_than_the_width(width: int) -> None:
    for key, report in REPORTS.items():
        text = to_terminal(report, width=width, color=False)
        assert_plain(text)
        room = max(width, least_width(report))
        assert [line for line in text.splitlines() if cell_len(line) > room] == [], key


def least_width(report: Report) -> int:
    """What the figures that are never given up need, beside the shortest of names."""
    return max(
        sum(
            (max(8, len(column.title)) if column.unit is Unit.NAME else width_of(table, column)) + 2
            for column in table.columns
            if column.rank == 0
        )
        for table in report.tables
    )


def width_of(table: Table, column: Column) -> int:
    return max(len(column.title), *(len(column.unit.show(row[column.key])) for row in table.rows))


def cut_figures(keys: Sequence[str], width: int) -> dict[str, list[str]]:
    """By report, the figures of columns that are never given up and that cannot be read."""
    found: dict[str, list[str]] = {}
    for key in keys:
        text = to_terminal(REPORTS[key], width=width, color=False)
        lost = [
            column.unit.show(row[column.key])
            for table in REPORTS[key].tables
            for row in table.rows
            for column in table.columns
            if column.rank == 0 and column.unit is not Unit.NAME
        ]
        if cut := [figure for figure in lost if figure not in text]:
            found[key] = cut
    return found


WIDE = [key for key in REPORTS if key.endswith((" wide", " emoji")) or key.startswith("all ")]


@pytest.mark.parametrize("width", WIDTHS)
def test_terminal_figures_are_never_cut(width: int) -> None:
    keys = [key for key in REPORTS if key not in WIDE and (width >= 80 or "diff" not in key)]
    assert cut_figures(keys, width) == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_terminal_figures_beside_names_of_wide_characters_are_never_cut(width: int) -> None:
    keys = [key for key in WIDE if width >= 80 or "diff" not in key]
    assert cut_figures(keys, width) == {}


@pytest.mark.parametrize("width", [40, 47, 60])
def test_terminal_figures_of_a_comparison_are_never_cut_where_it_is_narrow(width: int) -> None:
    assert cut_figures(["diff markup"], width) == {}


def test_terminal_columns_are_given_up_whole_and_in_the_order_of_their_rank() -> None:
    report = ops_of(["aten::mul", "x" * 60])
    seen = []
    for width in range(250, 39, -1):
        lines = to_terminal(report, width=width, color=False).splitlines()
        head = next(line for line in lines if line.startswith("op "))
        seen.append({column.rank for column in report.tables[0].columns if column.title in head})
    for ranks in seen:
        assert ranks == set(range(len(ranks)))
    assert seen[0] == set(range(9))
    assert [len(ranks) for ranks in seen] == sorted((len(ranks) for ranks in seen), reverse=True)


def test_terminal_colour_is_asked_for() -> None:
    report = diff_of(["a", "b", "c", "d"])
    plain = to_terminal(report, width=100, color=False)
    coloured = to_terminal(report, width=100, color=True)
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert "\x1b" not in bare
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("key", HOSTILE)
def test_coloured_names_hold_no_sequence_of_their_own(key: str) -> None:
    coloured = to_terminal(diff_of([HOSTILE[key], "aten::mul"]), width=100, color=True)
    assert_plain(re.sub(r"\x1b\[[0-9;]*m", "", coloured))


def test_markup_of_rich_is_text() -> None:
    text = to_terminal(ops_of([HOSTILE["markup"]]), width=200, color=False)
    assert text.count(HOSTILE["markup"]) >= 2


ANY_NAME = st.one_of(
    st.text(max_size=150),
    st.sampled_from(list(HOSTILE.values())),
    st.text("|`\\<>@#*_[]()\n\t ab-~&!漢", max_size=60),
)


@settings(max_examples=100)
@given(st.lists(ANY_NAME, min_size=1, max_size=4), st.integers(40, 250))
def test_terminal_with_any_names(names: list[str], width: int) -> None:
    text = to_terminal(ops_of(names), width=width, color=False)
    assert_plain(text)
    room = max(width, least_width(ops_of(names)))
    assert all(cell_len(line) <= room for line in text.splitlines())


# Markdown -----------------------------------------------------------------------------------------


def parsed_tables(markdown: MarkdownIt, text: str) -> list[list[list[Any]]]:
    """Tables as rows of cells; a cell is its inline token."""
    found: list[list[list[Any]]] = []
    tokens = markdown.parse(text)
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            found[-1][-1].append(tokens[number + 1])
    return found


def inline_tokens(markdown: MarkdownIt, text: str) -> Iterator[Any]:
    for token in markdown.parse(text):
        yield token
        yield from token.children or ()


def shown_text(inline: Any) -> str:
    return "".join(
        child.content if child.type in ("text", "code_inline", "text_special") else ""
        for child in inline.children
    )


HARMLESS = {
    *("inline", "text", "text_special", "code_inline", "softbreak", "hardbreak"),
    *("strong_open", "strong_close", "paragraph_open", "paragraph_close"),
    *("blockquote_open", "blockquote_close", "bullet_list_open", "bullet_list_close"),
    *("list_item_open", "list_item_close", "table_open", "table_close", "thead_open"),
    *("thead_close", "tbody_open", "tbody_close", "tr_open", "tr_close", "th_open", "th_close"),
    *("td_open", "td_close"),
}


@each_report
@pytest.mark.parametrize("markdown", MARKDOWNS, ids=["gfm", "commonmark"])
def test_markdown_tables_keep_their_shape(report: Report, markdown: MarkdownIt) -> None:
    tables = parsed_tables(markdown, to_markdown(report))
    assert len(tables) == len(report.tables)
    for table, rows in zip(report.tables, tables, strict=True):
        columns = [
            column
            for column in table.columns
            if any(row[column.key] is not None for row in table.rows)
        ]
        assert len(rows) == 1 + len(table.rows)
        assert {len(cells) for cells in rows} == {len(columns)}


@each_report
@pytest.mark.parametrize("markdown", MARKDOWNS, ids=["gfm", "commonmark"])
def test_markdown_holds_nothing_but_text_code_and_tables(
    report: Report, markdown: MarkdownIt
) -> None:
    for token in inline_tokens(markdown, to_markdown(report)):
        if token.type in ("html_inline", "html_block"):
            # The renderer's own small print; a block ends with its line.
            assert token.content in ("<sub>", "</sub>"), token.content
            continue
        assert token.type in HARMLESS, (token.type, token.content)


@each_report
def test_markdown_mentions_nobody_outside_code(report: Report) -> None:
    for token in inline_tokens(MARKDOWNS[0], to_markdown(report)):
        if token.type in ("text", "text_special"):
            assert not re.search(r"@\w", token.content), token.content
    # GitHub's own search for mentions is over the rendered text: special tokens join their text.
    for token in MARKDOWNS[0].parse(to_markdown(report)):
        text = "".join(
            child.content for child in token.children or () if child.type != "code_inline"
        )
        assert not re.search(r"@\w", text), text


@pytest.mark.parametrize("key", HOSTILE)
@pytest.mark.parametrize("markdown", MARKDOWNS, ids=["gfm", "commonmark"])
def test_markdown_shows_names_as_they_are(key: str, markdown: MarkdownIt) -> None:
    name = units.printable(HOSTILE[key])
    rows = parsed_tables(markdown, to_markdown(ops_of([HOSTILE[key]])))[0]
    shown = shown_text(rows[1][0])
    if len(name) <= NAME_WIDTH:
        assert shown.strip() == name.strip()
    else:
        left, _, right = shown.partition("…")
        assert len(shown) <= NAME_WIDTH
        assert name.startswith(left)
        assert name.endswith(right)


@settings(max_examples=150)
@given(st.lists(ANY_NAME, min_size=1, max_size=4))
def test_markdown_with_any_names(names: list[str]) -> None:
    text = to_markdown(ops_of(names))
    for markdown in MARKDOWNS:
        rows = parsed_tables(markdown, text)[0]
        assert len(rows) == 1 + len(names)
        assert len({len(cells) for cells in rows}) == 1
        for token in inline_tokens(markdown, text):
            if token.type.startswith("html"):
                assert token.content in ("<sub>", "</sub>")
            else:
                assert token.type in HARMLESS


@settings(max_examples=200)
@given(ANY_NAME)
def test_code_and_escape_show_what_they_were_given(text: str) -> None:
    printable = units.printable(text)
    for markdown in MARKDOWNS:
        tokens = markdown.parseInline(f"x {escape(text)} x")[0].children
        assert {token.type for token in tokens} <= {"text", "text_special"}
        shown = "".join(token.content for token in tokens).replace("\u200b", "")
        assert shown == f"x {printable} x"
        if printable:
            tokens = markdown.parseInline(f"x {code(text)} x")[0].children
            assert [token.type for token in tokens] == ["text", "code_inline", "text"]
            assert tokens[1].content.strip(" ") == printable.strip(" ")


# HTML ---------------------------------------------------------------------------------------------

OUR_TAGS = {"div", "p", "b", "code", "table", "thead", "tbody", "tr", "th", "td", "small"}


class Seen(HTMLParser):
    """Collects tags with attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.others: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes.update(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)


def seen_in(report: Report) -> Seen:
    seen = Seen()
    seen.feed(to_html(report))
    seen.close()
    assert seen.open == []
    return seen


@each_report
def test_html_has_our_tags_only_and_all_text(report: Report) -> None:
    seen = seen_in(report)
    assert set(seen.tags) <= OUR_TAGS
    assert seen.others == []
    assert seen.attributes <= {("style", "text-align: left"), ("style", "text-align: right")}
    for text in (report.headline, *report.warnings, *(value for _, value in report.facts)):
        assert units.printable(text) in seen.text
    for cell in cells_of(report, *Unit):
        assert cell in seen.text


@each_report
def test_html_tags_do_not_depend_on_names(report: Report) -> None:
    rows = sum(len(table.rows) for table in report.tables)
    cells = sum(len(table.rows) * len(table.columns) for table in report.tables)
    tags = seen_in(report).tags
    assert tags.count("tr") == rows + len(report.tables)
    assert tags.count("td") == cells


@settings(max_examples=100)
@given(st.lists(ANY_NAME, min_size=1, max_size=3))
def test_html_with_any_names(names: list[str]) -> None:
    seen = seen_in(ops_of(names))
    assert set(seen.tags) <= OUR_TAGS
    assert seen.others == []
    for name in names:
        assert units.printable(name) in seen.text


# Smaller things -----------------------------------------------------------------------------------


def test_an_empty_report_is_its_headline() -> None:
    report = Report("nothing")
    assert to_terminal(report, width=80, color=False) == "nothing\n"
    assert to_markdown(report) == "**nothing**\n"
    assert to_html(report) == "<div><p><b>nothing</b></p></div>"


def test_a_path_that_is_not_utf8_is_shown_escaped() -> None:
    report = Report("caf\udce9.json", facts=(("before", "caf\udce9.json"),))
    for text in (to_terminal(report, width=80, color=False), to_markdown(report), to_html(report)):
        assert text.count("udce9.json") == 2
        text.encode("utf-8")


def test_a_table_without_rows_is_its_note() -> None:
    table = Table("Title", (Column("a", "a", Unit.NAME),), (), "A note.")
    report = Report("headline", tables=(table,))
    assert to_terminal(report, width=80, color=False) == "headline\n\nTitle\nA note.\n"
    assert to_markdown(report) == "**headline**\n\n**Title**\n\n<sub>A note.</sub>\n"
    assert "A note." in to_html(report)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.COUNT, 1234567, "1,234,567"),
        (Unit.COUNT, None, "–"),
        (Unit.MICROS, 0, "0.000"),
        (Unit.MICROS, 1, "0.001"),
        (Unit.MICROS, 2**53 + 1, "9,007,199,254,740.993"),
        (Unit.DELTA, 5, "+0.005"),
        (Unit.DELTA, -5, "−0.005"),
        (Unit.DELTA, 0, "0.000"),
        (Unit.RATIO, 2.675, "2.67x"),
        (Unit.RATIO, 0.004, "0.004x"),
        (Unit.RATIO, 0.01, "0.01x"),
        (Unit.RATIO, 0.0, "0x"),
        (Unit.RATIO, 12345.678, "12,345.68x"),
        (Unit.RATIO, None, "–"),
        (Unit.TEXT, None, ""),
        (Unit.NAME, "a\nb", "a\\nb"),
    ],
)
def test_how_values_are_shown(unit: Unit, value: Any, text: str) -> None:
    assert unit.show(value) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_000, "1.000 µs"), (10**6, "1.000 ms"), (10**10, "10.000 s")],
)
def test_durations(ns: int, text: str) -> None:
    assert units.duration(ns) == text


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert units.printable(text).isprintable()
    if text.isprintable():
        assert units.printable(text) == text
