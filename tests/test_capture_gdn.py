"""``traceq capture gdn``: what it captures, that variants differ in one place, and its failures."""

from __future__ import annotations

import gzip
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from traceq.capturing.gdn.settings import GdnSettings
from traceq.capturing.gdn.source import ForwardSource
from traceq.capturing.gdn.variants import MERGE_HEADS, VARIANTS, Variant, find_variant
from traceq.cli import group
from traceq.errors import CaptureError, TraceqError, UsageError

pytest.importorskip("transformers")
pytest.importorskip("einops")

from traceq.capturing.gdn import gating, model, workload

TRACEQ = Path(sys.executable).parent / "traceq"
LAYERS, STEPS, WARMUP = 4, 3, 2
CALLS = 3 * STEPS
SIZES = {"layers": LAYERS, "steps": STEPS, "warmup": WARMUP, "batch": 1, "prompt": 8, "hidden": 128}
SMALL = [
    text for name, value in {**SIZES, "device": "cpu"}.items() for text in (f"--{name}", str(value))
]
REARRANGE = "einops/einops.py: rearrange"
FLATTEN = "<built-in method flatten of Tensor object>"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """Threads that wait for each other stand still for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["capture", "gdn", *arguments])


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TRACEQ, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@dataclass(frozen=True)
class Captured:
    """A trace, and what the command said."""

    path: Path
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(gzip.decompress(self.path.read_bytes()))

    @property
    def slices(self) -> list[dict[str, Any]]:
        return [item for item in self.document["traceEvents"] if item.get("ph") == "X"]


@pytest.fixture(scope="module")
def einops_trace(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """As a user makes it: a process of its own."""
    path = tmp_path_factory.mktemp("gdn") / "einops.json.gz"
    ended = process("capture", "gdn", "--variant", "einops", *SMALL, "-o", str(path))
    assert ended.returncode == 0, ended.stderr
    return Captured(path, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def flatten_trace(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    path = tmp_path_factory.mktemp("gdn") / "flatten.json.gz"
    result = run("--variant", "flatten", *SMALL, "-o", str(path))
    assert result.exit_code == 0, result.exception
    return Captured(path, result.stdout, result.stderr)


# --- what is captured ---------------------------------------------------------------------------


def test_the_diff_of_both_variants(einops_trace: Captured, flatten_trace: Captured) -> None:
    ended = process(
        "diff", str(einops_trace.path), str(flatten_trace.path), "--format", "json",
        *("--under", "GatedDeltaNet"),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    diff = json.loads(ended.stdout)
    sides = [diff["before"], diff["after"]]
    assert [capture["scopes"] for side in sides for capture in side["captures"]] == [CALLS, CALLS]
    calls = {row["op"]: (row["calls_before"], row["calls_after"]) for row in diff["rows"]}
    assert calls[REARRANGE] == (CALLS, None)
    assert calls[FLATTEN] == (None, CALLS)
    assert calls["nn.Module: Linear"] == (5 * CALLS, 5 * CALLS)


def test_no_module_runs_more_often_in_one(einops_trace: Captured, flatten_trace: Captured) -> None:
    counts = [
        Counter(
            item["name"].rpartition("_")[0]  # activations are made anew for each call
            for item in trace.slices
            if item["name"].startswith("nn.Module: ")
        )
        for trace in (einops_trace, flatten_trace)
    ]
    assert counts[0] == counts[1]
    assert counts[0]["nn.Module: Qwen3_5GatedDeltaNet"] == CALLS
    assert counts[0]["nn.Module: Qwen3_5ForCausalLM"] == STEPS


def test_frames_keep_their_file_and_line(einops_trace: Captured, flatten_trace: Captured) -> None:
    first = inspect.unwrap(model._LAYER.forward).__code__.co_firstlineno
    for trace, name in ((einops_trace, "rearrange"), (flatten_trace, "<built-in method flatten")):
        slices = trace.slices
        inner = next(item for item in slices if name in item["name"] and _in_gdn(item, slices))
        around = _around(inner, slices)
        assert around[-1].endswith(f"qwen3_5/modeling_qwen3_5.py({first}): forward"), around
        assert any("nn.Module: Qwen3_5GatedDeltaNet_" in name for name in around)


def _around(inner: dict[str, Any], slices: list[dict[str, Any]]) -> list[str]:
    start, end = inner["ts"], inner["ts"] + inner["dur"]
    found = [
        item
        for item in slices
        if item["tid"] == inner["tid"]
        and item is not inner
        and item["ts"] <= start
        and item["ts"] + item["dur"] >= end
    ]
    frames = [item for item in found if item.get("cat") == "python_function"]
    return [item["name"] for item in sorted(frames, key=lambda item: (item["ts"], -item["dur"]))]


def _in_gdn(inner: dict[str, Any], slices: list[dict[str, Any]]) -> bool:
    return any("GatedDeltaNet" in name for name in _around(inner, slices))


def test_the_window_is_a_prefill_and_decodes_and_nothing_more(einops_trace: Captured) -> None:
    lookups = [
        item["args"]["Input Dims"][1]
        for item in einops_trace.slices
        if item["name"] == "aten::embedding"
    ]
    assert lookups == [[1, SIZES["prompt"]], [1, 1], [1, 1]]
    steps = [item for item in einops_trace.slices if item["name"].startswith("ProfilerStep#")]
    assert len({item["name"] for item in steps}) == STEPS


def test_the_record_says_what_was_run(einops_trace: Captured) -> None:
    record = einops_trace.document["traceq"]["workload"]
    expected = {**SIZES, "variant": "einops", "dtype": "float32", "device": "cpu", "seed": 0}
    assert expected.items() <= record.items()
    assert record["gdn_layers"] == 3
    assert record["gdn_calls"] == CALLS
    assert record["forwards"] == {"prefill": 1, "decode": STEPS - 1}
    assert record["heads"] == {"key": 1, "value": 2, "dim": 64}
    assert record["kernels"] == {"delta_rule": "torch", "conv": "torch"}
    assert record["versions"].keys() >= {"transformers", "einops", "fla", "causal_conv1d"}


def test_stdout_is_the_path_alone(einops_trace: Captured, flatten_trace: Captured) -> None:
    for trace in (einops_trace, flatten_trace):
        assert trace.stdout == f"{trace.path}\n"
        assert f"expect {CALLS} GatedDeltaNet calls (3 of 4 layers)" in trace.stderr
        assert "1 prefill of 1 × 8 tokens, 2 decodes" in trace.stderr


@pytest.mark.parametrize("stack", ["modules", "none"])
def test_other_stacks(stack: str, tmp_path: Path) -> None:
    path = tmp_path / "out.json.gz"
    result = run(*SMALL, "--stack", stack, "-o", str(path))
    assert result.exit_code == 0, result.exception
    names = [item["name"] for item in Captured(path, "", "").slices]
    found = sum("GatedDeltaNet" in name for name in names)
    assert found == (CALLS if stack == "modules" else 0)
    assert not any("rearrange" in name for name in names)


# --- the variants -------------------------------------------------------------------------------


def logits(variant: Variant, **sizes: Any) -> torch.Tensor:
    settings = GdnSettings(**{**SIZES, **sizes})
    built = workload.Workload.build(settings, variant, "cpu")
    return _logits(built)


def _logits(built: workload.Workload) -> torch.Tensor:
    run = workload.Run(built)
    with torch.inference_mode():
        return torch.cat([run.forward() for _ in range(built.settings.steps)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_computes_what_transformers_does(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model._LAYER.forward
    built = workload.Workload.build(GdnSettings(**SIZES, dtype=dtype), find_variant(name), "cpu")
    changed = _logits(built)
    for module in built.model.modules():
        vars(module).pop("forward", None)  # back to the class's
        vars(module).pop(gating._KEPT, None)
    for known, reference in model.reference_functions().items():  # where fla is installed
        monkeypatch.setattr(model.modeling, known, reference)
    torch.testing.assert_close(changed, _logits(built))
    assert changed.abs().max() > 0
    assert model._LAYER.forward is before


def source_of(name: str) -> list[str]:
    source = ForwardSource(model._LAYER.forward, origin=model.ORIGIN)
    find_variant(name).apply(source)
    return source.text.splitlines()


@pytest.mark.parametrize(
    ("name", "changed"), [("einops", 1), ("flatten", 1), ("reshape", 0), ("gating", 2)]
)
def test_a_variant_changes_so_many_lines(name: str, changed: int) -> None:
    own = ForwardSource(model._LAYER.forward, origin=model.ORIGIN).text.splitlines()
    assert sum(a != b for a, b in zip(own, source_of(name), strict=True)) == changed


def test_einops_and_flatten_differ_in_one_expression() -> None:
    pairs = zip(source_of("einops"), source_of("flatten"), strict=True)
    apart = "core_attn_out.reshape(batch_size, seq_len, -1, self.head_v_dim)"
    assert [(a.strip(), b.strip()) for a, b in pairs if a != b] == [
        (
            f"core_attn_out = rearrange({apart}, '... h d -> ... (h d)')",
            f"core_attn_out = {apart}.flatten(-2)",
        )
    ]


def test_gates_at_the_ends_of_their_range() -> None:
    layer, a, b = _gates_input("cpu")
    g, beta = gating.plain_gates(layer, a, b)
    shifted = (a.double() + layer.dt_bias.double()).exp().log1p()
    torch.testing.assert_close(g, (-layer.A_log.double().exp() * shifted).float())
    torch.testing.assert_close(beta, b.sigmoid())


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("triton") is None,
    reason="no GPU with Triton here",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_gates_equal_the_plain_ones(dtype: torch.dtype) -> None:
    layer, a, b = _gates_input("cuda", dtype)
    for mine, plain in zip(
        gating.gates_for("cuda")(layer, a, b), gating.plain_gates(layer, a, b), strict=True
    ):
        assert mine.dtype == plain.dtype
        torch.testing.assert_close(mine, plain)


def _gates_input(
    device: str, dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layer = torch.nn.Module()
    layer.A_log = torch.nn.Parameter(torch.randn(6).to(device, dtype))
    layer.dt_bias = torch.nn.Parameter(torch.randn(6).to(device, dtype))
    a = torch.linspace(-40, 40, 2 * 65 * 6).reshape(2, 65, 6)
    layer.requires_grad_(False)
    return layer, a.to(device, dtype), a.flip(0).to(device, dtype)


def test_a_cpu_never_runs_kernels_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers chooses fla by what is installed, also where it cannot run."""
    for name in model._PACKAGES:
        monkeypatch.setattr(model.modeling, name, _like_a_gpu_kernel(getattr(model.modeling, name)))
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: there("json" if name in model._PACKAGES.values() else name, *rest),
    )
    assert logits(find_variant("flatten")).shape == (STEPS, 1, model.VOCABULARY)


