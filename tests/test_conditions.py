"""What a scenario does in the rounds: who misses one, who works how much, who is late, what attackers send."""

import math
from itertools import permutations, product
from statistics import NormalDist

import numpy as np
import pytest
from flwr.app import ConfigRecord
from inline_grid import InlineGrid, mover

from server.attacks import ATTACKS
from server.conditions import Conditions, Fate
from server.federation import Federation
from server.results import Entry
from server.rounds import Contestant, run_rounds
from server.stop import Stop
from strategies.gate import Expected, screen
from strategies.specify import make_strategy
from task import wire
from task.errors import UserError
from task.scenario import scenario_of

phi = NormalDist().cdf
X = [np.zeros((2, 2), np.float32), np.zeros(3, np.float64)]


def conditions(text, clients=5, seed=0):
    return Conditions(scenario_of(text), seed, clients)


def fates(text, rounds=400, clients=5, seed=0):
    """By round and client."""
    drawn = conditions(text, clients, seed)
    return [[drawn.fate(r, k) for k in range(clients)] for r in range(1, rounds + 1)]


# Fates --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["iid", "label-skew:alpha=0.1+outlier", "byzantine:attack=label-flip"])
def test_what_is_in_the_data_does_nothing_in_the_rounds(text):
    assert {fate for one in fates(text, 5) for fate in one} == {Fate()}


def test_rounds_are_missed_with_the_probability_asked_for():
    missed = np.array([[bool(f.missed) for f in one] for one in fates("dropout:p=0.3")])
    assert abs(missed.mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)
    # Independent between clients: the number of a round is binomial with variance 5 * 0.21 = 1.05, whose standard error
    # over 400 rounds is about 1.05 * sqrt(2 / 400).
    assert abs(missed.sum(axis=1).var() - 1.05) < 4 * 1.05 * math.sqrt(2 / 400)
    # And between rounds: twice in a row with probability 0.09.
    assert abs((missed[1:] & missed[:-1]).mean() - 0.09) < 0.03
    assert {f.missed for one in fates("dropout:p=0.3", 9) for f in one} == {"", "dropout: missed this round"}


def test_every_number_of_epochs_is_as_likely_as_any_other():
    epochs = [f.epochs for one in fates("uneven-work") for f in one]
    assert sorted(set(epochs)) == [1, 2, 3, 4, 5]
    assert all(abs(epochs.count(e) - 400) < 4 * math.sqrt(2000 * 0.2 * 0.8) for e in range(1, 6))
    assert {f.epochs for one in fates("uneven-work:low=3,high=3", 5) for f in one} == {3}


def test_slow_devices_are_the_same_in_all_rounds():
    assert {tuple(f.epochs for f in one) for one in fates("uneven-work:low=2,high=7,slow=2", 50)} == {
        tuple(2 if k in conditions("uneven-work:slow=2").slow else 7 for k in range(5))
    }
    assert len(conditions("uneven-work:slow=2").slow) == 2
    assert len({conditions("uneven-work:slow=2", seed=seed).slow for seed in range(20)}) > 5  # of 10 pairs


