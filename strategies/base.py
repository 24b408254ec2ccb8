"""The shell around a rule: Flower messages -> checked updates -> rule -> Flower records.

A strategy of ours is a pure function `rule(x, updates, **options) -> new x` and a `Shell` subclass that names it. The
rule may consume `updates` one by one while they still arrive, so a mean holds one model and not one per client.

A strategy that remembers something between rounds is a `strategies.memory.MemoryShell`.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Strategy

from strategies.gate import Expected, Passed, Report, Verdict, screen, unreported
from strategies.kernels import all_finite
from task import wire
from task.config import Training
from task.update import Arrays, Memory, Update

Rule = Callable[..., Arrays]

WeightsBy = Literal["clients", "examples"]
"""What decides how much a client's update counts: every client alike, or by its share of the examples."""


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


# Flower's own default of two makes a federation of one wait for ever.
_MINIMA = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


class Shell(FlowerFedAvg):
    """A Flower strategy around a pure rule; it works in our round loop and in anyone's `strategy.start(...)`.

    Sampling, configuration and federated evaluation are Flower's FedAvg; the aggregation of arrays is the rule's, of
    the replies that passed the gate.

    Args:
        options: keyword options of the rule, and any argument of `flwr.serverapp.strategy.FedAvg`.

    Attributes:
        weights_by: whether the rule counts clients alike or weighs them by their examples; None: not stated, and
            then nothing is said about it anywhere.
        needs: fields of `Update` that the rule needs beside the arrays.
        subtracts: whether the rule subtracts the global arrays, from which all updates must have begun, then.
        ranges: of the rule's options that are numbers.
        asks: what its train messages say beside the round's configuration.
        report: told what became of each reply.
        clients: the number of the client at each node, where that is known: all who may still take part.
        expected: what the replies of the next aggregation have to be; None, as in Flower's own `start`: answers to the
            messages that this strategy made.
        memory: what the strategy remembers between rounds, by name; a checkpoint holds it, and a resumed run puts it
            back. Empty before the first round, and always for a rule that remembers nothing.

    Raises:
        TypeError: for an argument that neither of them has.
        ValueError: for an option that is not in its range.
    """

    rule: ClassVar[Rule]
    weights_by: WeightsBy | None = None  # of one strategy the other, if an option of it wants so
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
        self.expected: Expected | None = None
        self.memory: Memory = {}
        self._global: Arrays = []
        self._sent: list[Metadata] = []

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
        messages: list[Message] = list(super().configure_train(server_round, arrays, config, grid))
        self._sent = [message.metadata for message in messages]
        return messages

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002 - Flower's signature
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the rule to the replies that pass the gate.

        `replies` may be a generator that yields while clients still train.

        Returns:
            The new global arrays and how many made them; (None, None), with the memory as it was, if no reply passes or
            if what the rule makes of them is not finite: Flower keeps the old arrays then.
        """
        tally = _Tally(self.report)
        passed = screen(replies, self.expected or self._answers(), tally)
        updates = (self._numbered(message, update) for message, update in passed)
        first = next(updates, None)
        if first is None:
            return None, None
        result = self._finite(chain([first], updates))
        if result is None:
            return None, None
        new, self.memory = result
        return wire.record(new), tally.metrics()

    def outcome(self, passed: Iterable[Passed]) -> tuple[Arrays, Memory] | None:
        """What the rule would make of these updates in this round: new global arrays and memory; nothing is kept.

        Returns:
            None if the rule fails, or a value is not finite.
        """
        try:
            return self._finite(self._numbered(*one) for one in passed)
        except Exception:  # noqa: BLE001 - whatever the updates made it raise, there is no model
            return None

    def shared(self, memory: Memory) -> Memory:
        """The part of the memory that moves the model or goes to more than one client."""
        return memory

    def _answers(self) -> Expected:
        """What the replies have to be where nobody said so: Flower's grid has given the messages their ids."""
        asked = {sent.message_id: sent.dst_node_id for sent in self._sent if sent.message_id}
        return Expected(self._global, self.needs, asked or None, self.clients)

    def _numbered(self, message: Message, update: Update) -> Update:  # noqa: ARG002 - of use to those who tell clients apart
        """The update under the client's number that the rule is to see."""
        return update

    def _finite(self, updates: Iterable[Update]) -> tuple[Arrays, Memory] | None:
        """New global arrays and memory; None if a value is not finite."""
        with np.errstate(all="ignore"):  # what overflows is found here
            new, memory = self._apply(updates)
        finite = all(all_finite(array) for some in (new, *memory.values()) for array in some)
        return (new, memory) if finite else None

    def _apply(self, updates: Iterable[Update]) -> tuple[Arrays, Memory]:
        return type(self).rule(self._global, updates, **self.options), self.memory


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


def weights_by(strategy: Strategy) -> WeightsBy | None:
    """Return what a strategy weighs by; None: unknown, as of a Flower strategy that is not in the list below."""
    if isinstance(strategy, Shell):
        return strategy.weights_by
    if getattr(strategy, "weighted_by_key", wire.NUM_EXAMPLES) != wire.NUM_EXAMPLES:
        return None
    return _FLOWER_WEIGHTS_BY.get(type(strategy))


# By the exact class: a subclass may aggregate in another way.
_FLOWER_WEIGHTS_BY: Mapping[type[Strategy], WeightsBy] = {
    flower.FedAvg: "examples",
    flower.FedProx: "examples",
    flower.FedAvgM: "examples",
    flower.FedAdagrad: "examples",
    flower.FedAdam: "examples",
    flower.FedYogi: "examples",
    flower.FedMedian: "clients",
    flower.FedTrimmedAvg: "clients",
    flower.Krum: "clients",
}


def rule_options(rule: Rule) -> set[str]:
    """Names of the keyword-only options of a rule."""
    return {p.name for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY}


def conform(arrays: Arrays, like: Arrays) -> Arrays | None:
    """Bring a strategy's result back to the model's dtypes (Flower's FedAdam, for one, returns float64).

    Returns:
        New arrays; None if a value is not finite.

    Raises:
        ValueError: if the count or a shape differs.
    """
    if [a.shape for a in arrays] != [x.shape for x in like]:
        raise ValueError("the strategy returned arrays of other shapes than the model's")
    with np.errstate(over="ignore"):
        result = [np.asarray(a, dtype=x.dtype) for a, x in zip(arrays, like, strict=True)]
    return result if all(map(all_finite, result)) else None
