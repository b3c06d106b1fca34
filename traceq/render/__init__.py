"""Renderers: each takes a finished :class:`traceq.report.Report` and formats it."""
