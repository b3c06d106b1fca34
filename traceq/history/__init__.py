"""Captures that were recorded, in one DuckDB file: compared later, and followed over time."""
