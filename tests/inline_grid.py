"""A Flower grid whose clients are plain functions, called when their message is pushed."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from task import wire
from task.update import Arrays

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # Flower's messages ask for them

Client = Callable[[Arrays, dict[str, Any]], tuple[Arrays, int, dict[str, Any]] | Message]


class InlineGrid(Grid):
    """Node 100 + k is client k.

    Args:
        clients: `client(arrays, config)` returns what NumPyClient.fit returns, or raises.
        answer_in: an order of the replies; None: as asked.
    """

    def __init__(
        self, clients: Mapping[int, Client], answer_in: Callable[[list[Message]], list[Message]] | None = None
    ):
        self.clients = {100 + number: client for number, client in clients.items()}
        self.asked: list[list[int]] = []
        self.configs: list[dict[str, Any]] = []
        self._order = answer_in or (lambda replies: replies)
        self._replies: dict[str, Message] = {}

    @property
    def nodes(self) -> dict[int, int]:
        return {node - 100: node for node in self.clients}

    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=1)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise AssertionError("deprecated in Flower")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.clients)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        self.asked.append([])
        for number, message in enumerate(messages):
            identity = f"{len(self.asked)}-{number}"
            message.metadata.__dict__["_message_id"] = identity
            self.asked[-1].append(message.metadata.dst_node_id)
            self._replies[identity] = self._answer(message)
            ids.append(identity)
        return ids

    def _answer(self, message: Message) -> Message:
        arrays, config = wire.read(message)
        self.configs.append(config)
        try:
            result = self.clients[message.metadata.dst_node_id](arrays, config)
        except Exception as error:  # noqa: BLE001 - as a Flower node does
            return Message(Error(code=0, reason=f"{type(error).__name__}: {error}"), reply_to=message)
        if message.metadata.message_type == "evaluate":
            return wire.reply_metrics(message, 0.5, 10, {"accuracy": 0.75})
        return wire.reply(message, *result)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._order([self._replies.pop(i) for i in sorted(message_ids) if i in self._replies])

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return list(self.pull_messages(self.push_messages(messages)))


def mover(step: float, examples: int = 10, norm: float | None = 1.0, number: int | None = None) -> Client:
    """A client that adds `step` to every value; it says its number if it has one."""

    def fit(arrays: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        facts: dict[str, Any] = {"local_steps": 3, "train_loss": 0.1, "seconds": 0.01}
        if number is not None:
            facts["client"] = number
        if norm is not None:
            facts["local_norm"] = norm
        return [a + np.asarray(step, a.dtype) for a in arrays], examples, facts

    return fit
