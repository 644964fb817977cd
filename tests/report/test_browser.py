"""The report in a real headless Chromium: clicked, typed into, photographed and printed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from PIL import Image

from kdeploy.report.formats.data import schema
from kdeploy.report.html import write_report
from tests.report.example import whole_report

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SVG = "{http://www.w3.org/2000/svg}"
WIDE, PHONE, PAPER = 1280, 390, 690

OVERLAPS = """() => {
  const found = [];
  for (const drawing of document.querySelectorAll("figure svg[role=img]")) {
    if (!drawing.checkVisibility()) continue;
    const frame = drawing.getBoundingClientRect();
    const texts = [...drawing.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([said, box], place) => {
      if (box.left < frame.left - 13 || box.right > frame.right + 13) found.push(`${said} leaves its figure`);
      for (const [other, its] of texts.slice(place + 1)) {
        const width = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        const height = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        if (width > 1 && height > 4) found.push(`${drawing.firstChild.textContent}: ${said} | ${other}`);
      }
    });
  }
  return found;
}"""
"""Labels of visible figures that cover one another by more than the room above and below letters."""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as started:
        if not Path(installed or started.chromium.executable_path).is_file():
            pytest.skip("there is no Chromium here: `playwright install chromium` brings one")
        opened = started.chromium.launch(executable_path=installed)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    target = tmp_path_factory.mktemp("report") / "report.html"
    write_report(target, whole_report())
    return target


@pytest.fixture
def visit(browser, file):
    """Opens the report; afterwards nothing may stand on the console, and nothing may have been loaded but the file."""
    said, asked, contexts = [], [], []

    def opened(width: int = WIDE, scheme: str = "light", target: Path = file):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(60_000)  # a machine that does other things as well
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(target.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert {address.partition(":")[0] for address in asked} <= {"file", "data"}
    assert len([address for address in asked if address.startswith("file:")]) == len(contexts)


def order(page) -> list[str]:
    rows = page.locator("[aria-label='Results'] tbody th").all()
    return [row.get_attribute("data-value") for row in rows]


def heading(page, title: str):
    return page.locator("[aria-label='Results'] thead").get_by_role("button", name=title, exact=True)


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(visit):
    page = visit()
    assert order(page) == ["0", "1", "2", "3", "4", "5"]
    heading(page, "p99 (ms)").click()
    assert order(page) == ["5", "4", "1", "3", "0", "2"], "the row without a p99 is last"
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("p99")
    assert page.get_by_role("status").text_content() == "Sorted by p99 (ms), ascending."
    heading(page, "p99 (ms)").click()
    assert order(page) == ["0", "3", "1", "4", "5", "2"], "and is last again"
    heading(page, "accuracy").click()
    assert order(page)[-1] == "2", "the highest accuracy comes first at the first click"
    assert page.locator("th[aria-sort]").count() == 1
    layers = page.locator("[aria-label='The slowest layers']")
    layers.get_by_role("button", name="operator").click()
    names = layers.locator("tbody tr td:nth-child(3)").all_inner_texts()
    assert names == sorted(names)
    assert len(set(names)) > 2


def test_the_keyboard_sorts(visit):
    page = visit()
    heading(page, "network · engine").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "p50 (ms)"
    page.keyboard.press("Enter")
    assert order(page)[0] == "5"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "where one is, is seen"
    page.keyboard.press("Space")
    assert order(page)[0] == "0"


def test_every_link_saves_a_file(visit):
    page = visit()
    saved = {}
    for link in page.locator("a[download]").all():
        download = downloaded(page, link)
        saved[download.suggested_filename] = Path(download.path()).read_text(encoding="utf-8")
    figures = {"accuracy-latency", "accuracy-size", "accuracy-memory", "latency-distribution", "layers", "provenance"}
    figures |= {"validation-accuracy", "training-loss", "learning-rate", "sensitivity-1"}
    files = {f"{figure}.{kind}" for figure in figures for kind in ("svg", "csv")}
    assert set(saved) == files | {"quickstart.json", "quickstart.csv", "parity.csv", "footprint.csv"}
    jsonschema.validate(json.loads(saved["quickstart.json"]), schema())
    for name, text in saved.items():
        if name.endswith(".csv"):
            titles, *rows = csv.reader(io.StringIO(text))
            assert rows, name
            assert {len(row) for row in rows} == {len(titles)}, name
        if name.endswith(".svg"):
            root = ElementTree.fromstring(text)
            assert root.find(f"{SVG}title").text, name
            assert root.find(f"{SVG}desc").text, name
            assert "var(" not in text, name


def downloaded(page, link):
    """What a click saves. A machine without a moment to spare loses one now and then: one clicks again."""
    from playwright.sync_api import TimeoutError as NotInTime

    for _ in range(3):
        try:
            with page.expect_download(timeout=20_000) as download:
                link.click()
            return download.value
        except NotInTime:
            continue
    pytest.fail(f"nothing was saved: {link}")


def test_a_saved_figure_has_its_colours(visit, tmp_path):
    page = visit()
    target = tmp_path / "figure.svg"
    downloaded(page, page.locator("a[download='accuracy-latency.svg']")).save_as(target)
    alone = visit(target=target)
    colour = "getComputedStyle(document.querySelector('%s')).fill"
    assert alone.evaluate(colour % "path.mark.role-student") == "rgb(43, 95, 217)"
    assert alone.evaluate(colour % "text.name.role-alone") == "rgb(156, 92, 14)"


@pytest.mark.parametrize("width", [WIDE, 800, PHONE])
def test_labels_cover_nothing_and_stay_inside(visit, width):
    assert visit(width).evaluate(OVERLAPS) == []


def test_a_phone_shows_it_without_scrolling_sideways(visit, tmp_path):
    page = visit(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    shown = [one.is_visible() for one in page.locator("figure .wide, figure .narrow").all()]
    assert shown == [False, True] * 6, "the drawings that are made for narrow screens"
    smallest = page.evaluate(
        """Math.min(...[...document.querySelectorAll("figure .narrow text")].map((text) =>
           parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
    )
    assert smallest > 9.5
    picture = photograph(page, tmp_path)
    assert picture.shape[1] == PHONE


def test_light_and_dark(visit, tmp_path):
    light, dark = (photograph(visit(scheme=scheme), tmp_path).mean() for scheme in ("light", "dark"))
    assert light > 235
    assert dark < 50


def test_it_is_printed_whole_and_on_white(visit, tmp_path):
    page = visit(PAPER, scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == 0, "what is folded away is printed"
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER
    assert not page.locator("a[download]").first.is_visible()
    assert photograph(page, tmp_path).mean() > 235
    assert page.evaluate(OVERLAPS) == []


def photograph(page, folder: Path) -> np.ndarray:
    """What of the page is on the screen, as grey values `[H, W]`."""
    path = folder / "page.png"
    page.screenshot(path=path)
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
