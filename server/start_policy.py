"""When a run with real clients begins: with all of them, or after a while with enough."""

import time
from dataclasses import dataclass
from typing import Any

from server.arrivals import Arrivals
from server.background import Background
from server.screen import Screen
from task.errors import UserError

START_AFTER = 60.0  # seconds that the others have to come where only --min-clients is given


@dataclass(frozen=True)
class StartPolicy:
    """When a run with real clients begins.

    It begins when all are here. With `min_clients` it also begins when that many are here and `start_after` seconds are
    over; whoever comes later joins in the next round.

    Attributes:
        min_clients: how many suffice in the end; None: all are waited for, without end.
        start_after: seconds since the server listens: one clock for all, whatever the order in which clients come.
        advice: what the user can do to begin without those who are missing.
    """

    min_clients: int | None = None
    start_after: float = 0.0
    advice: str = ""

    def suffices(self, here: int, waited: float) -> bool:
        """Whether a run may begin with so many, so many seconds after the server began to listen."""
        return self.min_clients is not None and here >= self.min_clients and waited >= self.start_after

    def pause(self, waited: float) -> float:
        """How many seconds to wait for news at most, so that the end of `start_after` is not missed."""
        left = self.start_after - waited
        return min(1.0, left) if self.min_clients is not None and left > 0 else 1.0

    @property
    def explanation(self) -> str:
        """What the user reads while clients are missing."""
        if self.min_clients is None:
            return self.advice
        return f"{self.min_clients} suffice when {self.start_after:g} s are over (--min-clients, --start-after)"


def start_policy(
    min_clients: int | None, start_after: float | None, clients: int, quorum: int, advice: str
) -> StartPolicy:
    """Make the policy from what the user gave.

    Args:
        min_clients: None: all, or with `start_after` as many as a round needs.
        start_after: seconds; None: with `min_clients` 60.
        clients: how many members the run has.
        quorum: valid updates that a round needs.
        advice: see `StartPolicy`.

    Raises:
        UserError: more clients than there are, or fewer than a round needs.
    """
    if min_clients is None and start_after is None:
        return StartPolicy(advice=advice)
    least = quorum if min_clients is None else min_clients
    if least > clients:
        raise UserError(f"--min-clients {least} is more than the {clients} clients of the run")
    if least < quorum:
        raise UserError(
            f"--min-clients {least} is less than the {quorum} valid updates that a round needs: "
            f"give --quorum {least}, too"
        )
    return StartPolicy(least, START_AFTER if start_after is None else start_after)


def gather(arrivals: Arrivals, policy: StartPolicy, models: Background[Any], screen: Screen, listening: float) -> None:
    """Wait until all clients are here, or enough of them, and say who is missing and what can be done about it.

    Args:
        arrivals: who is here.
        policy: how many suffice, and when.
        models: what is made meanwhile; its failure ends the waiting.
        screen: what the user sees.
        listening: when the server began to listen, by `time.monotonic`.
    """
    explained = False
    while not arrivals.wait(policy.pause(time.monotonic() - listening)):
        models.raise_if_failed()
        if policy.suffices(len(arrivals.ready()), time.monotonic() - listening):
            break
        if models.is_over and not explained and (absent := arrivals.absent()):
            explained = True
            screen.note(f"missing: {arrivals.named(absent)}; {policy.explanation}")
    arrivals.running = True
    if absent := arrivals.absent():
        screen.warn(f"the run begins without {arrivals.named(absent)}, who may still come and join in")
