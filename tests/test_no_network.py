"""After the installation nothing needs a network and nothing is sent: with networking cut, and every try counted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hosts import Network, _run
from rich.console import Console

from task.offline import SETTINGS

# What tried to leave has found no route: of a connection, a datagram or a name that was asked for. IPv6 counts apart.
_COUNT = """
import socket
from contextlib import suppress
from pathlib import Path

def tries():
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:3] == "Ip:")
    six = Path("/proc/net/snmp6")
    lines = dict(line.split() for line in six.read_text().splitlines()) if six.exists() else {}
    return int(values[names.index("OutNoRoutes")]) + int(lines.get("Ip6OutNoRoutes", 0))

def tcp(): socket.create_connection(("192.0.2.1", 80), 1)
def udp(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
"""
_CONTROL = """
for act in (tcp, udp):
    before = tries()
    with suppress(OSError):
        act()
    print(tries() - before)
"""
_WITHOUT_OURS = {name: value for name, value in os.environ.items() if name not in SETTINGS}


def test_a_simulation_runs_with_networking_cut_and_does_not_even_try(small_data: Path, tmp_path: Path):
    with Network() as network:
        if not network.isolated:
            pytest.skip(network.obstacle)
        alone = network.host("alone")
        # Nobody but itself: not even the card of the test network.
        _run("ip", "-n", alone._namespace, "link", "del", "dev", "eth0")

        def counted(code: str) -> list[int]:
            popen = alone.popen([sys.executable, "-c", _COUNT + code], stdout=subprocess.PIPE, text=True)
            return [int(word) for word in popen.communicate(timeout=60)[0].split()]

        options = ["--dataset", small_data, "--model", "mlp", "--clients", "2", "--strategies", "fedavg"]
        options += ["--rounds", "1", "--workers", "1", "--quiet", "--out", tmp_path / "out"]
        environment = {**_WITHOUT_OURS, "FEDARENA_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, ROOT / "sim.py", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        popen = alone.popen(command, cwd=tmp_path, env=environment, **pipes)
        said = popen.communicate(timeout=150)[0]
        assert popen.returncode == 0, said
        assert (tmp_path / "out" / "report.html").exists()
        assert counted("print(tries())") == [0]
        assert counted(_CONTROL) == [1, 1]  # the counter does see one who tries


ENTRIES = [
    "sim",
    "server.__main__",
    "client.__main__",
    "server.report.__main__",
    "server.oneshot.__main__",
    "task.split",
]
_FIRST_WORD = """
import importlib, os, sys
sys.argv = ["x", "--help"]
for name in {entries!r}:
    module = importlib.import_module(name)
    loaded = {{"flwr", "flwr_datasets", "huggingface_hub", "ray"}} & set(sys.modules)
    assert not loaded, (name, loaded)
    for setting in {settings!r}:
        os.environ.pop(setting, None)
    try:
        module.main(["--help"])
    except SystemExit as end:
        assert end.code == 0, name
    assert {{setting: os.environ.get(setting) for setting in {settings!r}}} == {settings!r}, name
    loaded = {{"flwr", "flwr_datasets", "huggingface_hub", "ray"}} & set(sys.modules)
    assert not loaded, (name, loaded)
"""


def test_every_command_tells_libraries_before_it_imports_them():
    code = _FIRST_WORD.format(entries=ENTRIES, settings=SETTINGS)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=_WITHOUT_OURS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_libraries_read_the_settings():
    code = (
        "from task.offline import keep_to_ourselves; keep_to_ourselves()\n"
        "from flwr.supercore import telemetry\n"
        "from flwr_datasets.common import telemetry as datasets\n"
        "from huggingface_hub import constants\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "print(telemetry.FLWR_TELEMETRY_ENABLED, datasets.FLWR_TELEMETRY_ENABLED)\n"
        "print(constants.HF_HUB_DISABLE_TELEMETRY, usage_stats_enabled())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=_WITHOUT_OURS, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0", "True", "False"], done.stderr


def test_flowers_own_supernode_inherits_them(tmp_path, monkeypatch):
    """It is started with this process's environment, as are the processes that it starts for messages."""
    from client import stock

    given = {}

    class Ended:
        returncode = 0
        pid = 2**22 + 1  # of nobody

        def __init__(self, command, env, **options):
            given.update(env)

        def poll(self):
            raise KeyboardInterrupt

        def wait(self, timeout):
            return 0

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stock.subprocess, "Popen", Ended)
    monkeypatch.setattr(stock, "_end", lambda node: None)
    with pytest.raises(KeyboardInterrupt):
        stock.run_supernode("127.0.0.1:1", None, {}, tmp_path, Console(quiet=True), tmp_path / "out", once=True)
    assert {name: given[name] for name in SETTINGS} == SETTINGS
