"""The same ClientApp in Flower's own SuperNode: slower, for who wants nothing but Flower's processes."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from task.errors import UserError, printable
from task.identity import Identity, write_private

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_PAUSE = 30.0  # seconds between two starts of a SuperNode that keeps ending
_REFUSAL_SECONDS = 15.0  # that a server gets to refuse a client which has said that it cannot take part
_STEADY = 60.0  # seconds after which a SuperNode counts as having worked


def run_supernode(
    address: str,
    identity: Identity | None,
    config: dict[str, Any],
    folder: Path,
    console: "Console",
    log: Path,
    *,
    once: bool,
) -> int:
    """Keep a `flower-supernode` running until the run is over (`once`) or the user ends it; the exit status.

    Args:
        address: of the server, "HOST:PORT".
        identity: key and certificate authority; None: plain HTTP.
        config: the node's configuration, see `client.app`.
        folder: private to this process; the key is put there in the form that SuperNode takes.
        console: where lines go.
        log: where SuperNode and its apps write, also tracebacks.
        once: whether to end with the first run that ends.

    Raises:
        UserError: the server refuses this client, or this client cannot take part.
    """
    notices = folder / "notices"
    notices.touch()
    command = _command(address, identity, {**config, "notices": str(notices)}, folder)
    environment = {
        **os.environ,
        "FLWR_HOME": str(folder / "flwr"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
    }
    told, pause = 0, 1.0
    unfit, since = "", 0.0
    while True:
        began = time.monotonic()
        console.print(f"starting flower-supernode for {address}", highlight=False)
        node = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
        try:
            while node.poll() is None:
                time.sleep(0.2)
                lines = notices.read_text(encoding="utf-8").splitlines()
                for line in lines[told:]:
                    topic, text = json.loads(line)
                    if topic == "unfit" and not unfit:
                        unfit, since = f"this client cannot take part: {text}; more in {log}", time.monotonic()
                    elif topic == "failed":
                        console.print(
                            f"{printable(text)}; more in {log}", highlight=False, markup=False, soft_wrap=True
                        )
                    elif topic == "refused":
                        raise UserError(unfit or f"the server refuses this client: {text}")
                    elif topic == "wait":
                        console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
                    elif topic == "over":
                        console.print(printable(text), highlight=False)
                        if once:
                            time.sleep(1)  # the answer leaves first
                            return 0
                told = len(lines)
                if unfit and time.monotonic() - since > _REFUSAL_SECONDS:
                    raise UserError(unfit)
        finally:
            _end(node)
        pause = 1.0 if time.monotonic() - began > _STEADY else min(_LONGEST_PAUSE, pause * 2)
        console.print(f"flower-supernode ended with status {node.returncode}; again in {pause:.0f} s", highlight=False)
        time.sleep(pause)


def _command(address: str, identity: Identity | None, config: dict[str, Any], folder: Path) -> list[str]:
    pairs = " ".join(f"{name}={_quoted(value)}" for name, value in config.items() if value != "")
    command = ["flower-supernode", "--superlink", address, "--node-config", pairs, "--port", str(_free_port())]
    if identity is None:
        return [*command, "--insecure"]
    ca, key = folder / "ca.pem", folder / "key"
    ca.write_bytes(identity.ca)
    write_private(key, identity.private_key)
    return [*command, "--root-certificates", str(ca), "--auth-supernode-private-key", str(key)]


def _quoted(value: Any) -> str:
    """A value as Flower's TOML-like --node-config takes it."""
    return str(value) if isinstance(value, int) else json.dumps(str(value))


def _free_port() -> int:
    """For the SuperNode's own API, which its app processes call on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _end(node: "subprocess.Popen[bytes]") -> None:
    """End the SuperNode and its children, which are a session of their own."""
    for signal_number, patience in ((15, 5.0), (9, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            node.wait(timeout=patience)
            if signal_number == 9:
                return
