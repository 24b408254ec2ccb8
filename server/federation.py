"""The clients that one contestant can reach, whatever carries the messages."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

REVOKED = "the client was revoked"
"""Why a client that was shut out takes no part in a round, and why its reply is not waited for."""


@dataclass(frozen=True)
class Federation:
    """One contestant's clients.

    Attributes:
        grid: Flower's grid, which carries messages.
        nodes: node id of each client, by the client's number.
        wait: `wait(seconds)` returns when a reply may have come, at the latest after that time.
        drop: told the ids of messages whose replies nobody waits for any more.
        reachable: how many of these clients (their numbers) could answer right now.
    """

    grid: Grid
    nodes: Mapping[int, int]
    wait: Callable[[float], None]
    drop: Callable[[Iterable[str]], None] = lambda _: None
    reachable: Callable[[Collection[int]], int] = len


class Chosen(Grid):
    """A grid on which only the clients of this round are to be seen, so every strategy trains the same ones.

    Args:
        grid: the whole grid.
        nodes: node ids that take part, in the order of their clients.
    """

    def __init__(self, grid: Grid, nodes: list[int]) -> None:
        self._grid, self._nodes = grid, nodes

    def get_node_ids(self) -> list[int]:
        """Node ids of this round's clients."""
        return list(self._nodes)

    def set_run(self, run: Any) -> None:
        """As the whole grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As the whole grid."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As the whole grid."""
        return self._grid.create_message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the whole grid."""
        ids: Iterable[str] = self._grid.push_messages(messages)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the whole grid."""
        messages: Iterable[Message] = self._grid.pull_messages(message_ids)
        return messages

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As the whole grid."""
        replies: Iterable[Message] = self._grid.send_and_receive(messages, timeout=timeout)
        return replies
