"""Paired differences, rounds to a target and diverged runs: against hand-computed numbers and other implementations."""

import csv
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from server.results import Entry, LocalRow, RoundRow, RunFolder
from server.statistics.diverged import diverged, gave_up
from server.statistics.holm import holm
from server.statistics.pairs import Comparison, compare
from server.statistics.panel import ROUNDS_TO_TARGET, Metric, panels_of
from server.statistics.power import MOST, seeds_for_signs, seeds_needed
from server.statistics.targets import Time, median_time, targets
from server.statistics.write import write_statistics
from server.summary import Outcome

NO_UPDATE = "round 2 brought no valid update from 5 clients"


def run(
    strategy: str, seed: int, accuracies: Sequence[float], losses: Sequence[float] | None = None, scenario: str = "iid"
) -> list[RoundRow]:
    """One run from round 0; its losses are 1 - accuracy unless given."""
    losses = losses or [1 - a for a in accuracies]
    return [
        RoundRow(scenario, strategy, seed, k, a, loss, 5, 0, 1, 1, 0.1)
        for k, (a, loss) in enumerate(zip(accuracies, losses, strict=True))
    ]


def finals(values: Mapping[str, Sequence[float]], metric: str = "test_accuracy") -> list[RoundRow]:
    """Runs of one round after the initial model, that end with these values, one a seed."""
    if metric == "test_accuracy":
        return [row for name, some in values.items() for k, v in enumerate(some) for row in run(name, k, [0.1, v])]
    return [row for name, some in values.items() for k, v in enumerate(some) for row in run(name, k, [0.1] * 2, [9, v])]


def compared(
    rounds: Sequence[RoundRow],
    metric: str = "test_accuracy",
    ended: Mapping[Entry, str] | None = None,
    target: float | None = None,
) -> dict[tuple[str, str, int], Comparison]:
    """The comparisons of one scenario in one metric, by pair and round."""
    [panel] = panels_of(rounds, gave_up(ended or {}))
    at_end: dict[Metric, Any] = {} if target is None else {ROUNDS_TO_TARGET: panel.rounds_to(target)}
    return {(row.a, row.b, row.round): row for row in compare(panel, at_end) if row.metric == metric}


A = [0.91, 0.93, 0.90, 0.94, 0.92]
B = [0.89, 0.90, 0.90, 0.90, 0.89]


def test_a_pair_by_hand() -> None:
    # Differences 2, 3, 0, 4, 3 points: mean 2.4, squares of the rest .16 .36 5.76 2.56 .36 = 9.2, sd sqrt(9.2 / 4) =
    # 1.51658, error 0.678233; the quantile with 4 degrees of freedom is 2.776445: half 1.88306.
    # t^2 = 5.76 / 0.46 = 12.52174. With 4 degrees of freedom p = 1 - s (1 + (1 - s^2) / 2), s^2 = t^2 / (t^2 + 4) =
    # 0.757895, s = 0.870571: p = 1 - 0.870571 * 1.121053 = 0.024044.
    # Hedges: J = gamma(2) / (sqrt(2) gamma(1.5)) = 1 / (1.414214 * 0.886227) = 0.797885; J * 2.4 / 1.51658 = 1.26267.
    row = compared(finals({"a": A, "b": B}))["a", "b", 1]
    assert (row.scenario, row.metric, row.seeds, row.verdict) == ("iid", "test_accuracy", 5, "better")
    numbers = (row.mean_a, row.mean_b, row.difference, row.low, row.high, row.effect, row.p_adjusted)
    assert numbers == pytest.approx((0.92, 0.896, 0.024, 0.0051694, 0.0428306, 1.26267, 0.024044), rel=1e-4)


def test_one_pair_is_the_paired_t_test_of_scipy() -> None:
    reference = stats.ttest_rel(A, B)
    interval = reference.confidence_interval(0.95)
    row = compared(finals({"a": A, "b": B}))["a", "b", 1]
    assert (row.p_adjusted, row.low, row.high) == pytest.approx((reference.pvalue, *interval), rel=1e-9)


def test_a_is_judged_in_the_sense_of_the_metric() -> None:
    rows = finals({"a": A, "b": B})
    assert compared(rows, "test_loss")["a", "b", 1].verdict == "better"  # its loss is lower
    assert compared(finals({"a": B, "b": A}))["a", "b", 1].verdict == "worse"


