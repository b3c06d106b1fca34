"""A report as a picture for slides: its headline and tables as a terminal shows them, in SVG.

The picture holds text, and asks for no font from any network.
"""

from __future__ import annotations

import io
import re

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from traceq.render.terminal import print_report
from traceq.report import Report

WIDTH = 110
"""Columns: what is still read on a slide."""

_FONT_FACE = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)


def to_svg(report: Report, width: int = WIDTH) -> str:
    """The report as one SVG, without its details."""
    console = Console(
        record=True, file=io.StringIO(), width=width, force_terminal=True, highlight=False
    )
    print_report(console, report, width)
    form = _FONT_FACE.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", "ui-monospace")
    return console.export_svg(title="traceq diff", theme=SVG_EXPORT_THEME, code_format=form)
