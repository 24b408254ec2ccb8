"""Who takes part in a run with real clients: its members, those who are revoked, and those who come late."""

import json
import re
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from federation import PATIENCE, Deployment, Process, read_run, rows, split, until
from flwr.app import Error
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from test_link import HERE, Screen, Village

from server.arrivals import Arrivals, Expected
from server.background import Background
from server.enroll import enroll, revoke
from server.members import RunMembers, spelled
from server.models import Shape
from server.roster import Roster
from server.run_json import check_run
from server.start_policy import StartPolicy, gather, start_policy
from task.errors import UserError
from task.greeting import Greeting

# -- who the members are


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    """Members a, b, c and d with the numbers 0 to 3."""
    enroll(tmp_path / "federation", ["a", "b", "c", "d"], ["127.0.0.1"])
    return tmp_path / "federation"


def resumed(members: RunMembers, folder: Path) -> RunMembers:
    """The members of a run as another server process finds them in run.json."""
    run = json.loads(json.dumps({"config": {"clients": len(members.numbers)}, "members": members.record()}))
    check_run(run)
    return RunMembers.resumed(run, Roster.open(folder))


def test_a_new_run_takes_all_who_are_enrolled_also_where_numbers_have_holes(federation):
    assert RunMembers.new(None, None).numbers == (0, 1, 2, 3, 4)
    assert RunMembers.new(2, None).numbers == (0, 1)
    revoke(federation, ["b"])
    roster = Roster.open(federation)
    members = RunMembers.new(None, roster)
    assert members.names == {0: "a", 2: "c", 3: "d"} and not members.revoked()
    assert RunMembers.new(1, roster).numbers == (0,)
    said = r"--clients 5 stands for the clients 0 to 4, and client 1 .b. is revoked, nobody is enrolled as client 4: "
    with pytest.raises(UserError, match=f"{said}leave --clients out to take all members, the clients 0, 2 to 3"):
        RunMembers.new(5, roster)
    revoke(federation, ["a", "c", "d"])
    with pytest.raises(UserError, match="has no members; make some: python -m server enroll NAME --federation"):
        RunMembers.new(None, Roster.open(federation))


def test_a_run_keeps_its_members_whoever_is_enrolled_and_revoked_later(federation):
    members = RunMembers.new(3, Roster.open(federation))
    keys = {member.name: member.fingerprint for member in Roster.open(federation).members}
    assert members.record() == [
        {"client": k, "name": name, "key": keys[name], "revoked": None} for k, name in enumerate("abc")
    ]
    revoke(federation, ["b"])
    enroll(federation, ["e"])
    again = resumed(members, federation)
    assert again.numbers == (0, 1, 2) and again.revoked() == {1}
    gone = again.record()[1]
    assert (gone["name"], gone["key"]) == ("b", keys["b"]) and re.fullmatch(r"\d{4}-\d\d-\d\d", gone["revoked"])
    again.check_quorum(2)
    with pytest.raises(
        UserError, match="2 of the run's 3 members are left, and a round needs 3 valid updates: give --quorum 2"
    ):
        again.check_quorum(3)
    enroll(federation, ["B"])  # the same site with another key
    back = resumed(again, federation)
    assert back.revoked() == frozenset() and back.record()[1]["revoked"] is None
    assert back.record()[1]["key"] not in keys.values()


def test_the_members_of_a_run_that_named_none_are_those_who_had_its_numbers(federation):
    revoke(federation, ["b"])
    members = RunMembers.resumed({"config": {"clients": 3}}, Roster.open(federation))
    assert members.names == {0: "a", 1: "b", 2: "c"} and members.revoked() == {1}
    assert RunMembers.resumed({"config": {"clients": 3}}, None).numbers == (0, 1, 2)
    with pytest.raises(UserError, match="names 1 members for 2 clients"):
        RunMembers.resumed({"config": {"clients": 2}, "members": [{"client": 0}]}, None)


def test_numbers_for_the_user():
    assert [spelled(some) for some in ([3], [1, 0], [0, 2, 3, 4, 9], [])] == ["3", "0 to 1", "0, 2 to 4, 9", ""]


# -- who is here