def test_five_strategies_are_corrected_by_holm_and_the_interval_has_its_level() -> None:
    random = np.random.default_rng(0)
    values = {name: 0.8 + 0.02 * k + random.normal(0, 0.015, 6) for k, name in enumerate("abcde")}
    rows = compared(finals({name: some.tolist() for name, some in values.items()}))
    pairs = list(rows.values())
    raw = [stats.ttest_rel(values[row.a], values[row.b]).pvalue for row in pairs]
    assert [row.p_adjusted for row in pairs] == pytest.approx(multipletests(raw, method="holm")[1].tolist(), rel=1e-9)
    order = np.argsort(raw)
    rejected = sum(row.p_adjusted < 0.05 for row in pairs)  # type: ignore[operator]
    assert 2 < rejected < 8
    for k, at in enumerate(order):  # Holm's own words: step k = 0, 1, ... has level 0.05 / (10 - k), until one fails
        level = 0.05 / (10 - min(k, rejected))
        interval = stats.ttest_rel(values[pairs[at].a], values[pairs[at].b]).confidence_interval(1 - level)
        assert (pairs[at].low, pairs[at].high) == pytest.approx(tuple(interval), rel=1e-9)


@given(st.lists(st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.just(0.01)), min_size=1, max_size=12))
def test_holm_by_its_definition(p_values: list[float]) -> None:
    """Go through the sorted p-values; stop at the first that is not below alpha / (m - k + 1)."""
    p_adjusted, level = holm(p_values)
    m, stopped, highest = len(p_values), None, 0.0
    for k, at in enumerate(sorted(range(m), key=lambda i: p_values[i]), start=1):
        highest = max(highest, (m - k + 1) * p_values[at])
        assert p_adjusted[at] == min(highest, 1.0)
        if stopped is None and not highest < 0.05:
            stopped = k
        assert (p_adjusted[at] < 0.05) == (stopped is None)
        assert level[at] == 0.05 / (m - (stopped or k) + 1)


@given(
    st.integers(2, 5).flatmap(
        lambda seeds: st.lists(
            st.lists(st.floats(0, 1) | st.integers(80, 90).map(lambda n: n / 100), min_size=seeds, max_size=seeds),
            min_size=2,
            max_size=4,
        )
    )
)  # fmt: skip
def test_an_interval_excludes_zero_exactly_where_the_test_rejects(values: list[list[float]]) -> None:
    rows = compared(finals({f"s{i}": some for i, some in enumerate(values)}))
    assert len(rows) == len(values) * (len(values) - 1) // 2
    for row in rows.values():
        assert row.p_adjusted is not None and 0 <= row.p_adjusted <= 1
        if row.low is None:
            assert row.high is None and not row.verdict.startswith(("better", "worse"))  # five signs are too few
            continue
        assert row.high is not None and row.difference is not None
        assert row.low <= row.difference <= row.high
        assert (row.low > 0 or row.high < 0) == (row.p_adjusted < 0.05) == row.verdict.startswith(("better", "worse"))
        assert row.verdict.startswith("better") == (row.low > 0)


def test_coinciding_strategies_are_one_hypothesis() -> None:
    alone = compared(finals({"a": A, "c": B}))["a", "c", 1]
    rows = compared(finals({"a": A, "b": A, "c": B}))
    assert rows["a", "c", 1].p_adjusted == rows["b", "c", 1].p_adjusted == alone.p_adjusted  # and not twice that
    same = rows["a", "b", 1]
    assert same.verdict == "no difference shown (identical)"
    assert (same.difference, same.low, same.high, same.effect, same.p_adjusted) == (0.0, 0.0, 0.0, None, 1.0)
    turned = compared(finals({"a": A, "c": B, "b": A}))  # c against b is b against c but for the sign
    assert turned["c", "b", 1].p_adjusted == alone.p_adjusted and turned["c", "b", 1].verdict == "worse"


def test_rounds_and_metrics_are_families_of_their_own() -> None:
    rounds = [
        row for k in range(5) for name, v in (("a", A), ("b", B)) for row in run(name, k, [0.1, 0.3 + k / 99, v[k]])
    ]
    rows = compared(rounds)
    assert rows["a", "b", 1].verdict == "no difference shown (identical)"
    assert rows["a", "b", 2].p_adjusted == compared(finals({"a": A, "b": B}))["a", "b", 1].p_adjusted
    [panel] = panels_of(rounds, {})
    assert [(row.round, row.metric) for row in compare(panel, {ROUNDS_TO_TARGET: panel.rounds_to(0.9)})] == [
        (1, "test_accuracy"), (1, "test_loss"), (2, "test_accuracy"), (2, "test_loss"), (2, "rounds_to_target")
    ]  # fmt: skip


