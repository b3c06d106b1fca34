"""The picture of a diff: well-formed, complete, without a network."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from click.testing import CliRunner

from tests.conftest import ROOT
from tests.test_render import HOSTILE
from traceq.cli import group
from traceq.render.svg import to_svg
from traceq.report import Column, Report, Table, Unit

SAMPLES = ROOT / "sample_traces"


def texts(svg: str) -> str:
    root = ET.fromstring(svg)
    return "\n".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))


def test_the_picture_has_the_verdict_and_the_rows(tmp_path: Path) -> None:
    file = tmp_path / "diff.svg"
    words = [str(SAMPLES / f"{kind}-0.json.gz") for kind in ("einops", "flatten")]
    done = CliRunner().invoke(
        group, ["diff", *words, "--under", "GatedDeltaNet", "--format", "svg", "-o", str(file)]
    )
    assert done.exit_code == 0, done.exception
    svg = file.read_text(encoding="utf-8")
    shown = texts(svg).replace("\N{NO-BREAK SPACE}", " ")
    assert "Under GatedDeltaNet, einops/einops.py: rearrange became" in shown
    assert "(unchanged code)" in shown
    assert "−787.710" in shown
    assert not re.findall(r"url\(\s*[\"']?https?:|href=", svg)


def test_names_are_text() -> None:
    names = tuple({"name": name} for name in HOSTILE.values())
    svg = to_svg(Report("head", tables=(Table("", (Column("name", "name", Unit.NAME),), names),)))
    assert {node.tag.rpartition("}")[2] for node in ET.fromstring(svg).iter()} <= {
        *("svg", "style", "defs", "clipPath", "rect", "text", "g", "circle"),
    }
