"""What this machine, or a Ray cluster, can carry: how many workers, and whether their memory is there."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from platform import python_version

import psutil

from task.errors import UserError
from task.system_limits import check_limits, cores

# Resident memory of a process with TensorFlow, Keras, flwr and Ray imported and the default model traced, measured.
_PROCESS_BYTES = 900 * 2**20
_STORE_SHARE, _LARGEST_STORE = 0.3, 200e9  # of free memory, bytes: Ray's shared memory, which its raylet maps twice
SAME = ("tensorflow", "keras", "numpy", "flwr")
"""Packages of which another version comes to other bits."""
_PACKAGES = ("flwr", "tensorflow", "keras", "numpy", "llvmlite", "ray", "scikit-learn")


@dataclass(frozen=True)
class Machine:
    """What is used, and how; none of it changes a result.

    Attributes:
        workers: processes that train; None: one a core.
        ray_address: of a Ray cluster that runs already, `auto` or HOST:PORT; None: Ray is started on this machine.
        gpus_per_client: share of a GPU that a client takes; None: 0.2 where there is one.
        quiet: show failures only.
        verbose: show the libraries' chatter.
    """

    workers: int | None = None
    ray_address: str | None = None
    gpus_per_client: float | None = None
    quiet: bool = False
    verbose: bool = False


def available_memory() -> int:
    """Bytes that can still be had, also under a control group's limit."""
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with suppress(OSError, ValueError):  # no such file, or "max" for no limit
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def number_of_workers(asked: int | None, data_bytes: int) -> int:
    """As many workers as were asked for, else one a core, fewer where memory is short.

    Args:
        asked: `--workers`, if given.
        data_bytes: what the shards take in a worker that has seen all of them.

    Raises:
        UserError: if the memory is not there, or a limit of the operating system is too low.
    """
    each, free = _PROCESS_BYTES + 2 * data_bytes, available_memory()
    fit = int(free / each) - 1  # the server is one process more
    if asked is None:
        if fit >= 1:
            return _within_limits(min(cores(), fit), free)
        raise UserError(f"not enough memory: {_gib(free)} free, {_gib(2 * each)} needed for one worker and the server")
    if asked > fit:
        raise UserError(
            f"not enough memory for {asked} workers: {_gib(free)} free, {_gib((asked + 1) * each)} needed; "
            f"try --workers {max(fit, 1)}"
        )
    return _within_limits(asked, free)


def _within_limits(workers: int, free: int) -> int:
    """The number of workers, if Ray and they may map, open and start what they need."""
    store = min(_STORE_SHARE * free, _LARGEST_STORE)
    check_limits(addresses=int(2 * store), threads=110 + 25 * workers, files=8 * workers)
    return workers


def workers_on_cluster(asked: int | None, resources: Mapping[str, float]) -> int:
    """As many workers as were asked for, else one a CPU of the cluster, fewer where its memory is short.

    Args:
        asked: `--workers`, if given.
        resources: what the cluster has in all, as `ray.cluster_resources()` tells; memory in bytes.

    Raises:
        UserError: if there are not as many CPUs; Ray would wait for them without end.
    """
    cpus = int(resources.get("CPU", 0))
    if asked is not None and asked > cpus:
        raise UserError(f"--workers {asked} is more than the {cpus} CPUs of the Ray cluster; give fewer")
    if cpus < 1:
        raise UserError("the Ray cluster has no CPU for a worker; start its nodes with `ray start --num-cpus N`")
    if asked is not None:
        return asked
    return max(1, min(cpus, int(resources.get("memory", cpus * _PROCESS_BYTES) / _PROCESS_BYTES)))


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    return {"python": python_version(), **{name: metadata.version(name) for name in packages}}


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