def test_one_seed_has_no_interval() -> None:
    row = compared(finals({"a": [0.9], "b": [0.5]}))["a", "b", 1]
    assert row.verdict == "not enough seeds (at least 5 recommended)"
    assert (row.difference, row.low, row.high, row.effect, row.p_adjusted) == (0.4, None, None, None, None)
    assert compared(finals({"a": [0.9], "b": [0.9]}))["a", "b", 1].verdict == "no difference shown (identical)"


def test_two_seeds_have_a_wide_one() -> None:
    # Differences 30 and 10 points: mean 20, error 10; the quantile with 1 degree of freedom is 12.7062.
    row = compared(finals({"a": [0.9, 0.8], "b": [0.6, 0.7]}))["a", "b", 1]
    assert (row.low, row.high) == pytest.approx((-1.07062, 1.47062), abs=1e-5)
    assert row.effect is None  # Hedges' factor is 0 there
    assert row.verdict == "not enough seeds (about 7 needed)"  # effect 20 / 14.14 = 1.414: 6.1


def test_the_same_difference_with_every_seed_is_judged_by_its_sign() -> None:
    """A grid of test images makes equal differences by chance; no spread must not become p = 0."""
    grid = {"a": [0.90, 0.91, 0.95, 0.92, 0.93], "b": [0.87, 0.88, 0.92, 0.89, 0.90]}  # differences agree to rounding
    row = compared(finals(grid))["a", "b", 1]
    assert row.p_adjusted == pytest.approx(2 / 2**5)
    assert (row.low, row.high, row.effect) == (None, None, None) and row.difference == pytest.approx(0.03)
    assert row.verdict == "not enough seeds (about 6 needed)"
    six = {"a": [*grid["a"], 0.5], "b": [*grid["b"], 0.47]}
    row = compared(finals(six))["a", "b", 1]
    assert (row.p_adjusted, row.verdict) == (pytest.approx(0.03125), "better")
    small = {"a": [0.90, 0.91], "b": [0.896, 0.906]}
    assert compared(finals(small))["a", "b", 1].verdict == "no difference shown"
    assert [seeds_for_signs(m) for m in (1, 6, 28)] == [6, 8, 11]  # 2/2^6 < .05, 2/2^8 < .05/6, 2/2^11 < .05/28


def test_no_difference_is_shown_only_within_the_margin() -> None:
    near = {"a": [0.900, 0.910, 0.920], "b": [0.901, 0.909, 0.9205]}
    assert compared(finals(near))["a", "b", 1].verdict == "no difference shown"
    # Differences 1, -1, 2 points: sd 1.5275; planned for 1 point (0.667 is less): effect 0.6547, 21 pairs (20.4).
    row = compared(finals({"a": [0.91, 0.90, 0.92], "b": [0.90, 0.91, 0.90]}))["a", "b", 1]
    assert row.verdict == "not enough seeds (about 21 needed)"
    assert math.ceil(TTestPower().solve_power(0.6547, power=0.8, alpha=0.05)) == 21
    wide = {"a": [0.9, 0.2, 0.5], "b": [0.2, 0.9, 0.5001]}
    assert compared(finals(wide))["a", "b", 1].verdict == "not enough seeds (over 1000 needed)"


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_as_in_the_tables(effect: float, seeds: int) -> None:
    """Cohen's small, medium and large effects in a paired design at 5 % two-sided with a power of 80 %."""
    assert seeds_needed(np.array([effect]), np.array([0.05])).tolist() == [seeds]


@given(st.floats(0.15, 20), st.integers(1, 30))
def test_seeds_needed_are_the_fewest(effect: float, hypotheses: int) -> None:
    [seeds] = seeds_needed(np.array([effect]), np.array([0.05 / hypotheses]))

    def power(n: int) -> float:
        critical = stats.t.isf(0.025 / hypotheses, n - 1)
        return float(stats.nct.sf(critical, n - 1, effect * math.sqrt(n)))

    assert 2 <= seeds <= MOST
    assert power(seeds) > 0.8 - 1e-6
    assert seeds == 2 or power(seeds - 1) < 0.8 + 1e-6


