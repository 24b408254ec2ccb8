"""SCAFFOLD: gradients corrected for the drift of each client (Karimireddy et al. 2020, arXiv:1910.06378, option II)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from strategies.adaptive import difference, shifted, stepped
from strategies.base import ABOVE_ZERO, Range
from strategies.kernels import Sum
from strategies.memory import MemoryShell
from strategies.robust import Whole
from task import wire
from task.config import Training
from task.update import Arrays, Memory, Update

SERVER = "c"
"""The name of c in the memory; c_i of client 3 is "client-3"."""


def scaffold(
    x: Arrays,
    updates: Iterable[Update],
    memory: Memory,
    *,
    learning_rate: float = 1.0,
    local_learning_rate: float | None = None,
    clients: int | None = None,
    trainable: Sequence[bool] | None = None,
) -> tuple[Arrays, Memory]:
    """X + learning_rate (1/|S|) sum_i (y_i - x), and the control variates c_i and c (algorithm 1 and equation 4).

    Client i made K_i local steps of y <- y - eta (gradient + c - c_i), so what came back tells the mean of its
    gradients, which is option II's c_i+ = c_i - c + (x - y_i) / (K_i eta); c+ = c + (1/N) sum_i (c_i+ - c_i). So the
    server can keep the clients' variates itself: clients keep nothing and send no more than for any other strategy.

    Args:
        x: the global arrays.
        updates: of the clients S of this round, at least one, each with a local_norm: it is K_i for plain SGD, for
            which alone the paper defines SCAFFOLD. Consumed once.
        memory: "c" and "client-<i>" for each client seen so far, or empty; not changed. Each has one array for each of
            `strategies.adaptive.stepped`, in the dtype of the model (float32 at least).
        learning_rate: the server's.
        local_learning_rate: the clients', eta > 0; None: 0.1, a run's default. In a federation it is that of the
            train messages.
        clients: N, of the whole federation; None, or too few: as many as are known.
        trainable: which arrays gradients moved; None: all. The others are averaged.

    Returns:
        New arrays in the shapes and dtypes of x, with learning_rate 1 the same bits as `fedavg`; new memory. An update
        without a client's number counts as that of a client never seen before, and its c_i is not kept.

    Raises:
        ValueError: if an update has no local_norm, or two have the same number.

    Example:
        x = 0, no memory, eta = .5, two clients with K = (1, 2) and y = (1, 3): x = 2, c_i = (-2, -3), c = -2.5.
    """
    eta = _eta(local_learning_rate)
    places = stepped(x, trainable)
    start = [x[i] for i in places]
    before = memory.get(SERVER) or _zeros(start)
    total, change, count = Sum(x), Sum(before), 0
    own = {name: arrays for name, arrays in memory.items() if name != SERVER}
    fresh: Memory = {}
    for update in updates:
        if update.local_norm is None:
            raise ValueError(f"client {update.client}: scaffold needs local_norm")
        total.add(update.arrays, 1)
        count += 1
        name = _name(count, update.client)
        if name in fresh:
            raise ValueError(f"client {update.client} is there twice")
        old = own.get(name) or _zeros(start)
        sent = _corrections(before, old)
        weight = 1 / (update.local_norm * eta)
        ended = [update.arrays[i] for i in places]
        fresh[name] = [
            (difference(a, y) * weight - s).astype(s.dtype) for a, y, s in zip(start, ended, sent, strict=True)
        ]
        change.add(fresh[name], 1)
        change.add(old, -1)
    mean = total.divided_by(count)
    for i in places:
        mean[i] = shifted(mean[i], (learning_rate - 1) * difference(mean[i], x[i]))
    known = len(own.keys() | fresh.keys())
    kept = {**own, **{name: arrays for name, arrays in fresh.items() if not name.startswith(_UNKNOWN)}}
    after = change.added_to(before, 1 / max(known, clients or 0))
    return mean, {SERVER: after, **{name: kept[name] for name in sorted(kept)}}


def correction(
    x: Arrays, memory: Memory, client: int, trainable: Sequence[bool] | None = None
) -> dict[int, np.ndarray]:
    """C - c_i, which client i adds to every gradient.

    Args:
        x: the global arrays.
        memory: as `scaffold` returned it.
        client: the client's number.
        trainable: as `scaffold` has it.

    Returns:
        By the array's position; nothing where all of it is 0, as in the first round.
    """
    before = memory.get(SERVER)
    if not before:
        return {}
    sent = _corrections(before, memory.get(_name(0, client)) or [np.zeros_like(c) for c in before])
    return dict(zip(stepped(x, trainable), sent, strict=True)) if any(s.any() for s in sent) else {}


def with_members(memory: Memory, members: Collection[int]) -> Memory:
    """Return the memory without the variates of clients that are no members of the federation any more.

    A variate that is never renewed would stay in c for ever, and c - c_i would no longer be 0 in the mean of those who
    train: it would go on steering the model away from their optimum.

    Args:
        memory: as `scaffold` returned it; not changed.
        members: the numbers of all who may still take part.

    Returns:
        The same memory if nobody left; else c is the mean of the variates left, where a client never seen has 0.
    """
    names = {_name(0, client) for client in members}
    own = {name: arrays for name, arrays in memory.items() if name in names}
    if len(own) == len(memory.keys() - {SERVER}):
        return memory
    if not own:
        return {}
    total = Sum(memory[SERVER])
    for arrays in own.values():
        total.add(arrays, 1)
    return {SERVER: total.divided_by(len(names)), **own}


class Scaffold(MemoryShell):
    """Flower strategy around `scaffold`: every client gets its own message, with its correction beside the model.

    The correction makes what goes down twice as much from the second round on; what goes up stays as it is. A node is
    the client that `clients` says it is, never what it says itself, which would let it write into another's variate;
    where the node is not in `clients`, as in Flower's own `start`, its variate is kept under the node's id.
    """

    step = staticmethod(scaffold)
    weights_by = "clients"
    needs = ("local_norm",)
    ranges: ClassVar[Mapping[str, Range]] = {
        "learning_rate": ABOVE_ZERO,
        "local_learning_rate": ABOVE_ZERO,
        "clients": Whole(1),
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: dict[str, Any] = {}

    def undefined_for(self, training: Training) -> str | None:
        """Defined for plain SGD alone."""
        if training.momentum:
            return "momentum: the paper corrects the gradients of plain sgd; use --momentum 0"
        return super().undefined_for(training)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's messages, each with its client's correction."""
        if self.clients:
            self.memory = with_members(self.memory, self.clients.values())
        self._seen = {
            "clients": len(self.clients) or len(list(grid.get_node_ids())),
            "local_learning_rate": config.get("learning_rate"),
        }
        return [self._corrected(message) for message in super().configure_train(server_round, arrays, config, grid)]

    def shared(self, memory: Memory) -> Memory:
        """C alone: a client's own variate goes to no other client."""
        return {SERVER: memory[SERVER]}

    def _corrected(self, message: Message) -> Message:
        client = self._number(message.metadata.dst_node_id)
        arrays = correction(self._global, self.memory, client, self.options.get("trainable"))
        return wire.with_correction(message, arrays) if arrays else message

    def _numbered(self, message: Message, update: Update) -> Update:
        return replace(update, client=self._number(message.metadata.src_node_id))

    def _number(self, node: int) -> int:
        return self.clients.get(node, node)

    def _step_options(self) -> dict[str, Any]:
        given: Mapping[str, Any] = {name: value for name, value in self.options.items() if value is not None}
        return {**self._seen, **given}


_UNKNOWN = "unknown-"


def _name(position: int, client: int | None) -> str:
    return f"{_UNKNOWN}{position}" if client is None else f"client-{client}"


def _zeros(arrays: Sequence[np.ndarray]) -> Arrays:
    """Variates before anything is known; of halves too much would be rounded away."""
    return [np.zeros(a.shape, np.promote_types(a.dtype, np.float32)) for a in arrays]


def _corrections(server: Arrays, client: Arrays) -> Arrays:
    """As they are sent, so that both sides subtract the same."""
    return [np.asarray(c - own) for c, own in zip(server, client, strict=True)]


def _eta(local_learning_rate: float | None) -> float:
    return Training().learning_rate if local_learning_rate is None else local_learning_rate
