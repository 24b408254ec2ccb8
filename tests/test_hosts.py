"""The hosts that other tests run on: apart, cut off in one direction at a time, and gone afterwards."""

import ast
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast

import hosts
import psutil
import pytest
from hosts import Direction, Host, Network

network = hosts.network  # the fixture

DATAGRAMS = 20
SLEEP = "import time; time.sleep(600)"
# Starts a sleeper in a session of its own, of which nobody but its pid is known, and waits.
PARENT = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True, stdout=-3).pid, flush=True)
{SLEEP}
"""


class Peer:
    """A Python process on a host that evaluates expressions, one by one as the test asks."""

    LOOP = """
import errno, os, socket, sys
for line in sys.stdin:
    try:
        answer = eval(line)
    except OSError as error:
        answer = errno.errorcode.get(error.errno, str(error))
    print(repr(answer), flush=True)
"""

    def __init__(self, host: Host) -> None:
        self.address = host.address
        self.process = host.popen(
            [sys.executable, "-c", self.LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.questions, self.answers = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)

    def __call__(self, expression: str) -> Any:
        """The value of an expression, or the name of the errno that it ended with."""
        self.questions.write(expression + "\n")
        self.questions.flush()
        return ast.literal_eval(self.answers.readline())

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.communicate(timeout=30)


@pytest.fixture
def isolated(network: Network) -> Network:
    if not network.isolated:
        pytest.skip(network.obstacle)
    return network


@pytest.fixture
def peers(isolated):
    """Three processes on three hosts, each with a UDP socket on port 5000."""
    three = [Peer(isolated.host(name)) for name in ("server", "near", "far")]
    for peer in three:
        peer("(udp := socket.socket(type=socket.SOCK_DGRAM)).settimeout(30)")
        assert peer(f"udp.bind(({peer.address!r}, 5000))") is None
    yield three
    for peer in three:
        peer.close()


def shout(source: Peer, target: Peer, text: str, times: int = DATAGRAMS) -> None:
    """Send datagrams; the sender must not notice whether they arrive."""
    sent = source(f"[udp.sendto({text.encode()!r}, ({target.address!r}, 5000)) for _ in range({times})]")
    assert sent == [len(text)] * times


def heard(target: Peer) -> list[bytes]:
    """What came before the last word. Packets do not overtake each other here, so nothing has to be waited for."""
    return cast(list[bytes], target("list(iter(lambda: udp.recv(99), b'end'))"))


@pytest.mark.parametrize(("direction", "comes", "goes"), [("in", 0, 1), ("out", 1, 0), ("both", 0, 0)])
def test_a_cut_drops_what_goes_in_its_direction_and_nothing_else(isolated, peers, direction, comes, goes):
    server, near, far = peers
    isolated.host("far").cut(direction)
    shout(server, far, "cut")
    shout(far, server, "cut")
    shout(near, server, "bystander")
    isolated.host("far").heal()
    for source, target in ((server, far), (far, server)):
        shout(source, target, "healed")
        shout(source, target, "end", times=1)
    assert heard(far) == [b"cut"] * (DATAGRAMS * comes) + [b"healed"] * DATAGRAMS
    assert heard(server) == [b"cut"] * (DATAGRAMS * goes) + [b"bystander"] * DATAGRAMS + [b"healed"] * DATAGRAMS


def test_cuts_add_up_and_one_healing_ends_all(isolated, peers):
    server, _, far = peers
    for direction in ("in", "in", "both", "out"):
        isolated.host("far").cut(direction)
    shout(server, far, "cut")
    shout(far, server, "cut")
    isolated.host("far").heal()
    isolated.host("far").heal()
    for source, target in ((server, far), (far, server)):
        shout(source, target, "end", times=1)
        assert heard(target) == []


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_a_tcp_connection_survives_a_cut_and_goes_on(isolated, peers, direction: Direction):
    server, _, far = peers
    server("(listener := socket.create_server(('0.0.0.0', 6000))).settimeout(30)")
    assert far(f"(tcp := socket.create_connection(({server.address!r}, 6000), 30)).sendall(b'before')") is None
    server("(tcp := listener.accept()[0]).settimeout(30)")
    assert server("(received := tcp.makefile('rb')).read(6)") == b"before"
    far("(received := tcp.makefile('rb')).fileno()")

    isolated.host("far").cut(direction)
    for source, target, cut in ((far, server, direction != "in"), (server, far, direction != "out")):
        assert source("tcp.sendall(b'during')") is None
        if cut:
            assert target("(tcp.setblocking(False), tcp.recv(1))") == "EAGAIN"
            target("tcp.settimeout(30)")
    isolated.host("far").heal()
    for source, target in ((far, server), (server, far)):
        assert source("tcp.sendall(b'after')") is None
        assert target("received.read(11)") == b"duringafter"


def test_hosts_share_nothing_but_the_network(isolated, peers):
    server, near, _ = peers
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        assert server(f"socket.create_connection(('127.0.0.1', {port}), 30)") == "ECONNREFUSED"
    assert server("(local := socket.create_server(('127.0.0.1', 7000))).settimeout(30)") is None
    assert server("(mine := socket.create_connection(('127.0.0.1', 7000), 30)).close()") is None  # its loopback is up
    assert near("socket.create_connection(('127.0.0.1', 7000), 30)") == "ECONNREFUSED"
    # Connecting a UDP socket looks for a route and sends nothing.
    assert near("socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))") == "ENETUNREACH"
    assert sorted(near("[name for _, name in socket.if_nameindex() if name in ('lo', 'eth0')]")) == ["eth0", "lo"]
    assert len({peer.address for peer in peers}) == 3


def test_a_long_cut_stays_silent(isolated, peers):
    """A host that had to ask for the others' cards would be told "no route to host" after some seconds of a cut."""
    for peer in peers:
        lines = [line.split() for line in peer("open('/proc/net/arp').read()").splitlines()[1:]]
        assert {line[0]: line[2] for line in lines} == {
            other.address: "0x6"  # complete and permanent
            for other in peers
            if other is not peer
        }


