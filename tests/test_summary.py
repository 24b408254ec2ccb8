"""Who leads, who coincided and why: said plainly, truthfully, and in 80 columns."""

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.coincidences import coincidences
from server.names import labels, short_names
from server.results import ClientRow, Entry, RoundRow
from server.summary import summarise, summary_table
from server.verdict import stops, verdict


def curve(strategy: str, *accuracies: float, seed: int = 0, scenario: str = "iid") -> list[RoundRow]:
    return [
        RoundRow(scenario, strategy, seed, k, a, 1 - a, 5, 1, 2_000_000, 1_000_000, 0.5)
        for k, a in enumerate(accuracies)
    ]


def work(
    strategy: str,
    examples: list[int],
    norms: list[float | None],
    steps: list[int],
    scenario: str = "iid",
    seed: int = 0,
) -> list[ClientRow]:
    return [
        ClientRow(scenario, strategy, seed, number, k, n, tau, a, 0.1, 0.1, "ok", "")
        for number in (1, 2)
        for k, (n, a, tau) in enumerate(zip(examples, norms, steps, strict=True))
    ]


def equal_work(strategies: str, **where: object) -> list[ClientRow]:
    return [row for name in strategies.split() for row in work(name, [8, 8, 8], [5.0, 5.0, 5.0], [5, 5, 5], **where)]  # type: ignore[arg-type]


def sentences(rounds: list[RoundRow], clients: list[ClientRow], **options: object) -> list[str]:
    return [one.sentence for one in coincidences(rounds, clients, **options)]  # type: ignore[arg-type]


UP = (0.1, 0.5, 0.9312)


def test_one_contestant_in_numbers() -> None:
    [one] = summarise(reversed(curve("fedavg", 0.1, 0.9, 0.96, 0.95)))
    assert (one.rounds, one.final_accuracy, one.best_accuracy, one.best_round) == (3, 0.95, 0.96, 2)
    assert (one.to_90, one.to_95, one.rejected) == (1, 2, 4)
    assert (one.seconds, one.bytes_up, one.bytes_down) == (2.0, 8_000_000, 4_000_000)


def test_never_reached_is_a_dash() -> None:
    table = summary_table(summarise(curve("fedavg", *UP) + curve("slow", 0.1, 0.2, 0.3)))
    assert table.headers[:6] == ("strategy", "final %", "best %", "in", "to 90", "to 95")
    assert [row[:6] for row in table.rows] == [
        ("fedavg", "93.12", "93.12", "2", "2", "-"),
        ("slow", "30.00", "30.00", "2", "-", "-"),
    ]


def test_several_seeds_give_mean_sd_and_median_rounds() -> None:
    rows = curve("a", 0.1, 0.92, seed=0) + curve("a", 0.1, 0.5, 0.94, seed=1) + curve("a", 0.1, 0.2, 0.5, 0.9, seed=2)
    [row] = summary_table(summarise(rows)).rows
    assert row[:6] == ("a", "92.00", "2.00", "92.00", "2", "2")
    [row] = summary_table(summarise(rows + curve("a", 0.1, seed=3) + curve("a", 0.1, seed=4) * 2)).rows
    assert row[5] == "3"  # the middle of 1, 2, 3, never, never


@given(
    strategies=st.lists(st.text("abcdefghij.:=", min_size=1, max_size=60), min_size=1, max_size=6, unique=True),
    seeds=st.integers(1, 3),
    scenarios=st.lists(st.sampled_from(["iid", "dirichlet:alpha=0.3"]), min_size=1, unique=True),
    size=st.integers(0, 10**15),
    seconds=st.floats(0, 1e6),
)
def test_the_table_fits_80_columns(
    strategies: list[str], seeds: int, scenarios: list[str], size: int, seconds: float
) -> None:
    rows = [
        RoundRow(scenario, strategy, seed, 100, 1.0, 0.0, 5, 99, size, size, seconds)
        for scenario in scenarios
        for strategy in strategies
        for seed in range(seeds)
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(summarise(rows)).rich())
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in out.getvalue()
    assert sum(line.count("100.00") for line in lines) == 2 * len(strategies) * len(scenarios)


def test_one_seed_never_makes_a_win() -> None:
    [line] = verdict(curve("fedavg", *UP) + curve("fedmedian", 0.1, 0.4, 0.9282))
    assert line == (
        "fedavg leads after 2 rounds with 93.12 %: 0.30 points before fedmedian (92.82 %). "
        "One seed: no interval, the gap may be noise."
    )


