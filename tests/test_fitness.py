"""What a client finds wrong before round 1 and what fails in one: its owner is told all, the server the class."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import until
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from rich.console import Console

from client.fleet import Refused
from client.join import Member, node_config
from client.resident import Resident
from client.status import Status
from client.stock import run_supernode
from task import wire
from task.errors import UserError
from task.greeting import Greeting, Presence
from task.logfile import log_to

SECRET = "patient 4711"
NETS = f'''
import keras

class Broken(keras.layers.Layer):
    def call(self, x):
        raise RuntimeError("{SECRET} has \\x1b[31m no layer")

class Rare(keras.layers.Layer):
    """Fails at a model that has been trained, as a machine short of memory would."""
    def build(self, shape):
        self.bias = self.add_weight(shape=(1,), initializer="zeros")
    def call(self, x):
        import tensorflow as tf
        with tf.control_dependencies([tf.debugging.assert_less(self.bias, 5.0, message="{SECRET} is too large")]):
            return x + self.bias

def net(*layers):
    def build(input_shape, num_classes):
        flat = [keras.Input(input_shape), keras.layers.Flatten()]
        return keras.Sequential([*flat, *(layer() for layer in layers), keras.layers.Dense(num_classes)])
    return build

good, broken, rare = net(), net(Broken), net(Rare)

def raises(input_shape, num_classes):
    raise RuntimeError("{SECRET} has no model")

def leaves(input_shape, num_classes):
    raise SystemExit("{SECRET} is gone")
'''
CONFIG = {"batch_size": 8, "num-classes": 3, "seed": 0, "server-round": 1}


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of models."""
    name = f"nets_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def shard_of(folder: Path, **arrays: Any) -> Path:
    """A shard without a header, as others make it."""
    good = {"x": np.random.default_rng(3).random((24, 8, 8)).astype(np.float32), "y": np.arange(24) % 3}
    np.savez(folder / "shard-1.npz", **(good | arrays))
    return folder / "shard-1.npz"


class Talk:
    """A server's side of a connection: hands out messages, keeps the replies, and refuses who says that it is unfit."""

    node_id = 100

    def __init__(self, *messages: Message) -> None:
        self.messages, self.replies = list(messages), dict[str, Message]()
        self.closed = threading.Event()

    def activate(self) -> None: ...
    def heartbeat(self) -> None: ...
    def close(self) -> None:
        self.closed.set()

    def pull(self) -> Message | None:
        if not self.messages:
            return None
        message = self.messages.pop(0)
        message.metadata.__dict__["_message_id"] = f"{id(message)}"
        return message

    def push(self, reply: Message, seconds: float) -> None:
        self.replies[reply.metadata.reply_to_message_id] = reply
        if reply.has_content() and "greeting" in reply.content and Presence.read(reply).trouble:
            self.messages.insert(0, Greeting("refused", "as the server says it").message(100))


class Scene:
    """A resident client, its terminal and its log."""

    def __init__(self, folder: Path, shard: Path, *messages: Message, **node: Any) -> None:
        self.screen, self.log = io.StringIO(), folder / "client-1.jsonl"
        log_to(self.log)
        self.talk = Talk(*messages)
        config = {"partition-id": 1, "shard": str(shard), "models": "", "errors": "kind", **node}
        status = Status(Console(file=self.screen), "here:9092", self.log)
        self.resident = Resident(self.talk, config, status, once=True)  # type: ignore[arg-type]

    def told(self) -> str:
        """The only error in its log that has a traceback, with it."""
        [event] = [line for line in map(json.loads, self.log.read_text().splitlines()) if "trace" in line]
        return str(event["event"] + event["trace"])

    def left(self) -> bytes:
        """All bytes of all replies."""
        return b"".join(everything(reply) for reply in self.talk.replies.values())


def everything(thing: Any) -> bytes:
    return b"".join([thing.deflate(), *map(everything, (thing.children or {}).values())])


