"""Ray: started on this machine beside everything else that a start-up waits for, or joined where it runs already."""

import atexit
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from server import code_zip
from server.machine import Machine, workers_on_cluster
from server.ray_folder import folder_in, make_ray_folder, remove_ray_folder, tell_last_words
from server.stop import Broken
from task import offline
from task.errors import UserError, describe

# Ray's own settings, by what they cost here for each message (docs/benchmarks.md). A cluster that runs already keeps
# those that it was started with (docs/scaling.md).
SETTINGS: dict[str, Any] = {
    "max_direct_call_object_size": 2**24,  # bytes; models up to this go straight to the worker, not through a store
    "task_events_report_interval_ms": 0,  # nobody looks at task events or metrics
    "enable_metrics_collection": False,
    "raylet_report_resources_period_milliseconds": 1000,  # the pool never changes
    "worker_niceness": 0,  # Ray's default of 15 starves the workers beside any other program
}

_UNHURRIED = ("dashboard", "monitor.py", "runtime_env", "Agent")
_KNOCK_SECONDS = 5.0
_VITAL = ("raylet", "gcs_server")  # of Ray's processes
_LOOK_SECONDS = 0.2  # between two looks whether Ray lives
_START_SECONDS = 45.0  # in which Ray's start fails, if it does, and an end that waits for it is over
_SHUTDOWN_SECONDS = 2.0  # that a Ray that has died gets to end


class Cluster:
    """Begins to start, or to join, at once, in a thread of its own.

    The thread stays until `stop`, because Ray's processes end with the thread that started them.

    Args:
        machine: where Ray is; without an address, `workers` is given.
        model: as `--model` names it; on a cluster its code goes along.
        note: told in one line if our Ray's files are not where the user wants temporary files.
    """

    def __init__(self, machine: Machine, model: str, note: Callable[[str], None]) -> None:
        self._machine, self._model, self._note = machine, model, note
        self._started, self._end = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._workers = 0
        self._gone: str | None = None  # which of the vital processes
        self._needed = True
        self._folder: Path | None = None  # of our own Ray
        self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
        self._thread.start()

    def workers(self) -> int:
        """How many workers there shall be; waits until Ray runs.

        Raises:
            UserError: if Ray does not start, is not at the address, or has not as many CPUs.
        """
        while not self._started.wait(1):  # a wait without end would not hear Ctrl-C
            pass
        if isinstance(self._error, UserError):
            raise self._error
        if self._error:
            where = self._machine.ray_address
            what = f"--ray-address {where}: cannot join this cluster" if where else "Ray does not start"
            raise UserError(f"{what}: {describe(self._error)}") from self._error
        return self._workers

    def check(self, then: str) -> None:
        """See that it was the user who pressed Ctrl-C, and not Ray's end.

        Args:
            then: what the user does if it was.

        Raises:
            Broken: our Ray has died.
        """
        if self._gone:
            raise Broken(
                f"Ray on this machine has died: its process {self._gone} is gone (killed, or was memory short?); {then}"
            )

    def is_no_longer_needed(self) -> None:
        """From now on its death is nobody's business."""
        self._needed = False

    def stop(self) -> None:
        """End our Ray and everything in it, or leave the cluster with everything of ours. Again: no effect."""
        self._end.set()
        self._thread.join(_SHUTDOWN_SECONDS if self._gone else _START_SECONDS)  # one that has died may never answer
        if self._thread.is_alive():
            _kill_what_is_left()
        if self._folder:
            remove_ray_folder(self._folder)

    def _live(self) -> None:
        try:
            self._workers = (
                self._start() if self._machine.ray_address is None else self._join(self._machine.ray_address)
            )
        except BaseException as error:  # noqa: BLE001 - Ray raises many kinds; told where it is waited for
            self._error = error
        self._started.set()
        if not self._end.is_set() and self._machine.ray_address is None:
            _give_way()
            self._watch()
        self._end.wait()
        import ray

        if self._folder and (self._gone or self._error):
            tell_last_words(self._folder)
        if self._gone:  # Ray's own way to end may hang then, or abort this process
            atexit.unregister(ray.shutdown)
            _kill_what_is_left()
        else:
            ray.shutdown()

    def _watch(self) -> None:
        """Until the end, look whether Ray lives.

        If not, Ray ends this process unasked: some 13 s after its raylet is gone, 60 s after its gcs_server.

        The main thread may be waiting for Ray, so it hears of it like Ctrl-C, and asks `check`.
        """
        children = psutil.Process().children()
        vital = {name: [child for child in children if _is_called(name, child)] for name in _VITAL}
        while not self._end.wait(_LOOK_SECONDS):
            self._gone = next((name for name in _VITAL if not any(map(_lives, vital[name]))), None)
            if self._gone and self._needed:
                main = threading.main_thread().ident
                if main is not None:
                    signal.pthread_kill(main, signal.SIGTERM)  # as `ray_for` has it; it ends a wait, too
                return

    def _start(self) -> int:
        """Ray on this machine, for us alone."""
        # Workers import the project by name, from wherever the command was started.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        cores = self._machine.workers or 1
        self._folder = make_ray_folder(self._note)
        with _no_dashboard():
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                _temp_dir=str(folder_in(self._folder)),
                log_to_driver=True,
                logging_level=self._level(),
                _system_config=SETTINGS,
            )
        return cores

    def _join(self, address: str) -> int:
        """A cluster of the user's, with the code that its workers need."""
        if address != "auto":
            _knock(address)
        import ray

        with tempfile.TemporaryDirectory(prefix="fedarena-") as folder:
            code = Path(folder, "code.zip")
            code_zip.pack(self._model, code)
            # Workers of our own inherit it; those of a cluster were there before.
            environment = {name: os.environ[name] for name in offline.SETTINGS if name in os.environ}
            try:
                ray.init(
                    address=address,
                    runtime_env={"working_dir": str(code), "env_vars": environment},
                    log_to_driver=True,
                    logging_level=self._level(),
                )
            except ConnectionError as error:
                raise UserError(
                    f"--ray-address {address}: no Ray cluster that this machine is part of; start or join one with "
                    "`ray start` here, or leave the option out"
                ) from error
        return workers_on_cluster(self._machine.workers, ray.cluster_resources())

    def _level(self) -> int:
        return logging.INFO if self._machine.verbose else logging.ERROR


