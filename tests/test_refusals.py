"""Who is not let in: one clear line on both sides, status 2 for who is refused, and nobody else notices.

All cases of one server run at the same time, as each of them takes a process.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from federation import CLIENTS, Deployment, Process, complete, free_port, until

from server.admission import Refusals
from server.enroll import enroll, renew, revoke
from server.link import Link, Tls
from server.roster import Roster
from task.shardfile import Header, read_raw, write_shard

ONCE = "--once"
HERE = ["127.77.0.1", "127.0.0.1"]  # what a loopback host called "server" may have
RUN = ["--model", "mlp", "--batch-size", "16", "--rounds", "1", "--strategies", "fedavg"]
# A client whose own check of shard against identity is out of order.
CARELESS = """
import sys
from client import join
join.client_number = lambda shard, identity: 0
from client.__main__ import main
sys.exit(main())
"""
# A client on a machine whose clock is an hour behind.
LATE = """
import sys
from datetime import UTC, datetime, timedelta
from flwr.supernode import node_auth_http_interceptor as signing
from client import fleet
class Late(datetime):
    now = lambda zone: datetime.now(zone) - timedelta(hours=1)
fleet.datetime, signing.now = Late, lambda: Late.now(UTC)
from client.__main__ import main
sys.exit(main())
"""


@dataclass
class Scene:
    """A server and all who come to it.

    Attributes:
        deployment: on loopback, where one CA and one plain client need no network of their own.
        server: with TLS and enrolled clients, or with neither.
        comers: by the name of the case.
    """

    deployment: Deployment
    server: Process
    comers: dict[str, Process] = field(default_factory=dict)

    def refused(self, case: str, there: str, here: str, status: int = 2) -> None:
        """See that a comer was sent away.

        Args:
            case: its name.
            there: what the client says, once.
            here: what the server says; empty where it is not asked.
            status: the client's.
        """
        client = self.comers[case]
        assert client.status() == status, self.deployment.told()
        assert len(client.errors()) == 1, client.text
        assert there in client.errors()[0]
        assert "Traceback" not in client.text
        if here:
            until(lambda: here in self.server.text, here, told=self.deployment.told)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation's folder: ada, bob and cyd are the clients 0 to 2; old was revoked; two have higher numbers."""
    folder = tmp_path_factory.mktemp("refusals") / "federation"
    enroll(folder, ["ada", "bob", "cyd"], HERE)
    enroll(folder, ["far"], client=7)
    enroll(folder, ["liar"], client=8)
    enroll(folder, ["old"], client=9)
    shutil.copy(identity(folder, "old"), folder / "kept.identity")
    revoke(folder, ["old"])
    return folder


def identity(folder: Path, name: str) -> Path:
    return folder / "clients" / f"{name}.identity"


