"""What a scenario does to one contestant's rounds: who misses one, who works how much, who is late, who attacks.

Everything is drawn from (seed, use, round, client), so all strategies with one seed meet the same conditions.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message

from server.attacks import ATTACKS, strength_of
from task import seeds, wire
from task.scenario import Byzantine, Dropout, Scenario, Straggler, UnevenWork, draw_clients
from task.update import Arrays, check_update

_FOR_EVER = 1e9  # usual rounds' times


@dataclass(frozen=True)
class Fate:
    """What becomes of one client in one round.

    Attributes:
        missed: why it takes no part and gets no model; "": it does.
        late: why its update is not used, though it got the model; "": it is.
        epochs: local epochs instead of the run's; None: the run's.
        share: of its planned local steps that it makes, 0 < share <= 1; at least one step.
    """

    missed: str = ""
    late: str = ""
    epochs: int | None = None
    share: float = 1.0

    @property
    def absent(self) -> str:
        """Why no update of it is used in this round; "": one may be."""
        return self.missed or self.late

    @property
    def work(self) -> dict[str, int | float]:
        """What its train message says otherwise than those of the others."""
        said: dict[str, int | float] = {} if self.epochs is None else {"epochs": self.epochs}
        return said if self.share == 1.0 else {**said, "work-share": self.share}


class Conditions:
    """One scenario with one seed, for so many clients. Holds no state between rounds; threads may share it.

    Args:
        scenario: its parts; those that are in the data already do nothing here.
        seed: the run's.
        clients: of the federation.

    Attributes:
        attackers: numbers of the clients that attack, those with flipped labels among them.
        slow: numbers of the clients that are slow.

    Raises:
        UserError: the scenario asks for more clients of a kind than there are, or for an attack that is none.
    """

    def __init__(self, scenario: Scenario, seed: int, clients: int) -> None:
        self.attackers: frozenset[int] = frozenset(scenario.attackers(seed, clients))
        self.slow: frozenset[int] = frozenset(scenario.slow(seed, clients))
        self._seed = seed
        self._dropout = scenario.find(Dropout)
        self._work, self._straggler = scenario.find(UnevenWork), scenario.find(Straggler)
        # The fewer slow ones of two parts are among the more of the other.
        self._slow_workers = _slow(self._work, seed, clients)
        self._slow_in_time = _slow(self._straggler, seed, clients)
        byzantine = scenario.find(Byzantine)
        self._attack = ATTACKS.get(byzantine.attack) if byzantine else None
        strength = strength_of(byzantine, clients, scenario.name) if byzantine else None
        self._strength = 1.0 if strength is None else strength

    def fate(self, server_round: int, client: int) -> Fate:
        """What becomes of a client in a round."""
        if self._dropout and seeds.stream(self._seed, "missing", server_round, client).random() < self._dropout.p:
            return Fate(missed="dropout: missed this round")
        late, share = self._lateness(server_round, client)
        return Fate(late=late, epochs=self._epochs(server_round, client), share=share)

    def turn(
        self, server_round: int, x: Arrays, replies: Iterable[Message], client_of: dict[int, int]
    ) -> Iterator[Message]:
        """The replies as they reach the strategy: those of attackers are what the attack makes of them.

        What the gate would refuse anyway is passed on as it is, and is no part of what attackers see of the others.
        Attackers that need the others' updates come last; where there are none, they send what they trained.

        Args:
            server_round: which round.
            x: the global arrays that were sent.
            replies: as they come; consumed once, honest ones are passed on at once.
            client_of: the client's number of each node.
        """
        if self._attack is None:
            yield from replies
            return
        honest: dict[int, Arrays] = {}
        held: dict[int, tuple[Message, Arrays]] = {}
        for message in replies:
            client = client_of.get(message.metadata.src_node_id, -1)  # -1: of nobody who was asked
            attacks = client in self.attackers
            arrays = _readable(message, x) if attacks or self._attack.of_others else None
            if arrays is None:
                yield message
            elif not attacks:
                honest[client] = arrays
                yield message
            elif self._attack.of_others:
                held[client] = message, arrays
            else:
                yield self._turned(message, x, arrays, [], server_round, client)
        seen = [honest[client] for client in sorted(honest)]
        for client, (message, arrays) in sorted(held.items()):
            yield self._turned(message, x, arrays, seen, server_round, client) if seen else message

    def _epochs(self, server_round: int, client: int) -> int | None:
        work = self._work
        if work is None:
            return None
        if work.slow:
            return work.low if client in self._slow_workers else work.high
        draw = seeds.stream(self._seed, "uneven work", server_round, client)
        return int(draw.integers(work.low, work.high, endpoint=True))

    def _lateness(self, server_round: int, client: int) -> tuple[str, float]:
        """Why the client is late ("": it is not), and the share of its work that it does."""
        straggler = self._straggler
        if straggler is None:
            return "", 1.0
        z = seeds.stream(self._seed, "straggler", server_round, client).standard_normal()
        speed = straggler.factor if client in self._slow_in_time else 1.0
        time = min(speed * math.exp(min(straggler.spread * z, 100)), _FOR_EVER)
        if time <= straggler.deadline:
            return "", 1.0
        if straggler.partial:
            return "", max(straggler.deadline / time, 1 / _FOR_EVER)
        told = math.ceil(time * 100) / 100  # rounded up, so that it never looks like the deadline
        return f"late: would have taken {told:g} of the deadline's {straggler.deadline:g} rounds' time", 1.0

    def _turned(
        self, message: Message, x: Arrays, own: Arrays, honest: list[Arrays], server_round: int, client: int
    ) -> Message:
        assert self._attack is not None
        random = seeds.stream(self._seed, "attack", server_round, client)
        return wire.with_arrays(message, self._attack.function(x, own, honest, random, self._strength))


def _slow(part: UnevenWork | Straggler | None, seed: int, clients: int) -> frozenset[int]:
    return frozenset(draw_clients(seed, "slow", clients, part.slow)) if part else frozenset()


def _readable(message: Message, like: Arrays) -> Arrays | None:
    """The arrays of a reply as copies; None of one that the gate refuses."""
    if message.has_error():
        return None
    try:
        update, _ = wire.read_reply(message, like)
        check_update(update, like)
    except ValueError:
        return None
    return update.arrays
