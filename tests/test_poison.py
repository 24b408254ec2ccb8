"""Who makes the global model unusable is found, named and rejected; the others come to the bits of a run without it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from inline_grid import Client, InlineGrid
from test_checkpoint import CONFIG, Run, assert_same
from test_rounds import Notes, contestant

from server.checkpoint import Checkpoints, Saved
from server.examine import FACTOR, culprits, most_left_out
from server.recorder import Recorder
from server.results import Entry, RunFolder
from server.rounds import Stopped, Terms, run_rounds
from server.stop import Stop
from task import wire
from task.config import parse
from task.update import Arrays

X = [np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32)]
TOO_LARGE = 1e6  # local training overflows from here on
Fit = tuple[Arrays, int, dict[str, Any]]


def honest(k: int) -> Client:
    """Moves by some 0.1 to 0.3, differently in each round; its training overflows where the model is too large."""

    def fit(arrays: Arrays, config: dict[str, Any]) -> Fit:
        draw = np.random.default_rng([k, config["server-round"]])
        moved = [a - np.float32(0.1) * a + draw.normal(0, 0.1, a.shape).astype(a.dtype) for a in arrays]
        if max(float(np.abs(a).max()) for a in arrays) > TOO_LARGE:
            moved = [a * np.nan for a in moved]
        return moved, 10 + k, {"client": k, "local_norm": 2.0 + k, "local_steps": 3, "train_loss": 0.5}

    return fit


class Grid(InlineGrid):
    """Corrections of SCAFFOLD make training overflow as well."""

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        large = any(np.abs(c).max() > TOO_LARGE for c in wire.correction_of(message).values())
        if large and not reply.has_error():
            arrays, _ = wire.read(message)
            return wire.with_arrays(reply, [a * np.nan for a in arrays])
        return reply


def hostile(k: int, rounds: set[int], attack: Callable[[Fit, Arrays], Fit]) -> Client:
    def fit(arrays: Arrays, config: dict[str, Any]) -> Fit:
        own = honest(k)(arrays, config)
        return attack(own, arrays) if config["server-round"] in rounds else own

    return fit


def failing(k: int, rounds: set[int]) -> Client:
    def fail(own: Fit, x: Arrays) -> Fit:
        raise OSError("gone")

    return hostile(k, rounds, fail)


def norm(value: float) -> Callable[[Fit, Arrays], Fit]:
    return lambda own, x: (own[0], own[1], {**own[2], "local_norm": value})


def far(value: float) -> Callable[[Fit, Arrays], Fit]:
    return lambda own, x: ([np.full_like(a, value) for a in x], *own[1:])


def test_loss(arrays: Arrays) -> tuple[float, float]:
    """As of a network: it overflows where the model is far too large, later than training does."""
    top = max(float(np.abs(a).max()) for a in arrays)
    return float(arrays[0][0, 0]) / 100, np.nan if top > 1e20 else top


test_loss.__test__ = False  # type: ignore[attr-defined]


class Told(Notes):
    """A journal as that of a run: of a round that is played again only the last try stays."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: list[tuple[int, str]] = []

    def again(self, entry: Entry, server_round: int, reason: str) -> None:
        self.repeated.append((server_round, reason))
        self.clients = [row for row in self.clients if row.round < server_round]

    def back(self, entry: Entry, server_round: int, reason: str) -> Saved | None:
        self.repeated.append((server_round, reason))
        return super().back(entry, server_round, reason)


def play(strategy: str, clients: dict[int, Client], rounds: int = 4, stops: str = "", **terms: Any) -> Told:
    told = Told()
    one = replace(contestant(Grid(clients), strategy), terms=Terms(**terms), evaluate=test_loss)
    if stops:
        with pytest.raises(Stopped, match=stops):
            run_rounds(one, X, 0, rounds, told, Stop())
    else:
        run_rounds(one, X, 0, rounds, told, Stop())
    return told


