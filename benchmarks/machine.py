"""What the figures were measured on."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = ("flwr", "ray", "tensorflow", "keras", "numpy", "llvmlite")


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """The machine, the versions that matter and today's date, each as a short text.

    `load` is the load average of the last minute: what other programs took before the benchmark began.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": str(available_cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def machine_line() -> str:
    """`machine()` in one line."""
    facts = machine()
    head = f"{facts.pop('date')}: {facts.pop('cpu')}, {facts.pop('cores')} cores, {facts.pop('memory')}"
    system = f"{facts.pop('system')}, load average before the run {facts.pop('load')}"
    return ", ".join([head, system, *(f"{name} {value}" for name, value in facts.items())])
