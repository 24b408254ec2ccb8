"""The shell around a rule: Flower messages -> checked updates -> rule -> Flower records.

A strategy of ours is a pure function `rule(x, updates, **options) -> new x` and a `Shell` subclass that names it. The
rule may consume `updates` one by one while they still arrive, so a mean holds one model and not one per client.

A strategy that remembers something between rounds is a `strategies.memory.MemoryShell`.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Strategy

from task import wire
from task.config import Training
from task.errors import one_line
from task.update import Arrays, Facts, Memory, Update, check_update

Rule = Callable[..., Arrays]


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be: from `low` to below `high`; `low` itself only if `low_too`."""

    low: float
    high: float = math.inf
    low_too: bool = True

    def check(self, name: str, value: Any) -> None:
        """Refuse, with a ValueError, a value of the option `name` that is no number of this range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and self.low <= value < self.high and (self.low_too or value > self.low)):
            below = f" and < {self.high:g}" if math.isfinite(self.high) else " and finite"
            raise ValueError(
                f"{name} must be a number {'>=' if self.low_too else '>'} {self.low:g}{below}, not {value!r}"
            )


FROM_ZERO, ABOVE_ZERO, SHARE = Range(0), Range(0, low_too=False), Range(0, 1)


@dataclass(frozen=True)
class Verdict:
    """What became of one client's reply in one round."""

    node_id: int
    status: Literal["ok", "rejected", "failed"]
    reason: str = ""
    update: Update | None = None  # as sent, for a reply that could be read
    facts: Facts = field(default_factory=Facts)
    bytes_up: int = 0
    expected: bool = False  # the scenario asked for it: no news to anybody


Report = Callable[[Verdict], None]


def unreported(_: Verdict) -> None:
    """For those who do not want to know."""


def screen(
    replies: Iterable[Message],
    like: Arrays,
    needs: Iterable[str] = (),
    report: Report = unreported,
) -> Iterator[tuple[Message, Update]]:
    """Let pass the replies that a rule may see, as they come; report every reply, passed or not.

    Args:
        replies: train replies, error replies among them.
        like: the global arrays of the round.
        needs: names of `Update` fields that the rule needs to be given; others may be missing, and are checked all the
            same where they are not.
        report: called with each reply's verdict, before the reply is passed on.

    Yields:
        The message and its update, unchanged.
    """
    for message in replies:
        node, size = message.metadata.src_node_id, wire.array_bytes(message)
        if message.has_error():
            report(Verdict(node, "failed", one_line(message.error.reason or "no reason given")))
            continue
        update, facts = None, Facts()
        try:
            update, facts = wire.read_reply(message)
            check_update(update, like)
            for name in needs:
                # An update that does not say num_examples has 1; what was sent is among the facts.
                if getattr(facts if name == "num_examples" else update, name) is None:
                    raise ValueError(f"{name} is missing, which this strategy needs")
        except ValueError as error:
            report(Verdict(node, "rejected", one_line(str(error)), update, facts, size))
            continue
        report(Verdict(node, "ok", "", update, facts, size))
        yield message, update


# Flower's own default of two makes a federation of one wait for ever.
_MINIMA = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


