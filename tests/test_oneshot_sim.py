"""`python sim.py one-shot` from outside, and federated runs whose clients begin from weights of their own."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_sim
from federation import CLIENTS, Residents, hashes, rows
from test_sim import PICKY, bright_shards, left_behind

from client.trainer import ShardClient, own_start
from server.oneshot.combination import BEST_LOCAL, METHODS
from server.oneshot.training import Job, train_all
from server.stop import Stop, Stopped
from task.data import load
from task.errors import UserError
from task.model import build_model, initial_arrays
from task.oneshot import OneShotConfig, one_shot_config, one_shot_parser
from task.shardfile import shard_name
from task.shards import prepare

COLUMNS = "seed,init,method,test_accuracy,test_loss,distance_to_first"
SMALL = ["--dataset", "digits", "--model", "mlp", "--clients", "3", "--epochs", "2", "--batch-size", "32"]
PUBLIC = 60
LOCALS = ["local-0", "local-1", "local-2"]


def one_shot(*options: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return run_sim("one-shot", *options, cwd=cwd)


def finish(out: Path, *options: str) -> Path:
    """A run that finished; what it printed is kept beside its files."""
    done = one_shot(*SMALL, *options, "--out", out)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout + log(out)
    (out / "stdout.txt").write_text(done.stdout)
    return out


def log(out: Path) -> str:
    return (out / "run.log").read_text()[-3000:] if (out / "run.log").exists() else ""


def table(out: Path) -> list[dict[str, str]]:
    with (out / "oneshot.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(file: Path) -> list[np.ndarray]:
    import keras

    return list(keras.saving.load_model(file, compile=False).get_weights())


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    before = os.environ.get("FEDARENA_CACHE")
    os.environ["FEDARENA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["FEDARENA_CACHE"]
    if before is not None:
        os.environ["FEDARENA_CACHE"] = before


@pytest.fixture(scope="module")
def independent(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("independent") / "out"
    return finish(out, "--seeds", "0", "1", "--public", str(PUBLIC), "--workers", "2")


@pytest.fixture(scope="module")
def shared(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("shared") / "out", "--init", "shared", "--public", "0", "--workers", "1")


def test_the_files_of_a_run(independent: Path):
    assert (independent / "oneshot.csv").read_text().splitlines()[0] == COLUMNS
    for name in ("report.html", "oneshot.png", "run.log"):
        assert (independent / name).stat().st_size > 0
    run = json.loads((independent / "run.json").read_text())
    assert (run["kind"], run["status"], run["exit_status"]) == ("one-shot", "finished", 0)
    assert run["command"][:3] == ["python", "sim.py", "one-shot"]
    assert (run["config"]["clients"], run["config"]["init"], run["config"]["public"]) == (3, "independent", PUBLIC)
    assert set(run["data"]["shards"]) == {"iid/seed0", "iid/seed1"}
    assert {"python", "flwr", "tensorflow", "keras", "ray"} <= set(run["versions"])
    told = (independent / "stdout.txt").read_text()
    assert "training local models: 6 of 6" in told
    assert str(independent) in told
    assert "matched" in told


def test_the_rows_are_those_of_the_contract(independent: Path):
    methods = [method for method in METHODS if method != "fednova"]
    for seed in ("0", "1"):
        mine = [row for row in table(independent) if row["seed"] == seed]
        assert [row["method"] for row in mine] == [*LOCALS, *methods]
        assert {row["init"] for row in mine} == {"independent"}
        by = {row["method"]: row for row in mine}
        assert max(float(by[name]["test_accuracy"]) for name in LOCALS) == float(by[BEST_LOCAL]["test_accuracy"])
        assert float(by["local-0"]["distance_to_first"]) == 0


def test_the_local_models_are_exported_and_hashed(independent: Path):
    import hashlib

    results = json.loads((independent / "run.json").read_text())["results"]
    for seed in (0, 1):
        for name in LOCALS:
            arrays = weights(independent / "models" / f"seed{seed}-{name}.keras")
            total = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
            assert results[f"seed{seed}/{name}"]["sha256"] == total.hexdigest()
    assert len({result["sha256"] for key, result in results.items() if "/local-" in key}) == 6


def test_another_number_of_workers_gives_the_same_bits(independent: Path, tmp_path: Path):
    again = finish(tmp_path / "out", "--seeds", "0", "1", "--public", str(PUBLIC), "--workers", "1")
    assert (again / "oneshot.csv").read_bytes() == (independent / "oneshot.csv").read_bytes()
    models = sorted(path.name for path in (independent / "models").iterdir())
    assert models == sorted(path.name for path in (again / "models").iterdir())
    for name in models:
        for one, other in zip(weights(independent / "models" / name), weights(again / "models" / name), strict=True):
            assert one.tobytes() == other.tobytes()


def test_a_shared_start_has_a_fednova_and_no_public_images_leave_two_rows_out(shared: Path):
    methods = [row["method"] for row in table(shared)]
    assert "fednova" in methods
    assert {"matched-calibrated", "distilled"}.isdisjoint(methods)
    assert {row["init"] for row in table(shared)} == {"shared"}
    told = " ".join((shared / "stdout.txt").read_text().split())
    assert "public" in told


def test_without_a_common_start_fednova_is_left_out_with_its_reason(independent: Path):
    assert "fednova" not in {row["method"] for row in table(independent)}
    assert "common start" in " ".join((independent / "stdout.txt").read_text().split())


def test_public_images_are_in_no_shard_and_bring_no_labels(independent: Path):
    cut = prepare("digits", 3, 1, public=PUBLIC)
    run = json.loads((independent / "run.json").read_text())
    assert run["data"]["shards"]["iid/seed1"] == cut.sha256
    with np.load(cut.folder / "public.npz") as file:
        assert "y" not in file.files
        public = file["x"]
    assert len(public) == PUBLIC
    # Every example is somewhere, once: images that are twice in the data set may be public and private.
    parts = [public]
    for client in range(3):
        with np.load(cut.folder / shard_name(client)) as file:
            parts.append(file["x"])
    together = np.sort([image.tobytes() for part in parts for image in part])
    np.testing.assert_array_equal(together, np.sort([image.tobytes() for image in load("digits").x_train]))


def test_a_failed_client_ends_the_run_with_its_name(small_data: Path, tmp_path: Path):
    (tmp_path / "picky.py").write_text(PICKY)
    shards = bright_shards(tmp_path / "shards", small_data, {1})
    options = ["--dataset", str(shards), "--model", "picky:build", "--public", "0", "--epochs", "1", "--seeds", "4"]
    done = one_shot(*options, "--out", tmp_path / "out", "--quiet", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("seed 4: client 1 failed: InvalidArgumentError: assertion failed: [a pixel is too")
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["status"], run["exit_status"]) == ("failed", 1)


def test_ctrl_c_ends_with_130_and_leaves_no_process(tmp_path: Path):
    options = [*SMALL, "--epochs", "100000", "--workers", "1", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sim.py"), "one-shot", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a shell does; the signal is then sent to all of it
    )
    assert process.stdout
    for line in process.stdout:
        if "training local models: 0 of 3" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert left_behind(process.pid) == []
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"


# A user's mistakes --------------------------------------------------------------------------------------------------


def configure(*words: str) -> OneShotConfig:
    return one_shot_config(vars(one_shot_parser("sim.py one-shot").parse_args(words)))[0]


def test_the_defaults_are_those_of_the_help(capsys: pytest.CaptureFixture[str]):
    config = configure()
    assert (config.init, config.public, config.seeds, config.dataset) == ("independent", 500, (0,), "mnist-5k")
    assert (config.training.epochs, config.training.batch_size, config.training.learning_rate) == (5, 4, 0.03)
    assert configure("--epochs", "3").training.batch_size == 4  # what is not given stays a one-shot run's
    with pytest.raises(SystemExit):
        configure("--help")
    told = " ".join(capsys.readouterr().out.split())
    for text in ("over the shard; default: 5", "--batch-size N default: 4", "ETA default: 0.03", "default: 500"):
        assert text in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--init", "random"], "'shared' or 'independent'"),
        (["--public", "-1"], "public"),
        (["--clients", "1"], "clients"),
        (["--seeds", "1", "1"], "seeds are given twice"),
        (["--epochs", "0"], "epochs"),
    ],
)
def test_a_value_that_does_not_do_is_one_line(options: list[str], says: str):
    with pytest.raises(UserError, match=says) as caught:
        configure(*options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--strategies", "fedavg"], "unrecognized arguments"),
        (["--dataset", "digits", "--public", "1435"], "1435 public examples are too many"),
        (["--dataset", "digits", "--init", "common"], "init"),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(options: list[str], says: str, tmp_path: Path):
    done = one_shot(*options, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("sim.py one-shot: ")
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_a_run_is_refused_by_both_commands(independent: Path):
    done = one_shot(*SMALL, "--out", independent)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "already holds a run" in done.stderr
    before = sorted(path.name for path in independent.iterdir())
    for option, says in (("--out", "already holds a run"), ("--resume", "holds a one-shot run")):
        done = run_sim(option, independent)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert says in done.stderr
    assert sorted(path.name for path in independent.iterdir()) == before


# Starts of their own ------------------------------------------------------------------------------------------------


def test_own_starts_depend_on_seed_and_client_alone():
    def start(seed: int, client: int | None) -> bytes:
        arrays = initial_arrays(build_model("mlp", (4, 4, 1), 3, seed, client))
        return b"".join(array.tobytes() for array in arrays)

    drawn = [start(seed, client) for seed in (0, 1) for client in (None, 0, 1)]
    assert len(set(drawn)) == 6  # client 0's are not the common ones
    assert start(1, 0) == drawn[4]


def test_round_1_begins_from_the_clients_own_weights_and_later_ones_from_the_global_model(small_data: Path):
    shards = prepare(str(small_data), 3, 0)
    client = ShardClient(shards.folder / shard_name(1), 1)
    one, other = (initial_arrays(build_model("mlp", shards.input_shape, 3, seed)) for seed in (5, 6))

    def fit(arrays: list[np.ndarray], **config: object) -> bytes:
        plain = {"model": "mlp", "batch_size": 8, "steps": 2, "seed": 3}
        return b"".join(array.tobytes() for array in client.fit(arrays, {**plain, **config})[0])

    own = own_start("mlp", shards.input_shape, 3, 3, 1)
    first = {"init": "independent", "server-round": 1}
    assert fit(one, **first) == fit(other, **first) == fit(own, **{"server-round": 1})
    assert fit(one, **first) != fit(one, **{"server-round": 1, "init": "shared"})
    later = {"server-round": 2}
    assert fit(one, init="independent", **later) == fit(one, **later) != fit(other, init="independent", **later)


def test_clients_that_start_apart_are_the_same_deployed(residents: Residents, tmp_path: Path):
    options = ["--model", "mlp", "--batch-size", "16", "--rounds", "2", "--strategies", "fedavg", "matched"]
    options += ["--init", "independent"]
    simulated = run_sim("--dataset", residents.shards, *options, "--workers", "1", "--out", tmp_path / "sim")
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr
    final = {row["strategy"]: row for row in rows(tmp_path / "sim", "rounds.csv") if row["round"] == "2"}
    assert set(final) == {"fedavg", "matched"}
    assert {row["clients_ok"] for row in final.values()} == {str(CLIENTS)}
    mine = hashes(tmp_path / "sim")
    assert len(set(mine.values())) == 2  # matching changes what the mean is of
    assert mine["iid/fedavg/seed0"] != residents.expected["iid/fedavg/seed0"]
    server, out = residents.serve(*options, small=False)
    assert server.status() == 0, residents.told()
    assert hashes(out) == mine


def test_fednova_needs_a_common_start(tmp_path: Path):
    done = run_sim("--init", "independent", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "fednova is not defined for --init independent" in done.stderr


# The training loop alone --------------------------------------------------------------------------------------------


def test_seeds_are_sent_ahead_and_come_in_order():
    from inline_grid import InlineGrid, mover

    from server.federation import Federation

    grids = [InlineGrid({0: mover(1.0, number=0), 1: mover(2.0, number=1)}) for _ in range(4)]
    start = [np.zeros(2, np.float32)]
    jobs = [
        Job(seed, Federation(grid, grid.nodes, lambda _: None), start, {"seed": seed}, ("num_examples",))
        for seed, grid in enumerate(grids)
    ]
    asked = []
    told: list[int] = []
    for job, updates in train_all(jobs, 1, lambda: told.append(1), Stop()):
        asked.append([len(grid.asked) for grid in grids])
        assert [float(update.arrays[0][0]) for update in updates] == [1.0, 2.0]
        assert grids[job.seed].configs[0]["seed"] == job.seed
        assert grids[job.seed].configs[0]["server-round"] == 1
    assert asked == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert len(told) == 8


def test_a_client_that_sends_nonsense_is_named():
    from inline_grid import InlineGrid, mover

    from server.federation import Federation

    grid = InlineGrid({0: mover(1.0), 1: mover(float("nan"), number=1)})
    job = Job(7, Federation(grid, grid.nodes, lambda _: None), [np.zeros(2, np.float32)], {}, ("num_examples",))
    with pytest.raises(Stopped, match=r"^seed 7: client 1 rejected: .*not finite"):
        list(train_all([job], 1, lambda: None, Stop()))
