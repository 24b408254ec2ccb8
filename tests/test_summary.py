"""Who leads, who coincided and why: said plainly, truthfully, and in 80 columns."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.coincidences import coincidences
from server.names import labels, short_names
from server.report.read import ReadRun
from server.results import ClientRow, Entry, RoundRow
from server.statistics.diverged import diverged, gave_up
from server.statistics.pairs import compare
from server.statistics.panel import panels_of
from server.summary import Outcome, summarise, summary_table
from server.verdict import stops, verdict
from server.weighting import weighting


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


def said(rounds: list[RoundRow], ended: dict[Entry, str] | None = None) -> list[str]:
    """The verdict, computed as for a finished run."""
    panels = panels_of(rounds, gave_up(ended or {}))
    return verdict(panels, [row for panel in panels for row in compare(panel, {})], diverged(rounds, ended or {}))


def final(strategy: str, *accuracies: float, scenario: str = "iid") -> list[RoundRow]:
    """One round with as many seeds as there are accuracies."""
    return [row for seed, a in enumerate(accuracies) for row in curve(strategy, 0.1, a, seed=seed, scenario=scenario)]


UP = (0.1, 0.5, 0.9312)


def test_one_contestant_in_numbers() -> None:
    [one] = summarise(reversed(curve("fedavg", 0.1, 0.9, 0.96, 0.95)))
    assert (one.rounds, one.final_accuracy, one.best_accuracy, one.best_round) == (3, 0.95, 0.96, 2)
    assert (one.target, one.to_target, one.to_95, one.rejected) == (0.9, (1, True), (2, True), 4)
    assert (one.seconds, one.bytes_up, one.bytes_down) == (2.0, 8_000_000, 4_000_000)


def test_never_reached_is_a_dash() -> None:
    table = summary_table(summarise(curve("fedavg", *UP) + curve("slow", 0.1, 0.2, 0.3)))
    assert table.headers[:6] == ("strategy", "final %", "best %", "in", "to 90", "to 95")
    assert [row[:6] for row in table.rows] == [
        ("fedavg", "93.12", "93.12", "2", "2", "-"),
        ("slow", "30.00", "30.00", "2", "-", "-"),
    ]


def test_the_target_of_the_run_is_in_the_table() -> None:
    table = summary_table(summarise(curve("fedavg", 0.1, 0.5, 0.9), target=0.5))
    assert table.headers[4] == "to 50" and table.rows[0][4] == "1"
    assert "50 %" in table.note


def test_several_seeds_give_mean_interval_and_median_rounds() -> None:
    rows = curve("a", 0.1, 0.92, seed=0) + curve("a", 0.1, 0.5, 0.94, seed=1) + curve("a", 0.1, 0.2, 0.5, 0.9, seed=2)
    table = summary_table(summarise(rows))
    assert table.headers[:6] == ("strategy", "final %", "±", "best %", "in", "to 90")
    # sd 2.00, and the 0.975 quantile of t with 2 degrees of freedom is 4.3027: 4.3027 * 2 / sqrt(3) = 4.968.
    assert table.rows[0][:6] == ("a", "92.00", "4.97", "92.00", "2", "2")
    [row] = summary_table(summarise(rows + curve("a", 0.1, *[0.2] * 5, seed=3) + curve("a", *[0.1] * 6, seed=4))).rows
    assert row[5] == "3"  # the middle of 1, 2, 3, never, never
    rows += [row for seed in (3, 4, 5, 6) for row in curve("a", *[0.1] * 6, seed=seed)]
    assert summary_table(summarise(rows)).rows[0][5] == "-"  # three of seven: fewer than half


def test_a_run_that_gave_up_is_no_reason_to_say_that_half_got_there() -> None:
    rows = curve("a", 0.1, 0.2, 0.9, seed=0) + curve("a", 0.1, seed=1) + curve("a", 0.1, seed=2)
    gone = [Entry("iid", "a", 1), Entry("iid", "a", 2)]
    assert summary_table(summarise(rows, 0.9, gone, gone)).rows[0][5] == "-"  # one of three
    assert summary_table(summarise(rows)).rows[0][5] == "2"  # they have not come to round 2 yet: all who have are there


def test_diverged_runs_have_a_column_where_there_are_any() -> None:
    rows = final("a", 0.9, 0.9) + final("b", 0.9, 0.05)
    assert "div." not in summary_table(summarise(rows)).headers
    table = summary_table(summarise(rows, lost=diverged(rows, {})))
    assert [row[table.headers.index("div.")] for row in table.rows] == ["0", "1"]
    assert "div.: runs that diverged" in table.note


@given(
    strategies=st.lists(st.text("abcdefghij.:=", min_size=1, max_size=60), min_size=1, max_size=6, unique=True),
    seeds=st.integers(1, 3),
    scenarios=st.lists(st.sampled_from(["iid", "dirichlet:alpha=0.3"]), min_size=1, unique=True),
    size=st.integers(0, 10**15),
    seconds=st.floats(0, 1e6),
    lost=st.booleans(),
)
def test_the_table_fits_80_columns(
    strategies: list[str], seeds: int, scenarios: list[str], size: int, seconds: float, lost: bool
) -> None:
    rows = [
        RoundRow(scenario, strategy, seed, 100, 1.0, math.nan if lost else 0.0, 5, 99, size, size, seconds)
        for scenario in scenarios
        for strategy in strategies
        for seed in range(seeds)
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(summarise(rows, lost=diverged(rows, {}))).rich())
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in out.getvalue()
    assert sum(line.count("100.00") for line in lines) == 2 * len(strategies) * len(scenarios)


def test_one_seed_never_makes_a_win() -> None:
    [line] = said(curve("fedavg", *UP) + curve("fedmedian", 0.1, 0.4, 0.9282))
    assert line == (
        "fedavg leads after 2 rounds with 93.12 %: 0.30 points before fedmedian (92.82 %). "
        "One seed: no interval, the gap may be noise."
    )


def test_a_lead_within_the_noise_asks_for_more_seeds() -> None:
    # Differences -1, 3, 4 points: mean 2, sd 2.646, effect 0.756. Power 0.8 at 5 % two-sided: 16 pairs (15.8).
    [line] = said(final("fedavg", 0.90, 0.94, 0.95) + final("fednova", 0.91, 0.91, 0.91))
    assert line == (
        "fedavg leads after 1 round with 93.00 ± 6.57 % (95 % interval, 3 seeds). "
        "More seeds are needed to judge the gap to fednova (about 16)."
    )


def test_a_win_is_told_with_interval_and_p() -> None:
    # Differences 61, 60, 62, 61, 61 points: mean 61, sd 0.7071, t quantile 2.7764 * 0.31623 = 0.878.
    rows = final("fedavg", 0.30, 0.31, 0.29, 0.30, 0.30) + final("trimmed", *[0.91] * 5)
    assert said(rows) == [
        "trimmed leads after 1 round with 91.00 ± 0.00 % (95 % interval, 5 seeds). "
        "It is better than fedavg by 61.00 points (95 % 60.12 to 61.88, p < 0.0001)."
    ]


def test_many_that_are_beaten_share_a_sentence() -> None:
    rows = final("best", 0.90, 0.92, 0.91, 0.93, 0.94)
    for k, name in enumerate("abc"):
        rows += final(name, *(0.5 + k / 10 + wobble / 100 for wobble in (9 - k, 1, 7, k, 2)))
    [line] = said(rows)
    assert re.search(r"It is better than a, b and c by 18\.\d\d to 38\.\d\d points \(each p <= 0\.00\d+\)\.$", line)


def test_a_small_difference_is_none() -> None:
    rows = final("a", 0.900, 0.910, 0.920, 0.915, 0.905) + final("b", 0.901, 0.909, 0.920, 0.914, 0.905)
    assert said(rows)[0].endswith("No difference from b is shown (within 1 point).")


def test_ties_are_ties() -> None:
    assert said(curve("fedavg", *UP) + curve("weighted", *UP)) == [
        "fedavg and weighted stand together at 93.12 % after 2 rounds."
    ]
    assert said(curve("fedavg", *UP)) == ["fedavg stands at 93.12 % after 2 rounds."]
    assert said(curve("fedavg", 0.1)) == ["No round was finished."]
    assert said([]) == []


def test_strategies_that_are_the_same_are_named_together() -> None:
    rows = [row for name in ("fedavg", "weighted") for row in final(name, 0.91, 0.92, 0.93)]
    [line] = said([*rows, *final("slow", 0.30, 0.31, 0.33)])
    assert line.startswith("fedavg and weighted lead after 1 round with 92.00 ± 2.48 %")
    assert "fedavg and weighted are better than slow by 60.67 points" in line
    [line] = said([*rows, *final("quick", 0.991, 0.992, 0.996)])
    assert "It is better than fedavg and weighted by 7.30 points" in line


def test_strategies_that_tie_without_being_the_same_are_both_named() -> None:
    [line] = said(final("a", 0.50, 0.75) + final("a2", 0.50, 0.75) + final("b", 0.75, 0.50))
    assert line.startswith("a, a2 and b lead after 1 round with 62.50 ±")
    assert line.endswith("(95 % interval, 2 seeds). More seeds are needed to tell them apart (over 1000).")


def test_strategies_are_compared_in_the_same_round() -> None:
    long, short = curve("fedavg", *[0.1] * 9, 0.8, 0.95), curve("fednova", *[0.1] * 9, 0.9)
    assert said(long + short)[0].startswith("fednova leads after 9 rounds with 90.00 %: 10.00 points before fedavg")


def test_a_run_that_gave_up_counts_with_its_last_model_and_an_interrupted_one_does_not() -> None:
    rows = curve("fedavg", *[0.1] * 9, 0.8, 0.95) + curve("fednova", 0.1, 0.9)
    gone = Entry("iid", "fednova", 0)
    [line] = said(rows, {gone: "round 2 brought no valid update from 5 clients"})
    assert line.startswith("fedavg leads after 10 rounds with 95.00 %: 5.00 points before fednova (90.00 %)")
    assert said(rows, {gone: "interrupted"})[0].startswith("fednova leads after 1 round")


def test_runs_that_ended_worse_than_they_began_are_counted() -> None:
    rows = final("a", 0.9, 0.91, 0.92) + final("b", 0.05, 0.05, 0.92)
    assert said(rows)[0].endswith("Diverged, so ended worse than the initial model: b (2 of 3 seeds).")


def test_scenarios_are_judged_apart() -> None:
    rows = curve("a", *UP) + curve("b", *UP) + curve("a", *UP, scenario="skew") + curve("b", 0.1, 0.2, scenario="skew")
    assert [line.split(" with")[0] for line in said(rows)] == [
        "iid: a and b stand together at 93.12 % after 2 rounds.",
        "skew: a leads after 1 round",
    ]


def test_who_stopped_is_said_with_the_reason() -> None:
    rows = curve("fedavg", *UP) + curve("fednova", 0.1)
    ended = {Entry("iid", "fedavg", 0): "finished", Entry("iid", "fednova", 0): "no valid update in round 1."}
    assert stops(rows, ended) == [
        "fednova stopped after round 0: no valid update in round 1.",
        "In later rounds a run that gave up counts with the last model that it had.",
    ]
    both = dict.fromkeys([Entry(s, "fedavg", seed) for s in ("iid", "skew") for seed in range(3)], "finished")
    lost = {**both, Entry("iid", "fedavg", 0): "lost", Entry("iid", "fedavg", 2): "lost"}
    assert stops([], lost)[0] == "iid: fedavg (seeds 0 and 2) stopped after round 0: lost."
    many = {Entry("iid", "fedavg", seed): "interrupted" for seed in range(9)}
    assert stops([row for seed in range(9) for row in curve("fedavg", *UP, seed=seed)], many) == [
        "9 contestants stopped after round 2: interrupted."
    ]


WEIGHTS_BY = {
    "fedavg": "clients",
    "fedmedian": "clients",
    "weighted": "examples",
    "fednova": "examples",
    "fedprox:mu=1": "examples",
}


def weighed(strategies: str, shards: dict[str, list[int]], known: dict[str, str] | None = None) -> list[str]:
    """What is said of the weighting in a run of these strategies with these shards, by scenario."""
    names = strategies.split()
    rounds = [row for scenario in shards for name in names for row in curve(name, *UP, scenario=scenario)]
    clients = [
        row for scenario, n in shards.items() for name in names for row in work(name, n, [None] * 3, [1] * 3, scenario)
    ]
    run = {"config": {"strategies": names}, "weights_by": WEIGHTS_BY if known is None else known}
    outcome = Outcome.read(ReadRun(Path("run"), run, rounds, clients, []))
    return [line for line in outcome.verdict if "by examples" in line]


def test_unequal_shards_name_the_strategies_whose_difference_may_be_the_weighting() -> None:
    assert weighed("fedavg weighted fednova fedmedian fedprox:mu=1", {"skew": [60, 1900, 300]}) == [
        "fedavg and fedmedian count clients alike; weighted, fednova and fedprox:mu=1 weigh by examples. With these "
        "unequal shards (60 to 1,900 examples) a difference between the two kinds may be the weighting alone: compare "
        "fednova and fedprox:mu=1 with weighted."
    ]
    assert weighed("fedavg fednova", {"iid": [80, 80, 80], "skew": [60, 900, 300], "b": [1, 2, 3]}) == [
        "fedavg counts clients alike; fednova weighs by examples. With the unequal shards of skew (60 to 900 examples) "
        "and b (1 to 3 examples) a difference between the two kinds may be the weighting alone: compare fednova with "
        "weighted, which this run does not have."
    ]
    assert weighed("fedavg weighted", {"skew": [60, 900, 300]})[0].endswith("may be the weighting alone.")


@pytest.mark.parametrize(
    ("strategies", "shards", "known"),
    [
        ("fedavg fednova", [287, 288, 287], None),  # dealt as evenly as 862 examples can be
        ("fedavg fedmedian", [60, 900, 300], None),
        ("weighted fednova", [60, 900, 300], None),
        ("fedavg other.Strategy", [60, 900, 300], None),  # nobody knows what it weighs by
        ("fedavg fednova", [60, 900, 300], {}),  # a run of an older version
    ],
)
def test_where_the_weighting_makes_no_difference_it_is_not_spoken_of(
    strategies: str, shards: list[int], known: dict[str, str] | None
) -> None:
    assert weighed(strategies, {"skew": shards}, known) == []


def test_a_rejected_reply_has_no_say_in_whether_shards_are_equal() -> None:
    rounds = [row for name in ("fedavg", "fednova") for row in curve(name, *UP)]
    lies = [replace(row, status="rejected", num_examples=7) for row in work("fedavg", [80] * 3, [None] * 3, [1] * 3)]
    assert weighting(panels_of(rounds, []), [*equal_work("fedavg fednova"), *lies], WEIGHTS_BY) == []


def test_the_page_has_a_column_for_what_a_strategy_weighs_by() -> None:
    summaries = summarise(curve("fedavg", *UP) + curve("other", *UP))
    table = summary_table(summaries, WEIGHTS_BY)
    assert [row[-1] for row in (table.headers, *table.rows)] == ["weights by", "clients", "-"]
    assert summary_table(summaries, {}) == summary_table(summaries)


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
        ("fedmedian trimmed-mean", [8] * 4, [5.0] * 4, [5] * 4, "in trimmed-mean of 4 updates or fewer only the middle "
         "is left when 1 are trimmed a side"),
        ("fedmedian trimmed-mean", [8] * 5, [5.0] * 5, [5] * 5, "reason unknown"),
        ("fedmedian trimmed-mean:trim=2", [8] * 6, [5.0] * 6, [5] * 6, "in trimmed-mean:trim=2 of 6 updates or fewer "
         "only the middle is left when 2 are trimmed a side"),
        ("weighted fedprox:mu=0", UNEQUAL, [5.0] * 3, [5] * 3, "in fedprox:mu=0 mu is 0"),
        ("weighted fedprox:mu=0.1", UNEQUAL, [5.0] * 3, [5] * 3, "reason unknown"),
        ("weighted fedavgm:momentum=0", UNEQUAL, [5.0] * 3, [5] * 3, "in fedavgm:momentum=0 the server has no "
         "momentum"),
        ("fedavg multi-krum:keep=3", UNEQUAL, [5.0] * 3, [5] * 3, "in multi-krum:keep=3 all updates were kept"),
        ("fedavg multi-krum:keep=2", UNEQUAL, [5.0] * 3, [5] * 3, "reason unknown"),
        ("weighted trimmed-mean:trim=0", [8] * 3, [5.0] * 3, [5] * 3, "in trimmed-mean:trim=0 nothing was trimmed; "
         "equal shards (8 examples each) " + PLAIN),
    ],
)  # fmt: skip
def test_the_reason_is_the_condition_that_held(
    names: str, examples: list[int], norms: list[float | None], steps: list[int], reason: str
) -> None:
    rounds = [row for name in names.split() for row in curve(name, *UP)]
    clients = [row for name in names.split() for row in work(name, examples, norms, steps)]
    [sentence] = sentences(rounds, clients)
    assert sentence.endswith(f"coincided to the bit: {reason}.")


def test_without_a_single_update_every_rule_is_the_same() -> None:
    clients = [replace(row, status="failed") for row in equal_work("fedavg my.Rule")]
    [sentence] = sentences(curve("fedavg", *UP) + curve("my.Rule", *UP), clients)
    assert sentence.endswith("coincided to the bit: no client's update was ever used.")


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
