"""Runs two commands in turn, A B A B …, each run a new process, and keeps the trace of each run.

Public: :func:`capture_ab`. How a trace is made is the business of the command, or of ``traceq
capture run`` under which Python programs are put. Reading the traces and comparing them is left to
the caller; ``conditions`` only says what the record of a trace tells, once it has been read.
"""

from traceq.capturing.ab.commands import OUT, Command, Form, ProgramOptions, parse_command
from traceq.capturing.ab.folder import MANIFEST, SCHEMA_VERSION
from traceq.capturing.ab.process import Run
from traceq.capturing.ab.series import SIDES, AbCapture, Progress, capture_ab

__all__ = [
    "MANIFEST",
    "OUT",
    "SCHEMA_VERSION",
    "SIDES",
    "AbCapture",
    "Command",
    "Form",
    "ProgramOptions",
    "Progress",
    "Run",
    "capture_ab",
    "parse_command",
]
