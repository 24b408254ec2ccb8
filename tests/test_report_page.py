"""report.html in a real browser: it draws, obeys mouse and keyboard, exports, and asks nobody for anything."""

import csv
import io
import json
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import SCENARIOS, STRATEGIES, made_up_run
from playwright.sync_api import Browser, Page, sync_playwright

from server.report.__main__ import main
from server.report.measures import ON_TRAINING_DATA

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian's package is asked for)")
MOST_BYTES = 5_000_000
CURVES = "document.querySelector('[data-figure=curves] .plot')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenarios, three strategies, three seeds."""
    folder = made_up_run(tmp_path_factory.mktemp("report") / "run")
    assert main([str(folder)]) == 0
    return folder / "report.html"


class Watched:
    """A page with all that it complained about and asked for."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.complaints, self.requests = page, [], []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=30_000)

    def lines(self) -> list[str]:
        """The names of the curves that are drawn, of all panels."""
        return self.page.evaluate(
            f"{CURVES}.data.filter((one) => one.meta.strategy !== undefined).map((one) => one.name)"
        )

    def figure(self, name: str) -> Any:
        return self.page.locator(f"[data-figure={name}]")

    def save(self, figure: str, kind: str) -> bytes:
        with self.page.expect_download() as download:
            self.figure(figure).get_by_text(kind, exact=True).click()
        return Path(download.value.path()).read_bytes()


@pytest.fixture(scope="module")
def shared(browser: Browser, report: Path) -> Iterator[Watched]:
    """One page for the tests that leave it as they found it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield Watched(page, report)
    page.close()


@pytest.fixture
def watched(shared: Watched) -> Iterator[Watched]:
    yield shared
    assert not shared.complaints
    assert all(url.startswith(("file:", "blob:", "data:")) for url in shared.requests)
    assert sum(url.startswith("file:") for url in shared.requests) == 1


def test_every_figure_is_drawn(watched: Watched) -> None:
    assert sorted(watched.lines()) == sorted(["fedavg", "weighted", "fedmedian"] * 2)
    curves = watched.figure("curves")
    assert curves.locator(".scatterlayer .trace .lines path").count() >= 6
    assert curves.locator(".fills path, .js-fill").count() >= 6
    for name in ("heatmap", "partition"):
        assert watched.figure(name).locator(".heatmaplayer image").count() == 1
    assert watched.figure("differences").locator(".errorbar").count() >= 1
    assert watched.figure("clients").locator(".points path").count() == 3 * 5
    assert watched.figure("cost").locator(".lines path").count() >= 3
    assert not watched.page.locator("img.static").is_visible()


def test_coinciding_strategies_are_ribbons_and_said(watched: Watched) -> None:
    widths = watched.page.evaluate(
        f"{CURVES}.data.filter((one) => one.meta.strategy >= 0 && one.xaxis === 'x').map((one) => one.line.width)"
    )
    assert widths[0] > widths[1] == widths[2]
    assert "iid: fedavg, weighted are the same to the bit" in watched.figure("curves").locator(".said").inner_text()


def test_a_press_on_a_strategy_hides_it_everywhere(watched: Watched) -> None:
    chip = watched.page.get_by_role("button", name="fedmedian")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert "fedmedian" not in watched.lines()
    assert "fedmedian" not in watched.figure("differences").inner_text()
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    assert watched.lines().count("fedmedian") == 2


def test_nothing_chosen_is_an_empty_page_and_no_mistake(watched: Watched) -> None:
    chips = watched.page.locator(".chip[aria-pressed]")
    for chip in chips.all():
        chip.click()
    assert watched.lines() == []
    watched.page.get_by_role("button", name="all", exact=True).click()
    assert len(watched.lines()) == 6


def test_the_keyboard_reaches_and_moves_everything(watched: Watched) -> None:
    page = watched.page
    page.get_by_role("button", name="weighted").focus()
    page.keyboard.press("Space")
    assert "weighted" not in watched.lines()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Enter")  # the next one alone
    assert set(watched.lines()) == {"fedmedian"}
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # all
    assert len(watched.lines()) == 6
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[data-figure]')?.dataset.figure ?? ''"))
    assert reached >= {"curves", "heatmap", "differences", "clients", "partition", "cost"}


