"""How all contestants are told to end early, and how one of them says that it does."""

import threading

from task.errors import UserError


class Broken(UserError):  # noqa: N818
    """The run cannot go on for a reason that is not its own; what is there is kept, and `--resume` goes on from it."""


class Stopped(Exception):  # noqa: N818
    """The contestant cannot go on; the message says why."""


class Stop(threading.Event):
    """An event with a reason.

    Attributes:
        reason: what the contestants give as theirs.
    """

    reason = "interrupted"

    def because(self, reason: str) -> None:
        """Set it, with another reason than the user's Ctrl-C."""
        self.reason = reason
        self.set()