class Shell(FlowerFedAvg):
    """A Flower strategy around a pure rule; it works in our round loop and in anyone's `strategy.start(...)`.

    Sampling, configuration and federated evaluation are Flower's FedAvg; the aggregation of arrays is the rule's, of
    the replies that passed the gate.

    Args:
        options: keyword options of the rule, and any argument of `flwr.serverapp.strategy.FedAvg`.

    Attributes:
        needs: fields of `Update` that the rule needs beside the arrays.
        subtracts: whether the rule subtracts the global arrays, from which all updates must have begun, then.
        ranges: of the rule's options that are numbers.
        asks: what its train messages say beside the round's configuration.
        report: told what became of each reply.
        clients: the number of the client at each node, where that is known.
        memory: what the strategy remembers between rounds, by name; a checkpoint holds it, and a resumed run puts it
            back. Empty before the first round, and always for a rule that remembers nothing.

    Raises:
        TypeError: for an argument that neither of them has.
        ValueError: for an option that is not in its range.
    """

    rule: ClassVar[Rule]
    needs: tuple[str, ...] = ()  # of one strategy more, if an option of it wants so
    subtracts: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, Range]] = {}

    def __init__(self, **options: Any) -> None:
        known = rule_options(type(self).rule)
        self.options = {name: value for name, value in options.items() if name in known}
        self.check_options(self.options)
        rest = {name: value for name, value in options.items() if name not in known}
        super().__init__(**{**_MINIMA, **rest})
        self.asks: dict[str, Any] = {}
        self.report: Report = unreported
        self.clients: Mapping[int, int] = {}
        self.memory: Memory = {}
        self._global: Arrays = []

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Refuse, with a ValueError, an option that is out of its range; None is one where it is the default."""
        rule = inspect.signature(cls.rule).parameters
        for name, value in options.items():
            if name in cls.ranges and not (value is None and rule[name].default is None):
                cls.ranges[name].check(name, value)

    @classmethod
    def fewest(cls, options: Mapping[str, Any]) -> int:  # noqa: ARG003 - of use to rules whose options need more
        """How many updates the rule needs to do what its options say; in a round with fewer it does what it can."""
        return 1

    def undefined_for(self, training: Training) -> str | None:
        """Why this strategy is not defined for that local training, and what to change; None: it is."""
        if "local_norm" in self.needs and training.norm_undefined:
            return (
                f"{training.norm_undefined}: its local_norm exists for sgd, plain or with momentum; use --optimizer "
                f"sgd without --nesterov"
            )
        return None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the global arrays, which rules on differences start from; the rest is Flower's."""
        self._global = wire.arrays_of(arrays)
        if self.asks:
            config = wire.train_config({**config, **self.asks})
        messages: Iterable[Message] = super().configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002 - Flower's signature
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the rule to the replies that pass the gate; (None, None) if none does.

        `replies` may be a generator that yields while clients still train.
        """
        tally = _Tally(self.report)
        passed = screen(replies, self._global, self.needs, tally)
        updates = (self._numbered(message, update) for message, update in passed)
        first = next(updates, None)
        if first is None:
            return None, None
        new = self._apply(chain([first], updates))
        return wire.record(new), tally.metrics()

    def _numbered(self, message: Message, update: Update) -> Update:  # noqa: ARG002 - of use to those who tell clients apart
        """The update under the client's number that the rule is to see."""
        return update

    def _apply(self, updates: Iterable[Update]) -> Arrays:
        return type(self).rule(self._global, updates, **self.options)


class _Tally:
    """A report that counts who passed before it passes the verdict on."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._examples: list[int | None] = []

    def __call__(self, verdict: Verdict) -> None:
        if verdict.status == "ok":
            self._examples.append(verdict.facts.num_examples)
        self._report(verdict)

    def metrics(self) -> MetricRecord:
        """Clients and their examples; no sum of examples where one of them did not say."""
        said = [n for n in self._examples if n is not None]
        metrics = MetricRecord({"clients": len(self._examples)})
        if len(said) == len(self._examples):
            metrics[wire.NUM_EXAMPLES] = sum(said)
        return metrics


def needs_of(strategy: Strategy) -> tuple[str, ...]:
    """The fields of `Update` that a strategy needs beside the arrays; Flower's own all weigh by examples."""
    return strategy.needs if isinstance(strategy, Shell) else ("num_examples",)


def rule_options(rule: Rule) -> set[str]:
    """Names of the keyword-only options of a rule."""
    return {p.name for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY}


def conform(arrays: Arrays, like: Arrays) -> Arrays:
    """Bring a strategy's result back to the model's dtypes (Flower's FedAdam, for one, returns float64).

    Raises:
        ValueError: if the count or a shape differs, or a value is not finite.
    """
    if [a.shape for a in arrays] != [x.shape for x in like]:
        raise ValueError("the strategy returned arrays of other shapes than the model's")
    result = [np.asarray(a, dtype=x.dtype) for a, x in zip(arrays, like, strict=True)]
    if not all(np.isfinite(a).all() for a in result):
        raise ValueError("the strategy returned values that are not finite (NaN or infinity)")
    return result
