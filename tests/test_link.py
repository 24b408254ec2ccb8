"""The link between server and clients, in one process: its door, its message store, and the client's end of it."""

import asyncio
import math
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, suppress
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from federation import PATIENCE, until
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.task_identity import TaskIdentity
from inline_grid import InlineGrid, mover
from test_rounds import Notes, X, contestant

from client.fleet import Fleet, Forgotten, Refused, Taken, Unreachable
from server.admission import Admission, Refusals
from server.arrivals import Arrivals, Expected
from server.enroll import enroll
from server.federation import Federation
from server.link import Link
from server.link.door import Door
from server.link.lines import Lines
from server.models import Shape
from server.rounds import Stopped, Terms, run_rounds
from server.stop import Stop
from task import wire
from task.greeting import Greeting, Presence
from task.open_key import open_key

FOREVER = 3600.0  # a test that waited for it would be ended long before
POLL = "/v1/fleet/pull-messages"


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Flower keeps who a process is in globals; here one process is server and client in turn."""
    kept = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    yield
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = kept


# -- the door


class Caller:
    """One request to a door, and what it came to."""

    def __init__(self, path: str = POLL, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.scope = {"type": "http", "path": path, "headers": headers or [], "client": ("192.0.2.7", 1234)}
        self.sent: list[Any] = []
        self._events = [{"type": "http.request", "body": body, "more_body": False}]
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        if self._events:
            return self._events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    async def knock(self, door: Door) -> None:
        await door(self.scope, self.receive, self.send)


class House:
    """A door with an app behind it that takes down what it is given."""

    def __init__(self, *, hold: float = FOREVER, status: int = 200) -> None:
        self.waiting: set[int] = set()
        self.bodies: list[bytes] = []
        self._status = status
        self.genuine = True
        self.door = Door(
            self.app,
            self.waits,
            lambda scope, poll: self.genuine,
            Lines(lambda line: True),
            hold,
        )

    def waits(self, node: int) -> bool:
        return node in self.waiting

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": self._status, "headers": []})

    def poll(self, node: int) -> Caller:
        return Caller(body=PullMessagesRequest(node=Node(node_id=node)).SerializeToString())


def in_time(scene: Coroutine[Any, Any, None]) -> None:
    """Play a scene; one that hangs is a failure and not an hour."""
    asyncio.run(asyncio.wait_for(scene, PATIENCE))


async def held(house: House, node: int, caller: Caller) -> "asyncio.Task[None]":
    """A poll that is being held."""
    task = asyncio.create_task(caller.knock(house.door))
    while not house.door.is_polling(node):
        assert not task.done()
        await asyncio.sleep(0)
    return task


def test_a_poll_is_held_until_a_message_comes_for_its_node():
    async def scene() -> None:
        house = House()
        mine, other = house.poll(7), house.poll(8)
        seven, eight = await held(house, 7, mine), await held(house, 8, other)
        house.waiting.add(7)
        ring = threading.Thread(target=house.door.ring, args=(7,))
        ring.start()
        await seven
        ring.join()
        assert house.bodies == [PullMessagesRequest(node=Node(node_id=7)).SerializeToString()]
        assert mine.sent[0]["status"] == 200
        assert not house.door.is_polling(7) and house.door.is_polling(8) and not eight.done()
        eight.cancel()

    in_time(scene())


def test_a_poll_does_not_wait_where_a_message_does():
    house = House()
    house.waiting.add(7)
    in_time(house.poll(7).knock(house.door))
    assert len(house.bodies) == 1


def test_a_stranger_holds_no_line_and_passes_for_nobody():
    house = House()
    house.genuine = False
    in_time(house.poll(7).knock(house.door))
    assert len(house.bodies) == 1 and not house.door.is_polling(7)


def test_a_message_that_comes_between_the_look_and_the_wait_is_not_missed():
    house = House()
    looks = iter([False, True])
    house.door = Door(
        house.app,
        lambda node: next(looks),
        lambda scope, poll: True,
        Lines(lambda line: True),
        FOREVER,
    )
    in_time(house.poll(7).knock(house.door))
    assert len(house.bodies) == 1


def test_a_poll_ends_without_an_answer_when_its_client_hangs_up():
    async def scene() -> None:
        house = House()
        caller = house.poll(7)
        task = await held(house, 7, caller)
        caller.gone.set()
        await task
        assert house.bodies == [] and caller.sent == []
        assert not house.door.is_polling(7)

    in_time(scene())


def test_a_poll_is_answered_when_it_was_held_long_enough():
    house = House(hold=0.01)
    in_time(house.poll(7).knock(house.door))
    assert len(house.bodies) == 1


def test_a_poll_too_large_to_name_one_node_and_one_that_breaks_off_are_dropped():
    house = House()
    large, torn = Caller(body=b"x" * 5000), Caller()
    torn._events.clear()
    torn.gone.set()
    for caller in (large, torn):
        in_time(caller.knock(house.door))
        assert caller.sent == []
    assert house.bodies == []


def test_a_poll_that_cannot_be_read_is_flowers_to_answer():
    house = House()
    in_time(Caller(body=b"\xff\xff").knock(house.door))
    assert house.bodies == [b"\xff\xff"]


# -- a link and the client's end of it


class Line:
    """A link on loopback and one client's end of it.

    Attributes:
        link: the server's end.
        fleet: the client's; activated.
        grid: of the client's contestant.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.admission = Admission(link, None, 2, lambda text: None)
        link.start()
        self.fleet = self.join(0)
        self.node = self.fleet.activate()
        self.federation = link.federation("fedavg", {0: self.node})
        self.grid = self.federation.grid

    def join(self, client: int) -> Fleet:
        """Another connection."""
        return Fleet(f"127.0.0.1:{self.link.port}", open_key(client), None, register=True)

    def send(self, *arrays: np.ndarray, **config: Any) -> str:
        """A train message to the client; its id."""
        self.as_server()
        records = RecordDict({"arrays": ArrayRecord(list(arrays)), "config": ConfigRecord(config)})
        message = Message(records, dst_node_id=self.node, message_type="train", group_id="1")
        (message_id,) = self.grid.push_messages([message])
        return message_id

    def as_server(self) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id = self.link.run.run_id, SUPERLINK_NODE_ID
        assert self.link.run.primary_task_id is not None
        TaskIdentity.task_id = self.link.run.primary_task_id

    def answer(self, message: Message, step: float = 1.0) -> Message:
        arrays, _ = wire.read(message)
        TaskIdentity.node_id = TaskIdentity.task_id = self.node
        return wire.reply(message, [array + np.asarray(step, array.dtype) for array in arrays], 10, {"client": 0})

    def reply_to(self, message_id: str) -> Message | None:
        """What the server finds as the reply to a message."""
        return next(iter(self.grid.pull_messages([message_id])), None)


