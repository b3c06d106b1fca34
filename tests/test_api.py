"""The Python API as people use it: parts, tables, figures, SQL, other stores, the notebook."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

import traceq
from tests.conftest import ROOT
from tests.tracemaker import compact, complete
from traceq import Part, ResultTable, Trace
from traceq.diff_plots import DiffPlots
from traceq.errors import PatternError, UsageError
from traceq.library import bind
from traceq.ops import sorted_ops
from traceq.part import TABLES, PartPlots
from traceq.plotting import draw_distribution
from traceq.report.verdicts import scope_fact
from traceq.stats import Verdict

SAMPLES = ROOT / "sample_traces"


@pytest.fixture(scope="module")
def trace() -> Iterator[Trace]:
    with traceq.open(SAMPLES / "einops-0.json.gz") as opened:
        yield opened


@pytest.fixture(scope="module")
def diff(trace: Trace) -> traceq.Diff:
    with traceq.open(SAMPLES / "flatten-0.json.gz") as other:
        return traceq.diff(trace, other, under="GatedDeltaNet")


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize(
    "kind", [Trace, Part, PartPlots, ResultTable, traceq.Diff, DiffPlots, traceq.History]
)
def test_each_public_name_is_documented(kind: type) -> None:
    assert inspect.getdoc(kind)
    fields = getattr(kind, "__dataclass_fields__", {})
    for name in public(kind):
        text = inspect.getdoc(getattr(kind, name))
        assert text or name in fields, f"{kind.__name__}.{name}"


def test_each_name_of_the_package_is_documented() -> None:
    for name in traceq.__all__:
        assert inspect.getdoc(getattr(traceq, name)), name


def test_the_package_imports_nothing_large() -> None:
    code = (
        "import sys, traceq; print([m for m in ('numpy', 'pandas', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Parts ----------------------------------------------------------------------------------------


def test_a_part_has_the_tables_of_its_choices(trace: Trace) -> None:
    part = trace.under("GatedDeltaNet").steps(9, None).skip_first()
    windows = trace.windows(steps="9:", skip_first=True)
    for ours, plain in (
        (part.ops(), trace.ops("GatedDeltaNet", windows=windows)),
        (part.ops("aten::*"), trace.ops("GatedDeltaNet", "aten::*", windows=windows)),
        (part.kernels(), trace.kernels("GatedDeltaNet", windows=windows)),
        (part.activities(), trace.activities("GatedDeltaNet", windows=windows)),
        (part.scopes("layer"), trace.scopes("GatedDeltaNet", "layer", windows=windows)),
        (part.tree(), trace.tree("GatedDeltaNet", windows=windows)),
        (part.calls("aten::mm"), trace.calls("aten::mm", "GatedDeltaNet", windows=windows)),
        (part.scope_calls(), trace.scope_calls("GatedDeltaNet", windows=windows)),
    ):
        pd.testing.assert_frame_equal(ours.df, plain.df)
    ours, plain = part.timeline(), trace.timeline(windows=windows)
    pd.testing.assert_frame_equal(ours.states, plain.states)
    assert trace.whole.window(":1ms").windows is not None
    assert repr(part).endswith("under GatedDeltaNet, steps 9:, without the first step>")


def test_under_again_narrows(trace: Trace) -> None:
    slices = trace.slices
    part = trace.under("GatedDeltaNet").under("nn.Module: Linear")
    scopes = part.scope_calls()
    expected = []
    for number in trace.scope_calls("nn.Module: Linear")["id"]:
        above = slices.parent[number]
        while above >= 0 and "GatedDeltaNet" not in slices.names[slices.name[above]]:
            above = slices.parent[above]
        expected += [number] if above >= 0 else []
    assert scopes["id"].tolist() == expected
    assert 0 < len(scopes) < len(trace.scope_calls("nn.Module: Linear"))
    (row,) = part.ops("aten::linear").to_dict("records")
    assert row["calls"] == len(scopes)
    assert set(part.activities()["scope_id"]) <= set(expected)
    assert int(part.kernels()["total"].iloc[:-1].sum()) == int(part.activities()["dur"].sum())
    assert part.scopes()["calls"].iloc[0] == len(scopes)
    assert repr(part).endswith("under GatedDeltaNet > nn.Module: Linear>")
    deeper = trace.under("DecoderLayer").under("GatedDeltaNet").under("Linear", "RMSNorm")
    assert len(deeper.scope_calls()) == len(scopes) + 15
    with pytest.raises(PatternError, match="'GatedDeltaNet' is below 'nn"):
        trace.under("nn.Module: Linear").under("GatedDeltaNet").ops()


def test_steps_are_chosen_as_on_the_command_line(trace: Trace) -> None:
    for part, text in (
        (trace.whole.steps(9), "9"),
        (trace.whole.steps(9, 11), "9:11"),
        (trace.whole.steps(-2, None), "-2:"),
        (trace.whole.steps("9:11"), "9:11"),
    ):
        found, plain = part.windows, trace.windows(steps=text)
        assert found is not None
        assert plain is not None
        assert found.start.tolist() == plain.start.tolist()
        assert repr(part).endswith(f"steps {text}>")
    assert len(trace.under("GatedDeltaNet").steps(9).scope_calls()) == 3
    for part, message in (
        (trace.whole.steps(1), "no step is left of the 5.*\nThey are numbered 8 to 12"),
        (trace.whole.steps(13, None), "no step is left"),
        (trace.whole.steps("first"), "'first' names no steps"),
    ):
        with pytest.raises(UsageError, match=message):
            part.ops()
    with pytest.raises(UsageError, match="names all"):
        trace.whole.steps("9", 11)


def test_nothing_is_computed_before_a_table_is_asked_for(trace: Trace) -> None:
    wrong = trace.under("nothing of this name").steps(99)
    with pytest.raises((PatternError, UsageError)):
        wrong.ops()
    with pytest.raises(UsageError, match="no scope was chosen"):
        trace.whole.scope_calls()


def test_threads_share_a_trace(trace: Trace) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(trace.under("GatedDeltaNet").ops())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


# Tables ---------------------------------------------------------------------------------------


def test_a_table_is_a_data_frame_that_knows_its_columns(trace: Trace) -> None:
    table = trace.ops("GatedDeltaNet")
    assert isinstance(table, ResultTable)
    assert [field.name for field in table.fields] == list(table.columns)
    assert type(table.df) is pd.DataFrame
    arrow = table.arrow
    assert arrow.schema.field("total").metadata[b"unit"] == b"ns"
    assert arrow.column("total").to_pylist() == table["total"].tolist()
    total = table.relation.aggregate("sum(total)").fetchall()
    assert total == [(int(table["total"].sum()),)]
    again = pickle.loads(pickle.dumps(table))
    assert isinstance(again, ResultTable)
    assert again.fields == table.fields
    pd.testing.assert_frame_equal(again.df, table.df)


def test_what_is_chosen_from_a_table_knows_its_columns(trace: Trace) -> None:
    table = trace.ops("GatedDeltaNet")
    chosen = table[table["calls"] > 5].sort_values("self").head(3)[["op", "self", "calls"]]
    assert [(field.name, field.unit) for field in chosen.fields] == [
        ("op", ""),
        ("self", "ns"),
        ("calls", ""),
    ]
    assert chosen.arrow.schema.field("self").metadata[b"unit"] == b"ns"
    assert len(pd.concat([table, table.reset_index(drop=True)]).fields) == len(table.fields)
    for computed in (
        table[["total"]] / 1000,
        table[["total"]] > 5,
        -table[["total"]],
        table.groupby("category")[["total"]].sum(),
        table.rank(),
        table.assign(total=table["total"] / 1000)[["total"]],
        table[["total"]].rename(columns={"total": "time"}),
    ):
        assert getattr(computed, "fields", ()) == ()


def test_a_table_prints_its_figures_with_units(trace: Trace) -> None:
    table = trace.ops("GatedDeltaNet")
    lines = repr(table).splitlines()
    assert lines[0].split() == ["op", "category", "calls", "total", "µs"]
    assert lines[1].endswith("135  91,858.319")
    assert lines[-1] == "[235 rows × 16 columns, 25 × 4 shown; values in ns, shown in µs]"
    assert max(map(len, lines)) <= 80
    twice = pd.concat([table["calls"], table], axis=1).set_axis(["calls", *table], axis=1)
    for other in (table[:0], ResultTable.of(twice, table.fields), table.set_index("op")):
        assert repr(other).endswith("µs]")


def test_ops_are_in_the_order_of_the_command_line(trace: Trace) -> None:
    for ops in (trace.ops("GatedDeltaNet"), trace.ops(match="aten::*")):
        assert ops["op"].tolist() == sorted_ops(ops, "total")["op"].tolist()
        assert ops["total"].is_monotonic_decreasing
        assert list(ops.index) == [*range(len(ops))]


def test_a_notebook_shows_scaled_figures_and_text_alone(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(
        compact(
            [
                complete("<img src=x>", 0, 1234),
                *(complete(f"op{n}", 9000 + n, 1) for n in range(40)),
            ]
        )
    )
    with traceq.open(path) as opened:
        shown = opened.ops()._repr_html_()
    assert "<img" not in shown
    assert "&lt;img src=x&gt;" in shown
    assert "1,234.000" in shown
    assert "total µs" in shown
    assert "16 more rows" in shown


def test_a_diff_can_be_pickled_but_for_its_captures(diff: traceq.Diff) -> None:
    again = pickle.loads(pickle.dumps(diff))
    assert again.to_dict() == diff.to_dict()
    assert again.to_markdown() == diff.to_markdown()
    with pytest.raises(UsageError, match="pickled"):
        again.to_page()


def test_parts_that_were_chosen_alike_are_compared(trace: Trace) -> None:
    part = trace.under("GatedDeltaNet").steps(9, 11)
    plain = traceq.diff(trace, trace, under="GatedDeltaNet", steps="9:11")
    assert traceq.diff(part, [part]).to_dict() == plain.to_dict()
    whole, other, nested = trace.whole, part.skip_first(), part.under("Linear")
    for before, after, options, message in (
        (part, trace, {}, "not chosen alike"),
        (part, other, {}, "not chosen alike"),
        (part, part, {"skip_first": True}, "not chosen alike"),
        (nested, nested, {}, "several levels"),
        (trace, "flatten-0.json.gz", {}, "'flatten-0.json.gz' is no open trace"),
        (whole, None, {}, "None is no open trace"),
    ):
        with pytest.raises(UsageError, match=message):
            traceq.diff(before, after, **options)  # type: ignore[arg-type]


# SQL ------------------------------------------------------------------------------------------


def test_values_are_bound_as_literals(trace: Trace) -> None:
    query = "SELECT $text AS text, $number AS number, $none AS none, '$text' AS kept -- $text"
    values = {"text": "it's; DROP TABLE slice --", "number": -2.5, "none": None}
    (row,) = trace.sql(query, values).to_dict("records")
    assert row["text"] == values["text"]
    assert (row["number"], row["kept"]) == (-2.5, "$text")
    assert pd.isna(row["none"])
    assert bind("SELECT $a, '$ab'", {"a": True}) == "SELECT (1), '$ab'"
    assert trace.sql("SELECT 5-$x AS a, 7 AS b", {"x": -1}).to_dict("records") == [{"a": 6, "b": 7}]
    assert bind("SELECT $a", {"a": np.float64(1.5)}) == "SELECT (1.5)"
    assert bind("SELECT $a", {"a": np.int64(3)}) == "SELECT (3)"
    quoted = "SELECT 1 AS `it's`, 'foo $x' AS b"
    with pytest.raises(UsageError, match="no \\$x"):
        bind(quoted, {"x": ", 42 AS inj --"})
    with pytest.raises(UsageError, match="no \\$x"):
        bind("SELECT 1 AS [it's], '$x', a$x /* $x", {"x": "; SELECT 42 --"})
    for params, message in (
        ({"a": 1, "b": 1}, "no \\$b"),
        ({"a": float("nan")}, "no value"),
        ({"a": b"x"}, "no value"),
        ({"a": 2**70}, "no value"),
        ({"a": "\ud800"}, "no value"),
        ({"a": "\0"}, "no value"),
    ):
        with pytest.raises(UsageError, match=message):
            bind("SELECT $a", params)  # type: ignore[arg-type]


def test_each_place_has_a_value_and_each_value_a_place(trace: Trace) -> None:
    with pytest.raises(UsageError, match="\\$what has no value"):
        trace.sql("SELECT COUNT(*) FROM slice WHERE name GLOB $what")
    with pytest.raises(UsageError, match="\\$ab has no value"):
        bind("SELECT $a, $ab", {"a": 1})
    with pytest.raises(UsageError, match="by name, not as list"):
        trace.sql("SELECT $a", [1, 2])  # type: ignore[arg-type]


def test_functions_and_macros_keep_their_arguments(trace: Trace) -> None:
    made = (
        "create or replace -- RETURNS $none\n perfetto MACRO twice(x Expr) RETURNS Expr AS $x * 2;"
        "CREATE PERFETTO FUNCTION more(x INT) RETURNS INT AS SELECT $x + $step; "
    )
    (row,) = trace.sql(made + "SELECT more($x) AS y, twice!($x) AS z", {"x": 5, "step": 2}).values
    assert row.tolist() == [7, 10]
    with pytest.raises(UsageError, match="\\$x has no value"):
        trace.sql(made + "SELECT more($x)", {"step": 2})


# Other stores ---------------------------------------------------------------------------------


def test_tables_go_on_in_duckdb_and_parquet(trace: Trace, tmp_path: Path) -> None:
    part, file = trace.under("GatedDeltaNet"), tmp_path / "trace.duckdb"
    part.to_duckdb(file)
    rows = part.to_duckdb(file, ["ops"])  # in place of what traceq wrote before
    assert rows == {"ops": len(part.ops())}
    files = part.to_parquet(tmp_path / "tables")
    assert [path.stem for path in files] == [*TABLES]
    with duckdb.connect(str(file), read_only=True) as db:
        for name in TABLES:
            told = db.execute(
                "SELECT count(*) FROM duckdb_columns() WHERE table_name = ? AND comment IS NULL",
                [name],
            ).fetchone()
            assert told == (0,), name
            one = db.execute(f"SELECT * FROM {name}").fetchall()
            other = db.execute(f"FROM '{tmp_path}/tables/{name}.parquet'").fetchall()
            assert one == other, name
        ids = {number for (number,) in db.execute("SELECT id FROM slices").fetchall()}
        expected = {*part.calls("*")["id"], *part.scope_calls()["id"], *part.activities()["id"]}
        assert ids == expected
        assert 0 < len(ids) < len(trace.slices)
        ops = dict(db.execute("SELECT op, total FROM ops").fetchall())
        assert ops == dict(zip(part.ops()["op"], part.ops()["total"].tolist(), strict=True))
        calls = db.execute("SELECT count(*) FROM calls WHERE scope_id IS NOT NULL").fetchone()
        assert calls == (len(part.calls("*")),)
        types = dict(
            db.execute(
                "SELECT table_name, split_part(data_type, '(', 1) FROM duckdb_columns() "
                "WHERE column_name IN ('name', 'op') AND table_name IN ('slices', 'ops', 'steps')"
            ).fetchall()
        )
        assert types == {"slices": "ENUM", "ops": "VARCHAR", "steps": "VARCHAR"}
        found = db.execute("SELECT count(*) FROM slices WHERE name LIKE 'aten::%'").fetchone()
        assert found == (len(part.calls("aten::*")),)


def test_an_open_connection_takes_them_too(trace: Trace, tmp_path: Path) -> None:
    with duckdb.connect() as db:
        assert trace.to_duckdb(db, ["slices", "steps", "metadata"])["slices"] == len(trace.slices)
        count, total = db.execute("SELECT count(*), sum(dur) FROM slices").fetchall()[0]
        assert (count, total) == (len(trace.slices), int(trace.slices.dur.sum()))
        assert db.execute("SELECT count(*) FROM steps").fetchone() == (5,)
        assert db.execute("SELECT value FROM metadata WHERE key = 'traceq_schema'").fetchone() == (
            "1",
        )
    with pytest.raises(UsageError, match="no table 'nothing'"):
        trace.to_duckdb(db, ["nothing"])
    history = tmp_path / "history.duckdb"
    traceq.record(trace, history, under="GatedDeltaNet")
    text = tmp_path / "own.json"
    text.write_text("{}", encoding="utf-8")
    for target, message in (
        (history, "is a history"),
        (text, "no DuckDB"),
        (":memory:", "no file"),
    ):
        with pytest.raises(UsageError, match=message):
            trace.to_duckdb(target, ["steps"])
    with pytest.raises(UsageError, match="cannot be written"):
        trace.to_duckdb("/nowhere/file.duckdb", ["steps"])
    with pytest.raises(UsageError, match="cannot be written"):
        trace.to_parquet("/proc/nowhere", ["steps"])


def test_tables_of_the_user_are_not_replaced(trace: Trace) -> None:
    with duckdb.connect() as db:
        db.execute("CREATE TABLE Steps AS SELECT 1 AS mine")
        db.execute("CREATE VIEW ops AS SELECT 1 AS mine")
        db.register("kernels", pd.DataFrame({"mine": [1]}))
        for name, kind in (("steps", "table 'Steps'"), ("ops", "view 'ops'"), ("kernels", "view")):
            with pytest.raises(UsageError, match=f"(?s)has a {kind}.*overwrite=True") as caught:
                trace.to_duckdb(db, ["metadata", name])
            assert "did not write" in caught.value.message
            assert db.execute(f"SELECT mine FROM {name}").fetchone() == (1,)
        assert "metadata" not in {name for (name,) in db.execute("SHOW TABLES").fetchall()}
        assert trace.to_duckdb(db, ["steps", "ops"], overwrite=True)["steps"] == 5
        assert trace.to_duckdb(db, ["steps", "ops"])["steps"] == 5


# Figures --------------------------------------------------------------------------------------


def texts(figure: Any) -> list[str]:
    axes = figure.axes[0]
    return [label.get_text() for label in axes.get_yticklabels()]


def test_figures_show_what_the_tables_have(trace: Trace, diff: traceq.Diff) -> None:
    part = trace.under("GatedDeltaNet")
    assert "cudaLaunchKernel" in texts(part.plot.ops(5))
    assert len(texts(part.plot.ops(5))) == 5
    water = diff.plot.waterfall()
    assert texts(water)[0] == "before"
    assert texts(water)[-2:] == ["(unchanged code)", "after"]
    bars = [bar.get_width() for bar in water.axes[0].patches]
    assert bars[0] + sum(bars[1:-1]) == pytest.approx(bars[-1])
    assert bars[-1] == pytest.approx(diff.after.totals.total / 1e6)
    shown = diff.plot.distribution("aten::flatten")
    assert sum(bar.get_height() for bar in shown.axes[0].patches) == 30 + 45
    rows = texts(part.plot.timeline(-1))
    assert rows[0] == "depth 0"
    assert rows[-1].startswith("stream ")
    assert trace.plot.ops(3)._repr_png_()[:4] == b"\x89PNG"
    named = draw_distribution([("", np.array([5, 6]))], r"$\frac$")  # a name is no formula
    assert named._repr_png_()[:4] == b"\x89PNG"


def test_ops_are_drawn_in_the_order_of_their_time(trace: Trace) -> None:
    part = trace.under("GatedDeltaNet")
    for by, column in (("cpu", "self"), ("gpu", "gpu_self")):
        figure = part.plot.ops(5, by)  # type: ignore[arg-type]
        assert figure.get_suptitle().startswith(f"Ops with most own {by.upper()} time: ")
        (own,) = [bars for bars in figure.axes[0].containers if by.upper() in bars.get_label()]
        shown = [bar.get_width() for bar in sorted(own, key=lambda bar: -bar.get_y())]
        most = part.ops()[column].nlargest(6).tolist()  # one is of no op
        assert shown == sorted(shown, reverse=True)
        assert set(shown) <= {time / 1000 for time in most}
    with pytest.raises(UsageError, match="no own time 'tpu'"):
        part.plot.ops(by="tpu")  # type: ignore[arg-type]
    work = set(trace.ops().query("category == 'kernel'")["op"])
    assert not work.intersection(texts(trace.plot.ops(30)))


def test_a_distribution_takes_a_pattern_and_tells_the_verdict(
    trace: Trace, diff: traceq.Diff
) -> None:
    one = diff.plot.distribution("aten::flat*")
    assert one.get_suptitle().startswith("aten::flatten under GatedDeltaNet; the time of all its")
    assert one.axes[0].get_xlabel() == "duration of a call, µs; dashed: the median"
    both = diff.plot.distribution("flatten")
    assert both.get_suptitle().startswith("2 ops that match 'flatten' under GatedDeltaNet: ")
    # Each call of the built-in one makes one of the other.
    assert sum(bar.get_height() for bar in both.axes[0].patches) == 30 + 45
    assert "removed" in diff.plot.distribution("rearrange").get_suptitle()
    calls = trace.under("GatedDeltaNet").calls("reshape")
    drawn = trace.under("GatedDeltaNet").plot.distribution("reshape").axes[0].patches
    assert sum(bar.get_height() for bar in drawn) == calls["is_outermost"].sum() < len(calls)
    for pattern in ("nothing of this name", "ForCausalLM"):
        with pytest.raises(PatternError):
            diff.plot.distribution(pattern)


def test_names_stay_within_their_bars(trace: Trace) -> None:
    figure = trace.under("GatedDeltaNet").plot.timeline(0)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    written = [text for text in axes.texts if text.get_clip_path() or text.get_clip_box()]
    assert len(written) == len(axes.texts) > 5
    for text in written:
        assert text.get_window_extent().x1 <= text.get_clip_box().x1 + 1, text.get_text()


def test_a_waterfall_tells_gain_from_noise(diff: traceq.Diff) -> None:
    water = diff.plot.waterfall()
    axes = water.axes[0]
    assert scope_fact(diff, "cpu") in water.get_suptitle().replace("\n", " ")
    assert axes.get_xlabel() == "CPU time, ms; the bars add up"
    _, replaced, unchanged, _ = axes.patches
    assert (replaced.get_hatch(), bool(unchanged.get_hatch())) == (None, True)
    (legend,) = water.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["less time", "unchanged code, or not more than noise"]
    findings = {
        key: dataclasses.replace(finding, verdict=Verdict.UNCLEAR)
        for key, finding in diff.evidence.findings.items()
    }
    evidence = dataclasses.replace(diff.evidence, findings=findings)
    untold = dataclasses.replace(diff, evidence=evidence).plot.waterfall().axes[0]
    assert all(bar.get_hatch() for bar in untold.patches[1:-1])


def test_figures_of_nothing_are_told(trace: Trace) -> None:
    part = trace.under("GatedDeltaNet")
    with pytest.raises(UsageError, match="no scope 99"):
        part.plot.timeline(99)
    with pytest.raises(UsageError, match="'GatedDeltaNet' is no number of a call"):
        part.plot.timeline("GatedDeltaNet")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no 'module'"):
        part.scopes("module")  # type: ignore[arg-type]
    with pytest.raises(PatternError):
        part.plot.distribution("nothing of this name")
    with pytest.raises(UsageError, match="there are no calls"):
        draw_distribution([("", np.zeros(0, np.int64))], "op")


def test_without_matplotlib_the_extra_is_named(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traceq.plotting import _figure_class

    _figure_class.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="matplotlib"):
        trace.plot.ops()
    _figure_class.cache_clear()


def test_without_pyarrow_the_extra_is_named(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    table = trace.steps()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="extra 'arrow'"):
        _ = table.arrow


# The notebook ---------------------------------------------------------------------------------


def test_the_notebook_still_says_what_it_says() -> None:
    stored = nbformat.read(SAMPLES / "story.ipynb", as_version=4)
    again = nbformat.read(SAMPLES / "story.ipynb", as_version=4)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(again, timeout=120, resources={"metadata": {"path": str(SAMPLES)}}).execute()
    for old, new in zip(stored.cells, again.cells, strict=True):
        assert said(old) == said(new), old.source
    images = sum("image/png" in kind for cell in again.cells for kind in said(cell))
    assert images == 4


def said(cell: Any) -> list[Any]:
    """What a cell printed and returned; of images only that they are there."""
    found: list[Any] = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            found.append({"image/png"})
        else:
            found.append(output.get("text") or data.get("text/plain"))
    return found


def test_a_notebook_shows_how_far_a_large_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from traceq import progress

    monkeypatch.setattr(progress, "LONG", 1000)
    with progress.in_notebook(str(SAMPLES / "einops-0.json.gz")) as told:
        assert told is None  # this is no notebook
    monkeypatch.setattr(progress, "_is_notebook", lambda: True)
    with traceq.open(SAMPLES / "einops-0.json.gz") as opened:
        assert len(opened.slices) == 23_291
    console = Console(record=True, force_terminal=True, width=80)
    with progress.bars("file.json", console) as report:
        report("reading", 5, 10)
        report("reading", 10, 10)
    assert "reading file.json" in console.export_text()


def test_a_column_that_is_replaced_is_no_longer_what_its_field_says(trace: Trace) -> None:
    steps = trace.steps()
    for changed in (steps.assign(dur=steps["dur"] // 1000), steps.copy()):
        changed["ts"] = 0
        assert "ts" not in {field.name for field in changed.fields}
    assert "dur" not in {field.name for field in steps.assign(dur=1).fields}
    assert {"ts", "dur"} <= {field.name for field in steps.fields}


def test_tables_without_rows_take_texts(trace: Trace) -> None:
    connection = duckdb.connect()
    part = trace.whole.window("0ns:1ns")
    assert part.to_duckdb(connection, "kernels") == {"kernels": 0}
    connection.execute("INSERT INTO kernels BY NAME SELECT 1 AS id, 'gemm' AS name")
    connection.execute("BEGIN")
    with pytest.raises(UsageError, match="transaction"):
        part.to_duckdb(connection, ["ops"])
