"""The round loop of one contestant: send, let replies stream into the strategy, evaluate, record.

Flower's own `Strategy.start` cannot stop, resume or leave a lost client behind; any message-API strategy runs here.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from server.federation import Chosen, Federation
from server.results import ClientRow, Entry, RoundRow
from server.stop import Stop
from strategies.base import Shell, Verdict, conform, screen
from task import seeds, wire
from task.errors import describe
from task.update import Arrays

_LOOK_SECONDS = 0.05  # between two looks for replies where nothing wakes us earlier


class Stopped(Exception):  # noqa: N818
    """The contestant cannot go on; the message says why."""


class Journal(Protocol):
    """Where a contestant's rows and models go."""

    def client(self, row: ClientRow, verdict: Verdict) -> None:
        """One client's part in a round."""

    def round(self, row: RoundRow, arrays: Arrays) -> None:
        """A finished round and its global arrays."""


@dataclass(frozen=True)
class Contestant:
    """One strategy in one scenario with one seed.

    Attributes:
        entry: its name in the results.
        strategy: used by nobody else.
        federation: its clients.
        config: of every train message; see `client.trainer.ShardClient.fit`.
        sample: clients a round; None: all.
        evaluate: accuracy and loss of global arrays on the test set.
    """

    entry: Entry
    strategy: Strategy
    federation: Federation
    config: dict[str, Any]
    sample: int | None
    evaluate: Callable[[Arrays], tuple[float, float]]


def run_rounds(contestant: Contestant, arrays: Arrays, first: int, last: int, journal: Journal, stop: Stop) -> Arrays:
    """Play rounds first..last from the given global arrays; round 0 only evaluates them.

    Returns:
        The final global arrays.

    Raises:
        Stopped: if a round has no valid update, the strategy fails, or `stop` is set.
    """
    if first == 0:
        accuracy, loss = contestant.evaluate(arrays)
        journal.round(RoundRow(*contestant.entry, 0, accuracy, loss, 0, 0, 0, 0, 0.0), arrays)
    for server_round in range(max(first, 1), last + 1):
        arrays = _Round(contestant, server_round, arrays, journal, stop).play()
    return arrays


class _Round:
    """One round: what was sent, what came back."""

    def __init__(self, contestant: Contestant, server_round: int, arrays: Arrays, journal: Journal, stop: Stop) -> None:
        self.contestant, self.number, self.arrays = contestant, server_round, arrays
        self.journal, self.stop = journal, stop
        federation = contestant.federation
        chosen = choose(len(federation.nodes), contestant.sample, contestant.entry.seed, server_round)
        self.clients = {federation.nodes[client]: client for client in chosen}
        self.accepted = self.refused = self.bytes_up = self.bytes_down = 0

    def play(self) -> Arrays:
        begun = time.perf_counter()
        new = self._train()
        accuracy, loss = self.contestant.evaluate(new)
        row = RoundRow(
            *self.contestant.entry,
            self.number,
            accuracy,
            loss,
            self.accepted,
            self.refused,
            self.bytes_up,
            self.bytes_down,
            time.perf_counter() - begun,
        )
        self.journal.round(row, new)
        return new

    def _train(self) -> Arrays:
        strategy, grid = self.contestant.strategy, self.contestant.federation.grid
        config = wire.train_config({**self.contestant.config, "server-round": self.number})
        try:
            view = Chosen(grid, list(self.clients))
            messages = list(strategy.configure_train(self.number, wire.record(self.arrays), config, view))
            self.bytes_down = sum(wire.array_bytes(message) for message in messages)
            replies = self._replies(set(grid.push_messages(messages)))
            del messages
            if isinstance(strategy, Shell):
                strategy.report = self._report
                result, _ = strategy.aggregate_train(self.number, replies)
            else:
                # Strategies of others add up in the order of the replies: give them always the same one.
                passed = sorted(screen(replies, self.arrays, (), self._report), key=self._client_of)
                result, _ = strategy.aggregate_train(self.number, [m for m, _ in passed]) if passed else (None, None)
            if result is not None:
                return conform(wire.arrays_of(result), self.arrays)
        except Stopped:
            raise
        except Exception as error:  # a strategy of the user's may raise anything; the others go on
            raise Stopped(f"the strategy failed in round {self.number}: {describe(error)}") from error
        raise Stopped(f"round {self.number} brought no valid update from {len(self.clients)} clients")

    def _replies(self, waiting: set[str]) -> Iterator[Message]:
        """Replies as they come, until all are there."""
        federation = self.contestant.federation
        while waiting:
            if self.stop.is_set():
                raise Stopped(self.stop.reason)
            messages = list(federation.grid.pull_messages(waiting))
            waiting -= {message.metadata.reply_to_message_id for message in messages}
            yield from messages
            if not messages:
                federation.wait(_LOOK_SECONDS)

    def _client_of(self, passed: tuple[Message, Any]) -> int:
        return self.clients[passed[0].metadata.src_node_id]

    def _report(self, verdict: Verdict) -> None:
        update, facts = verdict.update, verdict.facts
        self.bytes_up += verdict.bytes_up
        if verdict.status == "ok":
            self.accepted += 1
        else:
            self.refused += 1
        row = ClientRow(
            *self.contestant.entry,
            self.number,
            self.clients[verdict.node_id],
            update.num_examples if update else None,
            facts.local_steps,
            update.local_norm if update else None,
            facts.train_loss,
            facts.seconds,
            verdict.status,
            verdict.reason,
        )
        self.journal.client(row, verdict)


def choose(clients: int, sample: int | None, seed: int, server_round: int) -> list[int]:
    """Which clients take part in a round: the same for every strategy, in ascending order."""
    if sample is None or sample >= clients:
        return list(range(clients))
    picked = seeds.stream(seed, "sample", server_round).choice(clients, size=sample, replace=False)
    return sorted(int(client) for client in picked)
