"""The round loop of one contestant: send, let replies stream into the strategy, evaluate, record.

Flower's own `Strategy.start` cannot stop, resume or leave a lost client behind; any message-API strategy runs here.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from server.checkpoint import Saved
from server.conditions import Conditions, Fate
from server.drift import Drift
from server.examine import examination, most_left_out, sound
from server.federation import REVOKED, Chosen, Federation
from server.replies import replies
from server.results import ClientRow, Entry, LocalRow, RoundRow
from server.stop import Broken, Stop, Stopped
from strategies.base import Shell, conform, needs_of
from strategies.gate import Expected, Review, Verdict, relative_norm, screen
from task import seeds, wire
from task.config import RunConfig
from task.errors import describe
from task.update import Arrays, Memory

_LOOK_SECONDS = 0.05  # between two looks whether enough clients can be reached

LATE = "the client has not come since the server started"

log = logging.getLogger("fedarena")


class Journal(Protocol):
    """Where a contestant's rows and models go."""

    def client(self, row: ClientRow, verdict: Verdict) -> None:
        """One client's part in a round."""

    def round(self, row: RoundRow, arrays: Arrays, memory: Memory, local: Sequence[LocalRow]) -> None:
        """A finished round, its global arrays, what the strategy remembers, and a row of each update that was used."""

    def again(self, entry: Entry, server_round: int, reason: str) -> None:
        """A round came to nothing and is played once more: what was told of its clients does not count."""

    def back(self, entry: Entry, server_round: int, reason: str) -> Saved | None:
        """A round that was finished, and those after it, are played again: nothing that was told of them counts.

        Returns:
            The contestant as it was before that round; None if that is not kept, and then nothing changes.
        """


@dataclass(frozen=True)
class Terms:
    """When a round counts, and what counts in it.

    Attributes:
        deadline: seconds from sending a round's messages until nobody is waited for any more; None: no end.
        quorum: valid updates that a round needs, >= 1.
        tries: how often a round is played before its contestant stops with what it has, >= 1.
        recovery: seconds that a new try waits for enough clients to be reachable.
        max_norm: the largest L2 norm of an update that is used; None: any.
        max_relative_norm: the same as a multiple of the round's median norm, > 1; None: any.
    """

    deadline: float | None = None
    quorum: int = 1
    tries: int = 1
    recovery: float = 0.0
    max_norm: float | None = None
    max_relative_norm: float | None = None


def majority(config: RunConfig) -> int:
    """More than half of the clients of a round."""
    return (config.sample or config.clients or 1) // 2 + 1