def greetings(**config: Any) -> list[Message]:
    asked = CONFIG | config
    return [Greeting("hello", config=asked).message(100), Greeting("prepare", config=asked).message(100)]


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    """Messages need a task that sends them; the project's logger is left without this module's file."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as `inline_grid` has it for all tests
    yield
    log = logging.getLogger("fedarena")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    log.propagate = True


@pytest.mark.parametrize(
    ("arrays", "model", "word", "error", "says"),
    [
        (
            {"y": np.array(["cat"] * 24)},
            "mlp",
            "shard",
            "UserError",
            "labels must be integers of shape (n,), they are <U3",
        ),
        ({"x": np.zeros((0, 8, 8), np.uint8), "y": np.zeros(0, int)}, "mlp", "shard", "UserError", "holds no examples"),
        ({"x": np.zeros((24, 8, 8), np.int64)}, "mlp", "shard", "UserError", "images of unknown range; store uint8"),
        ({"y": np.arange(24) % 5}, "mlp", "labels", "UserError", "has the label 4, and this run has 3 classes, 0 to 2"),
        ({}, "{nets}:good", "model-not-allowed", "UserError", "was not started with: --model {nets}:good"),
        ({}, "nowhere_{nets}:good", "model", "UserError", "No module named"),
        ({}, "{nets}:nothing", "model", "UserError", "has no attribute 'nothing'"),
        ({}, "{nets}:raises", "model", "UserError", f"RuntimeError: {SECRET} has no model"),
        ({}, "{nets}:leaves", "model", "UserError", f"SystemExit: {SECRET} is gone"),
        ({}, "{nets}:broken", "model", "UserError", f"Error encountered: {SECRET} has no layer"),
        ({"x": np.zeros((24, 2, 2), np.uint8)}, "cnn", "model", "UserError", "cnn needs images of at least 4 x 4"),
    ],
)
def test_who_cannot_take_part_says_why_to_its_owner_and_a_word_to_the_server(
    tmp_path, nets, arrays, model, word, error, says
):
    model, says = model.format(nets=nets), says.format(nets=nets)
    allowed = "" if word == "model-not-allowed" else model
    scene = Scene(tmp_path, shard_of(tmp_path, **arrays), *greetings(model=model), models=allowed)
    with pytest.raises(Refused) as refused:
        scene.resident.run(lambda: None)
    line = str(refused.value)
    assert line.startswith("this client cannot take part: ") and says in line and str(scene.log) in line
    assert line.isprintable()
    assert "ready" not in scene.screen.getvalue()
    assert says in scene.told() and "Traceback" in scene.told()
    told = next(Presence.read(r) for r in scene.talk.replies.values() if Presence.read(r).trouble)
    assert (told.client, told.trouble, told.error) == (1, word, error)
    assert b"4711" not in scene.left() and b"cat" not in scene.left()


def test_a_round_that_fails_is_shown_in_full_at_the_client_and_by_its_class_at_the_server(tmp_path, nets):
    from client.engine import engine_for
    from client.trainer import training_of

    config = CONFIG | {"model": f"{nets}:rare"}
    start = engine_for(f"{nets}:rare", (8, 8, 1), 3, training_of(config)).initial
    start = [np.full_like(array, 9) if array.shape == (1,) else array for array in start]
    records = RecordDict({"arrays": wire.record(start), "config": ConfigRecord(config)})
    train = Message(records, dst_node_id=100, message_type="train", group_id="fedavg 1")
    over = Greeting("over", "the run is over").message(100)
    scene = Scene(tmp_path, shard_of(tmp_path), *greetings(model=f"{nets}:rare"), train, models=f"{nets}:rare")
    thread = threading.Thread(target=lambda: scene.resident.run(lambda: None))
    thread.start()
    reply = until(lambda: scene.talk.replies.get(f"{id(train)}"), "the reply")
    scene.talk.messages.append(over)
    thread.join(30)
    assert not thread.is_alive()
    assert reply.error.reason == "InvalidArgumentError: see the log at the client"
    assert b"4711" not in scene.left()
    lines = scene.screen.getvalue().splitlines()
    assert [line[10:] for line in lines[:3]] == ["connected to here:9092", "preparing the model", "ready"]
    assert "fedavg round 1 failed: InvalidArgumentError: " in lines[3]
    assert f"{SECRET} is too large" in lines[3] and lines[3].endswith(f"; more in {scene.log}")
    assert lines[4].endswith("the run is over; 0 rounds trained")
    assert SECRET in scene.told() and "Traceback" in scene.told()


def test_a_bad_shard_is_told_at_once_where_no_server_is(tmp_path, monkeypatch):
    """It is not looked for longer than it takes to say so."""
    from client import resident
    from client.fitness import summary
    from client.fleet import Unreachable

    monkeypatch.setattr(resident, "_REACH_SECONDS", 0.01)
    scene = Scene(tmp_path, shard := shard_of(tmp_path, y=np.array(["cat"] * 24)))

    def nobody() -> None:
        raise Unreachable("here:9092 cannot be reached")

    monkeypatch.setattr(scene.talk, "activate", nobody)
    with pytest.raises(UserError, match="labels must be integers"):
        scene.resident.run(lambda: summary(shard))
    assert scene.talk.closed.is_set()


def test_a_server_of_another_protocol_is_told_apart(tmp_path):
    hello = Greeting("hello", config=CONFIG).message(100)
    del hello.content["greeting"]["protocol"]
    scene = Scene(tmp_path, shard_of(tmp_path), hello)
    with pytest.raises(Refused, match="the server's FedArena speaks protocol 1, this client's 2: install the same"):
        scene.resident.run(lambda: None)


def test_a_ledger_that_cannot_count_is_found_before_the_server_is_looked_for(tmp_path):
    shard = shard_of(tmp_path)
    shard.with_suffix(".dp.json").write_text("[]")
    member = Member(shard, None, None, True, "all", "clip=1,noise=1", (), True, tmp_path, "resident", False)
    with pytest.raises(UserError, match="restore it from a backup"):
        node_config(member, 1, None)


@pytest.mark.parametrize("refused", [True, False])
def test_flowers_own_supernode_ends_with_what_its_app_could_not_do(tmp_path, monkeypatch, refused):
    from client import owner, stock

    context = Context(1, 100, {"errors": "kind", "notices": str(tmp_path / "notices")}, RecordDict(), {})

    class Node:
        def __init__(self, command: list[str], **options: Any) -> None:
            train = Message(RecordDict(), dst_node_id=100, message_type="train", group_id="fedavg 1")
            owner.tell(train, context, ValueError("not now"))
            owner.tell(Greeting("prepare").message(100), context, MemoryError("too large"), "building the model failed")
            if refused:
                owner.notice(context, "refused", "as the server says it")

        def poll(self) -> None: ...

    monkeypatch.setattr(stock.subprocess, "Popen", Node)
    monkeypatch.setattr(stock, "_end", lambda node: None)
    monkeypatch.setattr(stock, "_REFUSAL_SECONDS", 0.1)
    screen = io.StringIO()
    with pytest.raises(UserError) as ended:
        run_supernode("here:1", None, {}, tmp_path, Console(file=screen), tmp_path / "client.out", once=True)
    more = f"; more in {tmp_path / 'client.out'}"
    assert str(ended.value) == f"this client cannot take part: building the model failed: MemoryError: too large{more}"
    assert f"fedavg round 1 failed: ValueError: not now{more}" in screen.getvalue()