def test_late_updates_are_as_many_as_the_lognormal_times_say():
    late = np.array([[bool(f.late) for f in one] for one in fates("straggler:slow=2")])
    slow = sorted(conditions("straggler:slow=2").slow)
    others = [k for k in range(5) if k not in slow]
    # Slow: 3 exp(0.3 z) > 2 where z > ln(2 / 3) / 0.3; the others: exp(0.3 z) > 2 where z > ln(2) / 0.3.
    for clients, expected in [(slow, 1 - phi(math.log(2 / 3) / 0.3)), (others, 1 - phi(math.log(2) / 0.3))]:
        draws = 400 * len(clients)
        assert abs(late[:, clients].mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def test_without_spread_the_slow_client_is_always_late_and_says_by_how_much():
    slow = conditions("straggler").slow
    for one in fates("straggler:spread=0", 5):
        assert {k for k, f in enumerate(one) if f.late} == slow
        assert {f.late for f in one} == {"", "late: would have taken 3 of the deadline's 2 rounds' time"}
        assert {f.share for f in one} == {1.0}
    assert not any(f.late for one in fates("straggler:spread=0,factor=2", 5) for f in one)  # just in time


def test_partial_work_is_the_share_until_the_deadline():
    (slow,) = conditions("straggler").slow
    shares = np.array([[f.share for f in one] for one in fates("straggler:spread=0,factor=8,partial=true", 3)])
    assert (shares == [[0.25 if k == slow else 1 for k in range(5)]] * 3).all()
    drawn = [one[slow] for one in fates("straggler:partial=true", 2000)]
    assert not any(f.late for f in drawn)
    # 2 / (3 exp(0.3 z)) is below s where z > ln(2 / (3 s)) / 0.3: half of them below 2 / 3.
    for s in [0.5, 2 / 3, 0.9]:
        expected = 1 - phi(math.log(2 / (3 * s)) / 0.3)
        assert abs(np.mean([f.share < s for f in drawn]) - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)


@pytest.mark.parametrize("partial", ["true", "false"])
def test_no_time_is_too_long_to_be_told(partial):
    for one in fates(f"straggler:factor=1e300,spread=1e300,deadline=1e-320,partial={partial}", 5):
        assert all(0 < f.share <= 1 for f in one)
        assert all(len(f.late) < 80 for f in one)


def test_parts_compose_missed_before_late():
    drawn = fates("dropout:p=0.5+uneven-work+straggler:deadline=0.1,spread=0", 50)
    assert {(bool(f.missed), bool(f.late)) for one in drawn for f in one} == {(True, False), (False, True)}
    plain = fates("dropout:p=0.5", 50)
    assert [[f.missed for f in one] for one in drawn] == [[f.missed for f in one] for one in plain]
    both = fates("uneven-work+straggler:partial=true", 50)
    assert [[f.epochs for f in one] for one in both] == [[f.epochs for f in one] for one in fates("uneven-work", 50)]
    assert any(f.share < 1 for one in both for f in one)


def test_the_fewer_slow_ones_of_two_parts_are_among_the_more():
    drawn = conditions("uneven-work:slow=1+straggler:slow=3,spread=0")
    lazy = {k for k in range(5) if drawn.fate(1, k).epochs == 1}
    late = {k for k in range(5) if drawn.fate(1, k).late}
    assert (len(lazy), len(late)) == (1, 3)
    assert lazy < late == drawn.slow


def test_a_round_is_the_same_whenever_and_by_whomever_it_is_asked_for():
    text = "dropout:p=0.3+uneven-work+straggler:partial=true"
    forth = fates(text, 30)
    drawn = conditions(text)
    back = {(r, k): drawn.fate(r, k) for r, k in reversed(list(product(range(1, 31), range(5))))}
    assert all(back[r, k] == forth[r - 1][k] for r, k in back)
    assert fates(text, 30, seed=1) != forth


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("byzantine:attackers=5", "5 attackers of 5 clients leave nobody honest"),
        ("byzantine:attackers=6", "6 attackers of 5 clients leave nobody honest"),
        ("straggler:slow=6", r"\b6\b.*\bslow\b.*\b5\b"),
        ("uneven-work:slow=6", r"\b6\b.*\bslow\b.*\b5\b"),
        ("byzantine:attack=sign-flip,strength=2", "has no strength"),
    ],
)
def test_what_cannot_be_is_refused(text, told):
    with pytest.raises(UserError, match=told):
        conditions(text)


# Replies ------------------------------------------------------------------------------------------------------------


def replies(clients):
    """A reply of each client to X, and the number of the client at each node."""
    grid = InlineGrid(clients)
    record = wire.record(X)
    messages = [wire.train_message(node, record, ConfigRecord({"epochs": 1})) for node in grid.nodes.values()]
    return list(grid.send_and_receive(messages)), {node: client for client, node in grid.nodes.items()}


def turned(text, clients, order=None, server_round=1):
    """What reaches the strategy, by client, in the order in which it comes."""
    came, client_of = replies(clients)
    came = [came[i] for i in order] if order else came
    through = conditions(text, len(clients)).turn(server_round, X, came, client_of)
    return {client_of[message.metadata.src_node_id]: message for message in through}


def movers(count=5):
    """Client k adds k + 1."""
    return {k: mover(k + 1, number=k) for k in range(count)}


def arrays(message):
    return wire.arrays_of(message.content.array_records["arrays"])


def bits(messages):
    return {client: [a.tobytes() for a in arrays(message)] for client, message in messages.items()}


def text_of(attack, attackers=1):
    return f"byzantine:attack={attack},attackers={attackers}"


