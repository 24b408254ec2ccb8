"""The round loop: rows, sampling, failures, streaming, stopping, checkpoints."""

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from inline_grid import InlineGrid, mover

from server import checkpoint
from server.checkpoint import Saved
from server.conditions import Fate
from server.contest import FINISHED, Contest, Start
from server.federation import Federation
from server.results import Entry
from server.rounds import Contestant, Stopped, Terms, choose, run_rounds
from server.stop import Stop
from strategies.scaffold import with_members
from strategies.specify import make_strategy
from task import wire

X = [np.zeros((2, 2), np.float32)]


class Notes:
    """A journal that keeps everything."""

    def __init__(self):
        self.clients, self.rounds, self.models, self.ends = [], [], [], {}
        self.memories, self.local = [], []

    def client(self, row, verdict):
        self.clients.append(row)

    def round(self, row, arrays, memory, local):
        self.rounds.append(row)
        self.models.append(arrays)
        self.memories.append(memory)
        self.local += local

    def reached(self, milestone): ...

    def again(self, entry, server_round, reason): ...

    def back(self, entry, server_round, reason):
        kept = [i for i, row in enumerate(self.rounds) if row.round < server_round]
        if not kept or len(self.models) < len(self.rounds):
            return None
        self.rounds, self.models, self.memories = (
            [some[i] for i in kept] for some in (self.rounds, self.models, self.memories)
        )
        self.clients = [row for row in self.clients if row.round < server_round]
        self.local = [row for row in self.local if row.round < server_round]
        return Saved(server_round - 1, self.models[-1], self.memories[-1])

    def ended(self, entry, reason):
        self.ends[entry] = reason


def contestant(grid: InlineGrid, strategy: str = "fedavg", sample: int | None = None, seed: int = 0) -> Contestant:
    return Contestant(
        Entry("iid", strategy, seed),
        make_strategy(strategy),
        Federation(grid, grid.nodes, lambda seconds: None),
        {"epochs": 1, "seed": seed},
        sample,
        lambda arrays: (float(arrays[0][0, 0]) / 100, 1.0),
    )


def play(grid, strategy="fedavg", rounds=3, **options):
    notes = Notes()
    final = run_rounds(contestant(grid, strategy, **options), X, 0, rounds, notes, Stop())
    return final, notes


def test_rows_of_rounds_and_clients():
    grid = InlineGrid({0: mover(1, 10, number=0), 1: mover(3, 30, number=1)})
    final, notes = play(grid, "weighted")
    assert final[0].tolist() == [[7.5, 7.5], [7.5, 7.5]]
    assert [row.round for row in notes.rounds] == [0, 1, 2, 3]
    assert [row.test_accuracy for row in notes.rounds] == [0, 0.025, 0.05, 0.075]
    assert (notes.rounds[0].clients_ok, notes.rounds[0].bytes_up) == (0, 0)
    sent = len(X[0].tobytes()) + 128  # an .npy header
    assert {(r.clients_ok, r.clients_rejected, r.bytes_up, r.bytes_down) for r in notes.rounds[1:]} == {
        (2, 0, 2 * sent, 2 * sent)
    }
    rows = sorted(notes.clients, key=lambda row: (row.round, row.client))[:2]
    assert [(r.round, r.client, r.num_examples, r.local_steps, r.local_norm, r.status) for r in rows] == [
        (1, 0, 10, 3, 1.0, "ok"),
        (1, 1, 30, 3, 1.0, "ok"),
    ]
    assert [config["server-round"] for config in grid.configs] == [1, 1, 2, 2, 3, 3]


def failing(rounds: set[int]):
    def fit(arrays, config):
        if config["server-round"] in rounds:
            raise OSError("shard gone")
        return mover(1)(arrays, config)

    return fit


