"""Hosts for tests of the real deployment: each in a network namespace of its own, on a network that can be cut.

    with Network() as network:
        server, client = network.host("server"), network.host("client")
        process = server.popen([sys.executable, "-m", "http.server", "--bind", server.address])
        client.cut("out")  # what the client sends vanishes; nobody is told
        client.heal()

In pytest, `from hosts import network` in conftest.py makes the fixture of that name known to every test.

Hosts share files and the clock, but no port, no loopback and no route: the bridge between them is in a namespace too,
so neither this machine nor the internet can be reached from a host, nor a host from this machine (talk to its processes
through pipes and files). Every network has the same addresses, and two at once cannot meet.

Namespaces need Linux, root, and `ip` and `tc` (Debian's iproute2). Elsewhere the hosts are loopback addresses of this
machine that share its ports: `Network.isolated` is False, `Network.obstacle` says why, and `Host.cut` raises
NotImplementedError.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import psutil
import pytest

Direction = Literal["in", "out", "both"]

PATIENCE = 30.0  # seconds for a command of iproute2, and for killed processes to be gone
MARK = "FEDARENA_TEST_NETWORK"  # environment variable by which processes of loopback hosts are found
SBIN = "/usr/sbin:/sbin"  # where iproute2 may be although the PATH of an ordinary login does not lead there
NAMESPACE = re.compile(r"(fedarena-(\d+)-[0-9a-f]{8})-[a-z0-9-]+")  # network, its process, then host or switch
SWITCH = "--switch"  # two hyphens, so that a host may be called "switch"


class NetworkError(RuntimeError):
    """The network, or something on it, could not be made, changed or removed."""


class Host:
    """One machine of a network; `Network.host` makes it.

    Attributes:
        name: What the test calls it.
        address: Its IPv4 address; on an isolated network it has this one and its own 127.0.0.1, nothing else.
    """

    def __init__(self, network: "Network", name: str, address: str, namespace: str = "", port: str = "") -> None:
        self.name = name
        self.address = address
        self._network = network
        self._namespace = namespace
        # A packet is dropped where it leaves a device: the host's own for "out", the switch's port to it for "in".
        self._drops = {"out": (namespace, "eth0"), "in": (network.name + SWITCH, port)}
        self._cut: set[str] = set()

    def popen(self, args: Sequence[str | Path], **kwargs: Any) -> "subprocess.Popen[Any]":
        """Start a program on this host.

        Its pid is the program's own, and the leader of a session and process group of its own, so that signals reach
        it, and `os.killpg(process.pid, ...)` its children too. What still runs when the network ends is killed.

        Args:
            args: Program and arguments. On an isolated host a program that does not exist is no FileNotFoundError but
                a non-zero exit status and a line on stderr.
            **kwargs: As for `subprocess.Popen`, except `shell` and `start_new_session`.

        Returns:
            The running process.
        """
        place = [tool("ip") or "ip", "netns", "exec", self._namespace] if self._namespace else []
        kwargs["env"] = {**(os.environ if kwargs.get("env") is None else kwargs["env"]), MARK: self._network.name}
        process: subprocess.Popen[Any] = subprocess.Popen([*place, *map(str, args)], **kwargs, start_new_session=True)
        self._network.processes.append(process)
        return process

    def cut(self, direction: Direction = "both") -> None:
        """Drop packets from now on, silently: nothing is refused, no connection is reset, no error is reported.

        Cuts add up until `heal`. The host's loopback is not touched.

        Args:
            direction: "out" drops what the host sends, "in" what is sent to it, "both" either.

        Raises:
            NotImplementedError: The network is not isolated.
            ValueError: No such direction.
        """
        if direction not in ("in", "out", "both"):
            raise ValueError(f"direction {direction!r}: 'in', 'out' or 'both'")
        if not self._network.isolated:
            raise NotImplementedError(f"a loopback host cannot be cut off: {self._network.obstacle}")
        for side in {"in", "out"} if direction == "both" else {direction}:
            if side not in self._cut:
                namespace, device = self._drops[side]
                # This queue is in every kernel that has queues at all, and it tells the sender that all is well.
                _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "blackhole")
                self._cut.add(side)

    def heal(self) -> None:
        """End all cuts of this host; without a cut, nothing."""
        for side in sorted(self._cut):
            namespace, device = self._drops[side]
            _run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
            self._cut.remove(side)


class Network:
    """A network that exists inside a `with`; see the module's text.

    Entering it also removes what a killed test run left behind. Leaving it kills all processes on it and removes it.

    Attributes:
        name: Unique on this machine; the namespaces' names begin with it.
        isolated: Whether hosts have namespaces of their own and can be cut off. Known once entered.
        obstacle: Why it is not isolated, one line for `pytest.skip`; else empty.
        processes: What `Host.popen` started, in that order.
    """

    _alive: ClassVar[set[str]] = set()

    def __init__(self, *, isolate: bool = True) -> None:
        """Prepare a network.

        Args:
            isolate: False for loopback hosts even where namespaces work.
        """
        self.name = f"fedarena-{os.getpid()}-{secrets.token_hex(4)}"
        self.isolated = False
        self.obstacle = _missing() if isolate else "the test asked for loopback hosts"
        self.processes: list[subprocess.Popen[Any]] = []
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        self._alive.add(self.name)
        if not self.obstacle:
            try:
                _remove(_leftovers(self._alive))
                self._make_switch()
                self.isolated = True
            except NetworkError as error:
                self.obstacle = f"network namespaces do not work here: {error}"
                self._remove_namespaces()
            except BaseException:
                self._remove_namespaces()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for process in self.processes:
                if process.poll() is None:  # not reaped yet, so the group cannot be a stranger's
                    with suppress(PermissionError):  # macOS, if it has just ended by itself
                        os.killpg(process.pid, signal.SIGKILL)
            for process in self.processes:
                process.wait(PATIENCE)
            _kill(partial(_marked, self.name))
        finally:
            self._remove_namespaces()

    def host(self, name: str) -> Host:
        """The host of that name; the first call makes it.

        Args:
            name: Small letters, digits and inner hyphens, at most 32.

        Raises:
            ValueError: A bad name, or more than 250 hosts.
            NetworkError: The host could not be made.
        """
        if name not in self._hosts:
            number = len(self._hosts) + 1
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{,31}", name) or number > 250:
                raise ValueError(f"host {name!r}: 1 to 32 of a-z, 0-9 and '-', and at most 250 hosts")
            self._hosts[name] = self._make_host(name, number) if self.isolated else self._loopback_host(name, number)
        return self._hosts[name]

    def _loopback_host(self, name: str, number: int) -> Host:
        address = f"127.77.0.{number}"
        with socket.socket() as probe:
            try:
                probe.bind((address, 0))
            except OSError:  # outside Linux only 127.0.0.1 is there
                address = "127.0.0.1"
        return Host(self, name, address)

    def _make_switch(self) -> None:
        """The bridge, in a namespace; on the way everything that a host needs is tried out."""
        switch = self.name + SWITCH
        _run("ip", "netns", "add", switch)
        _run("ip", "netns", "exec", switch, "true")
        _run("ip", "-n", switch, "link", "add", "name", "trial", "type", "veth", "peer", "name", "trial-peer")
        _run("tc", "-n", switch, "qdisc", "add", "dev", "trial", "root", "blackhole")
        _batch(switch, "link del dev trial", "link add name bridge type bridge", "link set dev bridge up")

    def _make_host(self, name: str, number: int) -> Host:
        switch, namespace, port = self.name + SWITCH, f"{self.name}-{name}", f"port{number}"
        address, card = f"10.77.0.{number}", _card(number)
        _run("ip", "netns", "add", namespace)
        _batch(
            switch,
            f"link add name {port} type veth peer name eth0 address {card} netns {namespace}",
            f"link set dev {port} master bridge up",
        )
        _batch(namespace, "link set dev lo up", "link set dev eth0 up", f"address add {address}/24 dev eth0")
        # Everyone knows everyone's card for good: a cut would swallow the question for it too, and the sender of the
        # question would be told "no route to host" after some seconds.
        for other, host in enumerate(self._hosts.values(), 1):
            _batch(host._namespace, f"neigh replace {address} lladdr {card} nud permanent dev eth0")
            _batch(namespace, f"neigh replace {host.address} lladdr {_card(other)} nud permanent dev eth0")
        return Host(self, name, address, namespace, port)

    def _remove_namespaces(self) -> None:
        self._alive.discard(self.name)
        if not _missing():
            _remove([name for name in _namespaces() if name.startswith(self.name + "-")])


@pytest.fixture
def network() -> Iterator[Network]:
    """A fresh network for one test, isolated where that is possible."""
    with Network() as fresh:
        yield fresh


def _missing() -> str:
    """What namespaces need and this machine lacks, or nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in ("ip", "tc") if not tool(name)]
    return f"network namespaces need iproute2: no {' and no '.join(lacking)}" if lacking else ""


