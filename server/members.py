"""The members of a run with real clients: whom run.json names, and who of them is not enrolled any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from task.errors import UserError

if TYPE_CHECKING:
    from server.roster import Roster

_UNENROLLED = 5  # clients of a run for which nobody is enrolled, unless the user says how many


@dataclass(frozen=True)
class RunMember:
    """One client of a run.

    Attributes:
        client: its number; numbers may have holes where members were revoked before the run.
        name: under which it is enrolled; None where anyone may come.
        key: the fingerprint of its public key; None likewise.
        revoked: the day on which its membership ended; None for a member in good standing.
    """

    client: int
    name: str | None = None
    key: str | None = None
    revoked: str | None = None


class RunMembers:
    """The members of one run. Who they are is settled when the run begins; who of them is revoked may change.

    A client is a number and a name: enrolled anew under its name it has another key and is the same member.

    Args:
        members: in ascending order of their numbers.
        roster: who is enrolled, as it is kept up to date; None where anyone may come.
    """

    def __init__(self, members: Sequence[RunMember], roster: Roster | None) -> None:
        self._members, self._roster = members, roster

    @classmethod
    def new(cls, clients: int | None, roster: Roster | None) -> RunMembers:
        """Choose the members of a run that begins.

        Args:
            clients: as the user asked, the clients 0 to clients - 1; None: all who are enrolled.
            roster: who is enrolled; None: anyone may come, and without `clients` five are waited for.

        Raises:
            UserError: nobody is enrolled, or not all who were asked for are.
        """
        if roster is None:
            return cls([RunMember(client) for client in range(clients or _UNENROLLED)], None)
        active = {member.client: member for member in roster.active}
        if not active:
            raise UserError(f"{roster.folder}: has no members; make some: {roster.command('enroll', 'NAME')}")
        numbers = sorted(active) if clients is None else list(range(clients))
        if missing := [client for client in numbers if client not in active]:
            last = {member.client: member.name for member in roster.members}
            told = [f"client {client} ({last[client]}) is revoked" for client in missing if client in last]
            if nobody := spelled(client for client in missing if client not in last):
                told.append(f"nobody is enrolled as client {nobody}")
            raise UserError(
                f"{roster.folder}: --clients {clients} stands for the clients {spelled(numbers)}, and "
                f"{', '.join(told)}: leave --clients out to take all members, the clients {spelled(active)}"
            )
        return cls([RunMember(client, active[client].name) for client in numbers], roster)

    @classmethod
    def resumed(cls, run: Mapping[str, Any], roster: Roster | None) -> RunMembers:
        """Take the members that run.json names; where an earlier version named none, whoever had their numbers last.

        Raises:
            UserError: run.json contradicts itself.
        """
        numbers = range(run["config"].get("clients") or _UNENROLLED)
        if saved := run.get("members"):
            members = [RunMember(one["client"], one.get("name"), one.get("key")) for one in saved]
            if len({member.client for member in members}) != len(numbers):
                raise UserError(f"run.json: names {len(members)} members for {len(numbers)} clients")
            return cls(sorted(members, key=lambda member: member.client), roster)
        names = {member.client: member.name for member in roster.members} if roster else {}
        return cls([RunMember(client, names.get(client)) for client in numbers], roster)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The clients' numbers, ascending."""
        return tuple(member.client for member in self._members)

    @property
    def names(self) -> dict[int, str]:
        """What the clients are called, by number, where that is known."""
        return {member.client: member.name for member in self._members if member.name is not None}

    def revoked(self) -> frozenset[int]:
        """Numbers of the members who are not enrolled, or not any more."""
        if self._roster is None:
            return frozenset()
        active = {(member.client, member.name.lower()) for member in self._roster.active}
        return frozenset(one.client for one in self._members if (one.client, (one.name or "").lower()) not in active)

    def record(self) -> list[dict[str, Any]]:
        """What run.json says of them: number, name, fingerprint of the key, and since when they are revoked."""
        last = {(one.client, one.name.lower()): one for one in self._roster.members} if self._roster else {}
        found = [(one, last.get((one.client, (one.name or "").lower()))) for one in self._members]
        return [
            {
                "client": one.client,
                "name": one.name,
                "key": entry.fingerprint if entry else one.key,
                "revoked": f"{entry.revoked:%Y-%m-%d}" if entry and entry.revoked else None,
            }
            for one, entry in found
        ]

    def check_quorum(self, quorum: int) -> None:
        """See that those who are left can make a round count.

        Raises:
            UserError: too many were revoked.
        """
        left = len(self._members) - len(self.revoked())
        if left < quorum:
            raise UserError(
                f"{left} of the run's {len(self._members)} members {'is' if left == 1 else 'are'} left, and a round "
                f"needs {quorum} valid updates: {f'give --quorum {left}, ' if left else ''}enroll the others again by "
                "their names, or start a new run with --out"
            )


def spelled(numbers: Iterable[int]) -> str:
    """Clients' numbers for the user: "0 to 4", or "0, 2 to 4, 9" where there are holes."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join(" to ".join(map(str, span)) for span in spans)