def bits(some: Any) -> Any:
    if isinstance(some, dict):
        return {name: bits(arrays) for name, arrays in some.items()}
    return [a.tobytes() for a in some]


def rounds_of(told: Told) -> list[Any]:
    return [replace(row, seconds=0, bytes_up=0) for row in told.rounds]


def assert_as_if_failed(told: Told, plain: Told, bad: set[tuple[int, int]], reason: str = "unusable") -> None:
    """Everything is as in a run in which the client failed in these (round, client), but for what is told of it."""
    assert list(map(bits, told.models)) == list(map(bits, plain.models))
    assert list(map(bits, told.memories)) == list(map(bits, plain.memories))
    assert rounds_of(told) == rounds_of(plain)
    assert told.local == plain.local
    rows = {(row.round, row.client): row for row in told.clients}
    assert len(rows) == len(told.clients) == len(plain.clients), "each client once in each round"
    assert {at for at, row in rows.items() if row.status != "ok"} == bad
    assert all(rows[at].status == "rejected" and reason in rows[at].reason for at in bad)


# One client ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "attack"),
    [
        ("fednova", norm(1e-300)),  # not finite at once
        ("fednova", norm(5e-324)),  # 1 / norm is infinite: the rule raises
        ("fednova", norm(1e90)),  # in the range of a norm, and tau_eff is beyond float32
        ("fednova", norm(1e-15)),  # finite, and the next round's training overflows
        ("scaffold", norm(1e-300)),
        ("scaffold", norm(5e-324)),
        ("scaffold", norm(1e-30)),  # the model is as it should be: the memory is not
        ("fedavg", far(1e30)),
        ("fedavg", far(1e12)),  # the test loss is still finite
        ("weighted", far(1e12)),
        ("fedprox", far(1e12)),
        ("fedavgm", far(1e30)),
        ("fedavgm", far(1e12)),
        ("scaffold", far(1e12)),
        ("matched", far(1e12)),
    ],
)
def test_who_makes_the_model_unusable_is_rejected_in_that_round(strategy: str, attack: Any):
    others = {k: honest(k) for k in range(3)}
    plain = play(strategy, {**others, 3: failing(3, {2})})
    told = play(strategy, {**others, 3: hostile(3, {2}, attack)}, quorum=3)
    assert_as_if_failed(told, plain, {(2, 3)})
    assert [number for number, _ in told.repeated] == [2]
    assert "played again to find whose updates made it so" in told.repeated[0][1]


@pytest.mark.parametrize(
    ("strategy", "attack"), [("fednova", norm(1e-300)), ("fedavg", far(1e30)), ("fedavgm", far(1e30))]
)
def test_the_last_round_as_well_and_every_round(strategy: str, attack: Any):
    """Nobody trains from the last model: its test loss shows it."""
    every, others = {1, 2, 3, 4}, {k: honest(k) for k in range(3)}
    plain = play(strategy, {**others, 3: failing(3, every)})
    told = play(strategy, {**others, 3: hostile(3, every, attack)})
    assert_as_if_failed(told, plain, {(number, 3) for number in every})
    assert [number for number, _ in told.repeated] == [1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["fedadam", "fedyogi", "fedmedian", "krum:attackers=1", "centered-clipping"])
def test_what_a_rule_bounds_is_no_reason(strategy: str):
    """The update of 1e30 is used, as the rule has it; what comes out is finite, and the honest clients train on."""
    told = play(strategy, {**{k: honest(k) for k in range(4)}, 4: hostile(4, {2}, far(1e30))})
    assert {row.status for row in told.clients} == {"ok"} and told.repeated == []


