"""Flower's own processes: its SuperNode with our server, and our apps on its SuperLink. The bits are the same."""

import os
import socket
import sys
import tomllib
from pathlib import Path

import pytest
from federation import ROOT, Deployment, hashes, simulated, until

from server.app import OF_THE_APP, config_of
from task.config import RunConfig

OPTIONS = {"model": "mlp", "rounds": 2, "batch-size": 16, "steps": 20}
STRATEGIES = ["fedmedian", "fednova"]


@pytest.fixture(scope="module")
def expected(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the simulation comes to."""
    words = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    folder = tmp_path_factory.mktemp("sim") / "out"
    return hashes(simulated(folder, "--dataset", small_shards, "--strategies", *STRATEGIES, *words))


def test_flowers_supernode_takes_part_beside_resident_clients(
    small_shards: Path, expected: dict[str, str], tmp_path: Path
):
    with Deployment(tmp_path, isolate=False) as deployment:
        host, _, port = deployment.address.rpartition(":")
        deployment.manage("enroll", "a", "b", "c", "--host", host, "--port", port)
        words = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
        given = ["--test", small_shards / "test.npz", "--clients", 3, "--strategies", *STRATEGIES, *words]
        server = deployment.server(*given, "--out", tmp_path / "out")
        clients = [
            deployment.client(
                number,
                small_shards,
                "--once",
                *("--identity", deployment.federation / "clients" / f"{name}.identity"),
                *(["--runtime", "stock"] if name == "a" else []),
            )
            for number, name in enumerate("abc")
        ]
        assert server.status(240) == 0, deployment.told()
        assert [client.status() for client in clients] == [0, 0, 0], deployment.told()
        assert hashes(tmp_path / "out") == expected
        assert all(client.session() == [] for client in clients), "a process was left behind"


def test_flwr_run_plays_the_same_on_flowers_superlink(small_shards: Path, expected: dict[str, str], tmp_path: Path):
    with Deployment(tmp_path, isolate=False) as deployment:
        host, _, port = deployment.address.rpartition(":")
        home = tmp_path / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "lab"\n\n[superlink.lab]\naddress = "{deployment.address}"\ninsecure = true\n'
        )
        superlink = "from flwr.superlink.cli import flower_superlink; flower_superlink()"
        listen = ["--insecure", "--host", host, "--port", port, "--disable-runtime-dependency-installation"]
        environment = {"FLWR_HOME": str(home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        deployment.run("-c", superlink, *listen, name="superlink", **environment)
        for number in range(3):
            deployment.client(number, small_shards, "--insecure")
        until(lambda: answers(host, int(port)), "a SuperLink that listens", told=deployment.told)
        run_config = " ".join(
            f"{name}={value!r}"
            for name, value in {
                **OPTIONS,
                "clients": 3,
                "strategies": " ".join(STRATEGIES),
                "test": str(small_shards / "test.npz"),
                "out": str(tmp_path / "out"),
            }.items()
        )
        command = "from flwr.cli.app import app; app()"
        flwr = ["run", ROOT, "lab", "--stream", "--run-config", run_config]
        run = deployment.run("-c", command, *flwr, name="flwr", **environment)
        run.says("writing the models", 240)
        assert run.status() == 0, deployment.told()
        assert hashes(tmp_path / "out") == expected


def test_the_run_config_of_flower_begins_with_the_same_defaults():
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    flat = {name.replace("-", "_"): value for name, value in given.items() if name.replace("-", "_") not in OF_THE_APP}
    assert config_of(flat) == RunConfig(clients=5)


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there; `flwr` does not wait for it."""
    with socket.socket() as caller:
        return caller.connect_ex((host, port)) == 0