def _like_a_gpu_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(f"{function.__name__} ran a kernel on a CPU")

    return refuse


# --- changing source ----------------------------------------------------------------------------


def sample(x: int) -> int:
    y = x + 1
    return y * (2 + y)


def test_changed_source_keeps_its_lines() -> None:
    source = ForwardSource(sample, origin="here")
    source.replace("2  +  y", "helper(y)", helper=lambda value: 100 * value)
    changed = source.compiled()
    assert (sample(1), changed(1)) == (8, 400)
    code = changed.__code__
    assert (code.co_filename, code.co_firstlineno, code.co_name) == (
        sample.__code__.co_filename,
        sample.__code__.co_firstlineno,
        "sample",
    )
    assert "helper" not in globals()


@pytest.mark.parametrize(("old", "count"), [("y * 3", "no"), ("y", "2")])
def test_what_is_replaced_must_occur_once(old: str, count: str) -> None:
    with pytest.raises(CaptureError, match=f"^sample of transformers 9.9 has {count} '") as caught:
        ForwardSource(sample, origin="transformers 9.9").replace(old, "1")
    assert f"test_capture_gdn.py:{sample.__code__.co_firstlineno}" in str(caught.value)


def test_what_has_no_source_is_refused() -> None:
    scope: dict[str, Any] = {}
    exec("def forward(x):\n    return x", scope)
    with pytest.raises(CaptureError, match="cannot be changed: its source cannot be read"):
        ForwardSource(scope["forward"], origin="here")