# Colluders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "attacks"),
    [
        ("fednova", (norm(1e-300), norm(1e-300))),
        ("fednova", (norm(1e-300), norm(1e-20))),
        ("fedavg", (far(1e30), far(1e30))),
        ("fedavg", (far(1e30), far(-9e29))),  # without the one the other goes as far
        ("fedavg", (far(1e30), far(1e15))),  # without the one the other is still there
    ],
)
def test_colluders_are_found_and_nobody_else(strategy: str, attacks: Any):
    others, bad = {k: honest(k) for k in (0, 2, 4)}, (1, 3)
    plain = play(strategy, {**others, **{k: failing(k, {2}) for k in bad}})
    mad = {k: hostile(k, {2}, attack) for k, attack in zip(bad, attacks, strict=True)}
    assert_as_if_failed(play(strategy, {**others, **mad}, quorum=3), plain, {(2, k) for k in bad})


def means_of(values: list[float]) -> Callable[[tuple[int, ...]], dict[str, float]]:
    return lambda some: {"step": abs(sum(values[i] for i in some)) / len(some)}


def test_of_many_clients_the_few_are_found_and_of_half_nobody():
    values = [1 + 0.01 * k for k in range(200)]
    bad = {3, 4, 5, 77, 199}
    spoiled = [1e9 if k in bad else value for k, value in enumerate(values)]
    asked: list[tuple[int, ...]] = []
    sizes = means_of(spoiled)
    assert culprits(lambda some: asked.append(some) or sizes(some), 200, 99).keys() == bad  # type: ignore[func-returns-value]
    assert sum(map(len, asked)) < 50 * 200, "the cost grows with the clients, not with their square"
    assert culprits(sizes, 200, len(bad) - 1) == {}, "never below the quorum"
    assert culprits(means_of([1, 1, 1e9, 1e9]), 4, most_left_out(4, 1)) == {}
    assert culprits(means_of([1, 1, FACTOR * 2]), 3, 1) == {}, "the mean of the three is less than 100 times as long"
    assert [most_left_out(n, 1) for n in range(6)] == [0, 0, 0, 1, 1, 2]
    assert most_left_out(5, 4) == 1 and most_left_out(3, 3) == 0


# Nobody's fault -----------------------------------------------------------------------------------------------------


def diverging(k: int, spread: float) -> Client:
    """As with a learning rate that is far too large; with a spread some clients go much farther than others."""

    def fit(arrays: Arrays, config: dict[str, Any]) -> Fit:
        own = honest(k)(arrays, config)
        return [own[0][i] - np.float32(300 * spread**k) * a for i, a in enumerate(arrays)], *own[1:]

    return fit


def flipped(own: Fit, x: Arrays) -> Fit:
    return [a - 10 * (b - a) for a, b in zip(x, own[0], strict=True)], *own[1:]


@pytest.mark.parametrize("strategy", ["fedavg", "fednova", "fedavgm", "scaffold", "fedadam:learning_rate=1e9"])
@pytest.mark.parametrize(("spread", "attackers"), [(1.1, 0), (1.1, 1), (200.0, 0)])
def test_where_all_diverge_nobody_is_named_and_all_ends_as_without_an_examination(
    strategy: str, spread: float, attackers: int, monkeypatch: pytest.MonkeyPatch
):
    """Neither is an attacker that sends ten times what honest clients send, as simulated ones do."""
    stops = r"^round \d brought no valid update from 4 clients"
    clients = {k: diverging(k, spread) for k in range(4)}
    if attackers:
        own = clients[3]
        clients[3] = lambda arrays, config: flipped(own(arrays, config), arrays)  # type: ignore[arg-type,return-value]
    told = play(strategy, clients, 9, stops)
    assert told.repeated or spread < 100, "an examination took place"
    monkeypatch.setattr("server.rounds._Course._unusable", lambda *_: "")
    monkeypatch.setattr("server.rounds._Course._back", lambda *_: None)
    plain = play(strategy, clients, 9, stops)
    assert list(map(bits, told.models)) == list(map(bits, plain.models))
    assert (rounds_of(told), told.local) == (rounds_of(plain), plain.local)
    here, there = ({(r.round, r.client, r.status, r.reason) for r in some.clients} for some in (told, plain))
    assert here == there and len(told.clients) == len(plain.clients)


