"""The report stands alone, hides nothing, and its curves stay visible where they coincide."""

import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from server.coincidences import Coincidence, coincidences
from server.plot import _COLOURS, DARK, LIGHT, Ink, draw_curves
from server.report import write_report
from server.results import ClientRow, RoundRow, RunFolder
from server.summary import Outcome

RUN: dict[str, Any] = {
    "fedarena": "0.1.0",
    "command": ["python", "sim.py", "--out", "my runs"],
    "config": {"dataset": "mnist-5k", "clients": 5, "rounds": 3, "strategies": ["fedavg", "weighted"], "seeds": [0]},
    "versions": {"python": "3.11.7"},
    "data": {"sha256": "ab" * 32, "p_value": 0.998, "counts": [[80] * 10] * 5},
    "results": {"iid/fedavg/seed0": {"sha256": "cd" * 32, "rounds": 3, "ended": "finished"}},
    "status": "finished",
    "exit_status": 0,
}


def curve(strategy: str, *accuracies: float, **where: Any) -> list[RoundRow]:
    at = {"scenario": "iid", "seed": 0, **where}
    return [
        RoundRow(at["scenario"], strategy, at["seed"], k, a, 1.001 - a, 5, 0, 100, 100, 0.5)
        for k, a in enumerate(accuracies)
    ]


def work(strategy: str, status: str = "ok", reason: str = "") -> list[ClientRow]:
    return [
        ClientRow("iid", strategy, 0, number, k, 8, 5, 5.0, 0.1, 0.1, status, reason)  # type: ignore[arg-type]
        for number in (1, 2)
        for k in range(3)
    ]


