"""The gate: every reply passes it before any rule sees it, or is refused by client and with a reason."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

from flwr.app import Message

from strategies.kernels import squared_distances
from task import wire
from task.errors import one_line
from task.limits import check_number
from task.update import Arrays, Facts, NotFinite, Update, check_facts, check_update

_MAJORITY = 3  # of fewer updates none can be told from the others


@dataclass(frozen=True)
class Verdict:
    """What became of one client's reply in one round."""

    node_id: int
    status: Literal["ok", "rejected", "failed"]
    reason: str = ""
    update: Update | None = None  # of an accepted reply; what another one claims is nobody's to count, sum or show
    facts: Facts = field(default_factory=Facts)  # of an accepted reply, as `update`
    bytes_up: int = 0
    expected: bool = False  # the scenario asked for it, or the user was told before: no news to anybody
    stray: bool = False  # nobody asked for it: whoever was asked has a word of its own
    not_finite: bool = False  # rejected because its arrays hold NaN or infinity


Report = Callable[[Verdict], None]

Passed = tuple[Message, Update]
Review = Callable[[Sequence[Passed]], Mapping[int, str]]
"""Looks at all valid updates of a round together; returns which of them are rejected, by position, and why."""


def unreported(_: Verdict) -> None:
    """For those who do not want to know."""


@dataclass(frozen=True)
class Expected:
    """What the replies of one round have to be.

    Attributes:
        arrays: the global arrays of the round: count, shapes, dtypes and so the size of what may come back.
        needs: names of `Update` fields that the rule needs to be given; others may be missing, and are checked all the
            same where they are not.
        asked: the node that each of the round's messages went to, by the message's id; None: not known, so that who
            answers what is not checked.
        clients: the client's number of each node, where that is known.
        examples: the examples that a client has, by its number, where it said so beforehand; its updates may count
            for no more.
        max_norm: the largest L2 norm of x_i - x over all arrays; None: any.
        reviews: applied one after the other, each to the updates that the one before left. With any of them all updates
            of the round are held in memory before the rule sees the first.
    """

    arrays: Arrays
    needs: tuple[str, ...] = ()
    asked: Mapping[str, int] | None = None
    clients: Mapping[int, int] = field(default_factory=dict)
    examples: Mapping[int, int] = field(default_factory=dict)
    max_norm: float | None = None
    reviews: tuple[Review, ...] = ()


def screen(replies: Iterable[Message], expected: Expected, report: Report = unreported) -> Iterator[Passed]:
    """Let pass the replies that a rule may see, as they come; report every reply, passed or not.

    Args:
        replies: train replies, error replies among them.
        expected: what they have to be.
        report: called with each reply's verdict, before the reply is passed on.

    Yields:
        The message and its update, unchanged.
    """
    valid = _valid(replies, expected, report)
    for verdict, passed in _reviewed(list(valid), expected.reviews, report) if expected.reviews else valid:
        report(verdict)
        yield passed


def relative_norm(arrays: Arrays, factor: float) -> Review:
    """Reject updates whose L2 norm exceeds `factor` times the median norm of the round's valid updates.

    Of fewer than three updates none is rejected, and none where the median is 0: it says nothing of the others then.

    Args:
        arrays: the global arrays of the round.
        factor: > 1.
    """

    def review(passed: Sequence[Passed]) -> Mapping[int, str]:
        norms = [_norm(update, arrays) for _, update in passed]
        usual = median(norms) if len(norms) >= _MAJORITY else 0.0
        return {
            i: f"the norm of its update is {norm:g}, the bound {factor:g} times the round's median of {usual:g}"
            for i, norm in enumerate(norms)
            if usual and norm > factor * usual
        }

    return review


def _reviewed(
    held: list[tuple[Verdict, Passed]], reviews: Iterable[Review], report: Report
) -> list[tuple[Verdict, Passed]]:
    """Those that no review rejects; the others are reported."""
    for review in reviews:
        rejected = review([passed for _, passed in held])
        for i in sorted(rejected):
            report(replace(held[i][0], status="rejected", reason=one_line(rejected[i])))
        held = [one for i, one in enumerate(held) if i not in rejected]
    return held


def _valid(replies: Iterable[Message], expected: Expected, report: Report) -> Iterator[tuple[Verdict, Passed]]:
    """The replies that are valid by themselves, each with its verdict; the others are reported."""
    answered: set[int] = set()
    for message in replies:
        node, size = message.metadata.src_node_id, wire.array_bytes(message)
        try:
            asked = _asked(message, expected)
            if asked is None or asked in answered:
                reason = "it answers no message of this round" if asked is None else "a second reply in one round"
                report(Verdict(node, "rejected", reason, bytes_up=size, stray=True))
                continue
            answered.add(asked)
            node = asked
            if message.metadata.src_node_id != node and not message.has_error():  # Flower's word on a lost one
                raise ValueError(f"it comes from node {message.metadata.src_node_id}, and node {node} was asked")
            if message.has_error():
                report(Verdict(node, "failed", _reason(message.error.reason or "")))
                continue
            update, facts = wire.read_reply(message, expected.arrays)
            _check(update, facts, expected, node)
        except ValueError as error:
            odd = isinstance(error, NotFinite)
            report(Verdict(node, "rejected", _reason(str(error)), bytes_up=size, not_finite=odd))
            continue
        yield Verdict(node, "ok", "", update, facts, size), (message, update)


def _reason(text: str) -> str:
    """Return a text of others as one printable line, for tables and terminals."""
    return one_line(text) or "no reason given"


def _asked(message: Message, expected: Expected) -> int | None:
    """The node whose reply this is: the one that was asked, whoever says that it answers; None: nobody was."""
    if expected.asked is None:
        return message.metadata.src_node_id
    return expected.asked.get(message.metadata.reply_to_message_id)


def _check(update: Update, facts: Facts, expected: Expected, node: int) -> None:
    """Raise a ValueError for an update that no rule should see."""
    check_number("client", update.client)
    client = expected.clients.get(node)
    if None not in (client, update.client) and client != update.client:
        raise ValueError(f"it says that it is client {update.client}, and it is client {client}")
    check_update(update, expected.arrays)
    check_facts(facts)
    for name in expected.needs:
        # An update that does not say num_examples has 1; what was sent is among the facts.
        if getattr(facts if name == "num_examples" else update, name) is None:
            raise ValueError(f"{name} is missing, which this strategy needs")
    declared = None if client is None else expected.examples.get(client)
    if declared is not None and update.num_examples > declared:
        raise ValueError(f"num_examples is {update.num_examples}, and the client has declared {declared}")
    if expected.max_norm is not None:
        norm = _norm(update, expected.arrays)
        if not norm <= expected.max_norm:
            raise ValueError(f"the norm of its update is {norm:g}, the bound {expected.max_norm:g}")


def _norm(update: Update, arrays: Arrays) -> float:
    """The L2 norm of x_i - x over all floating-point arrays; infinite where it is too large for a float64."""
    return math.sqrt(squared_distances([arrays, update.arrays])[0, 1])