@pytest.fixture
def hall() -> Iterator[Any]:
    """Arrivals that expect the clients 0 to 2; node 11 is enrolled as client 1, and node 14 as client 4."""
    village, screen = Village(), Screen()
    expected = Expected(range(3), Shape((8, 8, 1), 3), "2.21.0", {1: "bob"}, "3.1", "2.0", "mine:net")
    enrolled, revoked, hello = {11: 1, 14: 4}, set[int](), Greeting("hello", config={"seed": 0})
    arrivals = Arrivals(village, expected, enrolled.get, hello, screen, lambda: HERE.layout, lambda: revoked)
    arrivals.start()
    yield SimpleNamespace(village=village, screen=screen, arrivals=arrivals, revoked=revoked)
    arrivals.stop()


def test_a_client_that_was_given_up_before_it_said_who_it_is_is_asked_again(hall):
    village = hall.village
    answer = village._pull
    lost = Error(ErrorCode.NODE_UNAVAILABLE, "no contact with the client for 2 s")
    village._pull = lambda ids: [make_message(reply.metadata, None, lost) for reply in answer(ids)]
    hall.arrivals._federation.grid.pull_messages = lambda ids: village._pull(ids)
    village.come(10, HERE)
    until(lambda: hall.screen.warnings, "a warning")
    village._pull = answer
    until(lambda: hall.arrivals.missing() == [1, 2], "client 0")


def ready() -> Background[None]:
    """Models that are made."""
    models = Background(lambda: None)
    models.result()
    return models


def test_a_run_begins_with_enough_clients_and_the_others_join_in_later(hall):
    village, arrivals, screen = hall.village, hall.arrivals, hall.screen
    policy, listening = start_policy(2, 0.5, clients=3, quorum=2, advice=""), time.monotonic()
    village.come(10, HERE)
    village.come(11, replace(HERE, client=1))
    until(lambda: arrivals.absent() == [2], "two clients")
    gather(arrivals, policy, ready(), screen, listening)
    assert time.monotonic() - listening >= 0.5
    assert "missing: client 2; 2 suffice when 0.5 s are over (--min-clients, --start-after)" in screen.notes
    assert screen.warnings == ["the run begins without client 2, who may still come and join in"]
    assert arrivals.late() == {2}
    village.come(12, replace(HERE, client=2))
    until(lambda: not arrivals.late(), "the late one")
    assert arrivals.nodes[2] == 12
    until(lambda: "client 2 is here and joins in the next round" in screen.notes, "a note")


def test_without_min_clients_all_are_waited_for_and_the_user_is_told_what_to_do(hall):
    village, arrivals, screen = hall.village, hall.arrivals, hall.screen
    policy = start_policy(None, None, clients=3, quorum=2, advice="go on: COMMAND")
    assert not policy.suffices(2, 1e9)
    village.come(10, HERE)
    village.come(12, replace(HERE, client=2))
    until(lambda: arrivals.absent() == [1], "two clients")
    gathering = Background(lambda: gather(arrivals, policy, ready(), screen, time.monotonic()))
    until(lambda: "missing: bob (client 1); go on: COMMAND" in screen.notes, "advice")
    assert not gathering.is_over
    hall.revoked.add(1)  # and whoever is revoked is not waited for
    gathering.result(PATIENCE)
    assert screen.warnings == []
    village.away.add(11)
    assert arrivals.missing() == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((4, None), "--min-clients 4 is more than the 3 clients"),
        ((1, 5.0), "--min-clients 1 is less than the 2 valid updates that a round needs: give --quorum 1, too"),
    ],
)
def test_a_start_that_could_not_be_is_refused(given, told: str):
    with pytest.raises(UserError, match=told):
        start_policy(*given, clients=3, quorum=2, advice="")


def test_the_rest_of_a_start_that_is_given_in_part():
    assert start_policy(None, 5.0, clients=3, quorum=2, advice="") == StartPolicy(2, 5.0)
    assert start_policy(3, None, clients=3, quorum=2, advice="") == StartPolicy(3, 60.0)


def test_a_member_of_the_federation_that_is_not_of_this_run_waits_for_the_next(hall):
    hall.village.come(14, replace(HERE, client=4))
    said = "this run has the clients 0 to 2"
    until(lambda: f"client 4 is here and waits for the next run: {said}" in hall.screen.notes, "a note")
    assert hall.village.heard[14][1:] == [("wait", f"{said}: client 4 waits for the next run")]
    assert hall.screen.warnings == []


def test_a_revoked_member_is_not_called_silent(hall):
    village, screen = hall.village, hall.screen
    village.come(10, HERE)
    village.come(11, replace(HERE, client=1))
    until(lambda: hall.arrivals.missing() == [2], "two clients")
    hall.revoked.add(1)
    village.away |= {10, 11}  # the link shuts it out; and another one gets lost
    until(lambda: "client 0 cannot be reached; it is waited for" in screen.warnings, "a warning")
    assert not any("bob" in warning for warning in screen.warnings)