@pytest.mark.parametrize("strategy", ["flwr.serverapp.strategy.FedAvg", "fedavg"])
def test_where_no_examination_is_possible_the_largest_update_is_told(strategy: str, monkeypatch: pytest.MonkeyPatch):
    """What strategies of others remember is not known, and a checkpoint may be damaged."""
    monkeypatch.setattr(Told, "back", lambda *_: None)
    message = (
        r"^round 3 brought 0 valid updates from 4 clients, 3 are needed \(4 of 4 were not finite\); in round 2 the "
        r"largest update is that of client 3 \(norm 3e\+12\)$"
    )
    clients = {**{k: honest(k) for k in range(3)}, 3: hostile(3, {2}, far(1e12))}
    play(strategy, clients, 4, message, quorum=3)


# On a disk ----------------------------------------------------------------------------------------------------------


class Spoiled(Run):
    """A run with a hostile client in round 2, and copies of its folder as a kill at these moments would leave it."""

    client = staticmethod(hostile(3, {2}, far(1e12)))

    def contestant(self, name: str) -> Any:
        clients = {**{k: honest(k) for k in range(3)}, 3: self.client}
        one = contestant(Grid(clients), name)
        return replace(one, evaluate=lambda arrays: (0.5, test_loss(arrays)[1]))


@pytest.mark.parametrize("strategy", ["fedavgm", "scaffold"])
def test_killed_while_it_goes_back_a_run_comes_to_the_same_bits_and_rows(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = parse({**CONFIG.model_dump(), "strategies": [strategy], "clients": 4})
    copies: list[Path] = []

    def copy() -> None:
        copies.append(tmp_path / f"killed-{len(copies)}")
        shutil.copytree(tmp_path / "whole", copies[-1])

    back, drop = Recorder.back, Checkpoints.drop

    def watched_back(self: Recorder, *args: Any) -> Any:
        copy()  # round 2 is finished, round 3 is not
        saved = back(self, *args)
        copy()
        return saved

    def watched_drop(self: Checkpoints, *args: Any) -> None:
        drop(self, *args)
        copy()  # the checkpoint is gone, its rows are not

    whole = Spoiled(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "back", watched_back)
        patch.setattr(Checkpoints, "drop", watched_drop)
        hashes = whole.play(resume=False)
    assert len(copies) == 3 and hashes
    with RunFolder.resume(whole.path) as folder:
        assert set(folder.complete().values()) == {config.rounds}
    for copied in copies:
        assert_same(resumed := Spoiled(copied, config), resumed.play(resume=True), (whole, hashes))
    plain = Spoiled(tmp_path / "plain", config)
    plain.client = failing(3, {2})  # type: ignore[method-assign]
    assert plain.play(resume=False) == hashes
    assert sum("unusable" in row for row in whole.rows("clients.csv")) == 1


# A bound relative to the round's median -----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "flwr.serverapp.strategy.FedAvg"])
def test_updates_far_beyond_the_rounds_median_are_rejected(strategy: str):
    others = {k: honest(k) for k in range(3)}
    plain = play(strategy, {**others, 3: failing(3, {2, 3})})
    told = play(strategy, {**others, 3: hostile(3, {2, 3}, far(20.0))}, max_relative_norm=10.0)
    assert_as_if_failed(told, plain, {(2, 3), (3, 3)}, "the bound 10 times the round's median of ")
    assert told.repeated == []


@pytest.mark.parametrize(
    "clients", [[honest(0), hostile(1, {1}, far(1e3))], [lambda x, _: (x, 1, {})] * 3 + [honest(3)]]
)
def test_a_median_that_says_nothing_is_no_bound(clients: list[Client]):
    """Of two updates none is the usual one; where most clients stay, nothing is known of those that move."""
    told = play("fedavg", dict(enumerate(clients)), 1, max_relative_norm=2.0)
    assert {row.status for row in told.clients} == {"ok"}