def test_metric_scale_and_interval_can_be_switched(watched: Watched) -> None:
    figure = watched.figure("curves")
    kind = f"{CURVES}.layout.yaxis.type"
    bands = f"{CURVES}.data.filter((one) => one.meta.band !== undefined).length"
    assert (watched.page.evaluate(kind), watched.page.evaluate(bands)) == ("log", 6)
    figure.get_by_label("log scale").uncheck()
    figure.get_by_label("95 % interval").uncheck()
    assert (watched.page.evaluate(kind), watched.page.evaluate(bands)) == ("linear", 0)
    of_training = ("Training data: worst client", "Training data: spread")
    for metric in ("Test loss", *of_training, "Drift: cosine to the global step"):
        figure.get_by_label("Metric").select_option(label=metric)
        assert metric.lower() in figure.locator(".plot").inner_text()
        assert (ON_TRAINING_DATA in figure.locator(".said").inner_text()) == (metric in of_training)
        assert len(watched.lines()) == 6
    figure.get_by_label("Metric").select_option(label="Test accuracy")
    figure.get_by_label("log scale").check()
    figure.get_by_label("95 % interval").check()


def test_what_clients_measured_on_their_training_data_is_called_so_and_judged_nowhere(watched: Watched) -> None:
    page = watched.page
    for told in (watched.figure("clients").locator(".said"), page.locator("#client-table"), page.locator("#clients")):
        assert ON_TRAINING_DATA in told.inner_text()
    assert "(lowest)" in page.locator("#client-table").inner_text()
    metrics = watched.figure("differences").get_by_label("Metric").locator("option").all_inner_texts()
    assert metrics == ["Test accuracy", "Test loss", "Rounds to the target"]
    header = watched.save("clients", "CSV").decode().splitlines()[0]
    assert "accuracy_before_on_training_data" in header and "accuracy_after_on_training_data" in header


def test_one_choice_of_scenario_moves_all_figures(watched: Watched) -> None:
    watched.figure("differences").get_by_label("Scenario").select_option(label="byzantine")
    assert watched.figure("partition").get_by_label("Scenario").locator("option:checked").inner_text() == "byzantine"
    assert "1 (attacker)" in watched.figure("partition").locator(".said").inner_text()
    assert "byzantine" in watched.figure("cost").locator(".said").inner_text()
    assert "1 (attacker)" in watched.page.locator("#client-table").inner_text()
    watched.figure("clients").get_by_label("Table of").select_option(label="fedmedian")
    assert "fedmedian in byzantine, seed 0" in watched.page.locator("#client-table").inner_text()
    watched.figure("cost").get_by_label("Scenario").select_option(label="iid")


def test_pointing_at_a_curve_tells_its_numbers(watched: Watched) -> None:
    plot = watched.figure("curves").locator(".nsewdrag").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    told = watched.figure("curves").locator(".hoverlayer")
    told.get_by_text("fedmedian").first.wait_for()
    assert "±" in (told.text_content() or "")


def test_figures_are_saved_as_png_svg_and_csv(watched: Watched) -> None:
    png = watched.save("curves", "PNG")
    assert png.startswith(b"\x89PNG") and struct.unpack(">I", png[16:20])[0] == 3000
    svg = watched.save("differences", "SVG").decode()
    assert svg.startswith("<svg") and "a better →" in svg
    rows = list(csv.DictReader(io.StringIO(watched.save("curves", "CSV").decode())))
    one = next(
        row for row in rows if (row["scenario"], row["strategy"], row["round"]) == ("byzantine", "fedmedian", "6")
    )
    assert one["metric"] == "accuracy" and float(one["low"]) < float(one["mean"]) < float(one["high"])
    for figure, column in (
        ("heatmap", "mean"),
        ("differences", "verdict"),
        ("partition", "examples"),
        ("cost", "bytes_up"),
    ):
        assert column in watched.save(figure, "CSV").decode().splitlines()[0].split(",")
    clients = list(csv.DictReader(io.StringIO(watched.save("clients", "CSV").decode())))
    assert {row["role"] for row in clients} == {"", "attacker"} and len(clients) == 2 * 3 * 3 * 5


