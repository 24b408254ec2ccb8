"""Find the clients whose updates made a round's result unusable.

All valid updates of the round are there at once. Each is aggregated with a few others, two at a time: those that do so
with a far larger result than most are suspects. A suspect is named if the aggregate of the clients that are not, and of
it, is not finite or far larger than theirs alone. Colluders are found like one, as long as most clients are honest.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import median_low

import numpy as np

from strategies.base import Shell
from strategies.gate import Passed, Review
from strategies.kernels import squared_distances
from task.update import Arrays

FACTOR = 100.0
"""How many times longer a step has to be with a client than without it before the client is named.

Honest clients differ by less: shards of other sizes and labels give norms within a factor of ten or so, and whatever a
minority of simulated attackers sends in proportion to honest updates (a flipped sign scaled by 10) stays below it. What
makes a model unusable is larger by many powers of ten.
"""
_SOUND = 1000.0  # nats: whoever guesses among n classes has log(n)
_PARTNERS = 16  # of each client, so that the cost grows with the clients and not with their square

Sizes = Mapping[str, float]
"""L2 norms of what a round changes, by its name; empty where there is no finite result."""


def most_left_out(updates: int, quorum: int) -> int:
    """How many clients may be named: fewer than half, so that most decide, and never below the quorum."""
    return max(0, min((updates - 1) // 2, updates - quorum))


def sound(loss: float) -> bool:
    """Whether a model with this test loss is usable: finite, and not in the midst of diverging."""
    return loss < _SOUND


def examination(
    strategy: Shell,
    arrays: Arrays,
    evaluate: Callable[[Arrays], tuple[float, float]],
    quorum: int,
    client_of: Callable[[Passed], int],
) -> Review:
    """Reject the clients whose updates make this round's result unusable, if there are such.

    Nobody is rejected where the round begins with an unsound model, or where that of the others would be unsound: then
    the run diverges, in which honest clients differ by any factor.

    Args:
        strategy: as before the round; it is asked what it would do, and remembers nothing of it.
        arrays: the global arrays of the round.
        evaluate: accuracy and loss of global arrays on the test set.
        quorum: updates that have to be left.
        client_of: the client's number. Which clients are named does not depend on who answers first.
    """

    def review(passed: Sequence[Passed]) -> Mapping[int, str]:
        order = sorted(range(len(passed)), key=lambda i: client_of(passed[i]))

        @cache
        def sizes(some: tuple[int, ...]) -> Sizes:
            return _sizes(strategy, arrays, [passed[order[i]] for i in some])

        if not sound(evaluate(arrays)[1]):
            return {}
        named = culprits(sizes, len(passed), most_left_out(len(passed), quorum))
        rejected = {order[i]: reason for i, reason in named.items()}
        outcome = strategy.outcome([one for i, one in enumerate(passed) if i not in rejected]) if rejected else None
        return rejected if outcome and sound(evaluate(outcome[0])[1]) else {}

    return review


def culprits(sizes: Callable[[tuple[int, ...]], Sizes], clients: int, most: int) -> dict[int, str]:
    """Who makes the aggregate of all clients not finite, or its step more than FACTOR times as long.

    Args:
        sizes: of what some of the clients, ascending, would change together.
        clients: how many there are.
        most: how many may be named.

    Returns:
        The reason for each; empty if nobody is to be named, or more than `most` would have to be.
    """
    if most < 1:
        return {}
    everybody = tuple(range(clients))
    alone = [_usual([sizes((min(i, j), max(i, j))) for j in _partners(i, clients)]) for i in everybody]
    usual = _usual(alone)
    suspects = [i for i in everybody if _exceeds(alone[i], usual)]
    if not 0 < len(suspects) < clients:
        return {}
    clear = tuple(i for i in everybody if i not in suspects)
    without = sizes(clear)
    named = {}
    for i in suspects:
        if excess := _exceeds(sizes(tuple(sorted((*clear, i)))), without):
            named[i] = f"its update made the global model unusable: {excess}"
    if not 0 < len(named) <= most:
        return {}
    rest = sizes(tuple(i for i in everybody if i not in named))
    return named if _exceeds(sizes(everybody), rest) else {}


def _partners(i: int, clients: int) -> list[int]:
    """The clients that follow, in a circle."""
    return [(i + step) % clients for step in range(1, min(clients - 1, _PARTNERS) + 1)]


def _usual(some: Sequence[Sizes]) -> Sizes:
    """The median of each size, the lower one of two."""
    names = dict.fromkeys(name for one in some for name in one)
    return {name: median_low([one.get(name, math.inf) for one in some]) for name in names}


def _exceeds(one: Sizes, base: Sizes) -> str:
    """What of it is more than FACTOR times as large as in a finite base; "": nothing."""
    for name, size in base.items():
        if one.get(name, math.inf) > FACTOR * size:
            if name not in one:
                return "with it there is no finite model"
            return f"with it {name} has the norm {one[name]:.3g}, without it {size:.3g}"
    return ""


def _sizes(strategy: Shell, arrays: Arrays, passed: Sequence[Passed]) -> Sizes:
    """What the strategy would change in the global arrays, and in what it remembers for all clients."""
    outcome = strategy.outcome(passed)
    if outcome is None:
        return {}
    new, memory = outcome
    sizes = {"the global step": _distance(arrays, new)}
    for name, after in strategy.shared(memory).items():
        before = strategy.memory.get(name) or [np.zeros_like(array) for array in after]
        sizes[f"the change of the strategy's {name}"] = _distance(before, after)
    return sizes


def _distance(one: Arrays, other: Arrays) -> float:
    return math.sqrt(squared_distances([one, other])[0, 1])
