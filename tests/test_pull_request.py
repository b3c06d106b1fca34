"""The comparison as a comment: what comes first, what is folded, and that it always fits."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

import traceq
from tests.conftest import ROOT
from tests.test_render import HARMLESS, HOSTILE, MARKDOWNS, inline_tokens, parsed_tables
from tests.tracemaker import compact, complete
from traceq.cli import group
from traceq.compare import Diff, compare
from traceq.reading import Question, read
from traceq.render.markdown import LIMIT, to_markdown
from traceq.report import Column, Details, Report, Table, Unit, pull_request_report
from traceq.report.pull_request import command_of

SAMPLES = ROOT / "sample_traces"
MOST_ROWS = 10
OWN = re.compile(r"</?sub>|<details><summary>[^<>&]*</summary>|</details>")
"""The only HTML that the renderer writes itself."""


def compared(before: list[Path], after: list[Path], **options: object) -> Diff:
    sides = [[traceq.open(path) for path in side] for side in (before, after)]
    try:
        return traceq.diff(*sides, **options)  # type: ignore[arg-type]
    finally:
        for trace in itertools.chain(*sides):
            trace.close()


@pytest.fixture(scope="module")
def samples() -> Diff:
    before, after = (
        [SAMPLES / f"{kind}-{number}.json.gz" for number in range(3)]
        for kind in ("einops", "flatten")
    )
    conditions = ["cpu > 2%", "gpu > 1%", "'flatten of Tensor'.calls > 0"]
    return compared(before, after, under="GatedDeltaNet", fail_if=conditions)


def assert_sound(text: str) -> list[list[list[str]]]:
    """Tables intact, no HTML but the renderer's, no mention, not too long; the tables' cells."""
    assert len(text) <= len(text.encode()) <= LIMIT
    assert text.count("<details>") == text.count("</details>")
    for markdown in MARKDOWNS:
        for rows in parsed_tables(markdown, text):
            assert len({len(cells) for cells in rows}) == 1
        for token in inline_tokens(markdown, text):
            if token.type.startswith("html"):
                assert OWN.fullmatch(token.content.strip()), token.content
            else:
                assert token.type in {*HARMLESS, "fence"}, token.type
            if token.type in ("text", "text_special"):
                assert not re.search(r"@\w", token.content), token.content
    return [
        [[cell.content for cell in cells] for cells in rows]
        for rows in parsed_tables(MARKDOWNS[0], text)
    ]


def test_the_verdict_comes_first_then_ten_rows_then_the_rest(samples: Diff) -> None:
    text = samples.to_markdown()
    main_table, *_ = assert_sound(text)
    first, *_ = text.split("\n")
    assert first.startswith("**Under GatedDeltaNet, einops/einops.py: rearrange became ")
    assert "in 15 of 15 scopes, 51.707 → 11.872 µs a call" in first
    assert "GPU time of the scopes: same within 1%.**" in first
    assert len(main_table) - 1 <= MOST_ROWS
    names = [cells[1] for cells in main_table[1:]]
    assert names[1:] == ["`(unchanged code)`", "`(all of these)`", "`(GPU time)`"]
    assert main_table[1][-1] == "−78.1%"
    head, *details = text.split("<details>")
    assert "❔ gate: `cpu > 2% cannot be told" in head
    assert "✅ gate: `gpu > 1% does not hold" in head
    assert "❌ gate: `'flatten of Tensor'.calls > 0 holds: 15 calls after, 0 calls before.`" in head
    titles = [re.sub(r"\(.*\)", "", part.split("</summary>")[0]).strip() for part in details]
    assert titles == [
        "<summary>What was compared, and by which samples",
        "<summary>What replaced what",
        "<summary>Ops",
        "<summary>Kernels, copies and sets",
        "<summary>Counts, and how to read the tables",
        "<summary>Events of the files",
        "<summary>How to reproduce",
    ]


def test_times_in_the_table_add_up(samples: Diff) -> None:
    (table,) = pull_request_report(samples).tables
    rows = {row["name"]: row for row in table.rows}
    whole = rows["(all of these)"]
    parts = [row for name, row in rows.items() if name not in ("(all of these)", "(GPU time)")]
    for side in ("before", "after"):
        assert sum(row[side] for row in parts) == whole[side]


def test_it_can_be_made_again(samples: Diff) -> None:
    words = shlex.split(command_of(samples))
    assert words[:2] == ["traceq", "diff"]
    runner = CliRunner()
    again = runner.invoke(group, [*words[1:], "--format", "markdown"])
    assert again.stdout == samples.to_markdown()
    for capture in (*samples.before.captures, *samples.after.captures):
        assert f"{capture.sha256}  {capture.path}" in again.stdout
    assert "a.name GLOB '*GatedDeltaNet*'" in again.stdout


def test_options_that_are_not_the_usual_ones_are_in_the_command() -> None:
    path = SAMPLES / "einops-0.json.gz"
    diff = compared(
        [path],
        [path],
        under="re:Gated(Delta)Net",
        skip_first=True,
        steps="1:",
        level=0.2,
        bound=0.05,
    )
    words = shlex.split(command_of(diff))
    assert words[-9:] == [
        *("--under", "re:Gated(Delta)Net", "--steps", "1:", "--skip-first"),
        *("--level", "0.2", "--bound", "0.05"),
    ]
    assert "```sql" not in diff.to_markdown()  # an expression is no GLOB


GDN = [f"gdn-h200/{kind}-{number}.json.gz" for kind in ("einops", "flatten") for number in range(3)]
THIRD = [f"third-party/hta-trace-diff-{side}.json.gz" for side in ("control", "test")]


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("names", "under", "pairs"),
    [
        (GDN, ("GatedDeltaNet",), [(0, 3), (1, 4), (2, 5), (0, 1), (0, 0)]),
        (THIRD, ("ProfilerStep",), [(0, 1)]),
        (THIRD, (), [(0, 1)]),
    ],
)
def test_every_pair_of_the_corpus_renders(
    corpus: Path, names: list[str], under: tuple[str, ...], pairs: list[tuple[int, int]]
) -> None:
    question, captures = Question(under=under), []
    for name in names:
        with traceq.open(corpus / name) as trace:
            captures.append(read(trace, question))
    for before, after in pairs:
        diff = compare([captures[before]], [captures[after]], question, force=True)
        for show_all in (False, True):
            main_table, *_ = assert_sound(diff.to_markdown(show_all=show_all))
            assert 2 <= len(main_table) - 1 <= MOST_ROWS


def hostile_trace(path: Path, names: list[str], *, replaced: bool) -> Path:
    """One scope a name, in which an op of that name is called, or another that takes its place."""
    events, now = [], 0
    for number, name in enumerate(names):
        events.append(complete(f"nn.Module: Scope_{number}", now, 100, cat="python_function"))
        events.append(complete(f"after {name}" if replaced else name, now + 10, 50))
        now += 200
    path.write_bytes(compact(events))
    return path


def test_names_are_text(tmp_path: Path) -> None:
    names = [*(name for name in HOSTILE.values() if name), *HOSTILE]
    one = hostile_trace(tmp_path / "a`|<b>.json", names, replaced=False)
    other = hostile_trace(tmp_path / "@someone *x*.json", names, replaced=True)
    text = compared([one], [other], under="Scope_").to_markdown(show_all=True)
    assert_sound(text)
    assert "<img" not in re.sub(r"`[^`\n]*`", "", text.replace("\\<img", ""))


def test_what_is_too_long_goes_from_the_end_and_is_told(tmp_path: Path) -> None:
    names = [f"op {number:05} {'x' * 200}" for number in range(1_500)]
    one = hostile_trace(tmp_path / "one.json", names, replaced=False)
    other = hostile_trace(tmp_path / "other.json", names, replaced=True)
    text = compared([one], [other], under="Scope_").to_markdown(show_all=True)
    main_table, *_ = assert_sound(text)
    assert len(main_table) - 1 <= MOST_ROWS
    assert "Left out, as a comment may not be longer: Events of the files, rows of What" in text
    assert "<summary>How to reproduce</summary>" in text


@pytest.mark.parametrize("limit", [600, 1_500, 4_000, 10_000])
def test_any_limit_is_kept(samples: Diff, limit: int) -> None:
    text = to_markdown(pull_request_report(samples), limit)
    assert len(text.encode()) <= limit
    assert text.startswith("**Under GatedDeltaNet")
    assert "a comment may not be longer" in text


def test_details_are_folded_in_both_renderings_of_markdown() -> None:
    table = Table("", (Column("name", "name", Unit.NAME),), ({"name": "a|b <i>"},))
    details = Details("A < B", 1, (("key", "`v`"),), (table,), (("sh", "a ``` b"),), ("<x>",))
    text = to_markdown(Report("head", details=(details,)))
    for markdown in MARKDOWNS:
        html = MarkdownIt.render(markdown, text)
        assert "<details><summary>A &lt; B</summary>" in html
        assert "<table>" in html
        assert "a ``` b" in html
        assert "&lt;x&gt;" in html
