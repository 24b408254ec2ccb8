"""Who is there: greets every node that comes, checks what it says of itself, and knows each client's node."""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.common.constant import ErrorCode

from server.members import spelled
from server.models import Shape
from server.screen import Screen
from server.site import Site
from task.errors import one_line
from task.greeting import PROTOCOL, Greeting, Presence, Topic

_AT_THE_CLIENT = "see the log at the client"
_TROUBLES = {  # what a client's word for its trouble means (`client.fitness`), and how it is mended
    "protocol": f"its FedArena does not speak protocol {PROTOCOL}: install the same version of FedArena on both sides",
    "shard": f"its shard cannot be read or trained on: {_AT_THE_CLIENT}",
    "labels": f"its labels go beyond the test set's {{classes}} classes: {_AT_THE_CLIENT}",
    "model-not-allowed": "it was not started with --model {model}: its owner has to allow that model",
    "model": f"it cannot build the model {{model}}: {_AT_THE_CLIENT}",
    "training": f"it cannot train one batch with the model {{model}}: {_AT_THE_CLIENT}",
}
_LOOK_SECONDS = 0.1
_log = logging.getLogger("fedarena")


@dataclass(frozen=True)
class Expected:
    """What a client has to fit.

    Attributes:
        clients: the numbers of those who take part.
        shape: of the test set.
        tensorflow: the server's version.
        names: what the clients are called, by number; the others are "client 3".
        keras: the server's version.
        numpy: likewise.
        model: the model that all build.
    """

    clients: Collection[int]
    shape: Shape
    tensorflow: str
    names: Mapping[int, str]
    keras: str = ""
    numpy: str = ""
    model: str = ""

    def name(self, client: int) -> str:
        """What a client is called in what the user reads."""
        given = self.names.get(client)
        return f"{given} (client {client})" if given else f"client {client}"

    def objection(self, presence: Presence) -> str | None:
        """Why this client cannot take part; None if it can."""
        if presence.protocol != PROTOCOL:
            return _TROUBLES["protocol"]
        if presence.client not in self.clients:
            return f"this run has the clients {spelled(self.clients)}, and this is client {presence.client}"
        if presence.trouble:
            meaning = _TROUBLES.get(presence.trouble, f"it cannot take part: {_AT_THE_CLIENT}")
            told = meaning.format(classes=self.shape.num_classes, model=self.model)
            return told.replace(_AT_THE_CLIENT, f"{presence.error or 'no error'}, {_AT_THE_CLIENT}")
        if presence.input_shape != self.shape.input_shape:
            return (
                f"its examples have the shape {presence.input_shape}, the test set's {self.shape.input_shape}: "
                "prepare both alike"
            )
        if presence.num_classes not in (0, self.shape.num_classes):
            return (
                f"its shard has {presence.num_classes} classes, the test set {self.shape.num_classes}: "
                "store the same num_classes in both"
            )
        return None

    def differences(self, presence: Presence) -> str:
        """Return which versions differ, none of which keeps a client out; "" where none does."""
        pairs = [
            (name, getattr(presence, name.lower()), getattr(self, name.lower()))
            for name in ("TensorFlow", "Keras", "NumPy")
        ]
        told = ", ".join(f"its {name} is {there}, this one {here}" for name, there, here in pairs if there != here)
        return f"; {told}: bits may differ" if told else ""


class Nodes(Mapping[int, int]):
    """The node of each client, by number, for those who send messages. It changes when a client comes by another node.

    A client that has not come yet is at a node below 0, which nobody has and no message goes to; no two at the same.
    """

    def __init__(self, clients: Collection[int]) -> None:
        self._nodes = {client: -1 - client for client in sorted(clients)}

    def __getitem__(self, client: int) -> int:
        return self._nodes[client]

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def seat(self, client: int, node: int) -> None:
        """From now on this node is the client's."""
        self._nodes[client] = node


