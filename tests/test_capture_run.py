"""``traceq capture run``: real programs in processes of their own, as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import traceq

PROGRAM = """
import sys
import torch

class TinyGatedDeltaNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Linear(8, 8)
    def forward(self, x):
        return self.proj(x)

class Trainer:
    def __init__(self):
        self.net = TinyGatedDeltaNet()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
    def step(self):
        loss = self.net(torch.ones(2, 8)).sum()
        loss.backward()
        self.optimizer.step()

if __name__ == "__main__":
    torch.nn.ReLU()(torch.ones(1))  # a module without parameters is no step
    trainer = Trainer()
    for _ in range(8):
        trainer.step()
    print("args", sys.argv, __file__)
    sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bench.py").write_text(PROGRAM)
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    (package / "work.py").write_text("def work(net, x):\n    return net(x)\n")
    return tmp_path


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "traceq", "capture", "run", *words]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | environment,
    )
    # torch's own notices of the profiler's start and stop are no part of ours
    lines = [line for line in done.stderr.splitlines() if not line.startswith("USDT:")]
    return subprocess.CompletedProcess(command, done.returncode, done.stdout, "\n".join(lines))


def write(folder: Path, text: str) -> None:
    (folder / "other.py").write_text(textwrap.dedent(text))


def steps(path: Path) -> int:
    with traceq.open(path) as trace:
        return len(trace.steps())


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_forwards_are_steps_and_the_exit_code_is_passed_on(folder: Path) -> None:
    done = run(folder, "-o", "o.json.gz", "--steps", "2", "--", "bench.py", "7", "--steps", "x")
    assert done.returncode == 7
    assert done.stdout == f"args ['bench.py', '7', '--steps', 'x'] {folder / 'bench.py'}\n"
    assert f"traceq: wrote {folder / 'o.json.gz'} (" in done.stderr
    with traceq.open(folder / "o.json.gz") as trace:
        assert [len(trace.steps()), len(trace.scope_calls("GatedDeltaNet"))] == [2, 2]
        assert trace.info.capture["argv"] == ["bench.py", "7", "--steps", "x"]


def test_a_function_of_the_program(folder: Path) -> None:
    done = run(
        folder,
        "-o",
        "o.json",
        "--warmup",
        "1",
        "--steps",
        "3",
        "--from",
        "Trainer.step",
        "bench.py",
    )
    assert (done.returncode, hidden(folder)) == (0, [])
    with traceq.open(folder / "o.json") as trace:
        table = trace.steps()
        assert list(table["stage"]) == ["training"] * 3
        assert trace.ops(match="aten::linear")["calls"].sum() == 3


@pytest.mark.parametrize("words", [["-m", "--", "pack", "3"], ["--", "python", "-m", "pack", "3"]])
def test_a_module(folder: Path, words: list[str]) -> None:
    done = run(folder, "-o", "o.json", "--steps", "2", *words)
    assert done.returncode == 3
    assert str(folder / "pack" / "__main__.py") in done.stdout
    assert steps(folder / "o.json") == 2


def test_a_function_of_a_module_that_the_program_imports(folder: Path) -> None:
    write(
        folder,
        """
        import torch
        from pack.work import work
        net = torch.nn.Linear(2, 2)
        for _ in range(8):
            work(net, torch.zeros(1, 2))
        """,
    )
    done = run(folder, "-o", "o.json", "--steps", "2", "--from", "pack.work:work", "other.py")
    assert done.returncode == 0
    assert steps(folder / "o.json") == 2


def test_the_whole_program(folder: Path) -> None:
    done = run(folder, "-o", "o.json", "--whole", "bench.py")
    assert done.returncode == 0
    with traceq.open(folder / "o.json") as trace:
        assert trace.ops(match="aten::linear")["calls"].sum() == 8


def test_labels_without_python_frames(folder: Path) -> None:
    done = run(
        folder, "-o", "o.json", "--stack", "modules", "--under", "GatedDeltaNet", "--steps", "2",
        "bench.py",
    )  # fmt: skip
    assert done.returncode == 0
    with traceq.open(folder / "o.json") as trace:
        assert len(trace.scope_calls("GatedDeltaNet")) == 2
        assert not any("bench.py" in name for name in trace.names)


def test_a_program_that_fails_prints_its_own_traceback_alone(folder: Path) -> None:
    write(folder, "def f():\n    raise ValueError('oops')\nf()\n")
    done = run(folder, "-o", "o.json", "other.py")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{folder / "other.py"}", line 3, in <module>',
        "    f()",
        f'  File "{folder / "other.py"}", line 2, in f',
        "    raise ValueError('oops')",
        "ValueError: oops",
        "traceq: the program ended with 1; no trace was written",
    ]


def test_a_failure_in_the_window_leaves_nothing(folder: Path) -> None:
    write(
        folder,
        """
        import torch
        net = torch.nn.Linear(2, 2)
        for n in range(7):
            net(torch.zeros(1, 2))
        raise SystemExit("ended")
        """,
    )
    done = run(folder, "-o", "o.json", "--steps", "9", "other.py")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "ended")
    assert steps(folder / "o.json") == 2  # what there was: an exit is an end like another
    (folder / "o.json").unlink()
    write(folder, (folder / "other.py").read_text().replace("raise SystemExit", "raise OSError"))
    assert run(folder, "-o", "o.json", "--steps", "9", "other.py").returncode == 1
    assert not (folder / "o.json").exists()
    assert hidden(folder) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.py"], "there is no program 'nowhere.py'"),
        (["-m", "no.such"], "'no.such' cannot be imported"),
        (["-m", "nosuch"], "there is no Python module 'nosuch' to run"),
        (["--from", "3x", "bench.py"], "'3x' names no function"),
        (["--from", "nothing", "bench.py"], "the program defines no function 'nothing'"),
        (
            ["--from", "torch.nn.functional:elu", "bench.py"],
            "torch.nn.functional:elu was never called",
        ),
        (["--from", "wave:open", "bench.py"], "the program never imported wave"),
        (["--warmup", "60", "bench.py"], "8 steps were made, and the window begins after 60"),
        (["--whole", "--from", "f", "bench.py"], "--whole has no steps"),
        (["--from", "builtins:str.upper", "bench.py"], "builtins:str.upper cannot be followed"),
        (["-o", "no/where.json", "bench.py"], "the folder"),
    ],
)
def test_what_cannot_be_captured(folder: Path, words: list[str], message: str) -> None:
    done = run(folder, "-o", "o.json", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "o.json").exists()