# -- real processes


class Site:
    """A federation's server and clients, each started by the command that `enroll` printed for it, as it stands."""

    def __init__(self, deployment: Deployment, shards: Path) -> None:
        self.deployment, self._shards = deployment, shards
        (deployment.folder / "test.npz").symlink_to(shards / "test.npz")

    def enroll(self, *words: Any) -> "dict[str, list[str]]":
        """Enroll, and the commands that were printed: by name for clients, and "server"."""
        printed = [
            shlex.split(line) for line in self.deployment.manage("enroll", *words).splitlines() if "python" in line
        ]
        commands = {}
        for _, *command in printed:
            name = "server" if command[1] == "server" else command[command.index("--identity") + 1].split(".")[0]
            commands[name] = command
            if name != "server":
                shard = command[command.index("--shard") + 1]
                (self.deployment.federation / "clients" / f"{name}.identity").rename(
                    self.deployment.folder / f"{name}.identity"
                )
                (self.deployment.folder / shard).symlink_to(self._shards / shard)
        return commands

    def start(self, command: "list[str]", *options: Any) -> Process:
        """A printed command."""
        return self.deployment.run(*command, *options, name=command[1])

    def statuses(self, out: str) -> "dict[str, list[tuple[str, str]]]":
        """What each client's rounds came to, by number of the client."""
        found: dict[str, list[tuple[str, str]]] = {}
        for row in sorted(rows(self.deployment.folder / out, "clients.csv"), key=lambda row: int(row["round"])):
            found.setdefault(row["client"], []).append((row["status"], row["reason"]))
        return found


def test_late_revoked_resumed_and_new_with_the_commands_that_are_printed(small_data: Path, tmp_path: Path):
    """A run begins without cyd, who joins in; the server is killed, bob revoked, the run resumed; dan waits."""
    ok, late = ("ok", ""), ("failed", "the client has not come since the server started")
    small = ["--model", "mlp", "--strategies", "scaffold", "--batch-size", 16, "--steps", 2000]
    with Deployment(tmp_path, isolate=False) as deployment:
        site = Site(deployment, split(small_data, 4, tmp_path / "shards"))
        host, _, port = deployment.address.rpartition(":")
        commands = site.enroll("ada", "bob", "cyd", "--host", host, "--port", port)
        begin = ["--min-clients", 2, "--start-after", 0.1, "--rounds", 5, "--out", "first"]
        server = site.start(commands["server"], *small, *begin)
        ada, _bob = site.start(commands["ada"]), site.start(commands["bob"])
        server.says("the run begins without cyd .client 2., who may still come and join in")
        ada.says("round 1 trained")
        ada.send(signal.SIGSTOP)  # so that the run is not over before cyd comes
        cyd = site.start(commands["cyd"])
        server.says("cyd .client 2. is here and joins in the next round")
        ada.send(signal.SIGCONT)
        cyd.says("round . trained")
        server.kill()

        revoked = deployment.manage("revoke", "bob")
        assert "python -m server enroll bob" in revoked and "Members now: clients 0, 2." in revoked
        dan = site.start(site.enroll("dan")["dan"])
        resumed = deployment.run("-m", "server", "--resume", "first", name="server")
        resumed.says("bob .client 1. is not enrolled any more: the run goes on without this client")
        dan.says("this run has the clients 0 to 2: client 3 waits for the next run")
        assert resumed.status() == 0, deployment.told()
        assert "client 1 failed" not in resumed.text  # told once, not in every round
        found = site.statuses("first")
        assert found["0"] == [ok] * 5
        assert sorted(set(found["1"])) == [("failed", "the client was revoked"), ok]
        assert found["1"][-1] != ok and found["2"][0] == late and found["2"][-1] == ok and set(found["2"]) == {late, ok}
        members = read_run(tmp_path / "first")["members"]
        assert [(one["client"], one["name"], one["revoked"] is None) for one in members] == [
            (0, "ada", True),
            (1, "bob", False),
            (2, "cyd", True),
        ]

        nobody = site.enroll("eve")
        deployment.manage("revoke", "eve")
        following = site.start(nobody["server"], *small, "--rounds", 1, "--out", "second")
        assert following.status() == 0, deployment.told()
        assert site.statuses("second") == {"0": [ok], "2": [ok], "3": [ok]}
        assert all(client.running for client in (ada, cyd, dan))
