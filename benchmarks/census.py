"""What the processes of a simulation hold, looked at from outside."""

from contextlib import suppress
from dataclasses import dataclass

import psutil

DRIVER, WORKER, RAYLET, GCS = "driver", "worker", "raylet", "gcs_server"
_KINDS = {"ray::Worker": WORKER, "raylet/raylet": RAYLET, "gcs/gcs_server": GCS}  # by what the command line holds


@dataclass(frozen=True)
class Held:
    """What one process holds.

    Attributes:
        resident: bytes of memory, shared ones too.
        own: bytes of memory that no other process shares.
        files: open files, sockets and pipes.
        threads: threads.
    """

    resident: int
    own: int
    files: int
    threads: int


def census(pid: int) -> dict[str, list[Held]]:
    """What the driver with this process id and the processes of its Ray hold, by kind.

    Ray's dashboard agents and log monitor are left out: they do nothing for a round.
    """
    found: dict[str, list[Held]] = {DRIVER: [], WORKER: [], RAYLET: [], GCS: []}
    with suppress(psutil.Error):  # a process that ends while it is looked at
        driver = psutil.Process(pid)
        for process in [driver, *driver.children(recursive=True)]:
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                kind = (
                    DRIVER if process.pid == pid else next((k for text, k in _KINDS.items() if text in command), None)
                )
                if kind:
                    memory = process.memory_full_info()
                    held = Held(memory.rss, memory.uss, process.num_fds(), process.num_threads())
                    found[kind].append(held)
    return found