def terms_of(config: RunConfig, quorum: int = 1, tries: int = 1, **others: Any) -> Terms:
    """What a configuration says of it.

    Args:
        config: the run's.
        quorum: where the configuration names none.
        tries: the same; 3 where it names a quorum, which the user would not do to give up at once.
        others: fields of `Terms` that are not of a configuration.
    """
    tries = config.tries or (3 if config.quorum else tries)
    return Terms(
        quorum=config.quorum or quorum,
        tries=tries,
        max_norm=config.max_update_norm,
        max_relative_norm=config.max_relative_norm,
        **others,
    )


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
        terms: when a round counts.
        conditions: what the scenario does in its rounds; None: nothing.
        measures: whether clients test on their own training data in a round.
        examples: how many examples each client has, by its number, as far as that is known beforehand.
        revoked: the clients that are shut out, as it is known when it is called.
        late: those that have not come yet, likewise.
    """

    entry: Entry
    strategy: Strategy
    federation: Federation
    config: dict[str, Any]
    sample: int | None
    evaluate: Callable[[Arrays], tuple[float, float]]
    terms: Terms = Terms()
    conditions: Conditions | None = None
    measures: Callable[[int], bool] = lambda _: False
    examples: Mapping[int, int] = field(default_factory=dict)
    revoked: Callable[[], Collection[int]] = frozenset
    late: Callable[[], Collection[int]] = frozenset

    @property
    def memory(self) -> Memory:
        """What its strategy remembers, as far as that is known here."""
        return self.strategy.memory if isinstance(self.strategy, Shell) else {}

    def remember(self, memory: Memory) -> None:
        """Put back what the strategy remembered earlier."""
        if isinstance(self.strategy, Shell):
            self.strategy.memory = memory


def run_rounds(contestant: Contestant, arrays: Arrays, first: int, last: int, journal: Journal, stop: Stop) -> Arrays:
    """Play rounds first..last from the given global arrays; round 0 only evaluates them.

    A round whose result or test loss is not finite, or after which most updates are not, is played once more with its
    updates held, to find and reject those that made it so; see `server.examine`.

    Returns:
        The final global arrays.

    Raises:
        Stopped: if in every try a round has fewer valid updates than its quorum, or what the strategy makes of them is
            not finite; the strategy fails; or `stop` is set.
    """
    if stop.is_set():
        raise Stopped(stop.reason)
    if first == 0:
        accuracy, loss = contestant.evaluate(arrays)
        journal.round(RoundRow(*contestant.entry, 0, accuracy, loss, 0, 0, 0, 0, 0.0), arrays, contestant.memory, ())
    course, server_round = _Course(contestant, journal, stop), max(first, 1)
    while server_round <= last:
        server_round, arrays = course.play(server_round, arrays)
    return arrays


class _Course:
    """The rounds of one contestant, each examined at most once, so that their number is bounded."""

    def __init__(self, contestant: Contestant, journal: Journal, stop: Stop) -> None:
        self._contestant, self._journal, self._stop = contestant, journal, stop
        self._examinable = isinstance(contestant.strategy, Shell)  # what others remember is not known
        self._examined: set[int] = set()
        self._last: _Past | None = None

    def play(self, number: int, arrays: Arrays) -> tuple[int, Arrays]:
        """Play one round in as many tries as its terms allow.

        Returns:
            The round to play next and the global arrays that it begins with.
        """
        contestant, entry = self._contestant, self._contestant.entry
        examined = number in self._examined
        for left in reversed(range(contestant.terms.tries)):
            attempt = _Round(contestant, number, arrays, self._journal, self._stop, examined)
            before = contestant.memory
            new = attempt.train()
            if saved := self._back(attempt):
                return number - 1, saved.arrays
            accuracy, loss = (0.0, math.nan) if new is None else contestant.evaluate(new)
            if not examined and (why := self._unusable(attempt, new, loss)):
                contestant.remember(before)
                self._examined.add(number)
                self._journal.again(entry, number, f"{why}; played again to find whose updates made it so")
                return number, arrays
            if new is not None:
                attempt.record(new, accuracy, loss)
                began_sound = self._last is None or sound(self._last.loss)
                self._last = _Past(number, loss, began_sound, attempt.spoiled, attempt.largest)
                return number + 1, new
            contestant.remember(before)  # a round that does not count is not remembered either
            reason = attempt.told + self._hint(attempt)
            if left:
                self._journal.again(entry, number, f"{reason}; {left} more {'try' if left == 1 else 'tries'}")
                _recover(contestant, attempt.clients.values(), self._stop)
        raise Stopped(reason)

    def _unusable(self, attempt: "_Round", new: Arrays | None, loss: float) -> str:
        """Why this round is to be examined; "": it is not, or some of its updates could not be left out."""
        if not (self._examinable and most_left_out(attempt.updates, attempt.quorum)):
            return ""
        if new is None:
            return attempt.told if attempt.without_model else ""
        if math.isfinite(loss) or (self._last and not sound(self._last.loss)):
            return ""
        return f"round {attempt.number} made a model whose test loss is {loss} from {attempt.accepted} valid updates"

    def _back(self, attempt: "_Round") -> Saved | None:
        """The contestant before the last round, which is to be examined, now that this one shows its model unusable.

        None: it is not. Where as many were not finite in the last round, too, they say nothing of its model.
        """
        earlier = attempt.number - 1
        known = self._last and (self._last.spoiled or not self._last.began_sound)
        if not attempt.spoiled or known or earlier < 1 or earlier in self._examined or not self._examinable:
            return None
        self._examined.add(earlier)
        reason = f"{attempt.not_finite} of {attempt.replied} updates of round {attempt.number} are not finite"
        reason += f"; round {earlier} is played again to find whose updates made it so"
        saved = self._journal.back(self._contestant.entry, earlier, reason)
        if saved:
            self._contestant.remember(saved.memory)
            self._last = None
        return saved

    def _hint(self, attempt: "_Round") -> str:
        """Whose update to look at where nobody was found."""
        if attempt.spoiled:
            earlier = (
                f"; in round {self._last.number} {self._last.largest}" if self._last and self._last.largest else ""
            )
            return f" ({attempt.not_finite} of {attempt.replied} were not finite){earlier}"
        return f"; {attempt.largest}" if attempt.without_model and attempt.largest else ""


class _Past(NamedTuple):
    """What is kept of the last finished round."""

    number: int
    loss: float  # of its model on the test set
    began_sound: bool  # as far as is known
    spoiled: bool
    largest: str


def _recover(contestant: Contestant, clients: Collection[int], stop: Stop) -> None:
    """Wait until a quorum could answer, or long enough."""
    until = time.monotonic() + contestant.terms.recovery
    while time.monotonic() < until and contestant.federation.reachable(clients) < contestant.terms.quorum:
        if stop.wait(_LOOK_SECONDS):
            raise Stopped(stop.reason)


class _Round:
    """One try of one round: what was sent, what came back."""

    def __init__(
        self,
        contestant: Contestant,
        server_round: int,
        arrays: Arrays,
        journal: Journal,
        stop: Stop,
        examine: bool,
    ) -> None:
        self.contestant, self.number, self.arrays = contestant, server_round, arrays
        self.journal, self.stop = journal, stop
        late, self.revoked = contestant.late(), contestant.revoked()  # before the nodes: who is not late has one
        absent = dict.fromkeys(late, LATE) | dict.fromkeys(self.revoked, REVOKED)
        self.nodes = dict(contestant.federation.nodes)  # may change while the round is played
        chosen = choose(sorted(self.nodes), contestant.sample, contestant.entry.seed, server_round, absent)
        self.clients = {self.nodes[client]: client for client in chosen}
        self.absent = {self.nodes[client]: absent[client] for client in chosen if client in absent}
        self.accepted = self.refused = self.bytes_up = self.bytes_down = 0
        self.replied = self.not_finite = 0  # how many sent an update, and one that is not finite
        self.examine, self.begun = examine, time.perf_counter()
        self.failure = ""
        self.drift = Drift(arrays)

    @property
    def spoiled(self) -> bool:
        """Whether most of its updates were not finite: the global model that they began with was unusable."""
        return 2 * self.not_finite > self.replied

    @property
    def without_model(self) -> bool:
        """Of a round that gave no arrays: whether that was in spite of enough valid updates."""
        return bool(self.failure) or self.accepted >= self.quorum

    @property
    def updates(self) -> int:
        """How many there are to be used, as far as is known: a rule that fails may not have seen all."""
        return len(self.clients) if self.failure else self.accepted

    @property
    def quorum(self) -> int:
        """As the terms have it."""
        return self.contestant.terms.quorum

    @property
    def largest(self) -> str:
        """Whose valid update goes farthest; "": there is none."""
        found = self.drift.largest()
        return f"the largest update is that of client {found[0]} (norm {found[1]:.3g})" if found else ""

    @property
    def told(self) -> str:
        """What is to say of a round that does not count."""
        of, quorum = f"{len(self.clients)} clients", self.quorum
        if self.failure:
            return self.failure
        if self.accepted >= quorum:
            return f"round {self.number} gave no finite model from the {self.accepted} valid updates of {of}"
        if quorum == 1:
            return f"round {self.number} brought no valid update from {of}"
        return f"round {self.number} brought {self.accepted} valid updates from {of}, {quorum} are needed"

    def record(self, new: Arrays, accuracy: float, loss: float) -> None:
        """Pass the round on to the journal, with the test of the new global arrays."""
        row = RoundRow(
            *self.contestant.entry,
            self.number,
            accuracy,
            loss,
            self.accepted,
            self.refused,
            self.bytes_up,
            self.bytes_down,
            time.perf_counter() - self.begun,
        )
        entry = self.contestant.entry
        local = [
            LocalRow(*entry, self.number, m.client, m.accuracy_before, m.accuracy_after, m.update_norm, m.cosine)
            for m in self.drift.rows(new)
        ]
        self.journal.round(row, new, self.contestant.memory, local)

    def train(self) -> Arrays | None:
        """The new global arrays; None without a quorum, or if they are not finite."""
        strategy, grid = self.contestant.strategy, self.contestant.federation.grid
        needs = needs_of(strategy)
        fates = self._fates()
        present = [n for n in self.clients if n not in self.absent and (n not in fates or not fates[n].absent)]
        for node, reason in self.absent.items():
            self._report(Verdict(node, "failed", reason, expected=True))  # told when it was revoked, or missed at first
        if not present:  # in a scenario nothing was learned, and the next round may be better
            return None if self.absent else self.arrays
        config = wire.train_config({**self.contestant.config, "server-round": self.number, wire.NEEDS: list(needs)})
        if self.contestant.measures(self.number):
            config[wire.MEASURE] = True
        try:
            view = Chosen(grid, present)
            if isinstance(strategy, Shell):
                strategy.clients = {node: k for k, node in self.nodes.items() if k not in self.revoked}
            messages = list(strategy.configure_train(self.number, wire.record(self.arrays), config, view))
            messages = [self._fated(message, fates) for message in messages]
            self.bytes_down += sum(wire.array_bytes(message) for message in messages)
            for message in messages:
                message.metadata.group_id = message.metadata.group_id or str(self.number)  # for those who look on
            nodes = [message.metadata.dst_node_id for message in messages]
            waiting = dict(zip(grid.push_messages(messages), nodes, strict=True))
            del messages
            terms = self.contestant.terms
            examples = self.contestant.examples
            asked = dict(waiting)
            expected = Expected(
                self.arrays, needs, asked, self.clients, examples, terms.max_norm, tuple(self._reviews())
            )
            deadline = terms.deadline
            came: Iterable[Message] = replies(self.contestant.federation, waiting, self._report, self.stop, deadline)
            if self.contestant.conditions:
                came = self.contestant.conditions.turn(self.number, self.arrays, came, self.clients)
            if isinstance(strategy, Shell):
                strategy.report, strategy.expected = self._report, expected
                result = self._aggregate(strategy, came)
            else:
                # Strategies of others add up in the order of the replies: give them always the same one.
                passed = sorted(screen(came, expected, self._report), key=self._client_of)
                if len(passed) < terms.quorum:
                    return None  # before the strategy, which may remember what it saw
                result, _ = strategy.aggregate_train(self.number, wire.alike([message for message, _ in passed]))
            if result is None or self.accepted < terms.quorum:
                return None
            return conform(wire.arrays_of(result), self.arrays)
        except (Stopped, Broken):
            raise
        except Exception as error:  # a strategy of the user's may raise anything; the others go on
            raise Stopped(self._failed(error)) from error

    def _reviews(self) -> Iterator[Review]:
        """What looks at all valid updates together."""
        terms, strategy = self.contestant.terms, self.contestant.strategy
        if terms.max_relative_norm is not None:
            yield relative_norm(self.arrays, terms.max_relative_norm)
        if self.examine and isinstance(strategy, Shell):
            yield examination(strategy, self.arrays, self.contestant.evaluate, terms.quorum, self._client_of)

    def _aggregate(self, strategy: Shell, came: Iterable[Message]) -> ArrayRecord | None:
        """What the rule makes of the replies. Where it raises, an examination may find whose update it cannot take."""
        try:
            return strategy.aggregate_train(self.number, came)[0]
        except (Stopped, Broken):
            raise
        except Exception as error:
            if self.examine or not most_left_out(len(self.clients), self.quorum):
                raise
            self.failure = self._failed(error)
            return None

    def _failed(self, error: Exception) -> str:
        return f"the strategy failed in round {self.number}: {describe(error)}"

    def _fates(self) -> dict[int, Fate]:
        """What the scenario has in store for each node; those that take no part are reported at once."""
        conditions = self.contestant.conditions
        if conditions is None:
            return {}
        fates = {node: conditions.fate(self.number, client) for node, client in self.clients.items()}
        for node, fate in fates.items():
            if fate.absent:
                self._report(Verdict(node, "failed", fate.absent, expected=True))
        if late := sum(bool(fate.late) for fate in fates.values()):  # they got the model, and trained in vain
            self.bytes_down += late * wire.record_bytes(wire.record(self.arrays))
        return fates

    def _fated(self, message: Message, fates: Mapping[int, Fate]) -> Message:
        """The message with the work that this client does in this round."""
        fate = fates.get(message.metadata.dst_node_id)
        work = fate.work if fate else {}
        return wire.with_config(message, work) if work else message

    def _client_of(self, passed: tuple[Message, Any]) -> int:
        return self.clients[passed[0].metadata.src_node_id]

    def _report(self, verdict: Verdict) -> None:
        if verdict.stray:
            log.warning("round %d: dropped a reply of node %d: %s", self.number, verdict.node_id, verdict.reason)
            return
        update, facts, conditions = verdict.update, verdict.facts, self.contestant.conditions
        if conditions and self.clients[verdict.node_id] in conditions.attackers:
            verdict = replace(verdict, expected=True)
        self.bytes_up += verdict.bytes_up
        self.replied += verdict.status != "failed"
        self.not_finite += verdict.not_finite
        if verdict.status == "ok":
            self.accepted += 1
            assert update is not None
            self.drift.add(self.clients[verdict.node_id], update.arrays, facts)
        else:
            self.refused += 1
        row = ClientRow(
            *self.contestant.entry,
            self.number,
            self.clients[verdict.node_id],
            facts.num_examples,
            facts.local_steps,
            update.local_norm if update else None,
            facts.train_loss,
            facts.seconds,
            verdict.status,
            verdict.reason,
        )
        self.journal.client(row, verdict)


def choose(
    clients: Sequence[int], sample: int | None, seed: int, server_round: int, absent: Collection[int] = ()
) -> list[int]:
    """Draw the clients of a round, the same for every strategy.

    Args:
        clients: the numbers of all members, ascending.
        sample: how many; None: all, the absent among them.
        seed: of the contestant.
        server_round: the round's number.
        absent: members that cannot be asked. Where one is drawn, a stand-in is drawn for it, so that rounds which draw
            none of them are as ever, and a revoked member does not cost the rounds that it is drawn in.

    Returns:
        The numbers in ascending order; absent ones only if there is nobody to stand in for them.
    """
    if sample is None or sample >= len(clients):
        return list(clients)
    stream = seeds.stream(seed, "sample", server_round)
    picked = [clients[i] for i in stream.choice(len(clients), size=sample, replace=False)]
    vacant = sorted(client for client in picked if client in absent)
    if vacant:
        others = [clients[i] for i in stream.permutation(len(clients))]
        stand_ins = [client for client in others if client not in picked and client not in absent][: len(vacant)]
        replaced = vacant[: len(stand_ins)]
        picked = [client for client in picked if client not in replaced] + stand_ins
    return sorted(picked)