@pytest.mark.parametrize("attack", ATTACKS)
def test_only_the_arrays_of_attackers_are_changed(attack):
    came = turned("iid", movers())
    went = turned(text_of(attack, 2), movers())
    attackers = conditions(text_of(attack, 2)).attackers
    assert len(attackers) == 2
    for k in range(5):
        assert went[k].content.metric_records == came[k].content.metric_records
        assert went[k].metadata.src_node_id == 100 + k
        assert went[k].metadata.reply_to_message_id == came[k].metadata.reply_to_message_id
        assert [(a.dtype, a.shape) for a in arrays(went[k])] == [(a.dtype, a.shape) for a in X]
        assert (bits(went)[k] != bits(came)[k]) == (k in attackers)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_order_of_replies_changes_nothing(attack):
    text = text_of(attack, 2)
    expected = bits(turned(text, movers(4)))
    for order in permutations(range(4)):
        assert bits(turned(text, movers(4), order)) == expected


def test_what_came_is_not_written_to():
    came, client_of = replies(movers())
    before = [[a.tobytes() for a in arrays(message)] for message in came]
    list(conditions("byzantine:attackers=2").turn(1, X, came, client_of))
    assert [[a.tobytes() for a in arrays(message)] for message in came] == before
    assert not any(a.any() for a in X)


@pytest.mark.parametrize(("attack", "held"), [("sign-flip", False), ("ipm", True)])
def test_replies_are_passed_on_at_once_and_only_those_that_need_others_wait(attack, held):
    came, client_of = replies(movers())
    drawn = conditions(text_of(attack))
    (attacker,) = drawn.attackers
    came.sort(key=lambda message: client_of[message.metadata.src_node_id] != attacker)  # the attacker first
    taken = []
    through = drawn.turn(1, X, (taken.append(message) or message for message in came), client_of)
    seen = [(client_of[message.metadata.src_node_id], len(taken)) for message in through]
    others = [k for k in range(5) if k != attacker]
    if held:
        assert seen == [*zip(others, [2, 3, 4, 5], strict=True), (attacker, 5)]
    else:
        assert seen == list(zip([attacker, *others], [1, 2, 3, 4, 5], strict=True))


def test_noise_is_new_for_every_round_and_client():
    rounds = [turned("byzantine:attack=gaussian,attackers=2", movers(), server_round=r) for r in (1, 2, 1)]
    attackers = conditions("byzantine:attack=gaussian,attackers=2").attackers
    drawn = [bits(one)[k][0] for one in rounds[:2] for k in attackers]
    assert len(set(drawn)) == 4
    assert bits(rounds[0]) == bits(rounds[2])


def failing(given, config):
    raise OSError("shard gone")


def poisoned(given, config):
    return [a + np.asarray(np.nan, a.dtype) for a in given], 10, {}


def misshapen(given, config):
    return [a[:1] for a in given], 10, {}


@pytest.mark.parametrize("attack", ["ipm", "alie", "mimic"])
def test_who_failed_or_will_be_refused_is_not_among_those_seen(attack):
    (attacker,) = conditions(text_of(attack)).attackers
    honest = [k for k in range(5) if k != attacker]
    bad = dict(zip(honest, [failing, poisoned, misshapen], strict=False))
    went = turned(text_of(attack), movers() | bad)
    one = honest[3] + 1  # the only one left moved by so much: it is the mean, it does not deviate
    assert arrays(went[attacker])[0][0, 0] == {"ipm": -0.5 * one, "alie": one, "mimic": one}[attack]
    assert went[honest[0]].error.reason == "OSError: shard gone"
    assert np.isnan(arrays(went[honest[1]])[0]).all()


@pytest.mark.parametrize("attack", ["ipm", "alie", "mimic"])
def test_attackers_that_see_nobody_send_what_they_trained(attack):
    attackers = conditions(text_of(attack, 2)).attackers
    clients = {k: mover(k + 1, number=k) if k in attackers else failing for k in range(5)}
    went = turned(text_of(attack, 2), clients)
    assert {k for k, message in went.items() if not message.has_error()} == attackers
    assert all(arrays(went[k])[0][0, 0] == k + 1 for k in attackers)


@pytest.mark.parametrize("attack", ["sign-flip", "ipm"])
@pytest.mark.parametrize("broken", [failing, misshapen])
def test_what_an_attacker_could_not_train_passes_untouched(attack, broken):
    (attacker,) = conditions(text_of(attack)).attackers
    clients = movers() | {attacker: broken}
    came, went = turned("iid", clients)[attacker], turned(text_of(attack), clients)[attacker]
    assert went.has_error() == came.has_error()
    assert went.has_error() or bits({0: went}) == bits({0: came})