def test_two_networks_at_once_do_not_meet(isolated, peers):
    server, _, far = peers
    with Network() as other:
        assert other.isolated and other.name != isolated.name
        stranger, same = Peer(other.host("server")), Peer(other.host("other"))
        assert stranger.address == server.address
        for peer in (stranger, same):
            peer(f"(udp := socket.socket(type=socket.SOCK_DGRAM)).bind(({peer.address!r}, 5000))")
        shout(same, stranger, "there")
        shout(same, stranger, "end", times=1)
        shout(far, server, "here")
        shout(far, server, "end", times=1)
        assert heard(stranger) == [b"there"] * DATAGRAMS
        assert heard(server) == [b"here"] * DATAGRAMS
        stranger.close()
        same.close()
    shout(far, server, "end", times=1)  # removing one leaves the other
    assert heard(server) == []


@pytest.mark.parametrize("isolate", [True, False])
def test_a_process_is_itself_and_leads_its_own_session(isolate):
    with Network(isolate=isolate) as network:
        peer = Peer(network.host("server"))
        assert peer("os.getpid()") == peer("os.getsid(0)") == peer.process.pid
        network_of = [Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", peer.process.pid)]
        assert (network_of[0] != network_of[1]) == network.isolated
        peer.process.send_signal(signal.SIGTERM)
        peer.close()
        assert peer.process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("isolate", [True, False])
def test_a_failing_test_leaves_neither_processes_nor_namespaces(isolate):
    with pytest.raises(ZeroDivisionError), Network(isolate=isolate) as network:
        host = network.host("server")
        parent = host.popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env={"A": "b"})
        orphan = psutil.Process(int(parent.stdout.readline()))
        leaderless = host.popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        child = psutil.Process(int(leaderless.stdout.readline()))
        leaderless.kill()
        leaderless.communicate(timeout=30)
        host.popen([sys.executable, "-c", SLEEP]).send_signal(signal.SIGSTOP)
        assert runs(orphan) and runs(child)
        raise ZeroDivisionError
    assert [process.poll() for process in network.processes] == [-signal.SIGKILL] * 3
    parent.communicate(timeout=30)
    assert not runs(orphan) and not runs(child)
    assert not [name for name in names() if name.startswith(network.name)]