@pytest.fixture
def line() -> Iterator[Line]:
    with closing_link(Link("127.0.0.1", 0, None, open_to_all=True, patience=60, refused=lambda *told: None)) as line:
        yield line


class closing_link(closing):  # noqa: N801 - used like contextlib's
    def __init__(self, link: Link) -> None:
        self._link = link

    def __enter__(self) -> Line:
        self._line = Line(self._link)
        return self._line

    def __exit__(self, *raised: object) -> None:
        self._line.fleet.close()
        self._line.admission.stop()
        self._link.stop()


def pulled(fleet: Fleet) -> Message:
    message = fleet.pull()
    assert message is not None
    return message


def test_a_message_and_its_reply_of_12_megabytes(line: Line):
    sent = [np.random.default_rng(0).normal(size=(3000, 1000)).astype(np.float32), np.float32([[0.0, -0.0, np.inf]])]
    message_id = line.send(*sent, epochs=1)
    message = pulled(line.fleet)
    got, config = wire.read(message)
    assert config == {"epochs": 1}
    assert [array.tobytes() for array in got] == [array.tobytes() for array in sent]
    assert (message.metadata.message_id, message.metadata.group_id) == (message_id, "fedavg 1")
    assert line.reply_to(message_id) is None
    line.fleet.push(line.answer(message), 0.5)
    reply = line.reply_to(message_id)
    assert reply is not None
    assert (reply.metadata.src_node_id, reply.metadata.reply_to_message_id) == (line.node, message_id)
    arrays, facts = wire.read_reply(reply, sent)
    assert [a.tobytes() for a in arrays.arrays] == [(a + np.float32(1)).tobytes() for a in sent]
    assert facts.num_examples == 10
    assert line.link.state.object_store.get(message_id) is None  # nothing of either is kept
    assert line.link.state.object_store.get(reply.metadata.message_id) is None


def test_a_reply_wakes_who_waits(line: Line):
    message_id = line.send(X[0])
    woken: list[Message | None] = []

    def wait() -> None:
        while not woken or woken[-1] is None:
            line.federation.wait(FOREVER)
            woken.append(line.reply_to(message_id))

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    line.fleet.push(line.answer(pulled(line.fleet)), 0.1)
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


def test_a_message_whose_delivery_was_not_confirmed_is_delivered_again(line: Line, monkeypatch: pytest.MonkeyPatch):
    message_id = line.send(X[0])

    def lost(request: Any) -> None:
        raise httpx.ReadTimeout("no answer")

    with monkeypatch.context() as cut:
        cut.setattr(line.fleet._client, "ConfirmMessageReceived", lost)
        for _ in range(2):
            with pytest.raises(Unreachable, match="no answer"):
                line.fleet.pull()
    assert line.link.state.waits(line.node)
    assert pulled(line.fleet).metadata.message_id == message_id
    assert not line.link.state.waits(line.node)  # and not a second time


def test_what_a_client_had_not_answered_is_delivered_again_when_it_starts_anew(line: Line):
    first, second = line.send(X[0], round=1), line.send(X[0], round=2)
    answered = pulled(line.fleet)
    assert answered.metadata.message_id == first
    line.fleet.push(line.answer(answered), 0.1)
    assert pulled(line.fleet).metadata.message_id == second
    assert line.fleet.activate() == line.node  # killed, and started again
    again = pulled(line.fleet)
    assert again.metadata.message_id == second
    assert wire.read(again)[1] == {"round": 2}
    assert not line.link.state.waits(line.node)
    assert line.reply_to(first) is not None


def test_a_reply_of_which_a_part_came_is_dropped_and_asked_for_again(line: Line, monkeypatch: pytest.MonkeyPatch):
    message_id = line.send(X[0])
    message = pulled(line.fleet)
    whole, parts = line.fleet._client.PushObject, []

    def torn(request: Any) -> Any:
        parts.append(request.object_id)
        if len(parts) > 1:
            raise httpx.WriteError("the line is dead")
        return whole(request)

    with monkeypatch.context() as cut:
        cut.setattr(line.fleet._client, "PushObject", torn)
        with pytest.raises((Unreachable, Refused)):
            line.fleet.push(line.answer(message, 1.0), 0.1)
    assert len(parts) >= 2
    assert line.reply_to(message_id) is None
    line.fleet.activate()
    again = pulled(line.fleet)
    assert again.metadata.message_id == message_id
    line.fleet.push(line.answer(again, 2.0), 0.1)
    reply = line.reply_to(message_id)
    assert reply is not None
    assert wire.read_reply(reply, X)[0].arrays[0][0, 0] == 2


def test_a_reply_of_which_a_part_came_can_be_sent_once_more(line: Line, monkeypatch: pytest.MonkeyPatch):
    message_id = line.send(X[0])
    reply = line.answer(pulled(line.fleet))
    whole, calls = line.fleet._client.PushObject, iter(range(1000))

    def torn(request: Any) -> Any:
        if next(calls) == 1:
            raise httpx.ReadTimeout("no answer")
        return whole(request)

    monkeypatch.setattr(line.fleet._client, "PushObject", torn)
    with pytest.raises(Unreachable):
        line.fleet.push(reply, 0.1)
    line.fleet.push(reply, 0.1)
    found = line.reply_to(message_id)
    assert found is not None
    assert wire.read_reply(found, X)[0].arrays[0][0, 0] == 1


def test_a_message_that_nobody_waits_for_any_more_is_gone_and_so_is_its_reply(line: Line):
    early, late, kept = line.send(X[0], n=1), line.send(X[0], n=2), line.send(X[0], n=3)
    line.grid.drop([early])
    message = pulled(line.fleet)
    assert message.metadata.message_id == late
    line.grid.drop([late])
    with suppress(Forgotten):  # it may be taken and thrown away
        line.fleet.push(line.answer(message), 0.1)
    assert line.link.state.collect(late) is None
    last = pulled(line.fleet)
    assert last.metadata.message_id == kept
    line.fleet.push(line.answer(last), 0.1)
    assert line.reply_to(kept) is not None
    line.grid.drop([kept])