def test_missing_seeds_are_left_out_of_a_pair_and_counted() -> None:
    rows = finals({"a": [0.9, 0.8, 0.7], "b": [0.5, 0.5]})
    row = compared(rows)["a", "b", 1]
    assert (row.seeds, row.mean_a, row.mean_b) == (2, pytest.approx(0.85), 0.5)


def test_a_run_that_is_behind_does_not_hide_the_others() -> None:
    whole = [row for k in range(4) for name in "ab" for row in run(name, k, [0.1, 0.2, 0.5 + k / 9])]
    [panel] = panels_of(whole[:-2], {})  # the last run of b came to its first model only
    assert panel.last == 2
    [row] = [row for row in compare(panel, {}) if row.round == 2 and row.metric == "test_accuracy"]
    assert row.seeds == 3
    [panel] = panels_of([row for row in whole if row.round < 2 or row.seed == 0], {})
    assert panel.last == 1  # one of four is fewer than half


def test_a_run_that_gave_up_goes_on_with_its_last_model() -> None:
    rounds = (
        run("a", 0, [0.1, 0.4, 0.6]) + run("a", 1, [0.1, 0.5, 0.7]) + run("b", 0, [0.1, 0.2]) + run("b", 1, [0.1] * 3)
    )
    gone = {Entry("iid", "b", 0): NO_UPDATE}
    row = compared(rounds, ended=gone)["a", "b", 2]
    assert (row.seeds, row.mean_b) == (2, pytest.approx((0.2 + 0.1) / 2))
    assert compared(rounds, ended={Entry("iid", "b", 0): "interrupted"})["a", "b", 2].seeds == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_neither_averaged_nor_dropped(bad: float) -> None:
    rows = finals({"a": [bad, 2.0, bad, 2.1, 2.2], "b": [0.3, 0.4, 0.2, 0.3, 0.1]}, "test_loss")
    row = compared(rows, "test_loss")["a", "b", 1]
    assert (row.seeds, row.mean_a, row.mean_b) == (5, math.inf, pytest.approx(0.26))
    assert (row.difference, row.low, row.high, row.effect) == (None, None, None, None)
    assert row.p_adjusted == pytest.approx(2 / 2**5)
    assert row.verdict == "not enough seeds (a diverged in 2 of 5 seeds)"
    rows = finals({"a": [0.1] * 6, "b": [bad] * 6}, "test_loss")
    assert compared(rows, "test_loss")["a", "b", 1].verdict == "better (b diverged in 6 of 6 seeds)"
    rows = finals({"a": [bad, bad], "b": [bad, bad]}, "test_loss")
    row = compared(rows, "test_loss")["a", "b", 1]
    assert row.verdict == "no difference shown (identical; a diverged in 2 of 2 seeds; b diverged in 2 of 2 seeds)"
    assert (row.difference, row.low, row.p_adjusted) == (None, None, 1.0)


def test_huge_losses_overflow_into_a_sign_test() -> None:
    row = compared(finals({"a": [1e200, 1e210, 1e220], "b": [0.1, 0.2, 0.3]}, "test_loss"), "test_loss")["a", "b", 1]
    assert (row.low, row.high, row.p_adjusted) == (None, None, 0.25)
    assert row.verdict.startswith("not enough seeds")


def test_rounds_to_the_target_count_runs_that_never_reach_it() -> None:
    slow, quick = [0.1, 0.2, 0.3, 0.4], [0.1, 0.95, 0.9, 0.9]
    rounds = run("a", 0, quick) + run("a", 1, [0.1, 0.2, 0.9, 0.9]) + run("b", 0, slow) + run("b", 1, slow)
    row = compared(rounds, "rounds_to_target", target=0.9)["a", "b", 3]
    assert (row.mean_a, row.mean_b, row.difference) == (1.5, 4.0, -2.5)
    row = compared(
        run("a", 0, slow) + run("b", 0, slow[:2]), "rounds_to_target", {Entry("iid", "b", 0): NO_UPDATE}, 0.9
    )
    assert row["a", "b", 3].verdict == "no difference shown (neither reached it)"


def test_fewer_rounds_are_better() -> None:
    rounds = []
    for seed, (first, second) in enumerate([(1, 4), (2, 6), (1, 6), (2, 5), (1, 5)]):
        rounds += run("a", seed, [0.9 * (k >= first) for k in range(8)])
        rounds += run("b", seed, [0.9 * (k >= second) for k in range(8)])
    row = compared(rounds, "rounds_to_target", target=0.9)["a", "b", 7]
    assert (row.verdict, row.difference) == ("better", pytest.approx(-3.8))


