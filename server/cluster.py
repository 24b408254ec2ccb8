"""Ray on this machine, started beside everything else that a start-up has to wait for."""

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any

import psutil

from task.errors import UserError, describe

# Ray's own settings, by what they cost here for each message (docs/benchmarks.md).
_SETTINGS: dict[str, Any] = {
    "max_direct_call_object_size": 2**24,  # bytes; models up to this go straight to the worker, not through a store
    "task_events_report_interval_ms": 0,  # nobody looks at task events or metrics
    "enable_metrics_collection": False,
    "raylet_report_resources_period_milliseconds": 1000,  # the pool never changes
    "worker_niceness": 0,  # Ray's default of 15 starves the workers beside any other program
}

_UNHURRIED = ("dashboard", "monitor.py", "runtime_env", "Agent")


class Cluster:
    """Begins to start at once, in a thread of its own.

    The thread stays until `stop`, because Ray's processes end with the thread that started them.

    Args:
        cores: how many workers of one core fit.
        verbose: whether Ray tells about itself.
    """

    def __init__(self, cores: int, *, verbose: bool) -> None:
        self._cores, self._verbose = cores, verbose
        self._started, self._end = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until Ray runs.

        Raises:
            UserError: if it does not start.
        """
        while not self._started.wait(1):  # a wait without end would not hear Ctrl-C
            pass
        if self._error:
            raise UserError(f"Ray does not start: {describe(self._error)}") from self._error

    def stop(self) -> None:
        """End Ray and everything in it. Again: no effect."""
        self._end.set()
        self._thread.join()

    def _live(self) -> None:
        # Workers import the project by name, from wherever the command was started.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        try:
            ray.init(
                address="local",
                num_cpus=self._cores,
                include_dashboard=False,
                log_to_driver=True,
                logging_level=logging.INFO if self._verbose else logging.ERROR,
                _system_config=_SETTINGS,
            )
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds; told where it is waited for
            self._error = error
        self._started.set()
        if not self._end.is_set():
            _give_way()
        self._end.wait()
        ray.shutdown()


def _give_way() -> None:
    """Let Ray's dashboard, autoscaler, agents and log monitor, which nobody waits for, import after the workers."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(name in " ".join(process.cmdline()) for name in _UNHURRIED):
                process.nice(19)
