"""The page of a comparison in a real browser, from disk, without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.test_pull_request import hostile_trace
from tests.test_render import HOSTILE
from tests.tracemaker import compact, complete
from traceq.cli import group

SAMPLES = ROOT / "sample_traces"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MOST_BYTES = 1_500_000
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


def write_page(path: Path, *words: str) -> Path:
    done = CliRunner().invoke(group, ["report", *words, "-o", str(path)])
    assert done.exit_code == 0, done.exception
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    sides = [
        word
        for side, kind in (("--before", "einops"), ("--after", "flatten"))
        for number in range(3)
        for word in (side, str(SAMPLES / f"{kind}-{number}.json.gz"))
    ]
    return write_page(folder / "report.html", *sides, "--under", "GatedDeltaNet")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, as in a container, Chromium has no sandbox of its own.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@dataclass
class Seen:
    """An open page, and what the browser complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)


def look(browser: Browser, path: Path, width: int = 1280, scheme: Any = "light") -> Seen:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    seen = Seen(context.new_page())
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("dialog", lambda dialog: seen.complaints.append("a dialog opened"))
    seen.page.on(
        "request", lambda r: None if r.url.startswith("file:") else seen.complaints.append(r.url)
    )
    seen.page.goto(path.as_uri())
    return seen


@pytest.fixture
def seen(browser: Browser, report: Path) -> Iterator[Seen]:
    found = look(browser, report)
    yield found
    assert found.complaints == []
    found.page.context.close()


def column(page: Page, table: str, number: int) -> list[str]:
    cells = page.locator(
        f"section#tables div[aria-label='{table}'] tbody tr td:nth-child({number})"
    )
    return cells.all_inner_texts()


def test_the_verdict_is_on_top(seen: Seen) -> None:
    heading = seen.page.locator("h1").inner_text()
    assert heading.startswith("Under GatedDeltaNet, einops/einops.py: rearrange became <built-in")
    assert "in 15 of 15 scopes" in heading
    assert "sha256sum" in seen.page.locator("#reproduce").inner_text()


