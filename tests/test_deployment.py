"""A real server and real clients: processes on hosts of their own, from enrolment to the files of the run."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from federation import (
    CLIENTS,
    Deployment,
    Residents,
    columns,
    complete,
    hashes,
    read_run,
    saved_digest,
    simulated,
    split,
)
from hosts import Network, tool

OURS = ["fedavg", "fedmedian", "weighted", "fednova"]
RULES = ["fedavg", "fedmedian"]  # of the small runs
ROUNDS = 3
SCORES = ("strategy", "round", "test_accuracy", "test_loss", "clients_ok")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of mnist-5k."""
    return split("mnist-5k", 5, tmp_path_factory.mktemp("mnist") / "shards")


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulation that a deployment must agree with, on data that it splits itself."""
    options = ["--dataset", "mnist-5k", "--clients", "5", "--seeds", "0", "--rounds", ROUNDS, "--strategies", *OURS]
    return simulated(tmp_path_factory.mktemp("sim") / "out", *options)


def nothing_private_is_told(folder: Path, shards: Path, said: str):
    """See that no log, no result and no terminal of a deployment holds a private key or an example."""
    keys = [path.read_text() for path in (folder / "federation").glob("*.key")]
    keys += [json.loads(path.read_text())["private_key"] for path in folder.glob("*.identity")]
    assert len(keys) == 7
    # Lines of the key's own text: the ends and, in OpenSSH's form, the beginning are the same in all keys.
    private = {line.encode() for key in keys for line in key.splitlines()[2:-2]} | {b"PRIVATE KEY"}
    assert len(private) > 7
    for shard in sorted(shards.glob("shard-*.npz")):
        images = np.load(shard)["x"]
        private |= {image.tobytes()[200:600] for image in images[:20] if image.any()}
        private |= {" ".join(map(str, image[14])).encode() for image in images[:20] if image[14].any()}
    places = [out for name in ("runs", "logs") for out in (folder / name).rglob("*") if out.is_file()]
    assert {"events.jsonl", "run.json", "run.log", "report.html", "client-0.jsonl", "client-0.out"} <= {
        place.name for place in places
    }
    for name, content in [("terminals", said.encode()), *((str(place), place.read_bytes()) for place in places)]:
        assert not [word for word in private if word in content], name
    found = [word for word in private if word in (folder / "federation" / "ca.key").read_bytes()]
    assert len(found) > 1  # the search does find a key


def test_namespaces_work_where_they_have_to(network: Network):
    """Without this, a machine that can test real networks could quietly not do so."""
    if os.geteuid() == 0 and tool("ip") and tool("tc"):
        assert network.isolated, network.obstacle


def test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation(
    mnist: Path, simulation: Path, tmp_path: Path
):
    with Deployment(tmp_path) as deployment:
        host, _, port = deployment.address.rpartition(":")
        names = ["ada", "bob", "cyd", "dan", "eve"]
        told = deployment.manage("enroll", *names, "--host", host, "--port", port)
        assert deployment.address in told

        server = deployment.server("--test", mnist / "test.npz", "--rounds", ROUNDS, "--strategies", *OURS)
        clients = []
        for number, name in enumerate(names):
            moved = (deployment.federation / "clients" / f"{name}.identity").rename(tmp_path / f"{name}.identity")
            given = ["--shard", mnist / f"shard-{number}.npz", "--identity", moved, "--once"]
            clients.append(deployment.run("-m", "client", *given, host=f"client-{number}", name=name))

        server.says("listening on .*: TLS, 5 clients enrolled")
        assert server.status() == 0, deployment.told()
        assert [client.status() for client in clients] == [0] * 5, deployment.told()
        assert [client.errors() for client in clients] == [[]] * 5
        assert "INSECURE" not in deployment.told()
        for client, name in zip(clients, names, strict=True):
            client.says(rf"{name} \(client \d\), shard")
            client.says("connected to ")
            client.says(f"the run is over; {ROUNDS * len(OURS)} rounds trained")

        (out,) = (tmp_path / "runs").iterdir()
        complete(out, 5, ROUNDS, OURS)
        nothing_private_is_told(tmp_path, mnist, deployment.told())
        assert hashes(out) == hashes(simulation)
        assert columns(out, "rounds.csv", *SCORES) == columns(simulation, "rounds.csv", *SCORES)
        exact = ("strategy", "round", "client", "num_examples", "local_steps", "local_norm", "train_loss", "status")
        assert columns(out, "clients.csv", *exact) == columns(simulation, "clients.csv", *exact)
        for key, digest in hashes(out).items():
            assert saved_digest(out / "models" / f"{key.replace('/', '-')}.keras") == digest


DEEP = """
import keras