def test_seeds_give_mean_and_spread_and_how_often_but_no_win() -> None:
    rows = []
    for seed, (one, other) in enumerate([(0.90, 0.91), (0.94, 0.91), (0.95, 0.91)]):
        rows += curve("fedavg", 0.1, one, seed=seed) + curve("fednova", 0.1, other, seed=seed)
    assert verdict(rows) == [
        "fedavg leads after 1 round with 93.00 %, sd 2.65: 2.00 points before fednova (91.00 %, sd 0.00), "
        "ahead with 2 of 3 seeds. No interval, so no win is claimed."
    ]


def test_ties_are_ties() -> None:
    assert verdict(curve("fedavg", *UP) + curve("weighted", *UP)) == [
        "fedavg and weighted stand together at 93.12 % after 2 rounds."
    ]
    assert verdict(curve("fedavg", *UP)) == ["fedavg stands at 93.12 % after 2 rounds."]
    assert verdict(curve("fedavg", 0.1)) == ["No round was finished."]
    assert verdict([]) == []


def test_strategies_are_compared_in_the_same_round() -> None:
    long, short = curve("fedavg", *[0.1] * 9, 0.8, 0.95), curve("fednova", *[0.1] * 9, 0.9)
    assert verdict(long + short)[0].startswith("fednova leads after 9 rounds with 90.00 %: 10.00 points before fedavg")
    stopped = curve("fednova", 0.1, 0.99)
    assert verdict(long + stopped) == ["fedavg stands at 95.00 % after 10 rounds."]


def test_scenarios_are_judged_apart() -> None:
    rows = curve("a", *UP) + curve("b", *UP) + curve("a", *UP, scenario="skew") + curve("b", 0.1, 0.2, scenario="skew")
    assert [line.split(" with")[0] for line in verdict(rows)] == [
        "iid: a and b stand together at 93.12 % after 2 rounds.",
        "skew: a leads after 1 round",
    ]


def test_who_stopped_is_said_with_the_reason() -> None:
    rows = curve("fedavg", *UP) + curve("fednova", 0.1)
    ended = {Entry("iid", "fedavg", 0): "finished", Entry("iid", "fednova", 0): "no valid update in round 1."}
    assert stops(rows, ended) == ["fednova stopped after round 0: no valid update in round 1."]
    many = {Entry("iid", "fedavg", seed): "interrupted" for seed in range(9)}
    assert stops([row for seed in range(9) for row in curve("fedavg", *UP, seed=seed)], many) == [
        "9 contestants stopped after round 2: interrupted."
    ]


def test_equal_shards_and_steps_make_three_rules_one() -> None:
    names = "fedavg weighted fednova"
    rounds = [row for name in names.split() for row in curve(name, *UP)] + curve("fedmedian", 0.1, 0.5, 0.93)
    assert sentences(rounds, equal_work(names)) == [
        "fedavg, weighted and fednova coincided to the bit: equal shards (8 examples each) and equal local steps "
        "(5 each) make them one rule (the plain mean)."
    ]


def test_a_difference_in_the_last_bit_is_no_coincidence() -> None:
    other = curve("weighted", *UP)
    other[1] = replace(other[1], test_loss=math.nextafter(other[1].test_loss, 9))
    assert coincidences(curve("fedavg", *UP) + other, equal_work("fedavg weighted")) == []
    assert coincidences(curve("fedavg", 0.1) + curve("weighted", 0.1), []) == []  # only the initial model


def test_different_final_weights_are_no_coincidence() -> None:
    rounds, clients = curve("fedavg", *UP) + curve("weighted", *UP), equal_work("fedavg weighted")
    one, other = Entry("iid", "fedavg", 0), Entry("iid", "weighted", 0)
    assert len(coincidences(rounds, clients, {one: "a", other: "a"})) == 1
    assert len(coincidences(rounds, clients, {one: "a"})) == 1
    assert coincidences(rounds, clients, {one: "a", other: "b"}) == []
    assert len(coincidences(rounds[:-1], clients, {one: "a", other: "b"})) == 1  # weights of different rounds


def test_diverged_runs_can_coincide() -> None:
    rounds = [replace(row, test_loss=math.nan) for row in curve("fedavg", *UP) + curve("weighted", *UP)]
    assert len(coincidences(rounds, equal_work("fedavg weighted"))) == 1


UNEQUAL = [8, 9, 7]
PLAIN, WEIGHTED = (f"make them one rule (the {mean})" for mean in ("plain mean", "mean weighted by examples"))


