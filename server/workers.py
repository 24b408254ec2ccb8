"""A pool of warm Ray workers, as a backend of Flower's simulation runtime.

Flower's own Ray backend puts a dead worker back into its pool. This one replaces it and runs the message again.
"""

import logging
import math
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import ray
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.server.superlink.fleet.vce.backend import Backend

from server.code_zip import fingerprint
from server.machine import SAME, Machine, versions
from server.parcel import Parcel, labelled
from task.errors import UserError, describe

_GPU_SHARE = 0.2  # five clients on one GPU
_VISIBLE_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_QUEUED = 2  # messages at each worker: the next one is there when it has finished one
_TRIES = 3  # a message that kills three workers in a row is the message's fault
_PATIENCE = 60.0  # seconds after which the user hears that workers of a cluster are not up yet

WarmUp = Callable[[Path, dict[str, Any]], None]

log = logging.getLogger("fedarena")


class Worker:
    """The process that runs clients, one message at a time.

    Args:
        app: what it runs.
        hide_gpus: whether this process uses no GPU, although the machine may have some.
    """

    def __init__(self, app: ClientApp, *, hide_gpus: bool) -> None:
        self._app = app
        if (
            hide_gpus
        ):  # Ray leaves all of them visible to an actor that asks for none; TensorFlow looks at its first use
            os.environ.update(dict.fromkeys(_VISIBLE_GPUS, ""))

    def identify(self) -> tuple[str, dict[str, str]]:
        """This machine's name, and the versions of what the bits depend on."""
        return socket.gethostname(), _identity()

    def warm(self, function: WarmUp, parcel: Parcel, config: dict[str, Any]) -> None:
        """Run a function for what it leaves behind: imports, a built model, a traced graph."""
        file = parcel.file()
        assert file is not None  # it came with its content
        function(file, config)

    def run(self, message: Message, context: Context, shard: Parcel) -> tuple[Message, Context] | None:
        """One message through the ClientApp; what the client raises becomes an error reply.

        Returns:
            The reply and the context; None if the shard must be sent first.
        """
        given = context.node_config
        try:
            file = shard.file()
            if file is None:
                return None
            context.node_config = {**given, "shard": str(file)}
            return self._app(message, context), context
        except Exception as error:  # the round goes on without this client
            log.exception("client %s failed", given.get("partition-id"))
            reason = describe(error)
            failure = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason)
            return Message(failure, reply_to=message), context
        finally:
            context.node_config = given  # another machine keeps the file elsewhere


class _Seat:
    """A place for one worker process; when it dies, a new one takes the seat."""

    def __init__(self, hire: Callable[[], tuple[Any, Any]]) -> None:
        self._hire, self._lock = hire, threading.Lock()
        self.worker, self.warm = hire()

    def replace(self, dead: Any) -> Any:
        """Hire a successor, unless another message that died with the worker has done so already; its warm-up."""
        with self._lock:
            if self.worker is dead:
                self.worker, self.warm = self._hire()
            return self.warm