def test_a_program_with_a_profiler_of_its_own(folder: Path) -> None:
    write(
        folder,
        """
        import torch
        net = torch.nn.Linear(2, 2)
        for n in range(8):
            net(torch.zeros(1, 2))
            if n == 6:
                with torch.profiler.profile() as p:
                    net(torch.zeros(1, 2))
                print(len(p.events()) > 0)
        """,
    )
    done = run(folder, "-o", "o.json", "--steps", "9", "other.py")
    assert (done.returncode, done.stdout) == (2, "True\n")
    assert "a profiler of its own" in done.stderr


def test_fewer_calls_than_steps(folder: Path) -> None:
    """The capture is ended by the program's end, once."""
    words = ["-o", "o.json", "--from", "Trainer.step", "--steps", "40", "bench.py"]
    done = run(folder, *words)
    assert done.returncode == 0
    assert "3 whole steps, not the 40" in done.stderr
    assert steps(folder / "o.json") == 3


def test_compiled_models_and_functions(folder: Path) -> None:
    write(
        folder,
        """
        import torch
        layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        net = torch.compile(layers, backend="eager")
        @torch.compile(backend="eager")
        def work(x):
            return x.relu()
        for _ in range(9):
            net(torch.zeros(1, 2))
            work(torch.zeros(3))
        """,
    )
    for words in ([], ["--from", "work"]):
        done = run(folder, "-o", "o.json.gz", "--steps", "3", *words, "other.py")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "recompile" not in done.stderr
        assert steps(folder / "o.json.gz") == 3
        with traceq.open(folder / "o.json.gz") as trace:
            assert not any("convert_frame" in name for name in trace.names)


def test_training_without_a_function_is_told(folder: Path) -> None:
    done = run(folder, "-o", "o.json", "--steps", "2", "bench.py")
    assert "backward passes ran" in done.stderr


def test_interrupted(folder: Path) -> None:
    write(
        folder,
        """
        import atexit, torch, time
        atexit.register(print, "at exit")
        net = torch.nn.Linear(2, 2)
        for n in range(100000):
            net(torch.zeros(1, 2))
            if n == 8:
                print("ready", flush=True)
            time.sleep(0.001)
        """,
    )
    command = [sys.executable, "-m", "traceq", "capture", "run", "-o", "o.json", "--steps", "99999"]
    with subprocess.Popen(
        [*command, "other.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "at exit\n")
    assert "traceq: interrupted; no trace was written" in err
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir() if "o.json" in path.name] == []


def test_a_process_of_a_launcher(folder: Path) -> None:
    done = run(folder, "-o", "o.json", "bench.py", RANK="1", WORLD_SIZE="2")
    assert done.returncode == 0
    assert (folder / "o-rank1.json").exists()


def test_spawned_processes_find_the_program(folder: Path) -> None:
    write(
        folder,
        """
        import multiprocessing, torch
        def work(n):
            return n + 1
        if __name__ == "__main__":
            net = torch.nn.Linear(2, 2)
            for _ in range(7):
                net(torch.zeros(1, 2))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(work, [1]))
        """,
    )
    done = run(folder, "-o", "o.json", "--steps", "1", "other.py")
    assert (done.returncode, done.stdout) == (0, "[2]\n")


def test_torch_absent(folder: Path) -> None:
    """As for someone who reads traces alone: the extra is named, and all other commands work."""
    (folder / "torch.py").write_text("raise ImportError")
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'torch' else find(n, *a)\n"
        "from traceq.cli import main; sys.argv[0] = 'traceq'; main()"
    )

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    for words in (["run", "-o", "o.json", "bench.py"], ["gdn", "-o", "o.json"], ["cost"]):
        done = call("capture", *words)
        assert done.returncode == 2, done.stderr
        assert "capturing needs torch, which is not installed here" in done.stderr
        assert "pip install '.[" in done.stderr
    for words in (["--help"], ["capture", "--help"], ["capture", "run", "--help"], ["queries"]):
        assert call(*words).returncode == 0


def test_each_rank_of_torchrun_has_a_file_of_its_own(folder: Path) -> None:
    write(
        folder,
        """
        import torch, torch.distributed as dist
        dist.init_process_group("gloo")
        net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        for _ in range(4):
            net(torch.ones(1, 2)).sum().backward()
        dist.destroy_process_group()
        """,
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "traceq", "capture", "run", "-o", "o.json", "--warmup", "1", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, *program, "other.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.glob("o*.json")) == ["o-rank0.json", "o-rank1.json"]
    for rank in (0, 1):
        with traceq.open(folder / f"o-rank{rank}.json") as trace:
            assert (trace.info.rank, trace.info.world_size) == (rank, 2)
            assert (trace.info.capture["rank"], len(trace.steps())) == (rank, 2)
