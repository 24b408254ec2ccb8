"""What rounds leave behind in the message stores: nothing. Counted, not weighed; benchmarks/soak.py weighs."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from federation import until
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from inline_grid import InlineGrid
from test_link import POLL, Line, identity, line, pulled  # noqa: F401 - fixtures
from test_rounds import Notes, X, contestant

from client.fleet import Forgotten, Unreachable
from server.admission import Refusals
from server.rounds import Contestant, Stopped, run_rounds
from server.simulation import Simulation
from server.stop import Stop
from task import wire

CLIENTS = 3


def sizes(*things: object) -> list[dict[str, int]]:
    """How many entries each collection of these objects holds, by its name."""
    return [{k: len(v) for k, v in vars(thing).items() if isinstance(v, dict | list | set)} for thing in things]


class Inline:
    """A worker pool whose clients are trained where they are called; client 1 fails in every other round."""

    num_workers = 2

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        arrays, config = wire.read(message)
        client = context.node_config["partition-id"]
        if client == 1 and config["server-round"] % 2:
            raise OSError("not now")
        facts = {"client": client, "local-steps": 3, "local-norm": 3.0}
        return wire.reply(message, [array + np.float32(1) for array in arrays], 10, facts), context

    def terminate(self) -> None: ...


@pytest.fixture(scope="module")  # its threads take a second to end
def simulation() -> Iterator[Simulation]:
    one = Simulation(Inline(), ClientApp(), [(Path("shards"), CLIENTS)] * 2)
    trouble: list[BaseException] = []
    one.start(trouble.append)
    yield one
    one.stop()
    assert trouble == []


def plays(simulation: Simulation, number: int, strategy: str) -> Contestant:
    return replace(contestant(InlineGrid({}), strategy), federation=simulation.federations[number])


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "flwr.serverapp.strategy.FedAvg"])
def test_rounds_of_a_simulation_leave_nothing_behind(simulation: Simulation, strategy: str):
    before = sizes(simulation._state, simulation._state.object_store, simulation)
    notes = Notes()
    run_rounds(plays(simulation, 0, strategy), X, 1, 20, notes, Stop())
    assert [row.clients_ok for row in notes.rounds] == [2, 3] * 10
    assert sizes(simulation._state, simulation._state.object_store, simulation) == before


def test_a_strategy_that_fails_in_a_simulation_leaves_nothing_behind(simulation: Simulation):
    before = sizes(simulation._state)
    one, other = plays(simulation, 0, "fedavg"), plays(simulation, 1, "fedavg")

    def fail(server_round: int, replies: Iterator[Message]) -> None:
        next(replies)
        raise ArithmeticError("gone wrong")

    one.strategy.aggregate_train = fail
    with suppress(Stopped):
        run_rounds(one, X, 1, 3, Notes(), Stop())
    run_rounds(other, X, 1, 3, Notes(), Stop())  # behind what was left of the other
    until(lambda: sizes(simulation._state) == before, "messages of a contestant that has failed are still here")


def test_messages_of_real_clients_leave_nothing_behind(line: Line, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    def send_in_part(reply: Message) -> None:
        def torn(request: Any) -> Any:
            raise httpx.ReadTimeout("no answer")

        with monkeypatch.context() as broken, pytest.raises(Unreachable):
            broken.setattr(line.fleet._client, "PushObject", torn)
            line.fleet.push(reply, 0.1)

    def round_trip(trouble: int) -> None:
        message_id = line.send(X[0], n=trouble)
        reply = line.answer(pulled(line.fleet))
        if trouble == 1:  # the connection breaks, and the client sends the rest
            send_in_part(reply)
        if trouble == 2:  # it breaks, the client is killed, starts anew, and trains once more
            send_in_part(reply)
            line.fleet.activate()
            reply = line.answer(pulled(line.fleet), step=2.0)
        if trouble == 3:  # it breaks, and nobody waits for the rest
            send_in_part(reply)
            line.grid.drop([message_id])
        if trouble == 4:  # nobody waits for an answer that comes after all
            line.grid.drop([message_id])
        with suppress(Forgotten):
            line.fleet.push(reply, 0.1)
        assert (trouble > 2) or line.reply_to(message_id) is not None
        line.grid.drop([message_id])

    state = line.link.state
    round_trip(0)
    before = sizes(state, state.object_store, line.grid, line.link)
    for trouble in [0, 1, 2, 3, 4] * 2:
        round_trip(trouble)
    assert sizes(state, state.object_store, line.grid, line.link) == before


def test_refusals_are_remembered_as_long_as_they_are_not_told_again():
    told: list[str] = []
    now = 0.0
    refusals = Refusals(told.append, None, lambda: now)
    for second in (0, 1, 59, 60, 61, 1000):
        now = float(second)
        refusals("192.0.2.7", b"", 404, "/same")
        refusals("192.0.2.7", b"", 404, f"/{second}")
    assert sum("/same" in text for text in told) == 3  # at 0, 60 and 1000
    assert sizes(refusals) == [{"_told": 1, "_more": 1}]  # of the minute that runs


def test_polls_of_strangers_leave_nothing_behind(line: Line):  # noqa: F811
    state = line.link.state
    before = sizes(state, line.link._door, line.link._lines)
    for node in range(1, 6):
        poll = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
        headers = {"content-type": "application/x-protobuf"}
        answer = httpx.post(f"http://127.0.0.1:{line.link.port}{POLL}", content=poll, headers=headers)
        assert answer.status_code >= 400
    assert sizes(state, line.link._door, line.link._lines) == before
