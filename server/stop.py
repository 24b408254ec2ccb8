"""How all contestants are told to end early."""

import threading


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