def test_the_gate_refuses_only_the_attacker_that_sends_nan():
    came, client_of = replies(movers())
    drawn, verdicts = conditions("byzantine:attack=nan"), []
    passed = list(screen(drawn.turn(1, X, came, client_of), Expected(X), report=verdicts.append))
    refused = {client_of[v.node_id]: v.reason for v in verdicts if v.status != "ok"}
    assert refused == dict.fromkeys(drawn.attackers, "array 0 holds values that are not finite (NaN or infinity)")
    assert len(passed) == 4
    assert all((update.arrays[0] == client_of[m.metadata.src_node_id] + 1).all() for m, update in passed)


# Rounds -------------------------------------------------------------------------------------------------------------


class Rows:
    """A journal of clients' rows."""

    def __init__(self):
        self.clients = []

    def client(self, row, verdict):
        self.clients.append(row)

    def round(self, row, arrays, memory, local): ...

    def again(self, entry, server_round, reason): ...

    def back(self, entry, server_round, reason): ...


def play(text, strategy, rounds=1, first=1, start=X):
    """Global arrays after so many rounds, and the clients' rows."""
    grid, rows = InlineGrid(movers()), Rows()
    contestant = Contestant(
        Entry("scenario", strategy, 0),
        make_strategy(strategy),
        Federation(grid, grid.nodes, lambda seconds: None),
        {"epochs": 1, "seed": 0},
        None,
        lambda arrays: (0.0, 1.0),
        conditions=conditions(text),
    )
    return run_rounds(contestant, start, first, rounds, rows, Stop()), rows.clients


def moved(text, strategy, rounds=1):
    final, rows = play(text, strategy, rounds)
    assert all((a == a.flat[0]).all() for a in final)
    return float(final[0].flat[0]), rows


# The one attacker of five, and what it and the honest ones add to every coordinate.
(ATTACKER,) = conditions("byzantine").attackers
OWN = ATTACKER + 1
HONEST = [k + 1 for k in range(5) if k != ATTACKER]
MEAN = sum(HONEST) / 4
# The deviations of 4 of 1..5 from their mean, 3 below the sum.
STD = math.sqrt(sum((step - MEAN) ** 2 for step in HONEST) / 3)


@pytest.mark.parametrize(
    ("attack", "sent"),
    [
        ("attack=sign-flip", -OWN),
        ("strength=4", -4 * OWN),
        ("attack=scaled-sign-flip", -10 * OWN),
        ("attack=same-value,strength=7", 7),
        ("attack=ipm", -0.5 * MEAN),
        ("attack=mimic", min(HONEST)),
        ("attack=alie,strength=1.5", MEAN - 1.5 * STD),
    ],
)
@pytest.mark.parametrize("rounds", [1, 3])
def test_the_plain_mean_goes_where_the_attack_takes_it(attack, sent, rounds):
    final, rows = moved(f"byzantine:{attack}", "fedavg", rounds)
    assert final == pytest.approx(rounds * (sum(HONEST) + sent) / 5, rel=1e-6)
    assert {row.status for row in rows} == {"ok"}


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed-mean:trim=1", "multi-krum:attackers=1", "geometric-median"])
def test_robust_rules_stay_among_the_honest(strategy):
    final, _ = moved("byzantine:attack=scaled-sign-flip", strategy)
    assert min(HONEST) <= final <= max(HONEST)
    if strategy == "fedmedian":
        assert final == sorted([*HONEST, -10 * OWN])[2]


@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy.FedAvg"])
def test_nan_harms_nobody_else(strategy):
    final, rows = moved("byzantine:attack=nan", strategy)
    assert final == MEAN
    assert [(row.client, row.status) for row in rows if row.status != "ok"] == [(ATTACKER, "rejected")]


def test_absent_clients_are_named_and_a_run_goes_on_from_any_round():
    text = "dropout:p=0.4+byzantine:attack=same-value,strength=3"
    whole, rows = play(text, "fedavg", 6)
    half, _ = play(text, "fedavg", 3)
    resumed, _ = play(text, "fedavg", 6, 4, half)
    assert [a.tobytes() for a in resumed] == [a.tobytes() for a in whole]
    drawn = conditions(text)
    absent = {(r, k) for r in range(1, 7) for k in range(5) if drawn.fate(r, k).missed}
    assert absent
    assert {(row.round, row.client) for row in rows if row.status == "failed"} == absent
    assert {row.reason for row in rows if row.status == "failed"} == {"dropout: missed this round"}
    present = [[k for k in range(5) if (r, k) not in absent] for r in range(1, 7)]
    steps = [[3 if k == ATTACKER else k + 1 for k in one] for one in present]
    assert whole[0][0, 0] == pytest.approx(sum(sum(one) / len(one) for one in steps if one), rel=1e-6)