# -- clients that are hostile


def pushed(line: Line, reply: Message, header: Message | None = None) -> Any:
    """Push a reply in Flower's protocol as it stands, under a header of its own if there is one."""
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

    reply.metadata.__dict__["_message_id"] = reply.object_id
    shown = header or make_message(reply.metadata, RecordDict())
    shown.metadata.__dict__["_message_id"] = reply.object_id
    node, run = Node(node_id=line.node), line.link.run.run_id
    request = PushMessagesRequest(
        node=node, messages_list=[message_to_proto(shown)], message_object_trees=[get_object_tree(reply)]
    )
    answer = line.fleet._client.PushMessages(request)
    parts = get_all_nested_objects(reply)
    for name in answer.objects_to_push:
        line.fleet._client.PushObject(
            PushObjectRequest(
                node=node,
                run_id=run,
                session_id=answer.session_id,
                object_id=name,
                object_content=parts[name].deflate(),
            )
        )
    return answer


def test_what_a_reply_says_of_itself_inside_is_nobodys_word(line: Line):
    """The header is checked, the pieces hold another one: of another node, another message, another round."""
    message_id = line.send(X[0])
    reply = line.answer(pulled(line.fleet))
    header = make_message(copy(reply.metadata), RecordDict())
    reply.metadata.__dict__.update(_src_node_id=999, _reply_to_message_id="ab" * 32, _group_id="fedavg 7")
    pushed(line, reply, header)
    found = line.reply_to(message_id)
    assert found is not None and found.has_content()
    metadata = found.metadata
    assert (metadata.src_node_id, metadata.reply_to_message_id, metadata.group_id) == (
        line.node,
        message_id,
        "fedavg 1",
    )


def test_nobody_answers_for_another_node(line: Line):
    """Flower asks who pushes, and not whether the reply is its own."""
    message_id = line.send(X[0])
    reply = line.answer(pulled(line.fleet))
    other = line.join(1)
    node = other.activate()
    mine, line.fleet = line.fleet, other
    try:
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            pushed_by(line, node, reply)
    finally:
        other.close()
        line.fleet = mine
    assert line.reply_to(message_id) is None
    line.fleet.push(reply, 0.1)
    assert line.reply_to(message_id) is not None


def pushed_by(line: Line, node: int, reply: Message) -> None:
    mine, line.node = line.node, node
    try:
        pushed(line, reply)
    finally:
        line.node = mine


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: {"arrays": ArrayRecord([np.random.default_rng(0).random(2**18)])}, "more than twice as large"),
        (
            lambda: {str(i): ConfigRecord({"i": i}) for i in range(300)},
            "its reply has 302 pieces, at most 68 are taken",
        ),
    ],
)
def test_a_reply_that_is_too_large_is_refused_before_it_is_whole(line: Line, content: Any, reason: str):
    message_id = line.send(X[0])
    reply = line.answer(pulled(line.fleet))
    reply.content = RecordDict(content())
    pushed(line, reply)
    told = line.reply_to(message_id)
    assert told is not None and told.has_error()
    assert reason in told.error.reason
    state = line.link.state
    assert state._pushes == {} == state._refused and state.object_store.get(reply.object_id) is None
    again = line.send(X[0])  # and the next round is as ever
    line.fleet.push(line.answer(pulled(line.fleet)), 0.1)
    assert line.reply_to(again) is not None


def test_a_reply_may_have_every_array_of_the_model_however_many_of_them_were_equal_in_its_message(line: Line):
    """Equal pieces travel once: a fresh model is a fraction of its pieces, and a trained one all of them."""
    fresh = [np.zeros((), np.float32)] * 700 + [np.zeros(0, np.uint32)] * 700
    message_id = line.send(*fresh)
    message = pulled(line.fleet)
    drifted = [array + np.float32(i) for i, array in enumerate(fresh[:700])] + fresh[700:]
    TaskIdentity.node_id = TaskIdentity.task_id = line.node
    line.fleet.push(wire.reply(message, drifted, 10, {"client": 0}), 0.1)
    reply = line.reply_to(message_id)
    assert reply is not None and not reply.has_error(), reply
    arrays = wire.read_reply(reply, fresh)[0].arrays
    assert [array.tobytes() for array in arrays] == [array.tobytes() for array in drifted]


def test_a_reply_that_cannot_be_unpacked_is_an_error_of_its_client_and_of_nobody_else(
    line: Line, monkeypatch: pytest.MonkeyPatch
):
    message_id = line.send(X[0])
    line.fleet.push(line.answer(pulled(line.fleet)), 0.1)

    def broken(*_: Any) -> None:
        raise IndexError("list index out of range")

    with monkeypatch.context() as patch:
        patch.setattr("server.link.state.inflate_object_from_contents", broken)
        told = line.reply_to(message_id)
    assert told is not None
    assert told.error.reason == "its reply cannot be unpacked (IndexError: list index out of range)"


def test_bytes_that_mean_nothing_get_an_answer_and_the_link_goes_on(line: Line):
    """Requests with random or mutated bodies at every path of Flower's Fleet API, signed by an authentic client."""
    random = np.random.default_rng(20261126)
    paths = ["register-node", "activate-node", "deactivate-node", "heartbeat", "pull-messages", "push-messages"]
    paths += ["push-object", "pull-object", "confirm-message-received", "get-run", "get-fab", "nonsense"]
    whole = PullMessagesRequest(node=Node(node_id=line.node)).SerializeToString()
    with httpx.Client(base_url=f"http://127.0.0.1:{line.link.port}/v1/fleet/") as client:
        for number in range(400):
            body = bytearray(
                whole if number % 2 else random.integers(0, 256, int(random.integers(300)), dtype=np.uint8)
            )
            if body:
                body[random.integers(len(body))] ^= 1 << int(random.integers(8))
            answer = client.post(paths[number % len(paths)], content=bytes(body))
            assert 400 <= answer.status_code < 500
    message_id = line.send(X[0])
    line.fleet.push(line.answer(pulled(line.fleet)), 0.1)
    assert line.reply_to(message_id) is not None