def local(strategy: str, seed: int, number: int, before: Sequence[float | None]) -> list[LocalRow]:
    return [LocalRow("iid", strategy, seed, number, k, value, 0.99, 1.0, 0.5) for k, value in enumerate(before)]


def test_a_censored_median_by_hand() -> None:
    # Reached after 2, 3 and 5 rounds; one was cut off after 4, one never reached it in 6.
    # S = 4/5 after 2, 3/5 after 3; four leaves: 2 at risk at 5, S = 3/5 * 1/2 = 0.3. Half are there after 5.
    runs = [Time(2, True), Time(3, True), Time(4, False), Time(5, True), Time(6, False)]
    # Limits of log(-log S) +- 1.96 sqrt(sum d / (n (n - d))) / |log S|. At 2: sum 1/20, S_low = .8^exp(1.964) = .2038;
    # at 3: 1/20 + 1/12, and its upper limit .8819; at 5: + 1/2, .3^exp(-1.295) = .7191: it never comes below one half.
    assert median_time(runs) == (5.0, 2.0, None)
    assert median_time([run._replace(reached=False) for run in runs]) == (None, None, None)
    assert median_time([Time(3, True), Time(9, False), Time(9, False)]).median is None  # a third
    assert median_time([Time(3, True), Time(9, False)]).median == 3.0  # half
    assert median_time([Time(3, True)]) == (3.0, None, None)
    assert median_time([Time(3, False)]) == (None, None, None)


@given(st.lists(st.builds(Time, st.integers(0, 9), st.booleans()), min_size=2, max_size=12))
def test_the_median_is_that_of_scipy_and_lies_in_its_interval(runs: list[Time]) -> None:
    median, low, high = median_time(runs)
    data: Any = stats.CensoredData(
        uncensored=[one.rounds for one in runs if one.reached], right=[one.rounds for one in runs if not one.reached]
    )
    curve: Any = stats.ecdf(data).sf
    there = curve.quantiles[curve.probabilities <= 0.5 + 1e-9]
    assert median == (there[0] if there.size else None)
    assert low is None or median is None or low <= median
    assert high is None or (median is not None and high >= median)
    assert median is None or low is not None


def test_targets_count_everyone() -> None:
    rounds = run("a", 0, [0.1, 0.9, 0.9]) + run("a", 1, [0.1, 0.5, 0.9]) + run("a", 2, [0.1, 0.5, 0.5])
    rounds += run("b", 0, [0.1, 0.9, 0.9]) + run("b", 1, [0.1]) + run("b", 2, [0.1])
    ended = {Entry("iid", "b", 1): NO_UPDATE, Entry("iid", "b", 2): NO_UPDATE}
    a, b = targets(rounds, 0.9, gave_up(ended), diverged(rounds, ended))
    assert (a.scenario, a.strategy, a.target, a.seeds, a.reached, a.diverged, a.median) == (
        "iid",
        "a",
        0.9,
        3,
        2,
        0,
        2.0,
    )
    assert (b.seeds, b.reached, b.diverged, b.median) == (3, 1, 2, None)  # those that gave up never reach it


def test_who_diverged() -> None:
    rounds = (
        run("fine", 0, [0.1, 0.9])
        + run("nan", 0, [0.1, 0.1], [2.3, math.nan])
        + run("worse", 0, [0.1, 0.9], [2.3, 2.4])
    )
    rounds += (
        run("back", 0, [0.1, 0.1, 0.9], [2.3, math.inf, 0.2]) + run("gone", 0, [0.1, 0.9]) + run("cut", 0, [0.1, 0.9])
    )
    ended = {Entry("iid", name, 0): "finished" for name in ("fine", "nan", "worse", "back")}
    ended |= {Entry("iid", "gone", 0): NO_UPDATE, Entry("iid", "cut", 0): "interrupted"}
    assert [entry.strategy for entry in diverged(rounds, ended)] == ["nan", "worse", "gone"]
    assert list(gave_up(ended)) == [Entry("iid", "gone", 0)]
    assert not gave_up({Entry("iid", "a", 0): "the simulation ended: a worker died"})


def outcome_of(path: Path, rounds: Sequence[RoundRow], locals_: Sequence[LocalRow] = (), **run_json: Any) -> Outcome:
    with RunFolder.create(path) as folder:
        for row in rounds:
            folder.write_round(row)
        folder.write_local(locals_)
        folder.write_run(run_json)
        return Outcome.read(folder)