def tool(name: str) -> str | None:
    """Return the path of an administrator's program, also where PATH does not lead to it; None if there is none."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), SBIN]))


def _run(*command: str, lines: str = "") -> str:
    """What a command printed.

    Args:
        *command: Program and arguments.
        lines: Its standard input.

    Raises:
        NetworkError: It failed; with the command and what it said.
    """
    try:
        found = [tool(command[0]) or command[0], *command[1:]]
        return subprocess.run(found, input=lines, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    except subprocess.CalledProcessError as error:
        told = " ".join(error.stderr.split())
        raise NetworkError(f"`{' '.join(command)}` ended with {error.returncode}: {told} {lines!r}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"`{' '.join(command)}`: {error}") from None


def _batch(namespace: str, *lines: str) -> None:
    """Several commands of `ip` in one namespace, one process."""
    _run("ip", "-n", namespace, "-batch", "-", lines="\n".join(lines) + "\n")


def _card(number: int) -> str:
    """Ethernet address of a host: a locally administered one."""
    return f"02:00:0a:4d:00:{number:02x}"


def _namespaces() -> list[str]:
    """Names of all namespaces of this machine that a network of ours made."""
    names = (line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line.strip())
    return [name for name in names if NAMESPACE.fullmatch(name)]


def _leftovers(alive: set[str]) -> list[str]:
    """Namespaces of ours whose test run is dead, or had this process's pid before it."""
    found = []
    for name in _namespaces():
        match = NAMESPACE.fullmatch(name)
        assert match
        network, pid = match[1], int(match[2])
        if not psutil.pid_exists(pid) or (pid == os.getpid() and network not in alive):
            found.append(name)
    return found


