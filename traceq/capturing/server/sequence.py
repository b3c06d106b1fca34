"""The order of things in the capture of a server: warm up, start, window, stop, wait, bring.

How an engine does each is left to the engines; what may be asked for together to the caller.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from traceq.capturing.files import write_trace
from traceq.capturing.record import RECORD_VERSION, command_line
from traceq.capturing.server.arrival import Arrival, Contents, Patience, Say
from traceq.capturing.server.engine import Engine, Order, ServerSettings
from traceq.capturing.server.load import MEASURED, Load
from traceq.capturing.server.recording import Profile, recording
from traceq.capturing.server.words import few, sound
from traceq.errors import CaptureError

INFO_NAME = "server_info.json"
_TEMPORARY = ".traceq-server-"
_ELSEWHERE = 2.0  # seconds for a folder to show up that was not here before

Traces = dict[Path, Contents]


@dataclass(frozen=True, slots=True)
class ServerCapture:
    """What a capture of a server gave.

    ``files`` are the traces, here; where there are none, ``left_at`` names them on the disk of the
    server's host, which cannot be seen from here. ``record`` is what each trace has in it under
    ``traceq``, ``warnings`` what to know before comparing.
    """

    engine: str
    files: tuple[Path, ...]
    left_at: str | None
    warnings: tuple[str, ...]
    record: Mapping[str, Any]


@dataclass(slots=True)
class Job:
    """One capture of one server. ``settings`` are completed; ``load`` None waits for traffic."""

    engine: Engine
    settings: ServerSettings
    load: Load | None
    out: Path
    server_dir: str | None
    patience: Patience
    notify: Say
    progress: Say
    warnings: list[str] = field(default_factory=list)

    def run(self) -> ServerCapture:
        """Do it all."""
        info = self.engine.info()
        _make_folder(self.out)
        with self._folder() as folder:
            order = Order(str(folder), f"traceq-{uuid.uuid4().hex[:12]}", self.settings)
            self._warm_up()
            began = datetime.now(UTC)
            arrival = Arrival(folder, self.engine.is_trace, order.id, self.patience)
            traces = self._traces(order, arrival, self._expected(info))
            for odd in arrival.passed_over():
                self._warn(f"passed over: {odd}")
            record = self._record(info, began)
            left_at = None if traces else self._left(order)
            files = self._bring(traces, record)
        _write_info(self.out, record)
        return ServerCapture(self.engine.name, files, left_at, tuple(self.warnings), record)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """The folder on the server's disk: one of ours that goes away again, or the one given."""
        if self.server_dir is not None:
            yield Path(self.server_dir)
            return
        folder = self.out.absolute() / f"{_TEMPORARY}{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _warm_up(self) -> None:
        """Rounds that compile and fill what the first requests would; then an empty cache."""
        if self.load is None:
            return
        for number in range(1, self.load.warmup + 1):
            self.progress(f"warm-up, round {number} of {self.load.warmup}")
            self.engine.generate(self.load, number, self.patience.timeout)
        self._warn(self.engine.clear_cache())

    def _traces(self, order: Order, arrival: Arrival, expected: int | None) -> Traces:
        with recording(self.engine, order, self.patience.timeout, self.notify) as profile:
            found = self._window(arrival, expected)
            if profile.is_over or (expected is not None and len(found) >= expected):
                profile.is_over = True
                return self._judged(found, expected)
            self.progress("stopping the profile: the server writes its traces")
            self._check_stop(profile, bool(found))
        found = arrival.wait(expected, self._first(), self.progress)
        return self._judged(found, expected)

    def _window(self, arrival: Arrival, expected: int | None) -> Traces:
        """Let the window pass. Traces are there already where the server ended it by itself."""
        if self.load is not None:
            self.progress("running the load")
            self._warn(self.engine.generate(self.load, MEASURED, self.patience.timeout))
        elif self.settings.seconds is not None:
            self.progress(f"recording for {self.settings.seconds:g} s")
            time.sleep(self.settings.seconds)
        else:
            self.progress(f"waiting for {self.settings.steps} steps of live traffic")
            return arrival.wait(expected, self.patience.timeout, self.progress)
        return {}

    def _check_stop(self, profile: Profile, has_files: bool) -> None:
        """Stop the profile; what that tells depends on who was to end it."""
        was_running = profile.stop()
        steps = self.settings.steps
        if steps is None and not was_running:
            self.engine.disarm()
            raise CaptureError(
                "the server recorded nothing: it ran no forward, or the profile broke",
                hint="Send it requests meanwhile, or use --drive; else see the server's log.",
            )
        if steps is not None and was_running and self.load is None and not has_files:
            raise CaptureError(
                f"the server ran fewer than {steps} steps in {self.patience.timeout:g} s",
                hint="Send it requests meanwhile, or use --drive. The profile was stopped.",
            )
        if steps is not None and was_running:
            self._warn(
                f"the server had not ended the profile of {steps} steps by itself: a trace may "
                "hold fewer. Give --drive a larger output."
            )

    def _first(self) -> float:
        """How long a first file may take, now that the server has said that it is done."""
        if self.server_dir is not None and not Path(self.server_dir).is_dir():
            return min(_ELSEWHERE, self.patience.appear)
        return self.patience.appear

    def _expected(self, info: Mapping[str, Any]) -> int | None:
        ranks = self.engine.ranks(info)
        return 2 * (ranks or 1) if self.settings.by_stage else ranks

    def _judged(self, traces: Traces, expected: int | None) -> Traces:
        """The traces as they are, with warnings of what they lack."""
        if traces and expected is not None and len(traces) < expected:
            self._warn(f"{len(traces)} of {expected} traces came")
        bare = [path.name for path, found in traces.items() if not found.kernels]
        if bare and "GPU" in self.settings.activities:
            self._warn(
                f"no GPU kernels in {few(bare)}, though they were asked for. On a server "
                "with a GPU: restart it, and see that no other profiler uses its GPU"
            )
        flat = [path.name for path, found in traces.items() if not found.frames]
        if flat and self.settings.stack == "python":
            self._warn(
                f"no Python frames in {few(flat)}, though they were asked for: is "
                "SGLANG_PROFILE_WITH_STACK=False set on the server?"
            )
        return traces

    def _left(self, order: Order) -> str:
        """Where the traces are that did not show up here; an error if they should have."""
        folder, pattern = order.folder, self.engine.pattern(order)
        if self.server_dir is None and self.engine.client.address.is_here:
            raise CaptureError(
                f"the server's trace did not appear in {folder}",
                hint=f"If the server runs elsewhere (a container, a tunnel), {pattern} is in that "
                "folder there: give --server-dir, a folder that both see. If it runs here, it may "
                "not write to -o: see its log.",
            )
        if self.server_dir is not None and Path(self.server_dir).is_dir():
            raise CaptureError(
                f"no new trace appeared in {folder}",
                hint="Is it the folder that the server writes to? See the server's log.",
            )
        return f"{folder}/{pattern}"

    def _bring(self, traces: Traces, record: Mapping[str, Any]) -> tuple[Path, ...]:
        """Rewrite each trace into ``out`` with the record in it; all of them or none."""
        written: list[Path] = []
        try:
            for path in traces:
                self.progress(f"writing {path.name}")
                final = self.out / path.name
                write_trace(path, final, record)
                if final.resolve() != path.resolve():
                    written.append(final)
        except BaseException:
            for final in written:
                final.unlink(missing_ok=True)
            raise
        return tuple(self.out / path.name for path in traces)

    def _record(self, info: Mapping[str, Any], began: datetime) -> dict[str, Any]:
        """What the traces are to say of themselves, once all that can be noted has been."""
        client = self.engine.client
        return {
            "version": RECORD_VERSION,
            "kind": "server",
            "time": began.isoformat(timespec="seconds"),
            "argv": [sound(client.without_secrets(word)) for word in command_line()],
            "versions": _versions(),
            "engine": self.engine.name,
            "url": client.address.base,
            "settings": self._settings(),
            "load": None if self.load is None else self.load.to_dict(),
            "server": dict(info),
            "notes": list(self.warnings),
        }

    def _settings(self) -> dict[str, Any]:
        values = asdict(self.settings)
        chosen = list(self.settings.activities) if self.engine.chooses_activities else None
        return values | {"activities": chosen}

    def _warn(self, text: str | None) -> None:
        if text is not None:
            text = self.engine.client.without_secrets(text)
            self.warnings.append(text)
            self.notify(text)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f"{_TEMPORARY}{uuid.uuid4().hex[:12]}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise CaptureError(
            f"nothing can be written to the folder {str(out)!r}: {error.strerror or error}",
            hint="Name another with -o.",
        ) from error


def _write_info(out: Path, record: Mapping[str, Any]) -> None:
    """What the server said of itself, beside the traces."""
    partial = out / f".{INFO_NAME}.{uuid.uuid4().hex[:12]}"
    kept = {key: record[key] for key in ("time", "engine", "url", "server")}
    try:
        partial.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
        partial.replace(out / INFO_NAME)
    except OSError as error:
        raise CaptureError(
            f"{INFO_NAME} could not be written to {str(out)!r}: {error.strerror or error}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _versions() -> dict[str, str | None]:
    """Of this side alone; the server's is in what it says of itself."""
    try:
        own = importlib.metadata.version("traceq")
    except importlib.metadata.PackageNotFoundError:
        own = None
    return {"python": platform.python_version(), "traceq": own}
