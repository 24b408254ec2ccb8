"""Local models of several seeds, each trained to the end by one train message."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from server.federation import Federation
from server.replies import replies
from server.stop import Stop, Stopped
from strategies.gate import Expected, Verdict, screen
from task import wire
from task.update import Arrays, Update


@dataclass(frozen=True)
class Job:
    """The local models of one seed.

    Attributes:
        seed: of shards, initial weights and shuffles.
        federation: its clients.
        start: the common initial model; clients that begin from weights of their own take only its shapes.
        config: of the train messages; see `client.trainer.ShardClient.fit`.
        needs: fields of `Update` that clients are asked for.
    """

    seed: int
    federation: Federation
    start: Arrays
    config: dict[str, Any]
    needs: tuple[str, ...]


def train_all(
    jobs: Sequence[Job], ahead: int, told: Callable[[], None], stop: Stop
) -> Iterator[tuple[Job, list[Update]]]:
    """Yield the local models of each seed, in the order of clients, as soon as they are there.

    Args:
        jobs: in the order in which they are wanted.
        ahead: so many seeds beyond the one that is waited for train meanwhile, >= 0; each holds a message for each of
            its clients, with a whole model, in memory.
        told: called for each local model that came in.
        stop: set to end early.

    Raises:
        Stopped: a client failed, in one line that names it and its seed; or `stop` is set.
    """
    rest = iter(jobs)
    sent = deque(map(_Sent, islice(rest, ahead + 1)))
    while sent:
        first = sent.popleft()
        updates = first.collect(told, stop)
        sent.extend(map(_Sent, islice(rest, 1)))
        yield first.job, updates


class _Sent:
    """A job whose messages are on their way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._clients = {node: client for client, node in job.federation.nodes.items()}
        # Round 1: a finished model is what a first round makes, of more epochs.
        config = wire.train_config({**job.config, "server-round": 1, wire.NEEDS: list(job.needs)})
        arrays = wire.record(job.start)
        messages = [wire.train_message(node, arrays, config) for node in self._clients]
        for message in messages:
            message.metadata.group_id = "1"
        self._waiting = dict(zip(job.federation.grid.push_messages(messages), self._clients, strict=True))

    def collect(self, told: Callable[[], None], stop: Stop) -> list[Update]:
        updates = {}
        expected = Expected(self.job.start, ("num_examples",), dict(self._waiting), self._clients)
        came = replies(self.job.federation, self._waiting, self._check, stop)
        for message, update in screen(came, expected, self._check):
            updates[self._clients[message.metadata.src_node_id]] = update
            told()
        return [updates[client] for client in sorted(updates)]

    def _check(self, verdict: Verdict) -> None:
        if verdict.status != "ok":
            client = self._clients[verdict.node_id]
            raise Stopped(f"seed {self.job.seed}: client {client} {verdict.status}: {verdict.reason}")