def _remove(namespaces: list[str]) -> None:
    """Remove namespaces after what runs in them; it may be that another test run removes the same leftovers."""
    errors = []
    for name in namespaces:
        try:
            _kill(partial(_inside, name))
        except NetworkError as error:
            errors.append(error)
        try:
            _run("ip", "netns", "del", name)
        except NetworkError as error:
            if name in _namespaces():
                errors.append(error)
    if errors:
        raise NetworkError("; ".join(map(str, errors)))


def _inside(namespace: str) -> list[psutil.Process]:
    """Processes that run in a namespace; none if it is gone."""
    try:
        pids = _run("ip", "netns", "pids", namespace).split()
    except NetworkError:
        if namespace in _namespaces():
            raise
        return []
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(pid)))
    return found


def _marked(network: str) -> list[psutil.Process]:
    """Processes whose environment says that they belong to a network."""
    return [
        process for process in psutil.process_iter(["environ"]) if (process.info["environ"] or {}).get(MARK) == network
    ]


def _kill(members: Callable[[], list[psutil.Process]]) -> None:
    """Kill until nobody is left: who was killed may just have started another.

    Raises:
        NetworkError: Some cannot be killed.
    """
    deadline = time.monotonic() + PATIENCE
    while left := members():
        if time.monotonic() > deadline:
            raise NetworkError(f"still running: {[process.pid for process in left]}")
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)  # looked at again rather than waited for: where nobody reaps orphans they stay zombies