@pytest.mark.parametrize(
    ("names", "examples", "norms", "steps", "reason"),
    [
        ("fedavg weighted", [8, 8, 8], [1.0, 2.0, 3.0], [1, 2, 3], "equal shards (8 examples each) " + PLAIN),
        ("fedavg weighted", UNEQUAL, [1.0, 1.0, 1.0], [1, 1, 1], "reason unknown"),
        ("weighted fednova", UNEQUAL, [5.0] * 3, [5] * 3, "equal local steps (5 each) " + WEIGHTED),
        ("weighted fednova", UNEQUAL, [5.0] * 3, [4, 5, 6], "equal local norms (5.0 each) " + WEIGHTED),
        ("weighted fednova", UNEQUAL, [5.0, 6.0, 5.0], [5] * 3, "reason unknown"),
        ("fedavg fednova", [8] * 3, [None, None, None], [5] * 3, "reason unknown"),
        ("fedavg fednova", UNEQUAL, [5.0] * 3, [5] * 3, "reason unknown"),
        ("fedavg fedmedian", [8] * 3, [5.0] * 3, [5] * 3, "reason unknown"),
        ("fedavg fedmedian", [8, 9], [5.0] * 2, [5] * 2, "no more than two updates a round " + PLAIN),
        ("fedavg matched", UNEQUAL, [5.0, 6.0, 5.0], [5] * 3, "hidden units that needed no other order " + PLAIN),
        ("weighted matched", UNEQUAL, [5.0] * 3, [5] * 3, "reason unknown"),
        ("fedavg fedmedian", [8], [5.0], [5], "a single update in each round leaves a rule nothing to choose"),
        ("my.Rule other.Rule2", [8] * 3, [5.0] * 3, [5] * 3, "reason unknown"),
    ],
)  # fmt: skip
def test_the_reason_is_the_condition_that_held(
    names: str, examples: list[int], norms: list[float | None], steps: list[int], reason: str
) -> None:
    rounds = [row for name in names.split() for row in curve(name, *UP)]
    clients = [row for name in names.split() for row in work(name, examples, norms, steps)]
    [sentence] = sentences(rounds, clients)
    assert sentence.endswith(f"coincided to the bit: {reason}.")


def test_one_unequal_round_spoils_the_reason() -> None:
    clients = equal_work("fedavg weighted")
    clients[-1] = replace(clients[-1], num_examples=9)
    assert sentences(curve("fedavg", *UP) + curve("weighted", *UP), clients)[0].endswith("reason unknown.")
    clients[-1] = replace(clients[-1], status="failed", num_examples=None, local_norm=None, local_steps=None)
    assert "equal shards" in sentences(curve("fedavg", *UP) + curve("weighted", *UP), clients)[0]


def test_an_unknown_strategy_in_the_group_is_named() -> None:
    rounds = [row for name in ("fedavg", "weighted", "my.pkg.Rule") for row in curve(name, *UP)]
    [sentence] = sentences(rounds, equal_work("fedavg weighted my.pkg.Rule"))
    assert "equal shards" in sentence and sentence.endswith("for Rule the reason is unknown.")


def test_a_coincidence_in_one_scenario_says_which() -> None:
    rounds = curve("fedavg", *UP) + curve("weighted", *UP)
    rounds += curve("fedavg", *UP, scenario="skew") + curve("weighted", 0.1, 0.2, scenario="skew")
    [one] = coincidences(rounds, equal_work("fedavg weighted"))
    assert one.scenarios == ("iid",) and one.sentence.startswith("In iid, fedavg and weighted coincided")


def test_one_seed_that_differs_is_no_coincidence() -> None:
    rounds = curve("fedavg", *UP) + curve("weighted", *UP)
    rounds += curve("fedavg", *UP, seed=1) + curve("weighted", 0.1, 0.2, seed=1)
    assert coincidences(rounds, equal_work("fedavg weighted")) == []


@pytest.mark.parametrize(
    ("strategies", "names"),
    [
        (["fedavg", "flwr.serverapp.strategy.FedAdam"], ["fedavg", "FedAdam"]),
        (["fedavg", "flwr.serverapp.strategy.FedAvg"], ["fedavg", "flwr..FedAvg"]),
        (["a.b.Rule", "a.c.Rule"], ["a.b.Rule", "a.c.Rule"]),
        (["x.Krum:f=1.5", "x.Krum:f=2.5"], ["Krum:f=1.5", "Krum:f=2.5"]),
    ],
)
def test_names_are_short_and_unambiguous(strategies: list[str], names: list[str]) -> None:
    assert list(short_names(strategies).values()) == names


@given(st.lists(st.text("aA.:", min_size=1, max_size=8), unique=True))
def test_two_strategies_never_share_a_name(strategies: list[str]) -> None:
    assert len(set(short_names(strategies).values())) == len(strategies)


def test_labels_say_only_what_differs() -> None:
    one, two = Entry("iid", "fedavg", 0), Entry("iid", "fedavg", 1)
    assert labels([one]) == {one: "fedavg"}
    assert labels([one, two]) == {one: "fedavg seed 0", two: "fedavg seed 1"}
    assert labels([one, Entry("skew", "fedavg", 0)])[one] == "iid: fedavg"