def test_a_client_that_says_goodbye_owes_nothing_until_it_is_back(line: Line):
    assert line.link.is_here(line.node)
    message_id = line.send(X[0])
    line.fleet.close()
    assert not line.link.is_here(line.node)
    assert line.federation.reachable([0]) == 0
    told = line.reply_to(message_id)
    assert told is not None
    assert told.has_error() and told.error.reason == "the client has left"
    line.fleet = line.join(0)
    assert line.fleet.activate() == line.node
    assert line.link.is_here(line.node)
    assert line.federation.reachable([0]) == 1
    again = line.send(X[0])
    assert pulled(line.fleet).metadata.message_id == again  # what was given up does not come


def test_a_client_that_never_came_back_is_given_up_after_the_patience(line: Line):
    never = next(node for node in line.link.state.nodes if node != line.node)
    line.node = never
    message_id = line.send(X[0])
    told = line.reply_to(message_id)
    assert told is not None
    assert told.error.reason == "the client has not come back since the server started"


def test_silence_is_borne_for_the_patience_and_no_longer(line: Line, monkeypatch: pytest.MonkeyPatch):
    message_id = line.send(X[0])
    now = line.link.state._seen[line.node]
    monkeypatch.setitem(line.link.state._seen, line.node, now - 50)
    assert line.reply_to(message_id) is None
    assert not line.link.is_here(line.node)
    monkeypatch.setitem(line.link.state._seen, line.node, now - 70)
    told = line.reply_to(message_id)
    assert told is not None
    assert told.error.reason.startswith("no contact with the client for 7")


@pytest.mark.parametrize("patience", [6, 60])
def test_who_is_given_up_is_not_counted_as_reachable_and_no_try_is_spent_on_it(patience: float):
    """A client is silent for longer than `patience` in the first try, and back while the second one waits for it."""
    notes = Tries()
    with closing_link(
        Link("127.0.0.1", 0, None, open_to_all=True, patience=patience, refused=lambda *told: None)
    ) as line:
        looks: list[int] = []
        line.link.state._seen[line.node] -= patience + 1

        def answer() -> None:
            line.fleet.push(line.answer(pulled(line.fleet)), 0.1)

        def reachable(clients: Any) -> int:
            looks.append(line.federation.reachable(clients))
            if len(looks) == 3:
                line.fleet.activate()
                line.as_server()
                threading.Thread(target=answer, daemon=True).start()
            return looks[-1]

        one = contestant(InlineGrid({0: mover(1)}))
        one = replace(
            one,
            terms=Terms(quorum=1, tries=2, recovery=PATIENCE),
            federation=replace(line.federation, reachable=reachable),
        )
        line.as_server()
        final = run_rounds(one, X, 1, 1, notes, Stop())
    assert looks == [0, 0, 0, 1]
    assert notes.again_told == [(1, "round 1 brought no valid update from 1 clients; 1 more try")]
    assert final[0][0, 0] == 1