class Arrivals:
    """Greets nodes in a thread of its own, from `start` to `stop`.

    Args:
        site: where they come to.
        expected: what they have to fit.
        number_of: which client a node is enrolled as; None: it says so itself.
        hello: what a node is greeted with.
        screen: what the user sees.
        layout: the hash of the server's own model, see `task.model.layout_of`; None as long as it is not built.
        revoked: numbers of the clients that may not come, as it is known when it is called; they are not waited for.

    Attributes:
        nodes: of the clients, as they come.
        examples: that clients have declared, by client; the first word counts.
        running: whether rounds are played, so that whoever comes for the first time is late.
    """

    def __init__(
        self,
        site: Site,
        expected: Expected,
        number_of: Callable[[int], int | None],
        hello: Greeting,
        screen: Screen,
        layout: Callable[[], str | None],
        revoked: Callable[[], Collection[int]] = frozenset,
    ) -> None:
        self._layout = layout
        self._site, self._expected, self._number_of = site, expected, number_of
        self._hello, self._screen, self._revoked = hello, screen, revoked
        self.nodes = Nodes(expected.clients)
        self.examples: dict[int, int] = {}
        self.running = False
        self._federation = site.federation("", self.nodes)
        self._greeted: dict[int, str] = {}  # node and the mark under which it was greeted
        self._asked: dict[str, tuple[int, Topic]] = {}  # by message id
        self._lost: set[int] = set()  # nodes that were given up before they said who they are
        self._welcome: dict[int, int] = {}  # client and node
        self._built: dict[int, str] = {}  # client and the layout of its model, which is not compared yet
        self._ready: set[int] = set()  # clients that have built the model and trained a batch
        self._away: set[int] = set()  # clients that were here and cannot be reached
        self._ended = threading.Event()
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="arrivals", daemon=True)

    def start(self) -> None:
        """Begin to greet."""
        self._thread.start()

    def stop(self) -> None:
        """Greet nobody any more. Again: no effect."""
        self._ended.set()
        self._thread.join()

    def here(self) -> set[int]:
        """Clients that have come and can be reached."""
        return {client for client, node in list(self._welcome.items()) if self._site.is_here(node)}

    def ready(self) -> set[int]:
        """Clients that are here and have prepared the model."""
        return self.here() & self._ready

    def absent(self) -> list[int]:
        """Clients that have not come, or cannot be reached; those that were revoked are not missed."""
        here, revoked = self.here(), self._revoked()
        return [client for client in self.nodes if client not in here and client not in revoked]

    def missing(self) -> list[int]:
        """Clients that are absent, or not ready for round 1."""
        ready, revoked = self.ready(), self._revoked()
        return [client for client in self.nodes if client not in ready and client not in revoked]

    def late(self) -> set[int]:
        """Clients that have not come yet; in a round that begins from now on they take part when they have."""
        return {client for client in self.nodes if client not in self._welcome}

    def named(self, clients: Collection[int]) -> str:
        """Clients for the user."""
        return ", ".join(map(self._expected.name, clients))

    def wait(self, seconds: float) -> bool:
        """Until all are here and ready, at most so long; whether they are."""
        if self.missing():
            self._changed.wait(seconds)
            self._changed.clear()
        return not self.missing()

    def tell_all(self, greeting: Greeting, seconds: float) -> None:
        """Say something to every client that is here, and wait a little for them to hear it."""
        grid = self._federation.grid
        nodes = [node for node in self._welcome.values() if self._site.is_here(node)]
        waiting = set(grid.push_messages([greeting.message(node) for node in nodes])) if nodes else set()
        for _ in range(int(seconds / _LOOK_SECONDS)):
            waiting -= {reply.metadata.reply_to_message_id for reply in grid.pull_messages(waiting)}
            if not waiting:
                break
            self._federation.wait(_LOOK_SECONDS)
        self._federation.drop(waiting)

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self._greet()
                self._listen()
                self._compare()
                self._watch()
            except Exception:  # noqa: BLE001 - whatever one node does, the others are greeted
                _log.exception("greeting failed")
            self._federation.wait(_LOOK_SECONDS)

    def _greet(self) -> None:
        arrived = self._site.arrived()
        self._greeted = {node: mark for node, mark in self._greeted.items() if node in arrived}
        back = {node for node in self._lost if self._site.is_here(node)}  # given up, and in contact again
        new = [node for node, mark in arrived.items() if self._greeted.get(node) != mark or node in back]
        self._lost -= back
        if new:
            self._greeted |= {node: arrived[node] for node in new}
            stale = [asked for asked, (node, _) in self._asked.items() if node in new]  # of a process that is gone
            self._federation.drop(stale)
            for asked in stale:
                del self._asked[asked]
            self._say(self._hello, *new)

    def _say(self, greeting: Greeting, *nodes: int) -> None:
        ids = self._federation.grid.push_messages([greeting.message(node) for node in nodes])
        self._asked |= {asked: (node, greeting.topic) for asked, node in zip(ids, nodes, strict=True)}

    def _listen(self) -> None:
        if not self._asked:
            return
        for reply in self._federation.grid.pull_messages(list(self._asked)):
            node, topic = self._asked.pop(reply.metadata.reply_to_message_id)
            if topic in ("refused", "wait"):
                continue
            if not reply.has_error():
                self._hear(node, topic, reply)
                continue
            if reply.error.code == ErrorCode.NODE_UNAVAILABLE:
                self._lost.add(node)
            if reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION:
                self._refuse(node, self._name(node), f"it cannot say who it is: {_reason(reply)}")
            elif topic == "hello":
                self._screen.warn(f"{self._name(node)} cannot say who it is: {_reason(reply)}")

    def _name(self, node: int) -> str:
        enrolled = self._number_of(node)
        return "a client" if enrolled is None else self._expected.name(enrolled)

    def _hear(self, node: int, topic: Topic, reply: Message) -> None:
        try:
            presence = Presence.read(reply)
        except ValueError as error:
            self._refuse(node, self._name(node), str(error))
            return
        enrolled, client = self._number_of(node), presence.client
        name = self._expected.name(client if enrolled is None else enrolled)
        if enrolled == client and client not in self._expected.clients:
            self._put_off(node, client)
            return
        objection = self._expected.objection(presence)
        if client in self._revoked():  # of a roster in which a number was given twice
            objection = f"client {client} of this run was {self._expected.name(client)}, which was revoked"
        if enrolled is not None and enrolled != client:
            objection = f"it is enrolled as client {enrolled}, but its shard says client {client}"
        if objection is None and self._welcome.get(client, node) != node and self._site.is_here(self._welcome[client]):
            objection = f"client {client} is here already"
        if objection:
            self._refuse(node, name, objection)
            return
        if topic == "prepare":
            self._built[client] = presence.layout
            return
        self._ready.discard(client)
        self._built.pop(client, None)
        self._say(replace(self._hello, topic="prepare"), node)
        if presence.num_examples > 0:
            self.examples.setdefault(client, presence.num_examples)
        late = self.running and client not in self._welcome
        self.nodes.seat(client, node)
        self._welcome[client] = node  # after its node is known: from now on it is not late
        self._changed.set()
        joins = " and joins in the next round" if late else ""
        self._screen.note(f"{name} is here{joins}{self._expected.differences(presence)}{self._and_missing()}")
        _log.info("client is here", extra={"fields": {"client": client, "node": node}})

    def _put_off(self, node: int, client: int) -> None:
        """Tell a member of the federation that this run has begun without it; it stays, for the next run."""
        others = f"this run has the clients {spelled(self._expected.clients)}"
        self._screen.note(f"client {client} is here and waits for the next run: {others}")
        _log.info("client waits for the next run", extra={"fields": {"client": client, "node": node}})
        told = f"{others}: client {client} waits for the next run"
        self._say(Greeting("wait", told), node)

    def _refuse(self, node: int, name: str, objection: str) -> None:
        self._screen.warn(f"refused: {name}: {objection}")
        _log.warning("refused", extra={"fields": {"client": name, "node": node, "reason": objection}})
        self._say(Greeting("refused", objection), node)
        for client in [client for client, its in self._welcome.items() if its == node]:  # it was here
            del self._welcome[client]
            self._screen.note(f"{name} is waited for again{self._and_missing()}")

    def _and_missing(self) -> str:
        absent = self.absent()
        return f"; missing: {self.named(absent)}" if absent else ""

    def _compare(self) -> None:
        """Take clients whose model has the arrays of the server's own as ready, and refuse the others."""
        if not self._built or (layout := self._layout()) is None:
            return
        for client, built in list(self._built.items()):
            del self._built[client]
            node = self._welcome.get(client)
            if node is None:
                continue
            if built == layout:
                self._ready.add(client)
                self._changed.set()
            else:
                told = f"its model {self._expected.model} has other arrays than the server's: use the same file on both"
                self._refuse(node, self._expected.name(client), told)

    def _watch(self) -> None:
        """Tell when a client gets lost, and when it is back."""
        revoked = self._revoked()  # who was shut out is not waited for
        for client, node in [(client, node) for client, node in self._welcome.items() if client not in revoked]:
            here, name = self._site.is_here(node), self._expected.name(client)
            if not here and client not in self._away:
                self._away.add(client)
                self._screen.warn(f"{name} cannot be reached; it is waited for")
                _log.warning("client is silent", extra={"fields": {"client": client}})
            elif here and client in self._away:
                self._away.discard(client)
                self._changed.set()
                self._screen.note(f"{name} is back")
                _log.info("client is back", extra={"fields": {"client": client}})


def _reason(reply: Message) -> str:
    return one_line(reply.error.reason or "no reason given")
