"""A page in Chromium: how soon it paints, and is all there, from disk, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

_READ_PAINT = """() => performance.getEntriesByName("first-contentful-paint")[0].startTime"""
_READ_NOW = "() => performance.now()"


def first_paints(page: Path, runs: int) -> list[tuple[float, float]]:
    """Seconds from navigation to the first contentful paint, and until all is drawn.

    Each run is in a browser of its own.
    """
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    found = []
    with sync_playwright() as playwright:
        for _ in range(runs):
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            opened = browser.new_context(offline=True).new_page()
            opened.goto(page.resolve().as_uri())
            opened.wait_for_selector("#reproduce pre", state="attached")
            drawn = opened.evaluate(_READ_NOW)
            found.append((opened.evaluate(_READ_PAINT) / 1000, drawn / 1000))
            browser.close()
    return found
