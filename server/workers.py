"""A pool of warm Ray workers, as a backend of Flower's simulation runtime.

Flower's own Ray backend puts a dead worker back into its pool. This one replaces it and runs the message again.
"""

import logging
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import ray
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.server.superlink.fleet.vce.backend import Backend

from server.machine import Machine
from task.errors import UserError, describe

_GPU_SHARE = 0.2  # five clients on one GPU
_QUEUED = 2  # messages at each worker: the next one is there when it has finished one
_TRIES = 3  # a message that kills three workers in a row is the message's fault

log = logging.getLogger("fedarena")


class Worker:
    """The process that runs clients, one message at a time."""

    def __init__(self, app: ClientApp) -> None:
        self._app = app

    def call(self, function: Callable[[], None]) -> None:
        """Run a function for what it leaves behind: imports, a built model, a traced graph."""
        function()

    def run(self, message: Message, context: Context) -> tuple[Message, Context]:
        """One message through the ClientApp; what the client raises becomes an error reply."""
        try:
            return self._app(message, context), context
        except Exception as error:  # the round goes on without this client
            log.exception("client %s failed", context.node_config.get("partition-id"))
            reason = describe(error)
            failure = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason)
            return Message(failure, reply_to=message), context


class _Seat:
    """A place for one worker process; when it dies, a new one takes the seat."""

    def __init__(self, hire: Callable[[], Any]) -> None:
        self._hire, self._lock = hire, threading.Lock()
        self.worker = hire()

    def replace(self, dead: Any) -> None:
        """Hire a successor, unless another message that died with the worker has done so already."""
        with self._lock:
            if self.worker is dead:
                self.worker = self._hire()


class WorkerPool(Backend):
    """Ray workers that stay warm over rounds and strategies.

    Args:
        machine: how many workers, and their share of a GPU.
        app: what every worker runs.
        warm_up: run by every worker before its first message; importable by name.
        note: told in one line when a worker is lost.
    """

    def __init__(
        self, machine: Machine, app: ClientApp, warm_up: Callable[[], None], note: Callable[[str], None]
    ) -> None:
        self._machine, self._app, self._warm_up, self._note = machine, app, warm_up, note
        self._size = machine.workers or 1
        self._seats: list[_Seat] = []
        self._idle: Queue[_Seat] = Queue()
        self._warming: list[Any] = []
        self._gpus = 0.0
        self._closing = False

    def start(self) -> None:
        """Start the workers, which warm up at once; Ray runs.

        Raises:
            UserError: if there is no GPU for the share that was asked for.
        """
        self._gpus = self._share_of_gpu(float(ray.cluster_resources().get("GPU", 0)))
        self._seats = [_Seat(self._hire) for _ in range(self._size)]
        for _ in range(_QUEUED):
            for seat in self._seats:
                self._idle.put(seat)

    def _share_of_gpu(self, there: float) -> float:
        asked = self._machine.gpus_per_client
        if asked is None:
            return _GPU_SHARE if there else 0.0
        if asked * self._size > there:
            raise UserError(
                f"--gpus-per-client {asked} for {self._size} workers needs more than the {there:g} GPUs that "
                "Ray finds here; give a smaller share or fewer --workers"
            )
        return asked

    def wait_warm(self) -> None:
        """Until the workers are through with their warm-up; what it raises, the first message raises again."""
        ray.wait(self._warming, num_returns=len(self._warming))

    def _hire(self) -> Any:
        kind = ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0)(Worker)
        worker = kind.remote(self._app)
        self._warming.append(worker.call.remote(self._warm_up))
        return worker

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
        """Run a message on the next idle worker, again on a new one if the worker dies."""
        client = context.node_config.get("partition-id")
        for attempt in range(1, _TRIES + 1):
            seat = self._idle.get()
            worker = seat.worker
            try:
                answer: tuple[Message, Context] = ray.get(worker.run.remote(message, context))
                return answer
            except ray.exceptions.RayError as error:
                if self._closing:
                    raise
                log.warning("worker lost: %s", error)
                again = "its message runs again on a new one" if attempt < _TRIES else "it is given up for this round"
                self._note(f"a worker died with a message of client {client}; {again}")
                seat.replace(worker)
            finally:
                self._idle.put(seat)
        reason = f"WorkerDied: {_TRIES} workers died while this client trained"
        return Message(Error(code=ErrorCode.UNKNOWN, reason=reason), reply_to=message), context

    def terminate(self) -> None:
        """End the workers, also in the middle of a message. Again: no effect."""
        self._closing = True
        for seat in self._seats:
            ray.kill(seat.worker)
        self._seats.clear()
