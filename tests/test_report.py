"""The report stands alone, hides nothing, and its curves stay visible where they coincide."""

import base64
import gzip
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_runs import made_up_run
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from server import report as report_package
from server.coincidences import Coincidence, coincidences
from server.plot import COLOURS, DARK, LIGHT, Ink, draw_curves
from server.report import write_report
from server.report.client_rows import ClientLine, client_lines, fit
from server.report.measures import NOT_JUDGED, ON_TRAINING_DATA, metrics_of
from server.report.over_seeds import over_seeds
from server.report.page import render
from server.report.plotly_js import hash_source
from server.report.read import read_run
from server.report.roles import Parts, parts_of
from server.report.tables import fairness_table, spans
from server.results import ClientRow, Entry, LocalRow, RoundRow, RunFolder
from server.statistics.estimate import estimate
from server.statistics.panel import panels_of
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


ENTRY = Entry("iid", "fedavg", 0)
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
        assert tag not in ("link", "iframe")
        for name in ("src", "srcset"):
            assert (attributes.get(name) or EMBEDDED).startswith(EMBEDDED)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\(", page)
    assert sum(tag == "img" for tag, _ in tags.tags) == 1  # for those who run no script
    assert imread(tmp_path / "run" / "curves.png").shape[1] == 1600


def test_failed_clients_are_listed_with_their_reasons(tmp_path: Path) -> None:
    text = Tags(report(tmp_path, ROUNDS, work("weighted", "rejected", "array 3 holds NaN"))).text
    assert text.count("array 3 holds NaN") == 1  # three clients and two rounds share a line
    assert "iid0weighted0-21-2rejectedarray 3 holds NaN" in re.sub(r"\s*\n\s*", "", text)  # the cells of its row
    assert "failed or were rejected" in text
    assert "failed or were rejected" not in Tags(report(tmp_path / "other", ROUNDS, work("weighted"))).text


def test_lines_of_clients_that_are_left_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenarios, three strategies, three seeds, five clients: with 30 lines the first seed alone is left."""
    outcome = Outcome.read(read_run(made_up_run(tmp_path / "run")))
    picture = draw_curves(outcome.rounds, outcome.same)
    assert "more lines of clients" not in render(outcome, "run", "title", "", picture)
    monkeypatch.setattr("server.report.page._MOST_LINES", 30)
    assert "60 more lines of clients" in render(outcome, "run", "title", "", picture)


def test_thousands_of_failures_do_not_swell_the_page(tmp_path: Path) -> None:
    rows = [replace(row, reason=f"lost {k}") for k in range(300) for row in work("fedavg", "failed")]
    text = Tags(report(tmp_path, ROUNDS, rows)).text
    assert len(re.findall(r"lost \d+", text)) == 200
    assert "100 more lines like these are in clients.csv" in text


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
    assert evil not in page and "alert(1)" in page
    assert [tag for tag, _ in Tags(page).tags].count("script") == 3


def test_before_the_first_row_there_is_a_page_without_curves(tmp_path: Path) -> None:
    tags = Tags(report(tmp_path, [], [], status="failed", results={}))
    assert "No model was tested yet." in tags.text
    assert "script" not in [tag for tag, _ in tags.tags]
    assert not (tmp_path / "curves.png").exists()


def test_a_run_that_says_little_has_a_page_too(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_round(ROUNDS[0])
        folder.write_run({})
        assert "No round was finished." in write_report(folder, Outcome.read(folder)).read_text(encoding="utf-8")


def test_rows_are_shown_in_the_configured_order(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        for row in reversed(ROUNDS):
            folder.write_round(row)
        folder.write_run(RUN)
        outcome = Outcome.read(folder)
    assert list(outcome.rounds) == ROUNDS
    assert [one.entry.strategy for one in outcome.summaries] == ["fedavg", "weighted"]


def policy(page: str) -> str:
    return next(a["content"] or "" for tag, a in Tags(page).tags if a.get("http-equiv") == "Content-Security-Policy")


def test_the_policy_lets_nothing_load_and_no_other_script_run(tmp_path: Path) -> None:
    page = report(tmp_path / "run", ROUNDS, work("fedavg"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy(page).split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    own = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    packed = re.findall(r'<script type="text/plain" id="plotly">(.*?)</script>', page, re.DOTALL)
    sources = [hash_source(text) for text in (gzip.decompress(base64.b64decode(packed[0])), own[0].encode())]
    assert rules["script-src"] == " ".join(f"'{source}'" for source in sources)
    assert "script-src 'none'" in policy(report(tmp_path / "empty", [], []))


def numbers(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_intervals_on_the_page_are_those_of_the_statistics(tmp_path: Path) -> None:
    page = made_up_run(tmp_path / "run", seeds=range(5))
    with RunFolder.resume(page) as folder:
        outcome = Outcome.read(folder)
        drawn = numbers(write_report(folder, outcome).read_text(encoding="utf-8"))
    for scenario in drawn["scenarios"]:
        for one in scenario["series"]:
            name = drawn["strategies"][one["strategy"]]["name"]
            for metric, column in (("accuracy", "test_accuracy"), ("loss", "test_loss")):
                series = one["metrics"][metric]
                for number in range(7):
                    values = [
                        getattr(row, column)
                        for row in outcome.rounds
                        if (row.scenario, row.strategy, row.round) == (scenario["name"], name, number)
                    ]
                    known = estimate(values)
                    assert series["mean"][number] == pytest.approx(known.mean, rel=1e-4)
                    assert series["half"][number] == pytest.approx(known.half, rel=1e-4)
                    assert series["n"][number] == 5


def test_a_loss_that_is_not_finite_is_not_averaged_away() -> None:
    found = over_seeds(np.array([[[1.0, 2.0], [math.inf, 4.0]]]))
    assert math.isnan(found.mean[0, 0]) and math.isnan(found.half[0, 0])
    assert found.mean[0, 1] == 3.0


def test_the_worst_client_is_an_honest_one(tmp_path: Path) -> None:
    rows = [
        LocalRow("iid", "fedavg", 0, 2, client, accuracy, accuracy, 1.0, cosine)
        for client, accuracy, cosine in ((0, 0.5, 0.9), (1, 0.1, -0.9), (2, 0.8, 0.7))
    ]
    panel = panels_of(curve("fedavg", 0.1, 0.5, 0.8), [])[0]
    found = metrics_of(panel, rows, {0: {1}})
    assert found["worst_on_training_data"][0, 0, 2] == 0.5
    assert found["spread_on_training_data"][0, 0, 2] == pytest.approx(0.3)
    assert found["cosine"][0, 0, 2] == pytest.approx(0.8)
    assert np.isnan(found["worst_on_training_data"][0, 0, :2]).all()
    parts = {"iid": {0: Parts(((1, 2),), None, {1: "attacker"}, frozenset({1}))}}
    table = fairness_table(client_lines([], rows), parts)
    assert table.rows[0][:4] == ("fedavg", "50.00", "65.00", "30.0")
    assert ON_TRAINING_DATA in table.note and NOT_JUDGED in table.note


def test_a_client_is_shown_in_the_last_round_in_which_it_tested() -> None:
    rows = [
        LocalRow("iid", "fedavg", 0, 1, 0, 0.5, 0.6, 1.0, 0.1),
        LocalRow("iid", "fedavg", 0, 2, 0, None, None, 2.0, 0.2),
    ]
    [line] = client_lines(work("fedavg", "failed", "lost"), rows)[ENTRY][:1]
    assert (line.measured, line.before, line.norm, line.refused) == (1, 0.5, 1.0, 2)


def test_accuracies_of_the_models_of_different_rounds_do_not_stand_side_by_side() -> None:
    tested = [(1, 0, 0.1), (1, 1, 0.2), (3, 1, 0.7), (3, 2, 0.8)]  # client 0 was not drawn any more
    lines = client_lines([], [LocalRow("iid", "fedavg", 0, number, k, a, a, 1.0, 0.5) for number, k, a in tested])[
        ENTRY
    ]
    assert [(line.client, line.before, line.norm) for line in lines] == [(0, None, 1.0), (1, 0.7, 1.0), (2, 0.8, 1.0)]
    assert fairness_table({ENTRY: lines}, {}).rows[0][:4] == ("fedavg", "70.00", "75.00", "10.0")


def test_many_clients_are_cut_to_those_of_fewer_seeds_and_then_to_the_worst() -> None:
    def lines(seed: int) -> dict[Entry, list[ClientLine]]:
        return {ENTRY._replace(seed=seed): [ClientLine(k, before=1 - k / 10) for k in range(5)]}

    both = lines(0) | lines(1)
    assert fit(both, [0, 1], 10) == both
    assert fit(both, [0, 1], 9) == lines(0)
    assert [line.client for line in fit(both, [0, 1], 2)[ENTRY]] == [3, 4]


def test_rounds_are_drawn_together() -> None:
    assert spans([4, 1, 2, 3, 6, 2]) == "1-4, 6"
    assert spans([7]) == "7"


@pytest.mark.parametrize(
    "scenarios", [None, [], {"iid": None}, {"iid": {"seeds": {"x": {}}}}, {"iid": {"seeds": {"0": []}}}]
)
def test_parts_of_other_versions_are_read_as_far_as_they_go(scenarios: Any) -> None:
    run = {"data": {"counts": [[3, 4]]}, "config": {"seeds": [7]}, "scenarios": scenarios}
    assert parts_of(run)["iid"][7].counts == ((3, 4),)
    assert parts_of({"scenarios": scenarios}) == {}


def test_all_of_the_page_travels_in_flowers_bundles() -> None:
    """`flwr run` takes no .html, .css or .js along; a page in such files would be missing at the end of the run."""
    files = [file for file in Path(report_package.__file__).parent.rglob("*") if file.is_file()]
    assert {file.suffix for file in files if file.parent.name != "__pycache__"} == {".py"}


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
    for colour in COLOURS[: len(names) - 1]:
        assert pixels_near(png, colour) > 1.5 * pixels_near(hidden, colour)
    assert pixels_near(png, COLOURS[2]) > 1000


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
    assert pixels_near(everywhere, COLOURS[0]) > pixels_near(somewhere, COLOURS[0])
