"""`python sim.py --scenario ...` from outside: what scenarios do in real runs, and that kills change no bit of it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from conftest import run_sim
from pyarrow import parquet
from test_sim import expect_one_line, hashes, left_behind, rows, start_sim

STRATEGIES = ["fedavg", "fedmedian", "scaffold", "fedadam", "multi-krum"]
UNEVEN = "label-skew+uneven-work:high=3+dropout:p=0.3"
NAN = "byzantine:attack=nan"
SCENARIOS = ["iid", "uneven", NAN, "mine"]
SEEDS, ROUNDS, CLIENTS, BATCH = ["0", "1"], 4, 4, 16
MINE = (
    'name = "mine"\n[outlier]\n[straggler]\nspread = 0\n'  # without spread the slow client takes 3 > 2 in every round
)
COMPARISON = "scenario,round,a,b,metric,seeds,mean_a,mean_b,difference,low,high,effect,p_adjusted,verdict"
TARGETS = "scenario,strategy,target,seeds,reached,diverged,median,low,high"
LOCAL = "scenario,strategy,seed,round,client,accuracy_before,accuracy_after,update_norm,cosine"


@dataclass(frozen=True)
class Run:
    """A finished run's folder, read."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    def roles(self, scenario: str, seed: str) -> dict[str, Any]:
        return self.facts["scenarios"][scenario]["seeds"][seed]

    @cached_property
    def rounds(self) -> list[dict[str, str]]:
        return rows(self.folder, "rounds.csv")

    @cached_property
    def clients(self) -> list[dict[str, str]]:
        return rows(self.folder, "clients.csv")

    @cached_property
    def local(self) -> list[dict[str, str]]:
        return rows(self.folder, "local.csv")

    def of(self, scenario: str, seed: str) -> list[dict[str, str]]:
        """The rows of clients.csv."""
        return [row for row in self.clients if (row["scenario"], row["seed"]) == (scenario, seed)]