def until(true: Callable[[], bool]) -> None:
    """Wait for it; Playwright's own way is a string to evaluate, which the page's policy forbids."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def width(page: Page) -> float:
    return page.evaluate("document.querySelector('[data-figure=cost] .plot').layout.width")


def paper(page: Page) -> str:
    return page.evaluate(f"{CURVES}.layout.paper_bgcolor")


def test_colours_follow_the_system_and_the_button(watched: Watched) -> None:
    page = watched.page
    light = paper(page)
    page.emulate_media(color_scheme="dark")
    until(lambda: paper(page) != light)
    dark = paper(page)
    page.get_by_role("button", name="Theme").click()
    assert paper(page) == light
    page.get_by_role("button", name="Theme").click()
    assert paper(page) == dark
    page.emulate_media(color_scheme="light")
    until(lambda: not page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches"))
    assert paper(page) == dark
    page.get_by_role("button", name="Theme").click()
    assert paper(page) == light


def test_paper_is_white_and_has_a_legend(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert paper(page) == "#ffffff" and page.evaluate(f"{CURVES}.layout.width") == 700
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.get_by_role("button", name="fedmedian").is_visible()
    assert not watched.figure("curves").get_by_label("Metric").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen", color_scheme="light")
    until(lambda: page.evaluate(f"{CURVES}.layout.width") > 800)


def test_a_narrow_window_scrolls_down_only(watched: Watched) -> None:
    page = watched.page
    page.set_viewport_size({"width": 400, "height": 800})
    until(lambda: width(page) < 400)
    for details in page.locator("details").all():
        details.evaluate("(one) => { one.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.set_viewport_size({"width": 1280, "height": 900})
    until(lambda: width(page) > 800)


def test_without_scripts_the_essence_is_there(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 400, "height": 800})
    page = context.new_page()
    page.goto(report.as_uri())
    assert "fedmedian leads after 6 rounds" in page.locator("#verdict").inner_text()
    assert page.locator("img.static").is_visible()
    assert page.locator("#strategies table").first.is_visible()
    assert "Scripts are off" in page.locator("#curves").inner_text()
    assert not page.locator("[data-figure=curves]").is_visible()
    context.close()


def test_a_browser_that_cannot_inflate_shows_the_picture(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(report.as_uri())
    page.locator("#trouble").wait_for()
    assert page.locator("img.static").is_visible()
    page.close()


def test_a_run_that_says_little_is_drawn_too(browser: Browser, tmp_path: Path) -> None:
    folder = made_up_run(
        tmp_path / "run", ["iid"], ["fedavg"], [4], rounds=1, local=False, run={"scenarios": {}, "results": {}}
    )
    assert main([str(folder)]) == 0
    watched = Watched(browser.new_page(), folder / "report.html")
    assert watched.lines() == ["fedavg"]
    assert not watched.complaints
    assert watched.figure("differences").count() == watched.figure("heatmap").count() == 0
    watched.page.close()


def test_texts_of_others_run_nothing(browser: Browser, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    folder = made_up_run(tmp_path / "run", [evil], ["fedavg", evil], [0, 1], rounds=2, run={"command": [evil]})
    assert main([str(folder)]) == 0
    page, dialogs = browser.new_page(), []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    watched = Watched(page, folder / "report.html")
    page.get_by_role("button", name="alert").first.click()
    assert page.locator("img:not(.static)").count() == 0 and page.locator("script").count() == 3
    assert not dialogs and not watched.complaints and len(watched.requests) == 1
    watched.page.close()


def test_a_large_comparison_fits(browser: Browser, tmp_path: Path) -> None:
    folder = made_up_run(tmp_path / "run", SCENARIOS, STRATEGIES, range(10), rounds=50, clients=3)
    assert main([str(folder)]) == 0
    page = folder / "report.html"
    assert page.stat().st_size < MOST_BYTES
    watched = Watched(browser.new_page(), page)
    assert len(watched.lines()) == len(SCENARIOS) * len(STRATEGIES)
    assert not watched.complaints
    numbers = json.loads(watched.page.locator("#numbers").text_content() or "")
    assert [len(one["series"]) for one in numbers["scenarios"]] == [8] * 5
    assert len(numbers["scenarios"][0]["series"][0]["metrics"]["accuracy"]["mean"]) == 51
    watched.page.close()
