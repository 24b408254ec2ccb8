"""A client process that stays: TensorFlow imported and the model traced once, the next message fetched in time."""

import gc
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from client import owner
from client.app import app
from client.fleet import Fleet, Forgotten, Refused, Taken, Unreachable
from client.status import Status
from task import wire
from task.errors import UserError
from task.greeting import SIGN_OF_LIFE_SECONDS, Greeting

_SHORTEST_POLL = 0.05  # seconds between two polls of a server that does not hold the line
_LONGEST_POLL = 0.2
_LONGEST_RETRY = 2.0
_REFUSAL_SECONDS = 5.0  # that a server gets to hear that this client cannot take part, and to refuse it
_REACH_SECONDS = 5.0  # for a server to be found, by a client that only wants to say that it cannot take part
_TAKEN_SECONDS = 20.0  # until the server has certainly noticed that our predecessor is gone
_log = logging.getLogger("fedarena")


class Resident:
    """Takes part in runs until Ctrl-C.

    Three threads share the work, so that the network and the training overlap: one fetches, one sends, and the caller's
    trains. At most one message waits in each direction, which bounds the memory.

    Args:
        fleet: the connection.
        node_config: what is this client's own, see `client.app`.
        status: what the user sees.
        once: whether to end with the first run that ends.
    """

    def __init__(self, fleet: Fleet, node_config: dict[str, Any], status: Status, *, once: bool) -> None:
        self._fleet, self._config, self._status, self._once = fleet, node_config, status, once
        self._inbox: queue.Queue[Message] = queue.Queue(maxsize=1)
        self._outbox: queue.Queue[tuple[Message, float]] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._connected = threading.Event()
        self._ever = False
        self._refused: Refused | None = None
        self._contexts: dict[int, Context] = {}
        self._known: set[str] = set()  # ids of messages that are being worked on

    def run(self, load: Callable[[], object]) -> None:
        """Take part until Ctrl-C, or until a run is over with `once`.

        Args:
            load: called first, while the other threads already talk to the server; checks the data and imports what
                training takes.

        Raises:
            Refused: the server does not want this client, or this client cannot take part.
            UserError: as `load` raises it.
        """
        threads = [
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True)
            for work in (self._fetch, self._send, self._beat)
        ]
        for thread in threads:
            thread.start()
        try:
            try:
                load()
            except UserError:
                self._stop.wait(_REFUSAL_SECONDS if self._connected.wait(_REACH_SECONDS) else 0)
                raise
            gc.freeze()  # what was imported stays
            gc.enable()
            while not self._stop.is_set():
                with suppress(queue.Empty):
                    self._work(self._inbox.get(timeout=0.25))
        finally:
            self._stop.set()
            self._fleet.close()
        if self._refused:
            raise self._refused

    # -- the caller's thread: everything that takes TensorFlow

    def _work(self, message: Message) -> None:
        if self._refused:
            return
        if message.metadata.message_type == "query":
            self._prepare(message)
            return
        group = message.metadata.group_id
        self._status.begin(group)
        reply, seconds = self._run_app(message)
        self._status.done(group, seconds, owner.take(message) or describe_error(reply), spent(reply))
        self._answer(message, reply, 0.0 if self._config.get("facts") == "minimal" else seconds)

    def _prepare(self, message: Message) -> None:
        """Build and trace while other clients are still coming, and answer whether that went well."""
        self._status.say("preparing the model")
        if self._introduce(message):
            self._status.say("ready")

    def _introduce(self, message: Message) -> bool:
        """Answer a query, and return whether this client can take part.

        If it cannot, it stays until the server has refused it, which tells both sides that the answer has arrived.
        """
        reply, _ = self._run_app(message)
        failure = owner.take(message) or describe_error(reply)
        if failure and not self._refused:
            self._refused = Refused(f"this client cannot take part: {self._status.with_log(failure)}")
            leave = threading.Timer(_REFUSAL_SECONDS, self._stop.set)
            leave.daemon = True
            leave.start()
        self._answer(message, reply, 0.0)
        return not failure

    def _run_app(self, message: Message) -> tuple[Message, float]:
        began = time.perf_counter()
        TaskIdentity.run_id = message.metadata.run_id
        try:
            reply = app(message, self._context(message.metadata.run_id))
        except Exception as error:  # noqa: BLE001 - `client.privacy.guard` lets none through; nothing of it leaves
            _log.exception("the app failed")
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message)
        return reply, time.perf_counter() - began

    def _answer(self, message: Message, reply: Message, seconds: float) -> None:
        self._put(self._outbox, (reply, seconds))
        self._known.discard(message.metadata.message_id)

    def _context(self, run_id: int) -> Context:
        if run_id not in self._contexts:
            self._contexts.clear()  # what a client remembers is of one run
            self._contexts[run_id] = Context(
                run_id=run_id, node_id=self._fleet.node_id, node_config=self._config, state=RecordDict(), run_config={}
            )
        return self._contexts[run_id]

    def _drain(self) -> None:
        """Wait until the last answer has left, at most so long as a server is given to hear it."""
        until = time.monotonic() + _REFUSAL_SECONDS
        while self._outbox.unfinished_tasks and not self._stop.is_set() and time.monotonic() < until:
            time.sleep(0.01)

    # -- threads that talk

    def _hear(self, message: Message) -> None:
        greeting = Greeting.read(message)
        if greeting.topic == "prepare":
            self._put(self._inbox, message)
            return
        self._introduce(message)
        if greeting.topic == "refused":
            self._refused = self._refused or Refused(f"the server refuses this client: {greeting.text}", by_server=True)
            self._drain()
            self._stop.set()
        elif greeting.topic == "wait":
            self._status.say(greeting.text)
        elif greeting.topic == "over":
            self._status.over(greeting.text)
            if self._once:
                self._drain()
                self._stop.set()

    def _fetch(self) -> None:
        pause = _SHORTEST_POLL
        while not self._stop.is_set():
            if not self._connected.is_set() and not self._connect():
                continue
            asked = time.monotonic()
            message = self._try(self._fleet.pull)
            if message is None:
                if self._connected.is_set() and time.monotonic() - asked < _SHORTEST_POLL:  # it was not held
                    self._stop.wait(pause)
                    pause = min(_LONGEST_POLL, pause * 1.2)
                continue
            pause = _SHORTEST_POLL
            if message.metadata.message_id not in self._known:
                self._known.add(message.metadata.message_id)
                if message.metadata.message_type == "query":
                    self._hear(message)
                else:
                    self._put(self._inbox, message)

    def _send(self) -> None:
        while not self._stop.is_set():
            with suppress(queue.Empty):
                reply, seconds = self._outbox.get(timeout=0.5)
                for attempt in range(1 << 30):
                    try:
                        self._fleet.push(reply, seconds)
                    except Unreachable as trouble:
                        self._status.trouble(str(trouble))
                        if self._stop.wait(_retry_after(attempt)):
                            return
                    except (Forgotten, Refused) as gone:
                        _log.warning("an answer is not wanted any more: %s", gone)
                        break
                    else:
                        break
                self._outbox.task_done()

    def _beat(self) -> None:
        while not self._stop.wait(SIGN_OF_LIFE_SECONDS):
            if self._connected.is_set():
                self._try(lambda: self._fleet.heartbeat())

    def _connect(self) -> bool:
        taken = 0.0  # since when another process is in our place
        for attempt in range(1 << 30):
            if self._stop.is_set():
                break
            try:
                self._fleet.activate()
            except Unreachable as trouble:
                taken = (taken or time.monotonic()) if isinstance(trouble, Taken) else 0.0
                if taken and time.monotonic() - taken > _TAKEN_SECONDS:
                    self._refused = Refused(f"{trouble}; end that one first", by_server=True)
                    self._stop.set()
                    break
                self._status.trouble(str(trouble))
                self._stop.wait(_retry_after(attempt))
            except Refused as refused:
                if not self._ever or refused.by_server:
                    self._refused = refused
                    self._stop.set()
                    break
                self._status.trouble(str(refused), expected=False)  # a certificate that its owner will renew
                self._stop.wait(_LONGEST_RETRY)
            else:
                self._ever = True
                self._known.clear()
                self._connected.set()
                self._status.connected()
                return True
        return False

    def _try(self, call: Callable[[], Message | None]) -> Message | None:
        """One request; what goes wrong leads to a new connection or a short pause."""
        try:
            answer = call()
        except Unreachable as trouble:
            self._status.trouble(str(trouble))
            self._stop.wait(_retry_after(1))
        except Forgotten:
            if self._connected.is_set():
                self._connected.clear()
                self._status.trouble("the server does not know this client any more")
            self._stop.wait(_SHORTEST_POLL)
        except Refused as refused:
            self._connected.clear()
            self._status.trouble(str(refused), expected=False)
        else:
            self._status.contact()
            return answer
        return None

    def _put(self, where: "queue.Queue[Any]", what: object) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                where.put(what, timeout=0.5)
                return


def describe_error(reply: Message) -> str | None:
    """What an error reply says; None for another."""
    return reply.error.reason if reply.has_error() else None


def spent(reply: Message) -> float | None:
    """The epsilon that all noised updates of this client have cost so far; None without noise."""
    if not reply.has_content():
        return None
    records = reply.content.metric_records
    epsilon = records[wire.METRICS].get(wire.DP_EPSILON) if wire.METRICS in records else None
    return float(epsilon) if isinstance(epsilon, int | float) else None


def _retry_after(attempt: int) -> float:
    """Seconds; twice as long each time, and never the same for two clients."""
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    return spread * min(_LONGEST_RETRY, math.ldexp(0.25, min(attempt, 8)))