def test_a_network_removes_what_a_killed_test_run_left(isolated):
    script = f"""
import sys
sys.path.insert(0, {str(Path(hosts.__file__).parent)!r})
from hosts import Network
with Network() as network:
    print(network.name, network.host("server").popen([sys.executable, "-c", {SLEEP!r}]).pid, flush=True)
    {SLEEP}
"""
    killed = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    name, pid = killed.stdout.readline().split()
    sleeper = psutil.Process(int(pid))
    with Network():
        assert f"{name}-server" in names() and runs(sleeper)  # a living run's
    killed.kill()
    killed.wait(30)
    killed.stdout.close()
    with Network() as fresh:
        assert not [left for left in names() if left.startswith(name)]
        assert not runs(sleeper)
        assert {f"{isolated.name}--switch", f"{fresh.name}--switch"} <= set(names())


def test_a_number_that_another_process_had_before_does_not_save_its_leftovers(isolated):
    old = f"fedarena-{os.getpid()}-00000000-server"
    hosts._run("ip", "netns", "add", old)
    with Network():
        assert old not in names()


def test_tools_are_found_where_the_path_of_an_ordinary_login_does_not_lead(isolated, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    with Network() as network:
        assert network.isolated, network.obstacle
        network.host("one").cut()


@pytest.mark.parametrize(("user", "lack"), [(1000, "need root"), (0, "need iproute2: no ip and no tc")])
def test_loopback_hosts_where_namespaces_do_not_work(monkeypatch, tmp_path, user, lack):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hosts, "SBIN", "")
    with Network() as network:
        assert not network.isolated and network.obstacle == f"network namespaces {lack}"
        one, two = Peer(network.host("one")), Peer(network.host("two"))
        if sys.platform == "linux":
            assert (one.address, two.address) == ("127.77.0.1", "127.77.0.2")
        one(f"(listener := socket.create_server(({one.address!r}, 0))).settimeout(30)")
        port = one("listener.getsockname()[1]")
        two(f"(tcp := socket.create_connection(({one.address!r}, {port}), 30)).sendall(b'hello')")
        assert one("listener.accept()[0].makefile('rb').read(5)") == b"hello"
        with pytest.raises(NotImplementedError, match=lack):
            network.host("one").cut()
        network.host("one").heal()
        one.close()
        two.close()


def test_loopback_hosts_where_a_command_is_refused(monkeypatch, tmp_path, isolated):
    """As in a container whose root may not make namespaces: `ip` is there and fails."""
    for tool in ("ip", "tc"):
        (tmp_path / tool).write_text("#!/bin/sh\n[ $2 = list ] || { echo not permitted >&2; exit 1; }\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hosts, "SBIN", "")
    with Network() as network:
        assert not network.isolated and "netns add" in network.obstacle and "not permitted" in network.obstacle
        with pytest.raises(NotImplementedError, match="not permitted"):
            network.host("one").cut("in")


def test_one_name_is_one_host_and_mistakes_are_named(network):
    assert network.host("server") is network.host("server")
    assert network.host("server").address != network.host("client-1").address
    for name in ("", "-switch", "Server", "a" * 33, "../x"):
        with pytest.raises(ValueError, match="host"):
            network.host(name)
    with pytest.raises(ValueError, match="sideways"):
        network.host("server").cut("sideways")


def test_a_host_may_be_called_switch_and_a_missing_program_is_told_on_stderr(isolated):
    process = isolated.host("switch").popen(["no-such-program"], stderr=subprocess.PIPE, text=True)
    assert 'exec of "no-such-program" failed' in process.communicate(timeout=30)[1]
    assert process.returncode != 0


def test_errors_of_commands_say_what_was_run_and_what_it_said(isolated):
    isolated.host("server")
    hosts._run("ip", "netns", "del", f"{isolated.name}-server")
    with pytest.raises(hosts.NetworkError, match=rf"tc -n {isolated.name}-server qdisc add.*No such file"):
        isolated.host("server").cut("out")


def names() -> list[str]:
    """All network namespaces of this machine."""
    if Network().obstacle:
        return []
    return [line.split()[0] for line in hosts._run("ip", "netns", "list").splitlines() if line.strip()]


def runs(process: psutil.Process) -> bool:
    """Whether a process lives; where nobody reaps orphans, killed ones stay as zombies."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
