"""The shell around a rule: Flower messages -> checked updates -> rule -> Flower records.

A strategy of ours is a pure function `rule(x, updates, **options) -> new x` and a `Shell` subclass that names it. The
rule may consume `updates` one by one while they still arrive, so a mean holds one model and not one per client.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Strategy

from task import wire
from task.errors import one_line
from task.update import Arrays, Facts, Update, check_update

Rule = Callable[..., Arrays]


@dataclass(frozen=True)
class Verdict:
    """What became of one client's reply in one round."""

    node_id: int
    status: Literal["ok", "rejected", "failed"]
    reason: str = ""
    update: Update | None = None  # as sent, for a reply that could be read
    facts: Facts = field(default_factory=Facts)
    bytes_up: int = 0


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

    Raises:
        TypeError: for an argument that neither of them has.
    """

    rule: ClassVar[Rule]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **options: Any) -> None:
        known = rule_options(type(self).rule)
        self.options = {name: value for name, value in options.items() if name in known}
        rest = {name: value for name, value in options.items() if name not in known}
        super().__init__(**{**_MINIMA, **rest})
        self.report: Report = unreported
        self._global: Arrays = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the global arrays, which rules on differences start from; the rest is Flower's."""
        self._global = wire.arrays_of(arrays)
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
        updates = (update for _, update in screen(replies, self._global, self.needs, tally))
        first = next(updates, None)
        if first is None:
            return None, None
        new = type(self).rule(self._global, chain([first], updates), **self.options)
        return wire.record(new), tally.metrics()


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
