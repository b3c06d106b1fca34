"""The Perfetto UI with a trace, in a real browser; the file that other programs open."""

from __future__ import annotations

import gzip
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import sync_playwright

from tests.conftest import ROOT
from traceq.cli import group
from traceq.engine import Engine
from traceq.errors import UsageError
from traceq.viewing import serving, ui_folder

SAMPLE = ROOT / "sample_traces" / "einops-0.json.gz"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def convert(path: Path, output: Path) -> str:
    done = CliRunner().invoke(group, ["convert", str(path), "-o", str(output)])
    assert done.exit_code == 0, done.exception
    return done.stderr


def test_a_converted_trace_is_one_that_the_engine_reads(tmp_path: Path, engine: Engine) -> None:
    file = tmp_path / "out.fxt"
    told = convert(SAMPLE, file)
    assert "26,242 of 26,280 events; 38 not carried, 0 unreadable" in told
    assert f"{file.stat().st_size:,} bytes" in told
    engine.load([file.read_bytes()])
    (row,) = engine.query(
        "SELECT COUNT(*) AS n FROM slice WHERE name GLOB '*GatedDeltaNet*'"
    ).rows()
    assert list(row) == [15]


def test_a_packed_file_is_the_same_trace(tmp_path: Path) -> None:
    plain, packed = tmp_path / "out.fxt", tmp_path / "out.fxt.gz"
    convert(SAMPLE, plain)
    told = convert(SAMPLE, packed)
    assert f"{packed.stat().st_size:,} bytes" in told
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()


def test_a_page_elsewhere_cannot_read_the_trace() -> None:
    with serving([b"trace", b"other"], ui_folder()) as (address, other):
        base = address.partition("/#")[0]
        assert [item.rpartition("-")[2] for item in (address, other)] == ["0.fxt", "1.fxt"]
        with urllib.request.urlopen(f"{base}/trace-1.fxt") as reply:
            assert reply.read() == b"other"
        with urllib.request.urlopen(f"{base}/trace-0.fxt") as reply:
            assert reply.read() == b"trace"
            assert reply.headers.get("access-control-allow-origin") is None
        request = urllib.request.Request(f"{base}/trace-0.fxt", headers={"host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)
        for method in ("GET", "HEAD"):
            for path in ("trace-0.fxt", ""):
                request = urllib.request.Request(f"{base}/{path}", headers={"host": "evil.example"})
                request.method = method
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(request)
        for path in ("../../../etc/passwd", "%00", "trace-2.fxt"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{base}/{path}")
        port = int(base.rpartition(":")[2])
        with pytest.raises(UsageError, match="cannot be used"), serving([b""], ui_folder(), port):
            pass


def test_it_serves_until_it_is_interrupted() -> None:
    words = [sys.executable, "-m", "traceq", "view", str(SAMPLE), "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as view:
        assert view.stdout is not None
        address = view.stdout.readline()
        assert address.startswith("http://127.0.0.1:")
        view.send_signal(signal.SIGINT)
        assert view.wait(timeout=20) == 130


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_the_perfetto_ui_shows_the_scopes(tmp_path: Path) -> None:
    file = tmp_path / "out.fxt"
    convert(SAMPLE, file)
    with (
        serving([file.read_bytes()], ui_folder()) as (address,),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_function("window.app?.trace !== undefined", timeout=60_000)
        count = """async () => {
          const found = await window.app.trace.engine.query(
            "SELECT COUNT(*) AS n FROM slice WHERE name GLOB '*GatedDeltaNet*'");
          return Number(found.firstRow({n: 0}).n);
        }"""
        deadline = time.monotonic() + 60
        while (found := page.evaluate(count)) != 15 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert found == 15
        browser.close()