def build(input_shape, num_classes):
    layers = keras.layers
    inner = [layer for _ in range(30) for layer in (layers.Dense(4), layers.BatchNormalization())]
    block = keras.Sequential([keras.Input((4,)), *inner])
    pixels = [keras.Input(input_shape), layers.Flatten(), layers.Normalization(), layers.Dense(4)]
    return keras.Sequential([*pixels, block, layers.Dropout(0.2), layers.Dense(num_classes)])
"""


def test_a_deep_network_whose_fresh_arrays_are_equal_comes_to_the_bits_of_the_simulation(
    small_data: Path, tmp_path: Path
):
    """Some 190 arrays, of which 40 differ before round 1 and nearly all after it; floats and integers, also nested."""
    (tmp_path / "deep.py").write_text(DEEP)
    model = ["--model", "deep:build"]
    options = [*model, "--clients", 2, "--rounds", 2, "--strategies", "fedavg", "--steps", 2]
    data = split(small_data, 2, tmp_path / "two")
    simulation = simulated(tmp_path / "sim", "--dataset", data, *options, cwd=tmp_path)
    with Deployment(tmp_path, isolate=False) as deployment:
        out = tmp_path / "out"
        server = deployment.server("--insecure", "--test", data / "test.npz", *options, "--out", out)
        clients = [deployment.client(number, data, "--insecure", "--once", *model) for number in range(2)]
        assert server.status() == 0, deployment.told()
        assert [client.status() for client in clients] == [0, 0], deployment.told()
    complete(out, 2, 2, ["fedavg"])
    assert hashes(out) == hashes(simulation)


def test_clients_stay_for_run_after_run_and_a_second_server_is_refused(residents: Residents):
    first, out = residents.serve()
    first.says("training 3 rounds")
    second, other = residents.serve()
    same, _ = residents.serve("--out", out)
    assert second.status() == 2
    assert len(second.errors()) == 1
    assert "cannot listen on" in second.errors()[0] and "choose another address with --listen" in second.errors()[0]
    assert not other.exists()
    assert same.status() == 2
    assert len(same.errors()) == 1
    assert f"another process is writing to {out}: wait for it, or choose another folder" in same.errors()[0]

    assert first.status() == 0, first.text
    complete(out, CLIENTS, 3, RULES)
    assert hashes(out) == residents.expected

    again, out = residents.serve()
    assert again.status() == 0, again.text
    complete(out, CLIENTS, 3, RULES)
    assert hashes(out) == residents.expected
    for client in residents.clients.values():
        client.says("the run is over; 6 rounds trained")
        client.says("the run is over; 6 rounds trained")
        assert client.running


def test_sigterm_ends_a_client_that_stays(residents: Residents):
    server, _ = residents.serve()
    client = residents.clients[2]
    server.says("client 2 is here")
    session = client.session()
    assert len(session) >= 1
    client.send(signal.SIGTERM)
    assert client.status() == 130
    assert client.errors() == []
    assert client.session() == []
    server.says("client 2 cannot be reached")


@pytest.mark.parametrize("word", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_server_that_waits(residents: Residents, word: str):
    server, out = residents.serve("--clients", 5)
    server.says("client . is here")
    server.send(signal.Signals[word])
    assert server.status() == 130
    assert read_run(out)["status"] == "interrupted"
    assert server.session() == []
    assert "Traceback" not in server.text


def test_ctrl_c_while_training_and_resume_come_to_the_same_bits(residents: Residents):
    server, out = residents.serve()
    server.says(r"round 1/3")
    server.send(signal.SIGINT)
    assert server.status() == 130
    run = read_run(out)
    assert (run["status"], run["exit_status"]) == ("interrupted", 130)
    assert {result["ended"] for result in run["results"].values()} <= {"interrupted", "finished"}
    assert any(result["rounds"] < 3 for result in run["results"].values())
    assert (out / "report.html").exists()
    assert server.session() == []

    resumed = residents.resume(out)
    assert resumed.status() == 0, resumed.text
    assert "from round 2" in resumed.text or "from round 3" in resumed.text
    complete(out, CLIENTS, 3, RULES)
    assert hashes(out) == residents.expected
    assert all(client.running for client in residents.clients.values())
