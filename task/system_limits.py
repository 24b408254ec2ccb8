"""Limits of the operating system below which libraries hang or abort without a word, looked at before their start."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

from task.errors import UserError

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

# Virtual memory of a process with TensorFlow: what is mapped, and for each thread of a pool a stack and a heap.
_TENSORFLOW_BYTES, _THREAD_BYTES = 4 * 2**30, 72 * 2**20
_TENSORFLOW_THREADS, _TENSORFLOW_FILES = 32, 56
_CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_limits(*, addresses: int = 0, threads: int = 0, files: int = 0) -> None:
    """See that this process and its children may have what they need; a soft limit on open files is raised to it.

    Args:
        addresses: bytes of virtual memory of the largest process, beside what TensorFlow takes.
        threads: of all processes together, beside those of one process with TensorFlow.
        files: that the process with the most of them has open, beside those of one with TensorFlow.

    Raises:
        UserError: a limit is lower; which, and what raises it.
    """
    if resource is None:
        return
    needed = addresses + _TENSORFLOW_BYTES + _THREAD_BYTES * cores()
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < needed:
        raise UserError(
            f"`ulimit -v` lets a process map {_gib(limit)} of memory, and here {_gib(needed)} are mapped, most of them "
            "never used: give `ulimit -v unlimited`, or ask the batch system for more virtual memory"
        )
    _check_files(files + _TENSORFLOW_FILES)
    _check_threads(threads + _TENSORFLOW_THREADS + cores())


def _check_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not 0 <= soft < needed:
        return
    if 0 <= hard < needed:
        raise UserError(f"`ulimit -n` lets a process open {hard} files, and {needed} are needed: raise it")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_threads(needed: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if os.geteuid() and 0 <= limit < _MANY and limit - _threads_of_the_user() < needed:
        raise UserError(
            f"`ulimit -u` lets you run {limit} processes and threads, and {needed} more are needed: raise it, or end "
            "some"
        )
    with suppress(OSError, ValueError):  # no such file, or "max" for no limit
        left = int((_CGROUP / "pids.max").read_text()) - int((_CGROUP / "pids.current").read_text())
        if left < needed:
            raise UserError(
                f"this container or service may start {left} more processes and threads, and {needed} are needed: "
                "raise its limit (docker run --pids-limit, TasksMax= of systemd)"
            )


_MANY = 10_000  # threads; who may have so many has enough, and is not made to wait until his are counted


def _threads_of_the_user() -> int:
    """Processes and threads that count for RLIMIT_NPROC."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real == os.getuid():
                found += process.num_threads()
    return found


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