def test_it_is_small_and_its_policy_is_strict(seen: Seen, report: Path) -> None:
    assert report.stat().st_size < MOST_BYTES
    policy = seen.page.locator("meta[http-equiv]").get_attribute("content")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_tables_sort_by_value_and_filter(seen: Seen) -> None:
    page, table = seen.page, "Ops that changed"
    heads = page.locator(f"div[aria-label='{table}'] thead th")
    titles = heads.all_inner_texts()
    place = titles.index("before µs")
    heads.nth(place).get_by_role("button").click()
    assert heads.nth(place).get_attribute("aria-sort") == "descending"
    shown = [text.replace(",", "") for text in column(page, table, place + 1)]
    numbers = [float(text) for text in shown if text != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert shown[-1] == "–"  # what has no value comes last
    heads.nth(place).get_by_role("button").click()
    again = [text.replace(",", "") for text in column(page, table, place + 1)]
    assert [float(text) for text in again if text != "–"] == numbers[::-1]
    assert again[-1] == "–"
    heads.nth(titles.index("calls")).get_by_role("button").click()
    calls = column(page, table, titles.index("calls") + 1)
    after = [int(text.rpartition("→")[2].replace(",", "")) for text in calls]
    assert after == sorted(after)
    page.get_by_label(f"Filter {table}").fill("FLATTEN")
    names = column(page, table, titles.index("op") + 1)
    assert names
    assert all("flatten" in name for name in names)


def test_the_tree_zooms_and_is_searched_and_shows_what_is_new(seen: Seen) -> None:
    page = seen.page
    expect(page.locator("#flame .removed").first).to_be_visible()
    assert page.locator("#flame .added").count() >= 1
    label = page.locator("#flame .removed").first.get_attribute("aria-label")
    assert label == "einops/einops.py: rearrange, removed"
    linear = page.locator("#flame button", has_text="nn.Module: Linear").first
    before = linear.bounding_box()
    linear.click()
    zoomed = page.locator("#flame button", has_text="nn.Module: Linear").first.bounding_box()
    assert before is not None
    assert zoomed is not None
    assert zoomed["width"] > 5 * before["width"]
    assert "75 → 75 calls" in page.locator("#node").inner_text()
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Search the call tree").fill("flatten")
    assert page.locator("#flame .found").count() >= 1
    assert "found here" in page.locator("#tree div.controls").inner_text()


def test_what_is_too_narrow_is_told_and_found(seen: Seen) -> None:
    page = seen.page
    assert re.search(r"\d+ of \d+ nodes are too narrow", page.locator("#tree").inner_text())
    page.get_by_label("Search the call tree").fill("append of list")
    assert "0 found here, 16 in the whole tree" in page.locator("#tree").inner_text()
    page.get_by_label("Search the call tree").press("Enter")
    assert page.locator("#flame .found").count() == 1
    assert "append of list" in page.locator("#node").inner_text()


def test_only_what_is_more_than_noise_has_a_color(seen: Seen) -> None:
    page = seen.page
    same = page.locator("#flame button", has_text="nn.Module: Linear").first
    grey = same.evaluate("node => node.style.backgroundColor")
    assert grey == ""
    for kind, hue in (("removed", "blue"), ("added", "red")):
        color = page.locator(f"#flame .{kind}").first.evaluate("n => n.style.backgroundColor")
        red, _, blue = (int(part) for part in re.findall(r"\d+", color)[:3])
        assert (blue > red) == (hue == "blue")
    page.get_by_label("Color noise as well").check()
    colored = page.locator("#flame button[style*='background']").count()
    assert colored > 100


def test_the_tree_by_gpu_time(seen: Seen) -> None:
    page = seen.page
    page.get_by_role("radio", name="GPU time").check()
    text = page.locator("#flame").inner_text()
    assert "conv_depthwise2d" in text
    page.locator("#flame button", has_text="conv_depthwise2d_forward").first.hover()
    assert "activities" in page.locator("#node").inner_text()


def test_it_works_by_keyboard_alone(seen: Seen) -> None:
    page = seen.page
    page.locator("#flame button[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    focused = "document.activeElement.getAttribute('aria-label')"
    deep = page.evaluate(focused)
    assert deep != "all scopes"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == deep
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) != deep
    for _ in range(9):
        page.keyboard.press("Escape")
    assert page.evaluate(focused) == "all scopes"
    assert page.locator("#flame button[tabindex='0']").count() == 1
    page.keyboard.press("Tab")  # out of the tree in one step
    assert page.evaluate("document.activeElement.closest('#flame')") is None


LUMINANCE = """(pair) => {
  const light = (text) => {
    const part = text.match(/[\\d.]+/g).slice(0, 3).map((n) => n / 255)
      .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const around = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!color.endsWith(', 0)') && color !== 'transparent') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  const texts = 'h1,h2,h3,p,dt,dd,th,td,button,label,pre,legend,span,b,div';
  for (const node of document.querySelectorAll(texts)) {
    if (![...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim())) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(around(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName} ${node.textContent.slice(0, 40)} ${ratio}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_can_be_read_in_light_and_dark_wide_and_narrow(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    found = look(browser, report, width, scheme)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.evaluate(LUMINANCE, None) == []  # WCAG AA: 4.5 to 1
    background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert found.complaints == []
    found.page.context.close()


def test_names_are_text(browser: Browser, folder: Path) -> None:
    names = [*(name for name in HOSTILE.values() if name), "</script><script>alert(1)</script>"]
    one = hostile_trace(folder / "one.json", names, replaced=False)
    other = hostile_trace(folder / "other.json", names, replaced=True)
    page = write_page(folder / "names.html", str(one), str(other), "--under", "Scope_")
    found = look(browser, page)
    text = found.page.locator("body").inner_text()
    assert "<img src=x onerror=alert(1)>" in text
    assert "</script><script>alert(1)</script>" in text
    assert "\\u202e" in text  # what turns the text around is written out
    assert found.page.locator("img").count() == 0
    assert found.page.locator("script").count() == 2
    assert found.complaints == []
    found.page.context.close()


def test_long_tables_show_their_first_rows(browser: Browser, folder: Path) -> None:
    events = [complete("nn.Module: S_0", 0, 9000)]
    events += [complete(f"op {number:04d}", 2 + number, 1) for number in range(1200)]
    events += [complete("constructor", 2000, 500), complete("long", 3000, 1)]
    path = folder / "many.json"
    path.write_bytes(compact(events))
    found = look(browser, write_page(folder / "many.html", str(path), "--under", "S_0"))
    rows = found.page.locator("div[aria-label='Ops'] tbody tr")
    assert rows.count() == 500
    controls = found.page.locator("#tables").inner_text()
    assert "1202 rows, the first 500 of them here" in controls
    found.page.get_by_label("Filter Ops").fill("op 1199")
    expect(rows).to_have_count(1)
    found.page.get_by_label("Filter Ops").fill("")
    found.page.get_by_role("button", name="Show all rows").first.click()
    expect(rows).to_have_count(1202)
    found.page.locator("#flame button[aria-label='constructor']").hover()
    assert "function" not in found.page.locator("#node").inner_text()
    assert found.complaints == []
    found.page.context.close()


def test_durations_without_measure(browser: Browser, folder: Path) -> None:
    events = [
        complete("nn.Module: S_0", 0, 9),
        complete("a", 100, 2**50),
        complete("b", 100, 2**50),
    ]
    path = folder / "huge.json"
    path.write_bytes(compact(events))
    found = look(browser, write_page(folder / "huge.html", str(path)))
    assert found.complaints == []
    found.page.context.close()


def test_one_capture_has_a_page_too(browser: Browser, folder: Path) -> None:
    page = write_page(folder / "one.html", str(SAMPLES / "einops-0.json.gz"), "--skip-first")
    found = look(browser, page)
    assert "CPU" in found.page.locator("h1").inner_text()
    assert found.page.locator("#flame button").count() > 20
    assert "without the first step" in found.page.locator("dl").inner_text()
    assert "--skip-first" in found.page.locator("#reproduce").inner_text()
    assert "Events of the files" in found.page.locator("#tables").inner_text()
    assert found.page.locator("#flame .removed, #flame .added").count() == 0
    assert found.complaints == []
    found.page.context.close()


def test_the_tree_has_all_time(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    data = json.loads(found[1])
    flame = data["flame"]
    assert [side[0] for side in flame["cpu"]] == [159_773_160, 170_841_541]
    assert [side[0] for side in flame["gpu"]] == [10_368_356, 10_363_383]