@pytest.fixture(scope="module")
def secure(identities: Path, small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server with TLS and authentication. Two of its clients are there; the third one's place is wanted by many."""
    copy = tmp_path_factory.mktemp("copy") / "federation"
    shutil.copytree(identities, copy)
    enroll(copy, ["stranger"])
    foreign = tmp_path_factory.mktemp("foreign") / "federation"
    enroll(foreign, ["ada"], HERE)
    shard = {number: small_shards / f"shard-{number}.npz" for number in range(CLIENTS)}
    anyones = identities / "anyones.npz"
    write_shard(anyones, *read_raw(shard[2])[:2], Header(num_classes=3))
    x = np.zeros((20, 9, 9), np.float32)
    write_shard(identities / "large.npz", x, np.arange(20) % 3, Header(client=2, num_classes=3))
    np.savez(identities / "words.npz", x=x[:, :8, :8], y=np.array(["zebra", "okapi"] * 10))

    with Deployment(tmp_path_factory.mktemp("secure"), isolate=False) as deployment:
        given = ["--test", small_shards / "test.npz", "--clients", CLIENTS, "--federation", identities]
        scene = Scene(deployment, deployment.server(*given, *RUN, "--out", "out"))

        def come(case: str, file: Path, shard: Path, *words: str) -> Process:
            command = [*(words or ("-m", "client")), "--server", deployment.address, "--shard", shard, ONCE]
            scene.comers[case] = deployment.run(*command, "--identity", file, "--logs", case, name=case)
            return scene.comers[case]

        scene.server.says("listening on")
        first = come("ada", identity(identities, "ada"), shard[0])
        come("bob", identity(identities, "bob"), shard[1])
        first.says("connected to")
        come("twin", identity(identities, "ada"), shard[0])
        come("unknown", identity(copy, "stranger"), anyones)
        come("foreign", identity(foreign, "ada"), shard[0])
        come("revoked", identities / "kept.identity", anyones)
        come("shard", identity(identities, "cyd"), shard[0])
        come("careless", identity(identities, "liar"), shard[0], "-c", CARELESS)
        come("clock", identity(identities, "far"), anyones, "-c", LATE)
        come("labels", identity(identities, "cyd"), identities / "words.npz").status()
        come("shape", identity(identities, "cyd"), identities / "large.npz")
        plain = ["--server", deployment.address, "--shard", shard[2], ONCE, "--logs", "plain"]
        scene.comers["plain"] = deployment.run("-m", "client", *plain, name="plain")
        yield scene


def test_a_key_of_another_federation_under_the_same_authority(secure: Scene):
    secure.refused("unknown", "refuses this identity: it is not enrolled there", "refused: an unknown key, ")


def test_an_identity_that_trusts_another_authority(secure: Scene):
    there = "is not to be trusted: unable to get local issuer certificate; this identity belongs to another federation"
    secure.refused("foreign", there, "refused: a client that does not trust this server's certificate")


def test_a_client_that_was_revoked_before_it_came(secure: Scene):
    there = "or revoked; ask the server's owner for a new one"
    secure.refused("revoked", there, "refused: old (client 9), which was revoked")


def test_a_shard_of_another_client(secure: Scene):
    secure.refused("shard", "is the shard of client 0, but cyd is enrolled as client 2: give cyd's own shard", "")


def test_the_server_does_not_rely_on_the_clients_own_check(secure: Scene):
    said = "it is enrolled as client 8, but its shard says client 0"
    secure.refused("careless", f"the server refuses this client: {said}", said)


def test_a_clock_that_is_an_hour_behind(secure: Scene):
    there = "s off the server's: set it; it may be 300 s behind and 5 s ahead"
    secure.refused("clock", there, "refused: far (client 7), whose signature does not hold: its clock may be wrong")


def test_images_of_another_shape(secure: Scene):
    said = "its examples have the shape (9, 9, 1), the test set's (8, 8, 1)"
    secure.refused("shape", f"the server refuses this client: {said}", f"refused: cyd (client 2): {said}")


def test_labels_that_are_words(secure: Scene):
    """The client of the shape above comes to the same place afterwards, and does not hear what this one was told."""
    here = "refused: cyd (client 2): its shard cannot be read or trained on: UserError, see the log at the client"
    secure.refused("labels", "words.npz: labels must be integers of shape (n,), they are <U5", here)
    assert "zebra" not in secure.server.text
    assert "ready" not in secure.comers["labels"].text


def test_plain_http_where_tls_is_wanted(secure: Scene):
    secure.refused("plain", "it wants TLS; start with --identity FILE", "refused: a client that speaks plain HTTP")


def test_the_same_identity_twice_at_once(secure: Scene):
    there = "says that this client is connected already from another process; end that one first"
    secure.refused("twin", there, "refused: ada (client 0), which takes part already from another process")
    assert secure.comers["ada"].running


def test_nothing_but_the_fleet_api_answers(secure: Scene, identities: Path):
    import ssl

    trusting = ssl.create_default_context(cafile=str(identities / "ca.pem"))
    for path in ("/v1/control/start-run", "/v1/runtime/pull-messages", "/docs", "/"):
        answer = httpx.post(f"https://{secure.deployment.address}{path}", content=b"", verify=trusting)
        assert answer.status_code == 404
        assert answer.text == "only Flower's Fleet API is served here: start runs with python -m server"
    said = "refused: a call of /v1/control/start-run, which is not served here from 127.0.0.1"
    until(lambda: said in secure.server.text, said, told=secure.deployment.told)


def test_nobody_else_was_disturbed_and_revoked_while_connected(secure: Scene, identities: Path, small_shards: Path):
    """The last scene: bob is revoked while he waits and comes back with another key, cyd comes, and all three train."""
    bob = secure.comers["bob"]
    bob.says("connected to")
    assert bob.running
    told = secure.deployment.manage("revoke", "bob", "--federation", identities)
    assert "bob" in told
    secure.server.says("bob was revoked and is refused from now on")
    secure.refused(
        "bob",
        "refuses this identity: it is not enrolled there, or revoked",
        "refused: bob (client 1), which was revoked",
    )

    told = secure.deployment.manage("enroll", "bob", "--federation", identities)
    assert "bob was a member before and is client 1 again" in told
    secure.server.says("bob was enrolled as client 1")
    clients = [secure.comers["ada"]]
    for number, name in ((1, "bob"), (2, "cyd")):
        given = ["--identity", identity(identities, name), "--server", secure.deployment.address, ONCE]
        shard = small_shards / f"shard-{number}.npz"
        clients.append(secure.deployment.run("-m", "client", "--shard", shard, *given, name=name))
    assert secure.server.status() == 0, secure.deployment.told()
    assert [client.status() for client in clients] == [0] * CLIENTS
    assert [client.errors() for client in clients] == [[]] * CLIENTS
    complete(secure.deployment.folder / "out", CLIENTS, 1, ["fedavg"])
    assert "Traceback" not in secure.server.text


@pytest.fixture(scope="module")
def plain(identities: Path, small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server on loopback without TLS, for two clients."""
    with Deployment(tmp_path_factory.mktemp("plain"), isolate=False) as deployment:
        given = ["--test", small_shards / "test.npz", "--clients", "2", *RUN, "--out", "out"]
        scene = Scene(deployment, deployment.server(*given))
        scene.server.says("INSECURE: plain HTTP")
        scene.comers["tls"] = deployment.client(0, small_shards, ONCE, "--identity", identity(identities, "ada"))
        scene.comers["third"] = deployment.client(2, small_shards, ONCE)
        yield scene


def test_tls_where_plain_http_is_spoken(plain: Scene):
    plain.refused(
        "tls", "does not speak TLS: it is another service, or runs with --insecure", "refused: a client that speaks TLS"
    )


def test_more_clients_than_take_part(plain: Scene):
    said = "this run has the clients 0 to 1, and this is client 2"
    plain.refused("third", f"the server refuses this client: {said}", f"refused: client 2: {said}")
    assert plain.server.running


def test_a_server_certificate_that_has_expired(tmp_path: Path, small_shards: Path):
    """The server does not start with it; where one expired while it ran, the client says so, and so does the server."""
    folder, past = tmp_path / "federation", datetime.now(UTC) - timedelta(days=1000)
    enroll(folder, ["ada"], ["127.0.0.1"], now=past)
    shard = small_shards / "shard-0.npz"
    with Deployment(tmp_path, isolate=False) as deployment:
        server = deployment.server("--test", small_shards / "test.npz", "--clients", "1", "--federation", folder)
        told: list[str] = []
        roster = Roster.open(folder)
        tls = Tls(roster.certificate, roster.key)
        refused = Refusals(told.append, roster)
        link = Link("127.0.0.1", 0, tls, open_to_all=False, patience=60, refused=refused)
        link.start()
        try:
            given = ["--shard", shard, "--identity", identity(folder, "ada"), "--server", f"127.0.0.1:{link.port}"]
            client = deployment.run("-m", "client", *given, name="client")
            assert client.status() == 2
        finally:
            link.stop()
        assert len(client.errors()) == 1
        assert "certificate has expired" in client.errors()[0] and "python -m server renew" in client.errors()[0]
        assert told == ["refused: a client for which this server's certificate has expired from 127.0.0.1"]
        assert server.status() == 2
        assert len(server.errors()) == 1
        assert "certificate expired on" in server.errors()[0] and "python -m server renew" in server.errors()[0]
        assert not (tmp_path / "runs").exists()
    renew(folder)
    Roster.open(folder).check_certificate("127.0.0.1")


def test_no_plain_http_off_this_machine_unless_it_is_asked_for(tmp_path: Path, small_shards: Path):
    with Deployment(tmp_path, isolate=False) as deployment:
        server = deployment.server("--test", small_shards / "test.npz", address=f"0.0.0.0:{free_port()}")
        client = deployment.client(0, small_shards, "--server", "192.0.2.1:9092")
        for process in (server, client):
            assert process.status() == 2
            assert len(process.lines) == 1
            assert "--insecure" in process.errors()[0]
            assert "enroll" in process.errors()[0]
        assert not (tmp_path / "runs").exists()
        assert not (tmp_path / "logs").exists()