def report(path: Path, rounds: list[RoundRow], clients: list[ClientRow], **run: Any) -> str:
    with RunFolder.create(path) as folder:
        for row in rounds:
            folder.write_round(row)
        for client in clients:
            folder.write_client(client)
        folder.write_run({**RUN, **run})
        page = write_report(folder, Outcome.read(folder))
        assert page == path / "report.html"
    return page.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """All tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


EMBEDDED = "data:image/png;base64,"
ROUNDS = [*curve("fedavg", 0.1, 0.5, 0.8, 0.9312), *curve("weighted", 0.1, 0.5, 0.8, 0.9312)]


def test_the_page_says_what_happened_and_needs_nothing_else(tmp_path: Path) -> None:
    page = report(tmp_path / "run", ROUNDS, work("fedavg") + work("weighted"))
    tags = Tags(page)
    text = tags.text.replace("\u00a0", " ")
    for words in (
        "fedavg and weighted stand together at 93.12 % after 3 rounds.",
        "coincided to the bit: equal shards (8 examples each)",
        "mnist-5k, 5 clients, 3 rounds",
        "python sim.py --out 'my runs'",
        "chi-square p = 0.998",
        "cd" * 32,
        "ab" * 32,
    ):
        assert words in text
    assert text.index("stand together") < text.index("final %")
    for tag, attributes in tags.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or EMBEDDED).startswith(EMBEDDED)
    assert not re.search(r"https?://|@import|url\(", page)
    assert sum(tag in ("img", "source") for tag, _ in tags.tags) == 2  # for light and for dark pages
    assert imread(tmp_path / "run" / "curves.png").shape[1] == 1600


def test_failed_clients_are_listed_with_their_reasons(tmp_path: Path) -> None:
    text = Tags(report(tmp_path, ROUNDS, work("weighted", "rejected", "array 3 holds NaN"))).text
    assert text.count("array 3 holds NaN") == 6
    assert "failed or were rejected" in text
    assert "failed or were rejected" not in Tags(report(tmp_path / "other", ROUNDS, work("weighted"))).text


def test_thousands_of_failures_do_not_swell_the_page(tmp_path: Path) -> None:
    text = Tags(report(tmp_path, ROUNDS, work("fedavg", "failed", "lost") * 100)).text
    assert text.count("lost") == 200
    assert "400 more are in clients.csv" in text


def test_a_contestant_that_stopped_is_in_the_verdict(tmp_path: Path) -> None:
    results = {"iid/weighted/seed0": {"sha256": None, "rounds": 1, "ended": "no valid update in round 2"}}
    text = Tags(report(tmp_path, ROUNDS[:6], [], results=results, status="failed")).text
    assert "weighted stopped after round 1: no valid update in round 2." in text


def test_what_others_wrote_cannot_change_the_page(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    page = report(
        tmp_path,
        curve(evil, 0.1, 0.5),
        [replace(row, strategy=evil) for row in work("x", "failed", evil)],
        command=[evil],
        config={"dataset": evil, evil: evil},
        results={f"iid/{evil}/seed0": {"ended": evil}},
    )
    assert "<script" not in page and "alert(1)" in page


def test_before_the_first_row_there_is_a_page_without_curves(tmp_path: Path) -> None:
    text = Tags(report(tmp_path, [], [], status="failed", results={})).text
    assert "No model was tested yet." in text
    assert not (tmp_path / "curves.png").exists()


def test_a_run_that_says_little_has_a_page_too(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_round(ROUNDS[0])
        folder.write_run({})
        assert "No round was finished." in write_report(folder, Outcome.read(folder)).read_text()


def test_rows_are_shown_in_the_configured_order(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        for row in reversed(ROUNDS):
            folder.write_round(row)
        folder.write_run(RUN)
        outcome = Outcome.read(folder)
    assert list(outcome.rounds) == ROUNDS
    assert [one.entry.strategy for one in outcome.summaries] == ["fedavg", "weighted"]


def pixels_near(png: bytes, colour: str) -> int:
    """How many pixels have this colour."""
    picture = imread(io.BytesIO(png))[..., :3]
    return int((np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.02).sum())


@pytest.mark.parametrize("ink", [LIGHT, DARK])
def test_coinciding_lines_stay_visible(ink: Ink) -> None:
    names = ["fedavg", "weighted", "fednova"]
    rounds = [row for name in names for row in curve(name, 0.1, 0.5, 0.8, 0.9312)]
    same = coincidences(rounds, [])
    assert same[0].strategies == tuple(names)
    png, hidden = draw_curves(rounds, same, ink=ink), draw_curves(rounds, [], ink=ink)
    for colour in _COLOURS[: len(names) - 1]:
        assert pixels_near(png, colour) > 1.5 * pixels_near(hidden, colour)
    assert pixels_near(png, _COLOURS[2]) > 1000


@pytest.mark.parametrize(
    "rounds",
    [
        curve("fedavg", 0.1),
        curve("fedavg", 0.1, 1.0, 1.0),
        curve("fedavg", 0.0, 0.0),
        curve("fedavg", 0.9312, 0.9313),
        curve("fedavg", *[0.1] * 300),
        [replace(row, test_loss=math.nan) for row in ROUNDS],
        [replace(row, test_loss=math.inf) for row in ROUNDS[:2]] + ROUNDS[2:],
        [replace(row, test_loss=0.0) for row in ROUNDS],
        curve("fedavg", 0.1, 0.9) + curve("fedavg", 0.1, 0.8, seed=1) + curve("b", 0.1, scenario="skew"),
        [row for k in range(20) for row in curve(f"strategy-{k}", 0.1, 0.5 + k / 50)],
    ],
    ids=["start", "perfect", "hopeless", "close", "long", "nan", "inf", "zero", "seeds and scenarios", "many"],
)
def test_any_run_can_be_drawn(rounds: list[RoundRow]) -> None:
    picture = imread(io.BytesIO(draw_curves(rounds, [], "title", "subtitle")))
    assert picture.shape[1] == 1600


def test_a_coincidence_in_one_scenario_is_drawn_there_only() -> None:
    rounds = ROUNDS + [row for name in ("fedavg", "weighted") for row in curve(name, 0.1, 0.6, scenario="skew")]
    everywhere = draw_curves(rounds, [Coincidence(("fedavg", "weighted"), (), "")])
    somewhere = draw_curves(rounds, [Coincidence(("fedavg", "weighted"), ("skew",), "")])
    assert pixels_near(everywhere, _COLOURS[0]) > pixels_near(somewhere, _COLOURS[0])