def test_a_client_that_raises_is_named_and_the_round_goes_on():
    final, notes = play(InlineGrid({0: mover(1), 1: failing({2}), 2: mover(1)}))
    assert final[0][0, 0] == 3
    bad = [row for row in notes.clients if row.status != "ok"]
    assert [(row.round, row.client, row.status, row.reason) for row in bad] == [(2, 1, "failed", "OSError: shard gone")]
    assert [(row.clients_ok, row.clients_rejected) for row in notes.rounds] == [(0, 0), (3, 0), (2, 1), (3, 0)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fednova", "flwr.serverapp.strategy.FedAvg"])
def test_without_a_valid_update_the_contestant_stops_with_what_it_has(strategy):
    notes = Notes()
    with pytest.raises(Stopped, match="round 2 brought no valid update from 2 clients"):
        run_rounds(contestant(InlineGrid({0: failing({2}), 1: failing({2})}), strategy), X, 0, 5, notes, Stop())
    assert [row.round for row in notes.rounds] == [0, 1]
    assert [row.status for row in notes.clients if row.round == 2] == ["failed", "failed"]


def test_poison_never_reaches_a_strategy_of_others():
    poison = lambda arrays, config: ([a * np.nan for a in arrays], 10, {"client": 1})  # noqa: E731
    final, notes = play(InlineGrid({0: mover(1, norm=None), 1: poison}), "flwr.serverapp.strategy.FedAvg")
    assert final[0].tolist() == [[3, 3], [3, 3]]
    assert {row.status for row in notes.clients if row.client == 1} == {"rejected"}


def test_strategies_of_others_hold_their_state_and_keep_the_models_dtype():
    final, _ = play(InlineGrid({0: mover(1), 1: mover(2)}), "flwr.serverapp.strategy.FedAdam:eta=0.5")
    assert final[0].dtype == np.float32
    assert final[0][0, 0] > 0


def test_a_strategy_that_raises_stops_itself_alone():
    with pytest.raises(Stopped, match="the strategy failed in round 1: "):
        play(InlineGrid({0: mover(1)}), "flwr.serverapp.strategy.QFedAvg:client_learning_rate=0.1")


def test_replies_in_any_order_give_the_same_bits():
    random = np.random.default_rng(1)
    noise = {k: random.normal(size=(2, 2)).astype(np.float32) for k in range(7)}

    def noisy(k):
        return lambda arrays, config: ([arrays[0] + noise[k]], 10 + k, {"client": k, "local_norm": 1.0 + k})

    def shuffled(replies):
        return [replies[i] for i in random.permutation(len(replies))]

    for strategy in ("fedavg", "weighted", "fednova", "fedmedian", "flwr.serverapp.strategy.FedAvg"):
        plain, _ = play(InlineGrid({k: noisy(k) for k in range(7)}), strategy)
        for _ in range(5):
            mixed, _ = play(InlineGrid({k: noisy(k) for k in range(7)}, shuffled), strategy)
            assert mixed[0].tobytes() == plain[0].tobytes()


def test_sampled_clients_are_the_same_for_every_strategy_and_change_with_round_and_seed():
    asked = {}
    for strategy in ("fedavg", "fedmedian", "flwr.serverapp.strategy.FedAvg"):
        grid = InlineGrid({k: mover(1, number=k) for k in range(10)})
        play(grid, strategy, sample=4)
        asked[strategy] = [sorted(nodes) for nodes in grid.asked]
    assert asked["fedavg"] == asked["fedmedian"] == asked["flwr.serverapp.strategy.FedAvg"]
    assert all(len(nodes) == 4 for nodes in asked["fedavg"])
    assert len({tuple(nodes) for nodes in asked["fedavg"]}) > 1
    assert choose(range(10), 4, 0, 1) != choose(range(10), 4, 1, 1)
    assert choose(range(3), None, 0, 1) == choose(range(3), 5, 0, 1) == [0, 1, 2]


def test_means_hold_one_model_and_not_one_per_client(monkeypatch):
    """While 40 clients report one after the other, few of their arrays are alive at any time."""
    received = weakref.WeakValueDictionary()
    read = wire.read_reply

    def remember(message, like):
        update, facts = read(message, like)
        received[len(received_ever)] = update.arrays[0]
        received_ever.append(None)
        return update, facts

    monkeypatch.setattr(wire, "read_reply", remember)
    monkeypatch.setattr("server.drift._KEPT_BYTES", 0)  # what it keeps for the cosines of small models
    most = {}
    for strategy in ("fedavg", "weighted", "fednova", "fedmedian"):
        received_ever: list[None] = []
        chosen = contestant(InlineGrid({k: mover(1, number=k) for k in range(40)}), strategy)
        alive, all_at_once = [], chosen.federation.grid.pull_messages

        def one_at_a_time(ids, alive=alive, all_at_once=all_at_once):
            alive.append(len(received))
            return all_at_once(sorted(ids)[:1])

        chosen.federation.grid.pull_messages = one_at_a_time
        run_rounds(chosen, X, 0, 1, Notes(), Stop())
        most[strategy] = max(alive)
    assert most["fedmedian"] >= 39  # it needs them all: the count works
    assert max(most[name] for name in ("fedavg", "weighted", "fednova")) <= 12


def test_stop_ends_a_waiting_contestant_at_once():
    grid = InlineGrid({0: mover(1)})
    grid.pull_messages = lambda ids: []
    stop, notes = Stop(), Notes()
    chosen = contestant(grid)
    contest = Contest([chosen], {chosen.entry: Start(-1, X)}, 3, notes, stop)
    threading.Timer(0.2, stop.set).start()
    contest.run()
    assert contest.endings[chosen.entry].ended == "interrupted"
    assert contest.endings[chosen.entry].round == 0
    assert notes.ends == {chosen.entry: "interrupted"}


def test_a_contest_goes_on_from_where_each_contestant_was():
    def new(strategy):
        return contestant(InlineGrid({0: mover(1), 1: mover(3)}), strategy)

    whole, part = new("weighted"), new("weighted")
    notes = Notes()
    contest = Contest([whole], {whole.entry: Start(-1, X)}, 4, notes, Stop())
    contest.run()
    resumed = Contest([part], {part.entry: Start(2, notes.models[2])}, 4, Notes(), Stop())
    resumed.run()
    assert resumed.endings[part.entry].sha256 == contest.endings[whole.entry].sha256
    assert contest.endings[whole.entry].ended == FINISHED


# Scenarios ----------------------------------------------------------------------------------------------------------


class Planned:
    """Conditions that are written down: by round and client."""

    def __init__(self, fates):
        self.fates = fates
        self.attackers = frozenset()

    def fate(self, server_round, client):
        return self.fates.get((server_round, client), Fate())

    def turn(self, server_round, x, replies, client_of):
        yield from replies


@pytest.mark.parametrize("strategy", ["weighted", "flwr.serverapp.strategy.FedAvg"])
def test_who_misses_a_round_is_named_and_the_others_work_as_planned(strategy):
    grid = InlineGrid({k: mover(k + 1, number=k) for k in range(3)})
    fates = {
        (1, 0): Fate(missed="dropout"),
        (1, 1): Fate(epochs=4),
        (2, 1): Fate(late="too slow"),
        (2, 2): Fate(share=0.5),
    }
    chosen, notes = replace(contestant(grid, strategy), conditions=Planned(fates)), Notes()
    final = run_rounds(chosen, X, 0, 3, notes, Stop())
    assert list(map(sorted, grid.asked)) == [[101, 102], [100, 102], [100, 101, 102]]
    told = [(config["server-round"], config["epochs"], config.get("work-share", 1)) for config in grid.configs]
    assert sorted(told) == [(1, 1, 1), (1, 4, 1), (2, 1, 0.5), (2, 1, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    assert final[0][0, 0] == np.float32(2.5 + 2 + 2)
    absent = [(r.round, r.client, r.status, r.reason) for r in notes.clients if r.status != "ok"]
    assert absent == [(1, 0, "failed", "dropout"), (2, 1, "failed", "too slow")]
    sent = notes.rounds[3].bytes_down // 3
    assert [row.bytes_down // sent for row in notes.rounds] == [0, 2, 3, 3]  # who is late got the model
    assert [(row.clients_ok, row.clients_rejected) for row in notes.rounds] == [(0, 0), (2, 1), (2, 1), (3, 0)]


def test_a_round_that_all_miss_leaves_the_model_as_it_was():
    grid = InlineGrid({k: mover(1, number=k) for k in range(2)})
    chosen, notes = contestant(grid), Notes()
    fates = {(2, 0): Fate(missed="gone"), (2, 1): Fate(missed="gone")}
    final = run_rounds(replace(chosen, conditions=Planned(fates)), X, 0, 3, notes, Stop())
    assert final[0][0, 0] == 2
    assert [row.clients_ok for row in notes.rounds] == [0, 2, 0, 2]
    assert notes.rounds[2].test_accuracy == notes.rounds[1].test_accuracy


def test_clients_measure_themselves_in_the_rounds_that_are_asked_for():
    grid = InlineGrid({0: mover(1), 1: mover(3, number=1)})
    run_rounds(replace(contestant(grid), measures=lambda number: number == 2), X, 0, 3, Notes(), Stop())
    assert [config.get("measure", False) for config in grid.configs] == [False] * 2 + [True] * 2 + [False] * 2


def test_drift_is_told_beside_the_global_step():
    grid = InlineGrid({0: mover(3, number=0), 1: mover(-1, number=1)})
    notes = Notes()
    run_rounds(contestant(grid), X, 0, 1, notes, Stop())
    assert [(row.client, row.update_norm, row.cosine) for row in notes.local] == [
        (0, pytest.approx(6), pytest.approx(1)),  # four values moved by 3; the mean moved by +1
        (1, pytest.approx(2), pytest.approx(-1)),
    ]


# Members ------------------------------------------------------------------------------------------------------------


def without(grid: InlineGrid, revoked=(), late=(), strategy: str = "fedavg", **terms) -> Contestant:
    """A contestant of the clients of a grid and of those who are absent, who are at no node."""
    nodes = grid.nodes | {client: -1 - client for client in (*revoked, *late)}
    plain = contestant(grid, strategy)
    federation = replace(plain.federation, nodes=nodes)
    return replace(plain, federation=federation, revoked=lambda: revoked, late=lambda: late, terms=Terms(**terms))


@pytest.mark.parametrize("strategy", ["weighted", "scaffold", "flwr.serverapp.strategy.FedAvg"])
def test_numbers_of_clients_may_have_holes(strategy):
    grid = InlineGrid({k: mover(k, number=k) for k in (0, 2, 7)})
    final, notes = play(grid, strategy, rounds=2)
    assert final[0][0, 0] == pytest.approx(6)
    assert sorted((row.round, row.client) for row in notes.clients) == [(r, k) for r in (1, 2) for k in (0, 2, 7)]
    if strategy == "scaffold":
        assert set(notes.memories[-1]) == {"c", "client-0", "client-2", "client-7"}
    sampled, _ = play(InlineGrid({k: mover(1, number=k) for k in (0, 2, 7)}), strategy, sample=2)
    assert sampled[0][0, 0] == 3


@pytest.mark.parametrize("strategy", ["weighted", "scaffold", "flwr.serverapp.strategy.FedAvg"])
def test_a_revoked_member_is_told_of_in_every_round_and_asked_nothing(strategy):
    grid, notes = InlineGrid({k: mover(k, number=k) for k in (0, 2)}), Notes()
    final = run_rounds(without(grid, [1, 3], [5], strategy, quorum=2), X, 0, 2, notes, Stop())
    assert final[0][0, 0] == 2
    assert [sorted(nodes) for nodes in grid.asked] == [[100, 102]] * 2
    told = sorted((r.round, r.client, r.status, r.reason) for r in notes.clients if r.status != "ok")
    reasons = {1: "the client was revoked", 3: "the client was revoked"}
    reasons[5] = "the client has not come since the server started"
    assert told == [(n, k, "failed", reason) for n in (1, 2) for k, reason in reasons.items()]
    assert [(row.clients_ok, row.clients_rejected) for row in notes.rounds[1:]] == [(2, 3)] * 2
    if strategy == "scaffold":  # whoever is late counts in its N, whoever is revoked does not
        c = notes.memories[1]["c"][0][0, 0]
        assert c == pytest.approx(sum(notes.memories[1][f"client-{k}"][0][0, 0] for k in (0, 2)) / 3)


def test_what_scaffold_remembers_of_a_member_goes_with_it():
    grid, notes = InlineGrid({k: mover(k + 1, number=k) for k in range(3)}), Notes()
    run_rounds(without(grid, strategy="scaffold"), X, 0, 1, notes, Stop())
    whole = notes.memories[1]
    gone = replace(without(grid, strategy="scaffold"), revoked=lambda: [1])
    gone.remember(whole)
    run_rounds(gone, notes.models[1], 2, 2, notes, Stop())
    assert set(whole) - set(notes.memories[2]) == {"client-1"}
    left = with_members(whole, [0, 2])
    assert left["c"][0] == pytest.approx((whole["client-0"][0] + whole["client-2"][0]) / 2)
    assert with_members(whole, [0, 1, 2, 9]) is whole and with_members(whole, [9]) == {} == with_members({}, [1])
    straight, rounds = Notes(), iter(range(4))  # who is revoked while a server runs, and before it goes on, is the same
    flips = replace(without(grid, strategy="scaffold"), revoked=lambda: [1] if next(rounds) else [])
    run_rounds(flips, X, 0, 2, straight, Stop())
    assert checkpoint.digest(straight.models[2]) == checkpoint.digest(notes.models[2])
    assert set(straight.clients) == set(notes.clients)


def test_absent_members_count_against_the_quorum():
    grid = InlineGrid({k: mover(k, number=k) for k in (0, 2)})
    with pytest.raises(Stopped, match="round 1 brought 2 valid updates from 3 clients, 3 are needed"):
        run_rounds(without(grid, [1], quorum=3), X, 0, 2, Notes(), Stop())
    with pytest.raises(Stopped, match="round 1 brought no valid update from 2 clients"):
        run_rounds(without(InlineGrid({}), [1], [2]), X, 0, 2, Notes(), Stop())


def test_a_late_client_joins_in_the_next_round_and_costs_no_try_before():
    grid, notes, rounds = InlineGrid({k: mover(k, number=k) for k in range(3)}), Notes(), iter(range(4))
    late = replace(without(grid, quorum=2, tries=1), late=lambda: [2] if next(rounds) < 2 else [])
    run_rounds(late, X, 0, 3, notes, Stop())
    assert [sorted(nodes) for nodes in grid.asked] == [[100, 101]] * 2 + [[100, 101, 102]]
    assert [row.clients_ok for row in notes.rounds] == [0, 2, 2, 3]


def test_stand_ins_are_drawn_for_absent_members_and_change_no_other_round():
    members = [0, 2, 3, 5, 8, 9]
    changed = 0
    for server_round in range(1, 60):
        plain = choose(members, 3, 0, server_round)
        assert plain == [members[i] for i in choose(range(6), 3, 0, server_round)]
        drawn = choose(members, 3, 0, server_round, {2, 5})
        kept = set(plain) - {2, 5}
        assert len(set(drawn)) == 3 and drawn == sorted(drawn) and not {2, 5} & set(drawn) and kept <= set(drawn)
        changed += drawn != plain
        assert (drawn == plain) == (kept == set(plain))
        few = choose(members, 3, 0, server_round, {2, 3, 5, 8})  # two are left: the third is told of as absent
        assert len(few) == 3 and {0, 9} <= set(few)
    assert 0 < changed < 59


# Checkpoints --------------------------------------------------------------------------------------------------------


def test_digest_is_over_c_order_bytes():
    import hashlib

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert checkpoint.digest([array]) == hashlib.sha256(array.tobytes()).hexdigest()
    assert checkpoint.digest([array.T]) == hashlib.sha256(np.ascontiguousarray(array.T).tobytes()).hexdigest()