def test_an_expelled_client_is_refused_at_once_and_given_up(line: Line, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(line.link._door, "_hold", FOREVER)
    refused: list[Exception] = []

    def poll() -> None:
        try:
            line.fleet.pull()
        except Forgotten as error:
            refused.append(error)

    held_poll = threading.Thread(target=poll, daemon=True)
    held_poll.start()
    until(lambda: line.link._door.is_polling(line.node), "a held poll")
    line.link.state.expel(line.node)
    held_poll.join(PATIENCE)
    assert len(refused) == 1
    message_id = line.send(X[0])
    told = line.reply_to(message_id)
    assert told is not None
    assert told.error.reason == "the client was revoked"
    with pytest.raises(Forgotten):
        line.fleet.heartbeat()


def test_a_second_process_of_a_client_that_is_on_the_line_is_turned_away(line: Line):
    second = line.join(0)
    poll = threading.Thread(target=lambda: pulled(line.fleet), daemon=True)
    poll.start()
    until(lambda: line.link._door.is_polling(line.node), "a held poll")
    with pytest.raises(Taken, match="connected already from another process"):
        second.activate()
    line.send(X[0])  # frees the line
    poll.join(PATIENCE)
    with pytest.raises(Taken):  # which does not matter: the first one trains, or imports, and is still connected
        second.activate()
    assert line.fleet.activate() == line.node  # its own place is never another's
    line.fleet._client.close()  # what a kill does to its connections
    until(lambda: activated(second) == line.node, "the place")
    second._client.close()


def test_a_process_that_falls_silent_with_its_line_open_loses_its_place(line: Line, monkeypatch: pytest.MonkeyPatch):
    second = line.join(0)
    with pytest.raises(Taken):
        second.activate()
    monkeypatch.setattr("server.link.lines._RECENT", 0.0)  # its machine has lost power, and nobody closes the line
    assert second.activate() == line.node
    line.fleet.heartbeat()  # the power is back; what the first says is no sign of life of the second
    monkeypatch.undo()
    with pytest.raises(Taken):
        line.fleet.activate()
    second._client.close()


def activated(fleet: Fleet) -> int:
    """The node's id, 0 while its place is taken."""
    try:
        return fleet.activate()
    except Taken:
        return 0


def test_who_comes_without_an_identity_where_only_members_may():
    told: list[Any] = []
    link = Link("127.0.0.1", 0, None, open_to_all=False, patience=60, refused=lambda *what: told.append(what))
    link.start()
    stranger = Fleet(f"127.0.0.1:{link.port}", open_key(0), None, register=True)
    try:
        with pytest.raises(Refused, match="admits enrolled clients only: start with --identity") as refused:
            stranger.activate()
        assert refused.value.by_server
        assert [(status, path) for _, _, status, path in told] == [(412, "/v1/fleet/register-node")]
    finally:
        stranger.close()
        link.stop()


def test_a_server_that_is_not_there_can_be_tried_again():
    gone = Fleet("127.0.0.1:9", open_key(0), None, register=True)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 cannot be reached") as trouble:
        gone.activate()
    assert not isinstance(trouble.value, Taken)
    gone.close()


def test_nothing_but_the_documented_facts_leaves_a_client(line: Line, small_shards, monkeypatch: pytest.MonkeyPatch):
    """Whatever the client's process says over HTTP while it greets, trains, fails and leaves."""
    import socket

    from client.app import app
    from task.shardfile import read_raw

    requests: list[httpx.Request] = []
    handle = httpx.HTTPTransport.handle_request

    def tapped(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        request.read()
        requests.append(request)
        return handle(self, request)

    shard = small_shards / "shard-0.npz"
    config = {"partition-id": 0, "shard": str(shard), "models": "", "facts": "all", "errors": "kind"}
    context = Context(
        run_id=line.link.run.run_id, node_id=line.node, node_config=config, state=RecordDict(), run_config={}
    )
    line.fleet.close()
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", tapped)
    line.fleet = line.join(0)
    line.fleet.activate()
    line.fleet.heartbeat()

    def exchange(message: Message) -> Message:
        line.as_server()
        (message_id,) = line.grid.push_messages([message])
        got = pulled(line.fleet)
        TaskIdentity.node_id = TaskIdentity.task_id = line.node
        line.fleet.push(app(got, context), 0.1)
        reply = line.reply_to(message_id)
        assert reply is not None
        line.as_server()
        return reply

    line.as_server()
    from client.engine import engine_for
    from task.config import Training
    from task.model import layout_of

    training = {"batch_size": 16, "steps": 2, "model": "mlp", "seed": 0, "server-round": 1, "num-classes": 3}
    start = engine_for("mlp", (8, 8, 1), 3, Training(batch_size=16, steps=2), 0.0).initial
    for topic, asked, trouble in (
        ("hello", training, ("", "")),
        ("prepare", training, ("", "")),
        ("prepare", training | {"model": "not.allowed:here"}, ("model-not-allowed", "UserError")),
    ):
        presence = exchange(Greeting(topic, config=asked).message(line.node))
        told = Presence.read(presence)
        assert told.input_shape == (8, 8, 1)
        assert (told.trouble, told.error) == trouble
        assert told.layout == (layout_of(start) if topic == "prepare" and not told.trouble else "")
        assert set(presence.content) == {"greeting"}
        assert set(presence.content["greeting"]) == {
            *("client", "input-shape", "num-classes", "num-examples", "tensorflow", "keras", "numpy"),
            *("trouble", "error", "layout", "protocol"),
        }
    records = RecordDict({"arrays": wire.record(start), "config": ConfigRecord(training)})
    update = exchange(Message(records, dst_node_id=line.node, message_type="train"))
    assert set(update.content) == {wire.ARRAYS, wire.METRICS}
    assert set(update.content[wire.METRICS]) <= set(wire.TRAIN_FACTS)
    assert [array.shape for array in wire.read_reply(update, start)[0].arrays] == [array.shape for array in start]

    records = RecordDict({"arrays": wire.record(start[:1]), "config": ConfigRecord(training)})
    failure = exchange(Message(records, dst_node_id=line.node, message_type="train"))
    assert failure.has_error()
    assert failure.error.reason.endswith(": see the log at the client")
    line.fleet.close()

    assert {request.url.path.removeprefix("/v1/fleet/") for request in requests} == {
        *("register-node", "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "pull-object"),
        *("confirm-message-received", "push-messages", "push-object"),
    }
    assert {name for request in requests for name in request.headers} == {
        *("host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type"),
        *("flwr-public-key", "flwr-timestamp", "flwr-signature"),
        *("flwr-package-name", "flwr-package-version", "flwr-component-name"),
        wire.PROCESS_HEADER,
    }
    said = b"".join(
        str(request.url).encode() + repr(request.headers.raw).encode() + request.content for request in requests
    )
    images, labels, _ = read_raw(shard)
    private = [str(shard).encode(), shard.parent.name.encode(), socket.gethostname().encode(), labels.tobytes()]
    private += [row.tobytes() for image in images for row in image]
    assert not [secret for secret in private if len(secret) > 6 and secret in said]


# -- what the client makes of an answer


def refusal(fleet: Fleet, response: httpx.Response) -> Exception:
    from client.fleet import _Status

    return fleet._refusal(_Status(response))


CLOCK = r"the clock of this machine is \%s s off the server's: set it; it may be 300 s behind and 5 s ahead"
UNKNOWN = "refuses this identity: it is not enrolled there, or revoked"


@pytest.mark.parametrize(
    ("off", "status", "says"),
    [
        (3600, 401, CLOCK % "+36[0-9][0-9]"),
        (-3600, 401, CLOCK % "-3[56][0-9][0-9]"),
        (60, 401, CLOCK % "+6[0-9]"),  # Flower minds a clock that is ahead much sooner
        (-60, 401, UNKNOWN),
        (0, 401, UNKNOWN),
        (3600, 412, UNKNOWN),  # the signature was good enough to look up the key
        (None, 401, UNKNOWN),
    ],
)
def test_a_wrong_clock_is_told_as_such(off: int | None, status: int, says: str):
    fleet = Fleet("127.0.0.1:9", open_key(0), None, register=True)
    there = "at some time" if off is None else format_datetime(datetime.now(UTC) - timedelta(seconds=off), usegmt=True)
    answer = httpx.Response(status, headers={"date": there}, text='{"detail": "Invalid SuperNode authentication"}')
    told = refusal(fleet, answer)
    assert isinstance(told, Refused)
    with pytest.raises(Refused, match=says):
        raise told
    fleet.close()


def test_a_server_in_trouble_is_tried_again():
    fleet = Fleet("127.0.0.1:9", open_key(0), None, register=True)
    assert isinstance(refusal(fleet, httpx.Response(503, text="busy")), Unreachable)
    fleet.close()


@pytest.mark.parametrize(
    ("reason", "mends"),
    [
        ("certificate has expired", "python -m server renew"),
        ("certificate is not yet valid", "python -m server renew"),
        ("IP address mismatch, certificate is not valid for '10.0.0.1'.", "python -m server renew --host 10.0.0.1"),
        ("unable to get local issuer certificate", "check --server and --identity"),
    ],
)
def test_a_certificate_that_is_not_trusted_says_what_helps(reason: str, mends: str):
    fleet = Fleet("10.0.0.1:9092", open_key(0), None, register=True)
    text = f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {reason} (_ssl.c:1006)"
    told = str(fleet._told(httpx.ConnectError(text)))
    assert reason in told and told.endswith(mends)
    fleet.close()


# -- what the user reads of those who are refused


@pytest.fixture
def roster(tmp_path):
    from server.roster import Roster

    enroll(tmp_path / "federation", ["ada", "bob"], ["127.0.0.1"])
    return Roster.open(tmp_path / "federation")


def test_refusals_name_who_it_was_and_why(roster):
    told: list[str] = []
    ada, bob = roster.members
    gone = replace(bob, revoked=bob.enrolled)
    roster.members = (ada, gone)
    refusals = Refusals(told.append, roster)
    activate = "/v1/fleet/activate-node"
    for key, status in ((ada.public_key, 401), (ada.public_key, 412), (bob.public_key, 412), (b"what", 412)):
        refusals("192.0.2.7", key, status, activate)
        refusals("192.0.2.7", key, status, activate)  # the same again is not told again
    refusals("192.0.2.7", b"", 412, "/v1/fleet/register-node")
    refusals("192.0.2.7", b"", 404, "/v1/control/start-run")
    refusals("192.0.2.7", ada.public_key, 401, "/v1/fleet/pull-messages")  # a connection of an earlier server
    refusals("", b"", 0, "plain HTTP")
    assert [line.removeprefix("refused: ") for line in told] == [
        "ada (client 0), whose signature does not hold: its clock may be wrong from 192.0.2.7",
        "ada (client 0), which takes part already from another process from 192.0.2.7",
        "bob (client 1), which was revoked from 192.0.2.7",
        f"an unknown key, {replace(bob, public_key=b'what').fingerprint} from 192.0.2.7",
        "a client without an identity from 192.0.2.7",
        "a call of /v1/control/start-run, which is not served here from 192.0.2.7",
        "a client that speaks plain HTTP, and this server wants TLS",
    ]


def test_an_open_server_does_not_call_it_a_refusal_that_a_key_is_registered_already():
    told: list[str] = []
    refusals = Refusals(told.append, None)
    refusals("192.0.2.7", b"key", 412, "/v1/fleet/register-node")
    assert told == []
    refusals("192.0.2.7", b"key", 412, "/v1/fleet/activate-node")
    assert told == ["refused: a client, which takes part already from another process from 192.0.2.7"]


# -- who is there


class Village:
    """A site whose nodes say what the test tells them to.

    Attributes:
        marks: nodes that have come, see `Site.arrived`.
        away: nodes that cannot be reached.
        says: what each node answers to a greeting; a text is an answer that says nothing known.
        prepares: what it answers instead when it is to prepare.
        heard: topics and texts that each node was told.
    """

    def __init__(self) -> None:
        self.marks: dict[int, str] = {}
        self.away: set[int] = set()
        self.says: dict[int, Presence | str] = {}
        self.prepares: dict[int, Presence] = {}
        self.heard: dict[int, list[tuple[str, str]]] = {}
        self._replies: dict[str, Message] = {}
        self._sent = 0

    def arrived(self) -> dict[int, str]:
        return dict(self.marks)

    def is_here(self, node: int) -> bool:
        return node in self.marks and node not in self.away

    def federation(self, label: str, nodes: Any) -> Federation:
        grid: Any = SimpleNamespace(push_messages=self._push, pull_messages=self._pull)
        return Federation(grid, nodes, lambda seconds: threading.Event().wait(0.001))

    def come(self, node: int, says: Presence | str, mark: str = "first") -> None:
        self.says[node], self.marks[node] = says, mark

    def _push(self, messages: list[Message]) -> list[str]:
        ids = []
        for message in messages:
            greeting, node = Greeting.read(message), message.metadata.dst_node_id
            self.heard.setdefault(node, []).append((greeting.topic, greeting.text))
            self._sent += 1
            ids.append(f"message {self._sent}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            says = self.prepares.get(node, self.says[node]) if greeting.topic == "prepare" else self.says[node]
            records = RecordDict({"greeting": ConfigRecord({"client": str(says)})})
            self._replies[ids[-1]] = (
                says.reply(message) if isinstance(says, Presence) else Message(records, reply_to=message)
            )
        return ids

    def _pull(self, ids: Any) -> list[Message]:
        return [self._replies.pop(one) for one in list(ids) if one in self._replies]


class Screen:
    """What the user would read."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.note, self.warn = self.notes.append, self.warnings.append


HERE = Presence(0, (8, 8, 1), 3, 10, "2.21.0", "3.1", "2.0", layout="alike")
TWICE = [("hello", ""), ("prepare", "")]


@pytest.fixture
def scene() -> Iterator[Any]:
    """A village, the screen, and arrivals that expect three clients: node 11 is enrolled as client 1."""
    village, screen = Village(), Screen()
    expected = Expected(range(3), Shape((8, 8, 1), 3), "2.21.0", {1: "bob"}, "3.1", "2.0", "mine:net")
    own = SimpleNamespace(layout=HERE.layout)
    hello = Greeting("hello", config={"seed": 0})
    arrivals = Arrivals(village, expected, {11: 1}.get, hello, screen, lambda: own.layout)
    arrivals.start()
    yield SimpleNamespace(village=village, screen=screen, arrivals=arrivals, own=own)
    arrivals.stop()


def test_clients_are_greeted_and_seated_until_all_are_here(scene):
    village, arrivals = scene.village, scene.arrivals
    assert not arrivals.wait(0.01)
    assert arrivals.missing() == [0, 1, 2] and dict(arrivals.nodes) == {0: -1, 1: -2, 2: -3}
    village.come(10, HERE)
    until(lambda: arrivals.missing() == [1, 2], "client 0")
    village.come(11, replace(HERE, client=1, num_classes=0, num_examples=0))
    village.come(12, replace(HERE, client=2, num_examples=7, tensorflow="2.19.0", numpy="1.9"))
    until(lambda: arrivals.wait(1.0), "all")
    assert dict(arrivals.nodes) == {0: 10, 1: 11, 2: 12}
    assert arrivals.examples == {0: 10, 2: 7}  # client 1 does not say
    assert scene.screen.warnings == []
    assert scene.screen.notes[0] == "client 0 is here; missing: bob (client 1), client 2"
    assert any(note.startswith("bob (client 1) is here") for note in scene.screen.notes)
    differ = (
        "client 2 is here; its TensorFlow is 2.19.0, this one 2.21.0, its NumPy is 1.9, this one 2.0: bits may differ"
    )
    assert any(note.startswith(differ) for note in scene.screen.notes)
    assert village.heard == dict.fromkeys((10, 11, 12), TWICE)  # once each


@pytest.mark.parametrize(
    ("node", "says", "objection"),
    [
        (10, replace(HERE, client=3), "client 3: this run has the clients 0 to 2, and this is client 3"),
        (10, replace(HERE, client=-1), "client must be in 0..2147483647, not -1"),
        (10, replace(HERE, client=math.inf), "client must be an integer, not float inf"),
        (10, replace(HERE, num_examples=2**63), "num_examples must be in 0..9007199254740992"),
        (10, replace(HERE, num_classes=-3), "num_classes must be in 0..2147483647, not -3"),
        (10, replace(HERE, input_shape=(8.0, 8.0, 1.0)), "input_shape must be an integer, not float 8.0"),
        (10, replace(HERE, input_shape=(8,) * 99), "input_shape has 99 sides"),
        (10, replace(HERE, input_shape=(9, 9, 1)), "its examples have the shape (9, 9, 1), the test set's (8, 8, 1)"),
        (10, replace(HERE, num_classes=4), "its shard has 4 classes, the test set 3"),
        (11, replace(HERE, client=2), "bob (client 1): it is enrolled as client 1, but its shard says client 2"),
        (10, "nonsense", "a client: an answer that says nothing known"),
        (11, "nonsense", "bob (client 1): an answer that says nothing known"),
        (10, replace(HERE, protocol=1), "its FedArena does not speak protocol 2: install the same version of FedArena"),
        (
            10,
            replace(HERE, trouble="shard", error="UserError", input_shape=()),
            ": UserError, see the log at the client",
        ),
        (10, replace(HERE, trouble="labels", error="UserError"), "its labels go beyond the test set's 3 classes: User"),
        (
            10,
            replace(HERE, trouble="model-not-allowed"),
            "client 0: it was not started with --model mine:net: its owner",
        ),
        (10, replace(HERE, trouble="model", error="\x1b[31m" + "A" * 999), "build the model mine:net: ?[31mAAAA"),
        (
            10,
            replace(HERE, trouble="{0}", error="{x}"),
            "client 0: it cannot take part: {x}, see the log at the client",
        ),
        (10, replace(HERE, layout="other"), "its model mine:net has other arrays than the server's: use the same file"),
    ],
)
def test_who_does_not_fit_is_refused_and_told_why(scene, node: int, says: Presence | str, objection: str):
    scene.village.come(node, says)
    until(lambda: scene.screen.warnings, "a refusal")
    (line,) = scene.screen.warnings
    assert line.startswith("refused: ") and objection in line
    assert line.isprintable() and len(line) < 250
    topic, text = until(lambda: scene.village.heard[node][-1], "word to the client")
    assert topic == "refused" and text in line
    assert scene.arrivals.missing() == [0, 1, 2]
    scene.village.come(12, replace(HERE, client=2))  # and nobody else is
    until(lambda: scene.arrivals.missing() == [0, 1], "client 2")


def test_a_client_that_cannot_build_the_model_is_here_and_refused_and_waited_for(scene):
    """It fits, but fails when it is to prepare; the server's own model takes longer than the client's."""
    village, arrivals, scene.own.layout = scene.village, scene.arrivals, None
    village.prepares[10] = replace(HERE, trouble="training", error="ResourceExhaustedError", layout="")
    village.come(10, HERE)
    told = "refused: client 0: it cannot train one batch with the model mine:net: ResourceExhaustedError, see the log"
    until(lambda: [line for line in scene.screen.warnings if line.startswith(told)], "a refusal")
    again = "client 0 is waited for again; missing: client 0, bob (client 1), client 2"
    until(lambda: scene.screen.notes[-1] == again, "a note")
    assert scene.screen.notes == ["client 0 is here; missing: bob (client 1), client 2", again]
    assert village.heard[10][2][0] == "refused"
    del village.prepares[10], village.marks[10]  # mended and started again, with a mark that does not tell so
    until(lambda: 10 not in arrivals._greeted, "a look at who is there")
    village.come(10, HERE)
    until(lambda: village.heard[10][3:] == TWICE, "a second greeting")
    assert arrivals.missing() == [0, 1, 2]
    scene.own.layout = HERE.layout
    until(lambda: arrivals.missing() == [1, 2], "client 0")
    assert len(scene.screen.warnings) == 1


def test_a_place_is_taken_while_its_client_is_here_and_free_when_it_is_not(scene):
    village, arrivals = scene.village, scene.arrivals
    village.come(10, HERE)
    until(lambda: arrivals.missing() == [1, 2], "client 0")
    village.come(20, HERE)
    until(lambda: scene.screen.warnings == ["refused: client 0: client 0 is here already"], "a refusal")
    village.away.add(10)
    until(lambda: "client 0 cannot be reached; it is waited for" in scene.screen.warnings, "a warning")
    assert arrivals.missing() == [0, 1, 2]
    village.come(20, HERE, mark="second")
    until(lambda: arrivals.nodes[0] == 20, "the other node")
    assert arrivals.missing() == [1, 2]


def test_a_client_that_starts_anew_is_greeted_again_and_one_that_is_back_is_told(scene):
    village = scene.village
    village.come(10, HERE)
    until(lambda: scene.arrivals.nodes[0] == 10, "client 0")
    village.away.add(10)
    until(lambda: scene.screen.warnings, "a warning")
    village.away.discard(10)
    until(lambda: "client 0 is back" in scene.screen.notes, "a note")
    village.come(10, replace(HERE, num_examples=10**6), mark="second")
    until(lambda: village.heard[10] == TWICE * 2, "a second greeting")
    until(lambda: sum("client 0 is here" in note for note in scene.screen.notes) == 2, "a second note")
    assert scene.arrivals.examples == {0: 10}  # the first word counts


def test_all_who_are_here_are_told_that_it_is_over(scene):
    village = scene.village
    village.come(10, HERE)
    village.come(12, replace(HERE, client=2))
    until(lambda: scene.arrivals.missing() == [1], "two clients")
    scene.arrivals.stop()
    village.away.add(12)
    scene.arrivals.tell_all(Greeting("over", "the run is over"), 1.0)
    assert village.heard[10][-1] == ("over", "the run is over")
    assert village.heard[12] == TWICE


# -- when a round counts


class Tries(Notes):
    """A journal that also keeps which rounds were played again."""

    def __init__(self) -> None:
        super().__init__()
        self.again_told: list[tuple[int, str]] = []

    def again(self, entry, server_round, reason):
        self.again_told.append((server_round, reason))


def unreliable(failures: int):
    """A client that fails so often in round 2."""
    left = [failures]

    def fit(arrays, config):
        if config["server-round"] == 2 and left[0]:
            left[0] -= 1
            raise OSError("not now")
        return mover(1, norm=None)(arrays, config)

    return fit


def of(grid: InlineGrid, terms: Terms, strategy: str = "fedavg", **federation: Any):
    one = contestant(grid, strategy)
    return replace(one, terms=terms, federation=replace(one.federation, **federation))


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "flwr.serverapp.strategy.FedAvg"])
def test_a_round_without_a_quorum_is_played_again(strategy: str):
    notes, grid = Tries(), InlineGrid({0: unreliable(2), 1: mover(1, norm=None), 2: mover(1, norm=None)})
    final = run_rounds(of(grid, Terms(quorum=3, tries=3), strategy), X, 0, 3, notes, Stop())
    assert final[0][0, 0] == 3
    told = "round 2 brought 2 valid updates from 3 clients, 3 are needed; "
    assert notes.again_told == [(2, told + "2 more tries"), (2, told + "1 more try")]
    assert [(row.round, row.clients_ok) for row in notes.rounds] == [(0, 0), (1, 3), (2, 3), (3, 3)]


def test_a_quorum_is_enough():
    notes, grid = Tries(), InlineGrid({0: unreliable(9), 1: mover(1), 2: mover(1)})
    run_rounds(of(grid, Terms(quorum=2, tries=3)), X, 0, 3, notes, Stop())
    assert notes.again_told == []
    assert [(row.clients_ok, row.clients_rejected) for row in notes.rounds[1:]] == [(3, 0), (2, 1), (3, 0)]


def test_a_run_ends_after_the_last_try_with_what_it_has():
    notes, grid = Tries(), InlineGrid({0: unreliable(9), 1: mover(1), 2: mover(1)})
    with pytest.raises(Stopped, match=r"^round 2 brought 2 valid updates from 3 clients, 3 are needed$"):
        run_rounds(of(grid, Terms(quorum=3, tries=2)), X, 0, 3, notes, Stop())
    assert len(notes.again_told) == 1
    assert [row.round for row in notes.rounds] == [0, 1]


@pytest.mark.parametrize("tries", [1, 2])
def test_a_strategy_of_others_never_sees_a_round_without_a_quorum(tries: int, monkeypatch: pytest.MonkeyPatch):
    from flwr.serverapp.strategy import FedAvg

    seen: list[tuple[int, int]] = []
    whole = FedAvg.aggregate_train

    def watched(self, server_round, replies):
        replies = list(replies)
        seen.append((server_round, len(replies)))
        return whole(self, server_round, replies)

    monkeypatch.setattr(FedAvg, "aggregate_train", watched)
    grid = InlineGrid({0: unreliable(1), 1: mover(1, norm=None)})
    terms = Terms(quorum=2, tries=tries)
    if tries == 1:
        with pytest.raises(Stopped):
            run_rounds(of(grid, terms, "flwr.serverapp.strategy.FedAvg"), X, 0, 3, Tries(), Stop())
        assert seen == [(1, 2)]
    else:
        run_rounds(of(grid, terms, "flwr.serverapp.strategy.FedAvg"), X, 0, 3, Tries(), Stop())
        assert seen == [(1, 2), (2, 2), (3, 2)]


class Forgetful(InlineGrid):
    """A grid on which one node does not answer messages of some rounds.

    Args:
        silent: node and the number of the push.
    """

    silent: tuple[int, int] = (101, 2)

    def pull_messages(self, message_ids):
        node, push = self.silent
        at = self.asked[push - 1].index(node) if len(self.asked) >= push else -1
        return super().pull_messages([one for one in message_ids if one != f"{push}-{at}"])


@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy.FedAvg"])
def test_who_does_not_answer_within_the_deadline_is_left_out_of_that_round_alone(strategy: str):
    notes, dropped = Tries(), []
    grid = Forgetful({0: mover(1, norm=None), 1: mover(1, norm=None), 2: mover(1, norm=None)})
    one = of(grid, Terms(deadline=0.05, quorum=2), strategy, drop=lambda ids: dropped.append(list(ids)))
    stop = Stop()
    overdue = threading.Timer(PATIENCE, stop.because, ["waited although the deadline was over"])
    overdue.start()
    final = run_rounds(one, X, 0, 3, notes, stop)
    overdue.cancel()
    assert final[0][0, 0] == 3
    late = [(row.round, row.client, row.status, row.reason) for row in notes.clients if row.status != "ok"]
    assert late == [(2, 1, "failed", "no answer within the deadline of 0.05 s")]
    assert [(row.clients_ok, row.clients_rejected) for row in notes.rounds[1:]] == [(3, 0), (2, 1), (3, 0)]
    assert dropped == [[], [f"2-{grid.asked[1].index(101)}"], []]


def test_a_new_try_waits_until_a_quorum_can_be_reached():
    notes, looks = Tries(), []

    def reachable(clients) -> int:
        looks.append(sorted(clients))
        return 2 if len(looks) < 4 else 3

    grid = InlineGrid({0: unreliable(1), 1: mover(1), 2: mover(1)})
    one = of(grid, Terms(quorum=3, tries=2, recovery=PATIENCE), reachable=reachable)
    run_rounds(one, X, 0, 2, notes, Stop())
    assert looks == [[0, 1, 2]] * 4


def test_a_new_try_waits_no_longer_than_it_may_and_not_after_a_stop():
    grid = InlineGrid({0: unreliable(9), 1: mover(1)})
    with pytest.raises(Stopped, match="1 valid updates from 2 clients"):
        run_rounds(of(grid, Terms(quorum=2, tries=2, recovery=0.01), reachable=lambda _: 0), X, 0, 2, Tries(), Stop())
    stop = Stop()

    def ctrl_c(_: Any) -> int:
        stop.set()
        return 0

    grid = InlineGrid({0: unreliable(9), 1: mover(1)})
    with pytest.raises(Stopped, match="interrupted"):
        run_rounds(of(grid, Terms(quorum=2, tries=2, recovery=PATIENCE), reachable=ctrl_c), X, 0, 2, Tries(), stop)
