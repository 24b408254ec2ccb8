"""What the user sees: failures always, lines in a log, a live view that fits the terminal, and no thread that hangs."""

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from server.results import ClientRow, Entry, RoundRow
from server.screen import Screen, Silent, open_screen
from server.screen_live import Live
from server.screen_plain import Plain

FEDAVG, FEDNOVA = Entry("iid", "fedavg", 0), Entry("iid", "fednova", 0)


def evaluated(entry: Entry, number: int, accuracy: float = 0.9312) -> RoundRow:
    return RoundRow(*entry, number, accuracy, 0.25, 4, 1, 10, 10, 0.5)


def failed(entry: Entry, number: int, client: int) -> ClientRow:
    return ClientRow(*entry, number, client, None, None, None, None, None, "failed", "ValueError: bad\nshard")


def fine(entry: Entry, number: int, client: int) -> ClientRow:
    return ClientRow(*entry, number, client, 800, 25, 25.0, 0.1, 0.1, "ok", "")


def terminal(width: int = 80, height: int = 24, **options: object) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, height=height, **options), out  # type: ignore[arg-type]


def lines_of(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


def play(screen: Screen) -> None:
    """A small run: two contestants, two rounds, one failing client, one contestant that stops."""
    screen.step("starting Ray")
    screen.note("labels of the shards: chi-square p = 0.998")
    screen.step("starting 2 workers")
    screen.begin([FEDAVG, FEDNOVA], 2, {})
    for number in (0, 1, 2):
        screen.client(fine(FEDAVG, number, 0))
        screen.round(evaluated(FEDAVG, number))
    screen.ended(FEDAVG, None)
    screen.round(evaluated(FEDNOVA, 0))
    screen.client(failed(FEDNOVA, 1, 2))
    screen.ended(FEDNOVA, "no valid update in round 1")
    screen.close()
    screen.close()


def test_plain_is_one_line_per_event() -> None:
    out = io.StringIO()
    play(Plain(out))
    lines = [line.split(" s  ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "starting Ray ...",
        "labels of the shards: chi-square p = 0.998",
        "starting 2 workers ...",
        "training 2 rounds: fedavg, fednova",
        "fedavg   round 0/2  accuracy  93.12 %  loss 0.2500  0.5 s",
        "fedavg   round 1/2  accuracy  93.12 %  loss 0.2500  clients 4 of 5  0.5 s",
        "fedavg   round 2/2  accuracy  93.12 %  loss 0.2500  clients 4 of 5  0.5 s",
        "fedavg finished",
        "fednova  round 0/2  accuracy  93.12 %  loss 0.2500  0.5 s",
        "fednova round 1: client 2 failed: ValueError: bad shard",
        "fednova stopped: no valid update in round 1",
    ]


def test_plain_says_where_a_resumed_contestant_goes_on() -> None:
    out = io.StringIO()
    Plain(out).begin([FEDAVG, FEDNOVA], 9, {FEDAVG: -1, FEDNOVA: 4})
    assert "training 9 rounds: fedavg, fednova (from round 5)" in out.getvalue()


def test_quiet_shows_failures_only() -> None:
    out = io.StringIO()
    play(Silent(out))
    assert out.getvalue().splitlines() == [
        "fednova round 1: client 2 failed: ValueError: bad shard",
        "fednova stopped: no valid update in round 1",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_live_leaves_failures_and_steps_above(width: int) -> None:
    console, out = terminal(width)
    play(Live(console))
    lines = lines_of(out.getvalue())
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for seen in ("s  starting Ray", "chi-square p = 0.998", "client 2 failed: ValueError: bad shard"):
        assert seen in text
    assert lines[-1] == "2 of 4 rounds trained in 0:00"
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # the cursor is back


@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize(("strategies", "seeds", "scenarios"), [(4, 1, 1), (4, 5, 1), (4, 5, 3), (30, 3, 2)])
def test_the_live_view_fits_the_terminal(height: int, strategies: int, seeds: int, scenarios: int) -> None:
    entries = [
        Entry(f"scenario-{c}", f"some.package.strategies.Strategy{s}", seed)
        for c in range(scenarios)
        for s in range(strategies)
        for seed in range(seeds)
    ]
    screen = Live(terminal(80, height)[0])
    screen.begin(entries, 10, {})
    for entry in entries:
        screen.round(evaluated(entry, 1))
    screen.step("drawing curves")
    paper, out = terminal(80, height)
    paper.print(screen._frame())
    screen.close()
    frame = lines_of(out.getvalue())
    assert len(frame) <= height
    assert any("about 0:00 left" in line for line in frame)
    rows = [line for line in frame if "93.12 %" in line]
    assert rows and all("Strategy" in line for line in rows)
    if len(entries) > len(rows):
        assert any("means" in line or "more" in line for line in frame)


def test_a_long_scenario_leaves_room_for_the_strategy() -> None:
    scenarios, strategies = ("iid", "label-skew:alpha=0.3+uneven-work"), ("fedavg", "trimmed-mean:trim=2")
    screen = Live(terminal()[0])
    screen.begin([Entry(scenario, name, 0) for scenario in scenarios for name in strategies], 3, {})
    paper, out = terminal()
    paper.print(screen._frame())
    screen.close()
    frame = "\n".join(lines_of(out.getvalue()))
    for seen in ("iid: fedavg", "iid: trimmed-mean:trim=2", "label-skew:alpha=…: fedavg", "labe…: trimmed-mean:trim=2"):
        assert seen in frame


def test_live_shows_means_of_seeds() -> None:
    entries = [Entry("iid", name, seed) for name in ("fedavg", "fednova") for seed in range(10)]
    screen = Live(terminal()[0])
    screen.begin(entries, 3, {})
    for entry in entries:
        screen.round(evaluated(entry, 1, 0.90 if entry.seed < 5 else 0.92))
    paper, out = terminal()
    paper.print(screen._frame())
    screen.close()
    assert re.search(r"fedavg.* 10/30 +91\.00 %", "\n".join(lines_of(out.getvalue())))


def test_no_colour_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, out = terminal()
    play(Live(console))
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[1-7]|38)", out.getvalue())


@pytest.mark.parametrize("make", [Silent, Plain])
def test_many_failures_of_a_round_are_counted_not_listed(make: Callable[[io.StringIO], Screen]) -> None:
    out = io.StringIO()
    screen = make(out)
    screen.begin([FEDAVG], 3, {})
    for client in range(50):
        screen.client(failed(FEDAVG, 1, client))
    screen.round(evaluated(FEDAVG, 1))
    screen.client(failed(FEDAVG, 2, 7))
    text = out.getvalue()
    assert len(re.findall(r"round 1: client \d+ failed", text)) == 5
    assert "fedavg round 1: 45 more failed or rejected (clients.csv)" in text
    assert "round 2: client 7 failed" in text


def test_a_reader_that_left_does_not_stop_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    play(Plain(Closed()))


def test_live_takes_events_from_many_threads() -> None:
    entries = [Entry("iid", f"s{k}", 0) for k in range(8)]
    console, out = terminal()
    screen = Live(console)
    screen.step("starting")
    screen.begin(entries, 20, dict.fromkeys(entries, -1))

    def contestant(entry: Entry) -> None:
        for number in range(21):
            screen.client(failed(entry, number, 1))
            screen.round(evaluated(entry, number))
            console.print("a line from elsewhere")
        screen.ended(entry, None)

    threads = [threading.Thread(target=contestant, args=(entry,), daemon=True) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    screen.step("drawing curves")
    screen.close()
    text = "\n".join(lines_of(out.getvalue()))
    assert "\n160 rounds trained in" in text
    assert text.count("client 1 failed") == 8 * 21


def test_the_screen_fits_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_screen(quiet=True), Silent)
    assert isinstance(open_screen(quiet=False), Plain)
    assert isinstance(open_screen(quiet=False, console=Console(file=io.StringIO())), Plain)
    live = open_screen(quiet=False, console=terminal()[0])
    assert isinstance(live, Live)
    live.close()


def test_a_log_costs_no_import_of_rich() -> None:
    code = "import sys; from server.screen import open_screen; open_screen(False); sys.exit('rich' in sys.modules)"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, stdout=subprocess.PIPE, env=dict(os.environ))


def test_a_step_that_comes_further_stays_one_step() -> None:
    def train(screen: Screen) -> None:
        screen.step("training local models: 0 of 2")
        screen.progress("training local models: 1 of 2")
        screen.progress("training local models: 2 of 2")
        screen.step("matching")
        screen.close()

    console, out = terminal()
    train(Live(console))
    over = [line.strip() for line in lines_of(out.getvalue()) if re.match(r" *\d+\.\d s  ", line)]
    assert [line.split(" s  ", 1)[1] for line in over] == ["training local models: 2 of 2", "matching"]
    plain = io.StringIO()
    train(Plain(plain))
    assert [line.split(" s  ", 1)[1] for line in plain.getvalue().splitlines()] == [
        "training local models: 0 of 2 ...",
        "training local models: 1 of 2",
        "training local models: 2 of 2",
        "matching ...",
    ]
    errors = io.StringIO()
    train(Silent(errors))
    assert errors.getvalue() == ""
