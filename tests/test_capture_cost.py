"""``traceq capture cost``: every level is measured, and reported as it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from traceq.capturing.gdn.settings import GdnSettings
from traceq.cli import group
from traceq.errors import TraceqError, UsageError
from traceq.report.cost import cost_report, drift_warnings

pytest.importorskip("transformers")
pytest.importorskip("einops")

from traceq.capturing import cost
from traceq.capturing.cost import Costs, LevelCost
from traceq.capturing.gdn import workload

SMALL = ["--layers", "4", "--warmup", "2", "--batch", "1", "--prompt", "8", "--hidden", "128"]
SMALL += ["--device", "cpu"]
LEVELS = ["no profiler, before any", "no profiler", "none", "modules", "python"]
REPEAT = 3


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """Threads that wait for each other stand still for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["capture", "cost", *arguments])


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    result = run(*SMALL, "--repeat", str(REPEAT), "--format", "json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_every_level_is_measured(measured: dict[str, Any]) -> None:
    assert (measured["schema"], measured["kind"]) == (1, "capture-cost")
    rows = measured["rows"]
    assert [row["level"] for row in rows] == LEVELS
    for row in rows:
        for kind in ("decode", "prefill"):
            assert len(row[f"{kind}s"]) == REPEAT
            assert row[kind] == sorted(row[f"{kind}s"])[1] > 0
            assert row[f"{kind}_ratio"] == pytest.approx(row[kind] / rows[1][kind])
        profiled = "no profiler" not in row["level"]
        assert (row["file_size"] is not None) is (row["write"] is not None) is profiled


def test_frames_make_the_largest_file(measured: dict[str, Any]) -> None:
    none, modules, python = (row["file_size"] for row in measured["rows"][2:])
    assert min(none, modules) > 1000
    assert max(none, modules) < python


def test_the_workload_is_told(measured: dict[str, Any]) -> None:
    work = measured["workload"]
    assert (work["layers"], work["gdn_layers"], work["repeat"]) == (4, 3, REPEAT)
    assert "steps" not in work


def test_each_step_is_a_whole_forward(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Warm-up, then prefills with caches of their own, then decodes: at first, then in turns."""
    done: list[int] = []
    own = workload.Run.forward

    def forward(self: workload.Run) -> torch.Tensor:
        result = own(self)
        done.append(self._end)
        return result

    monkeypatch.setattr(workload.Run, "forward", forward)
    settings = GdnSettings(
        device="cpu", layers=4, warmup=2, batch=1, prompt=8, hidden=128, variant="flatten"
    )
    cost.measure_cost(settings, REPEAT, tmp_path)
    assert done == [8, 9, 10, 11, 8, 8, 8, 9, 10, 11] + [8, 9, 8, 9] * 4 * REPEAT
    assert not list(tmp_path.iterdir())


def costs(*decodes: int) -> Costs:
    work = {
        "device": "cuda",
        "dtype": "bfloat16",
        "layers": 32,
        "gdn_layers": 24,
        "hidden": 256,
        "batch": 2,
        "prompt": 64,
        "repeat": 10,
        "threads": 8,
        "heads": {"key": 2, "value": 4, "dim": 64},
        "kernels": {"delta_rule": "fla", "conv": "torch"},
        "versions": {"transformers": "5.17.0", "fla": "0.6.0", "triton": None},
    }
    levels = [
        LevelCost(name, (4_000_000,) * 3, (decode,) * 3, *((12_000, 42_000_000) if k else ()))
        for name, decode, k in zip(LEVELS, decodes, (0, 0, 1, 1, 1), strict=True)
    ]
    return Costs(work, tuple(levels))


def test_the_report() -> None:
    report = cost_report(costs(1_050_000, 1_000_000, 1_250_000, 1_400_000, 3_000_000))
    assert report.warnings == ()
    (table,) = report.tables
    assert [row["decode_ratio"] for row in table.rows] == [1.05, 1.0, 1.25, 1.4, 3.0]
    shown = {column.key: column.unit.show(table.rows[4][column.key]) for column in table.columns}
    assert shown == {
        "level": "python",
        "decode": "3,000.000",
        "decode_ratio": "3.00x",
        "prefill": "4,000.000",
        "prefill_ratio": "1.00x",
        "file_size": "2,000",
        "write": "7,000.000",
    }


def test_after_effects_are_told() -> None:
    (warning,) = drift_warnings(costs(1_000_000, 1_200_000, 1, 1, 1))
    assert "in turn with it than before: decode 20.0% longer." in warning


@pytest.mark.parametrize("format_", ["table", "markdown"])
def test_formats_and_a_file(format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canned = costs(1_000_000, 1_250_000, 1_400_000, 3_000_000, 1_050_000)
    monkeypatch.setattr(cost, "measure_cost", lambda *arguments: canned)
    out = tmp_path / "cost.txt"
    result = run("--format", format_, "-o", str(out))
    assert result.exit_code == 0, result.exception
    assert result.stdout == ""
    text = out.read_text()
    assert all(level in text for level in LEVELS)
    assert "24 GatedDeltaNet" in text


def test_too_few_steps(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="repeat is 2"):
        cost.measure_cost(GdnSettings(), 2, tmp_path)
    with pytest.raises(UsageError, match="warmup is 1"):
        cost.measure_cost(GdnSettings(warmup=1), 3, tmp_path)
    assert run("--repeat", "1").exit_code == 2


def test_values_that_cannot_be() -> None:
    result = run("--variant", "flaten")
    assert isinstance(result.exception, TraceqError)
    assert "Nearest: flatten" in str(result.exception)