@pytest.fixture(scope="module")
def common(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options of a small comparison, on cached shards of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDARENA_CACHE", str(tmp_path_factory.mktemp("cache")))
        size = ["--clients", str(CLIENTS), "--batch-size", str(BATCH), "--rounds", str(ROUNDS)]
        yield ["--dataset", str(small_data), "--model", "mlp", *size]


@pytest.fixture(scope="module")
def run(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four scenarios, one of them from a file; five strategies, two seeds."""
    base = tmp_path_factory.mktemp("run")
    (base / "own.toml").write_text(MINE)
    scenarios = ["iid", f"uneven={UNEVEN}", NAN, str(base / "own.toml")]
    words = [*common, "--seeds", *SEEDS, "--scenario", *scenarios, "--strategies", *STRATEGIES, "--workers", "2"]
    done = run_sim(*words, "--out", base / "out")
    assert done.returncode == 0, done.stderr + (base / "out" / "run.log").read_text()[-3000:]
    assert done.stderr == ""
    return Run(base / "out")


# What is in the folder ------------------------------------------------------------------------------------------------


def test_all_files_of_a_run(run):
    contestants = len(SCENARIOS) * len(STRATEGIES) * len(SEEDS)
    assert run.facts["weights_by"] == {**dict.fromkeys(STRATEGIES, "clients"), "fedadam": "examples"}
    assert (run.facts["status"], run.facts["exit_status"], len(hashes(run.folder))) == ("finished", 0, contestants)
    assert len(run.rounds) == contestants * (ROUNDS + 1)
    assert len(run.clients) == contestants * ROUNDS * CLIENTS  # who is absent has a row, too
    assert {path.suffix for path in (run.folder / "models").iterdir()} == {".keras"}
    assert len(list((run.folder / "models").iterdir())) == contestants
    for name in ("rounds", "clients", "local"):
        assert parquet.read_table(run.folder / f"{name}.parquet").num_rows == len(getattr(run, name))
    for name, header in [("comparison", COMPARISON), ("targets", TARGETS), ("local", LOCAL)]:
        assert (run.folder / f"{name}.csv").read_text().splitlines()[0] == header
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (run.folder / "report.html").read_text()
    assert all(name in page for name in [*SCENARIOS, *STRATEGIES])


def test_pairs_are_compared_seed_by_seed(run):
    """Means and differences again from rounds.csv, and in how many seeds the target was reached."""
    by = {(r["scenario"], r["round"], r["strategy"], r["seed"]): r for r in run.rounds}
    compared = rows(run.folder, "comparison.csv")
    assert {r["metric"] for r in compared} == {"test_accuracy", "test_loss", "rounds_to_target"}  # of no training data
    pairs = list(combinations(STRATEGIES, 2))
    for metric in ("test_accuracy", "test_loss"):
        found = {(r["scenario"], r["round"], r["a"], r["b"]): r for r in compared if r["metric"] == metric}
        numbers = map(str, range(1, ROUNDS + 1))
        assert set(found) == {(s, n, a, b) for s, n, (a, b) in product(SCENARIOS, numbers, pairs)}
        for (scenario, number, a, b), row in found.items():
            x, y = ([float(by[scenario, number, name, seed][metric]) for seed in SEEDS] for name in (a, b))
            expected = [mean(x), mean(y), mean(x) - mean(y)]
            assert [float(row[name]) for name in ("mean_a", "mean_b", "difference")] == pytest.approx(
                expected, abs=1e-12
            )
            assert row["seeds"] == "2"
            if row["low"]:
                assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    targets = {(r["scenario"], r["strategy"]): r for r in rows(run.folder, "targets.csv")}
    assert set(targets) == set(product(SCENARIOS, STRATEGIES))
    for (scenario, strategy), row in targets.items():
        best = [
            max(float(by[scenario, str(n), strategy, k]["test_accuracy"]) for n in range(ROUNDS + 1)) for k in SEEDS
        ]
        assert int(row["reached"]) == sum(accuracy >= 0.9 for accuracy in best)


def test_run_json_says_who_had_which_part(run):
    assert set(run.facts["scenarios"]) == set(SCENARIOS)
    written = run.facts["scenarios"]["uneven"]["written"]
    assert written == "label-skew:alpha=0.3,least=10+uneven-work:low=1,high=3,slow=0+dropout:p=0.3"
    assert run.facts["scenarios"]["mine"]["written"].startswith("straggler:slow=1,factor=3.0,spread=0.0,deadline=2.0,")
    for seed in SEEDS:
        many = {s: [len(run.roles(s, seed)[role]) for role in ("attackers", "slow", "outliers")] for s in SCENARIOS}
        assert many == {"iid": [0, 0, 0], "uneven": [0, 0, 0], NAN: [1, 0, 0], "mine": [0, 1, 1]}
        plain, mine = run.roles("iid", seed)["counts"], run.roles("mine", seed)["counts"]
        assert run.roles(NAN, seed)["counts"] == plain
        # Random labels instead of a third of each class; the other shards are those of iid.
        assert [k for k in range(CLIENTS) if mine[k] != plain[k]] == run.roles("mine", seed)["outliers"]
        for scenario in SCENARIOS:
            counts = run.roles(scenario, seed)["counts"]
            said = {(int(r["client"]), int(r["num_examples"])) for r in run.of(scenario, seed) if r["num_examples"]}
            assert said <= {(k, sum(row)) for k, row in enumerate(counts)}
            assert sum(map(sum, counts)) == 150
    assert run.roles("uneven", "0")["counts"] != run.roles("uneven", "1")["counts"]


# What scenarios do in the rounds --------------------------------------------------------------------------------------


def test_nan_attackers_are_rejected_by_name_and_nobody_else(run):
    rejected = {
        (r["scenario"], r["strategy"], r["seed"], r["round"], int(r["client"]), r["reason"])
        for r in run.clients
        if r["status"] == "rejected"
    }
    reason = "array 0 holds values that are not finite (NaN or infinity)"
    assert rejected == {
        (NAN, strategy, seed, str(number), run.roles(NAN, seed)["attackers"][0], reason)
        for strategy, seed, number in product(STRATEGIES, SEEDS, range(1, ROUNDS + 1))
    }
    last = [r for r in run.rounds if (r["scenario"], r["round"]) == (NAN, str(ROUNDS))]
    assert {(r["clients_ok"], r["clients_rejected"]) for r in last} == {("3", "1")}
    assert all(float(r["test_accuracy"]) > 0.9 for r in last)


def test_who_is_absent_and_why(run):
    for seed in SEEDS:
        absent = {
            s: {(r["client"], r["reason"]) for r in run.of(s, seed) if r["status"] == "failed"} for s in SCENARIOS
        }
        (slow,) = run.roles("mine", seed)["slow"]
        assert absent["iid"] == absent[NAN] == set()
        assert absent["mine"] == {(str(slow), "late: would have taken 3 of the deadline's 2 rounds' time")}
        assert {reason for _, reason in absent["uneven"]} == {"dropout: missed this round"}
        assert len([r for r in run.of("mine", seed) if r["status"] == "failed"]) == len(STRATEGIES) * ROUNDS


def epochs_of(row: dict[str, str]) -> float:
    return int(row["local_steps"]) / -(-int(row["num_examples"]) // BATCH)


def test_uneven_work_is_whole_epochs_of_unequal_number_and_elsewhere_one(run):
    done = {
        scenario: [epochs_of(r) for r in run.clients if r["scenario"] == scenario and r["local_steps"]]
        for scenario in SCENARIOS
    }
    assert set(done.pop("uneven")) == {1, 2, 3}
    assert {epochs for each in done.values() for epochs in each} == {1}
    plain_sgd = [(float(r["local_norm"]), int(r["local_steps"])) for r in run.clients if r["local_steps"]]
    assert all(norm == steps for norm, steps in plain_sgd)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_strategies_with_one_seed_meet_the_same_conditions(run, scenario):
    """Who is absent and why, and who makes how many steps, in each round; and it is drawn anew for another seed."""
    met = {
        (strategy, seed): sorted(
            (r["round"], r["client"], r["num_examples"], r["local_steps"], r["status"], r["reason"])
            for r in run.of(scenario, seed)
            if r["strategy"] == strategy
        )
        for strategy, seed in product(STRATEGIES, SEEDS)
    }
    for seed in SEEDS:
        assert all(met[strategy, seed] == met["fedavg", seed] for strategy in STRATEGIES)
    if scenario == "uneven":
        assert met["fedavg", "0"] != met["fedavg", "1"]


def test_who_misses_a_round_gets_no_model_and_who_is_late_does(run):
    """bytes_down of fedavg is a model for each that was asked; of scaffold, from round 2 on, two."""
    rounds = [r for r in run.rounds if r["round"] != "0"]
    plain = {int(r["bytes_down"]) for r in rounds if (r["scenario"], r["strategy"]) == ("iid", "fedavg")}
    assert len(plain) == 1
    model = plain.pop() // CLIENTS
    for row in rounds:
        used, twice = int(row["clients_ok"]), row["strategy"] == "scaffold" and int(row["round"]) > 1
        asked = used if row["scenario"] == "uneven" else CLIENTS
        came = CLIENTS if row["scenario"] == NAN else used
        late = CLIENTS - used if row["scenario"] == "mine" else 0  # is counted with the model alone
        assert int(row["bytes_up"]) == came * model
        assert int(row["bytes_down"]) == asked * model + (asked - late) * model * twice


def test_clients_test_themselves_in_the_last_round(run):
    used = {
        tuple(r[n] for n in ("scenario", "strategy", "seed", "round", "client")): r
        for r in run.clients
        if r["status"] == "ok"
    }
    told = {tuple(r[n] for n in ("scenario", "strategy", "seed", "round", "client")): r for r in run.local}
    assert set(told) == set(used)
    for key, row in told.items():
        examples = int(used[key]["num_examples"])
        for name in ("accuracy_before", "accuracy_after"):
            if row["round"] != str(ROUNDS):
                assert row[name] == ""
                continue
            right = float(row[name]) * examples
            assert right == pytest.approx(round(right), abs=1e-6)
            assert 0 <= right <= examples
        assert float(row["update_norm"]) > 0
        if row["round"] == str(ROUNDS):  # random labels of three classes cannot be told; the others can
            outlier = int(row["client"]) in run.roles(row["scenario"], row["seed"])["outliers"]
            assert row["scenario"] == "uneven" or (float(row["accuracy_before"]) > 0.9) != outlier


# The same bits --------------------------------------------------------------------------------------------------------


def test_kill_9_on_one_worker_and_resume_on_two_give_the_bits_of_an_undisturbed_run(common, run, tmp_path):
    """Killed when scaffold and fedadam, which remember, have made two rounds: so one of them is in a checkpoint."""
    folder = tmp_path / "out"
    words = ["--scenario", f"uneven={UNEVEN}", NAN, "--strategies", *STRATEGIES, "--workers", "1"]
    process = start_sim(*common, *words, "--out", folder)

    def losses() -> dict[tuple[str, ...], str]:
        found = rows(folder, "rounds.csv") if (folder / "rounds.csv").exists() else []
        return {(r["scenario"], r["strategy"], r["round"]): r["test_loss"] for r in found}

    until = time.monotonic() + 120
    while not {("uneven", "scaffold", "2"), ("uneven", "fedadam", "2")} <= losses().keys():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    while left_behind(process.pid):
        assert time.monotonic() < until
        time.sleep(0.1)
    before = losses()
    assert len(before) < 2 * len(STRATEGIES) * (ROUNDS + 1)
    for strategy, remembered in [("scaffold", "c"), ("fedadam", "m")]:
        newest = max((folder / "checkpoints").glob(f"uneven-{strategy}-seed0.*"))
        assert remembered in json.loads(newest.read_bytes().splitlines()[0])["arrays"]
    done = run_sim("--resume", folder)
    assert done.returncode == 0, done.stderr + (folder / "run.log").read_text()[-3000:]
    expected = {key: value for key, value in hashes(run.folder).items() if key in hashes(folder)}
    assert hashes(folder) == expected
    assert len(expected) == 2 * len(STRATEGIES)
    assert before.items() <= losses().items()
    for name in ("rounds.csv", "clients.csv", "local.csv"):
        assert untimed(folder, name) == untimed(run.folder, name)


def untimed(folder: Path, name: str) -> list[tuple[str, ...]]:
    """The rows of seed 0 in the scenarios of the killed run, without the seconds that things took."""
    return sorted(
        tuple(value for column, value in row.items() if column != "seconds")
        for row in rows(folder, name)
        if row["scenario"] in ("uneven", NAN) and row["seed"] == "0"
    )


# A user's mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--scenario", "lable-skew"], ["no scenario 'lable-skew'", "did you mean 'label-skew'?"]),
        (["--scenario", "byzantine:attackers=4"], ["4 attackers of 4 clients leave nobody honest"]),
        (["--scenario", "byzantine:attack=nan,strength=3"], ["the attack nan has no strength; leave it out"]),
        (["--scenario", "straggler:slow=9"], ["9 clients cannot be slow, there are 4"]),
        (["--scenario", "uneven-work", "--steps", "5"], ["uneven-work", "leave out --steps"]),
        (["--scenario", "dropout:q=0.3"], ["dropout:q=0.3", "dropout has no option 'q'; there are p"]),
        (["--scenario", "gone.toml"], ["gone.toml", "No such file"]),
        (["--strategies", "scaffold", "--momentum", "0.9"], ["scaffold is not defined for momentum", "--momentum 0"]),
        (["--strategies", "fednova", "--init", "independent"], ["fednova is not defined for --init independent"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line_and_leaves_no_trace(common, tmp_path, options, says):
    """No trace, so that the same command works when the mistake is mended."""
    expect_one_line(run_sim(*common, *options, "--out", tmp_path / "out"), *says)
    assert not (tmp_path / "out").exists()