class WorkerPool(Backend):
    """Ray workers that stay warm over rounds and strategies.

    Args:
        machine: whether they are on other machines, and their share of a GPU.
        app: what every worker runs.
        warm_up: run by every worker before its first message, with the next two; importable by name.
        shard: a shard of the shape that all have.
        config: what train messages say.
        note: told in one line when a worker is lost, or does not come.
    """

    def __init__(
        self,
        machine: Machine,
        app: ClientApp,
        warm_up: WarmUp,
        shard: Path,
        config: dict[str, Any],
        note: Callable[[str], None],
    ) -> None:
        self._machine, self._app, self._note = machine, app, note
        self._warm_up, self._first, self._config = warm_up, shard, config
        self._far = machine.ray_address is not None
        self._size = 0
        self._seats: list[_Seat] = []
        self._idle: Queue[_Seat] = Queue()
        self._gpus = 0.0
        self._sample: Any = None
        self._closing = False

    def start(self, workers: int) -> None:
        """Start so many workers, which warm up at once; Ray runs.

        Raises:
            UserError: if there is no GPU for the share that was asked for.
        """
        self._size = workers
        self._gpus = self._share_of_gpu(float(ray.cluster_resources().get("GPU", 0)))
        # In Ray's store: one copy a machine, however many workers warm up on it.
        self._sample = ray.put(labelled(self._first).filled() if self._far else Parcel(self._first))
        self._seats = [_Seat(self._hire) for _ in range(workers)]
        for _ in range(_QUEUED):
            for seat in self._seats:
                self._idle.put(seat)

    def _share_of_gpu(self, there: float) -> float:
        asked = self._machine.gpus_per_client
        if asked is None:
            # Less where that many workers would never get one: Ray would wait without end. It counts ten-thousandths.
            return min(_GPU_SHARE, 10_000 // math.ceil(self._size / there) / 10_000) if there else 0.0
        if asked * self._size > there:
            raise UserError(
                f"--gpus-per-client {asked} for {self._size} workers needs more than the {there:g} GPUs that "
                "Ray finds here; give a smaller share or fewer --workers"
            )
        return asked

    def wait_warm(self) -> None:
        """Until the workers are through with their warm-up; what it raises, the first message raises again.

        Raises:
            UserError: if a worker on a cluster does not start, or runs other code or versions than this machine.
        """
        pending = [seat.warm for seat in self._seats]
        while pending:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=_PATIENCE if self._far else None)
            if pending:
                self._note(
                    f"{len(pending)} of {self._size} workers are not up yet: "
                    "does something else hold the cluster's CPUs or GPUs?"
                )
        if self._far:
            self._check_likeness()

    def _check_likeness(self) -> None:
        here = _identity()
        try:
            told = ray.get([seat.worker.identify.remote() for seat in self._seats])
        except ray.exceptions.RayError as error:
            raise UserError(f"a worker does not start on the Ray cluster: {describe(error)}") from error
        for host, there in told:
            for name in here:
                if here[name] != there[name]:
                    raise UserError(
                        f"the Ray worker on {host} has {name} {there[name]}, this machine {here[name]}; "
                        "results would differ: give all machines the same"
                    )

    def _hire(self) -> tuple[Any, Any]:
        """A new worker and its warm-up."""
        kind = ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0)(Worker)
        worker = kind.remote(self._app, hide_gpus=self._machine.gpus_per_client == 0)
        return worker, worker.warm.remote(self._warm_up, self._sample, self._config)

    def build(self, app_fn: Callable[[], ClientApp]) -> None:
        """Flower's hook; the workers are already there."""

    @property
    def num_workers(self) -> int:
        """Messages that Flower's runtime may hand over at once."""
        return self._size * _QUEUED

    def is_worker_idle(self) -> bool:
        """Whether a worker waits."""
        return not self._idle.empty()

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Run a message on the next idle worker, again on another one if the worker dies."""
        client = context.node_config.get("partition-id")
        for attempt in range(1, _TRIES + 1):
            seat = self._idle.get()
            worker, warm = seat.worker, None
            try:
                return self._run(worker, message, context)
            except ray.exceptions.RayError as error:
                if self._closing:
                    raise
                log.warning("worker lost: %s", error)
                again = "its message runs again" if attempt < _TRIES else "it is given up for this round"
                self._note(f"a worker died with a message of client {client}; {again}")
                warm = seat.replace(worker)
            finally:
                if warm is None:
                    self._idle.put(seat)
                else:  # a successor may never come, if its machine is gone: others go on meanwhile
                    warm.future().add_done_callback(lambda _, seat=seat: self._idle.put(seat))
        reason = f"WorkerDied: {_TRIES} workers died while this client trained"
        return Message(Error(code=ErrorCode.UNKNOWN, reason=reason), reply_to=message), context

    def _run(self, worker: Any, message: Message, context: Context) -> tuple[Message, Context]:
        """A message on one worker; its shard goes along only where the worker cannot open it."""
        path = Path(str(context.node_config["shard"]))
        shard = labelled(path) if self._far else Parcel(path)
        answer: tuple[Message, Context] | None = ray.get(worker.run.remote(message, context, shard))
        if answer is None:
            answer = ray.get(worker.run.remote(message, context, shard.filled()))
            assert answer is not None
        return answer

    def terminate(self) -> None:
        """End the workers, also in the middle of a message. Again: no effect."""
        self._closing = True
        for seat in self._seats:
            ray.kill(seat.worker)
        self._seats.clear()


def _identity() -> dict[str, str]:
    return {**versions(SAME), "the project's code": fingerprint()}