def test_a_closure_is_refused() -> None:
    kept = 1

    def closure() -> int:
        return kept

    with pytest.raises(CaptureError, match="it is a closure"):
        ForwardSource(closure, origin="here")


# --- variants of the user's ---------------------------------------------------------------------

OWN = f'''\
from traceq.capturing.gdn.variants import MERGE_HEADS, variant


@variant
def view(forward):
    """Tensor.view before out_proj."""
    forward.replace(MERGE_HEADS, "core_attn_out.view(batch_size, seq_len, self.value_dim)")


@variant
def stale(forward):
    forward.replace("no_longer(there)", "1")


@variant
def broken(forward):
    raise KeyError("oh")


@variant
def wrong(forward):
    forward.replace({MERGE_HEADS!r}, "core_attn_out.view(3, 5, 7)")
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    return file


def test_a_variant_from_a_file(own: Path) -> None:
    mine = find_variant(f"{own}:view")
    assert (mine.about, mine.file) == ("Tensor.view before out_proj.", str(own))
    assert "view" not in VARIANTS
    assert torch.equal(logits(mine), logits(find_variant("reshape")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "has no variant 'nothing'\nIt has view, stale, broken, wrong"),
        ("stale", "has no 'no_longer(there)'"),
        ("broken", "variant 'broken' failed: KeyError: 'oh'\nRaised at"),
        ("wrong", "the forward of variant 'wrong' failed: RuntimeError"),
    ],
)
def test_a_variant_that_does_not_work(name: str, message: str, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json.gz"
    result = run("--variant", f"{own}:{name}", *SMALL, "-o", str(out))
    assert isinstance(result.exception, TraceqError), result.exception
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == [own]


def test_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("x = 1\nx.y\n")
    with pytest.raises(CaptureError, match=r"could not be run: AttributeError[^\n]*\n.*bad.py:2"):
        find_variant(f"{file}:any")
    with pytest.raises(UsageError, match="there is no file"):
        find_variant(f"{tmp_path}/absent.py:any")


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "flaten"], "there is no variant 'flaten'\nNearest: flatten."),
        (["--hidden", "200"], "does not make whole heads of 64\nGive a multiple of 128: 128 or"),
        (["--hidden", "2100"], "does not make whole heads of 128\nGive a multiple of 256: 2048"),
        (["--layers", str(10**12)], "layers is 1000000000000"),
        (["--seed", str(2**64)], "seed is"),
        (["--device", "cuda"], "torch sees no cuda device here"),
    ],
)
def test_values_that_cannot_be(arguments: list[str], message: str, tmp_path: Path) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    result = run(*SMALL, *arguments, "-o", str(tmp_path / "out.json.gz"))
    assert isinstance(result.exception, TraceqError), result.exception
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["--steps", "0"], ["--warmup", "-1"], ["--layers", "3"], ["--dtype", "int3"]],
)
def test_values_that_click_refuses(arguments: list[str], tmp_path: Path) -> None:
    result = run(*arguments, "-o", str(tmp_path / "out.json.gz"))
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[0]}'" in result.stderr


def test_an_output_that_cannot_be(tmp_path: Path) -> None:
    result = run(*SMALL, "-o", str(tmp_path / "absent" / "out.json.gz"))
    assert isinstance(result.exception, CaptureError)
    assert "absent" in str(result.exception)
    assert run(*SMALL).exit_code == 2  # no output named


def test_memory_that_does_not_suffice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_config: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 TiB")

    monkeypatch.setattr(model.modeling, "Qwen3_5ForCausalLM", refuse)
    result = run(*SMALL, "-o", str(tmp_path / "out.json.gz"))
    assert isinstance(result.exception, CaptureError)
    assert "does not fit into memory: 4 layers of hidden 128" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workload.Run, "forward", lambda self: 1 // 0)
    result = run(*SMALL, "-o", str(tmp_path / "out.json.gz"))
    assert isinstance(result.exception, ZeroDivisionError)
    assert not list(tmp_path.iterdir())


def test_without_torch(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["torch"] = None
from traceq.cli import main
main()
"""
    answers = {
        arguments: subprocess.run(
            [sys.executable, "-c", script, "capture", *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=tmp_path,
        )
        for arguments in (("gdn", "--list"), ("gdn", "-o", "out.json.gz"), ("cost",))
    }
    listed, captured, cost = answers.values()
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(VARIANTS)
    for refused in (captured, cost):
        assert refused.returncode == 2
        assert "capturing needs torch" in refused.stderr
        assert "[gdn]" in refused.stderr
        assert "Traceback" not in refused.stderr