@contextmanager
def ray_for(machine: Machine, model: str, note: Callable[[str], None]) -> Iterator[Cluster]:
    """Ray, as long as a command needs it; SIGTERM ends that like Ctrl-C. For the arguments see `Cluster`."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster(machine, model, note)
    try:
        yield cluster
    finally:
        signal.signal(signal.SIGTERM, before)
        cluster.stop()


@contextmanager
def _no_dashboard() -> Iterator[None]:
    """Start Ray without the process of its dashboard.

    `include_dashboard=False` leaves its pages out and starts it all the same, for usage statistics; and although these
    are switched off, it asks the metadata service of three clouds, by HTTP and DNS, which one this machine belongs to.
    """
    from ray._private import services

    before = services.start_api_server
    services.start_api_server = lambda *_, **__: ("", None)  # its answer where there is none: no URL, no process
    try:
        yield
    finally:
        services.start_api_server = before


def _knock(address: str) -> None:
    """Ask whether anyone listens there, which Ray itself takes minutes for."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--ray-address {address}: nobody answers there ({describe(error)}); give the address that "
            "`ray start --head` told, or auto"
        ) from error


def _is_called(name: str, process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # it may have ended since
        return process.name() == name
    return False


def _kill_what_is_left() -> None:
    """End the processes that Ray has started here, and theirs."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "/ray/" in " ".join(child.cmdline()):
                for process in (*child.children(recursive=True), child):
                    process.kill()


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _give_way() -> None:
    """Let Ray's dashboard agent, autoscaler and log monitor, which nobody waits for, import after the workers."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(name in " ".join(process.cmdline()) for name in _UNHURRIED):
                process.nice(19)