def test_the_files_read_back_as_they_were_computed(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rounds = [
        row
        for scenario in ("skew", "iid")
        for name in ("z", "a", "m")
        for seed in (1, 0)
        for row in run(
            name, seed, [0.1, *random.uniform(0.3, 1, 3)], [2.3, 2.0, math.nan if name == "m" else 1.0, 0.5], scenario
        )
    ]
    config = {"scenario": ["iid", "skew=label-skew"], "strategies": ["z", "a", "m"], "seeds": [0, 1], "target": 0.5}
    outcome = outcome_of(
        tmp_path, rounds, [row for seed in (0, 1) for row in local("z", seed, 3, [0.5, 0.25])], config=config
    )
    write_statistics(tmp_path, outcome)
    content = (tmp_path / "comparison.csv").read_text()
    assert content.splitlines()[0] == (
        "scenario,round,a,b,metric,seeds,mean_a,mean_b,difference,low,high,effect,p_adjusted,verdict"
    )
    rows = list(csv.DictReader(content.splitlines()))
    assert len(rows) == len(outcome.comparisons) == 2 * 3 * (3 * 2 + 1)  # scenarios, pairs, rounds and metrics; target
    assert [(row["scenario"], row["a"], row["b"]) for row in rows[:3]] == [("iid", "z", "a")] * 2 + [("iid", "z", "m")]
    for row, computed in zip(rows, outcome.comparisons, strict=True):
        for name in ("mean_a", "mean_b", "difference", "low", "high", "effect", "p_adjusted"):
            value = getattr(computed, name)
            assert row[name] == "" if value is None else float(row[name]) == value
    assert any(row["mean_b"] == "inf" and row["difference"] == "" for row in rows)
    said = list(csv.DictReader((tmp_path / "targets.csv").read_text().splitlines()))
    assert list(said[0]) == ["scenario", "strategy", "target", "seeds", "reached", "diverged", "median", "low", "high"]
    assert [(row["scenario"], row["strategy"], row["target"]) for row in said] == [
        (scenario, name, "0.5") for scenario in ("iid", "skew") for name in "zam"
    ]
    write_statistics(tmp_path, outcome)
    assert (tmp_path / "comparison.csv").read_text() == content


def test_one_strategy_and_no_rows_give_headers(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path / "one", run("a", 0, [0.1, 0.5]))
    write_statistics(tmp_path, outcome)
    assert (tmp_path / "comparison.csv").read_text().count("\n") == 1
    assert (tmp_path / "targets.csv").read_text().count("\n") == 2
    outcome = outcome_of(tmp_path / "none", [])
    assert (outcome.comparisons, outcome.targets, outcome.diverged, outcome.local) == ((), (), (), ())


def test_one_seed_needs_no_statistics_library(tmp_path: Path) -> None:
    outcome_of(tmp_path, run("a", 0, [0.1, 0.5]) + run("b", 0, [0.1, 0.9], [2.3, math.nan]))
    code = (
        "import sys, pathlib; from server.results import RunFolder; from server.summary import Outcome, summary_table\n"
        "outcome = Outcome.read(RunFolder.resume(pathlib.Path(sys.argv[1]))); summary_table(outcome.summaries)\n"
        "assert outcome.comparisons\n"
        "assert not {'scipy', 'statsmodels', 'pandas'} & {name.partition('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)


def test_an_outcome_knows_who_gave_up_and_judges_nobody_by_training_data(tmp_path: Path) -> None:
    rounds = [row for seed in (0, 1) for name in "ab" for row in run(name, seed, [0.1, 0.4 + seed / 10, 0.6])][:-1]
    locals_ = [row for seed in (0, 1) for name in "ab" for row in local(name, seed, 2, [0.01, 0.5, 0.02, 0.4])][:-4]
    outcome = outcome_of(
        tmp_path,
        rounds,
        locals_,
        config={"strategies": ["a", "b"], "seeds": [0, 1], "rounds": 2},
        results={"iid/b/seed1": {"ended": NO_UPDATE}, "iid/a/seed0": {"ended": "finished"}},
    )
    assert outcome.diverged == (Entry("iid", "b", 1),)
    assert len(outcome.local) == 12
    assert {row.metric for row in outcome.comparisons} == {"test_accuracy", "test_loss", "rounds_to_target"}
    assert any("counts with the last model" in line for line in outcome.verdict)
