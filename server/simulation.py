"""The one adapter to Flower's simulation runtime (flwr 1.41): virtual nodes, message store, worker threads.

`flwr.simulation.run_simulation` is deprecated, polls every 0.1 s and is bound to its own Ray backend, so the pieces
below it are called here: the in-memory link state and grid, and the threads that carry messages to our `WorkerPool` and
back. Flower's own start of these threads looks through all nodes ten times a second, and never has more than 32.
Everything in this file rests on internals of flwr; nothing else does.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Queue
from typing import Any

from flwr.app import Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import HEARTBEAT_INTERVAL_INF, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.compat.client.run_info_store import DeprecatedRunInfoStore
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.fleet.vce.vce_api import put_message_into_state, worker
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from server.federation import Federation
from server.workers import WorkerPool
from task.shardfile import shard_name

_RUN_ID = _TASK_ID = 1


class PromptState(InMemoryLinkState):
    """Flower's in-memory message store, which hands messages on as they come and tells of replies.

    Flower's own looks through all messages for each node, which with hundreds of nodes costs seconds a look.

    Args:
        messages: takes what is stored for nodes, in this order.
    """

    def __init__(self, messages: "Queue[Message]") -> None:
        super().__init__(NoOpFederationManager(), ObjectStoreFactory().store())
        self._messages = messages
        self._bells: dict[int, threading.Event] = {}

    def store_message_ins(self, message: Message) -> str | None:
        """Store a message to a node, and hand it on."""
        stored: str | None = super().store_message_ins(message)
        if stored:
            message.metadata.delivered_at = "simulation"
            self._messages.put(message)
        return stored

    def store_message_res(self, message: Message) -> str | None:
        """Store a reply and wake whoever waits for one from this node."""
        stored: str | None = super().store_message_res(message)
        self._bells[message.metadata.src_node_id].set()
        return stored

    def bell_for(self, nodes: Iterable[int]) -> Callable[[float], None]:
        """A `wait(seconds)` that ends when one of these nodes has replied since the last one."""
        bell = threading.Event()
        self._bells.update(dict.fromkeys(nodes, bell))

        def wait(seconds: float) -> None:
            bell.wait(seconds)
            bell.clear()

        return wait


class Simulation:
    """Virtual nodes of several federations over one pool of workers.

    Every federation has nodes of its own, so that what a client keeps between rounds stays its strategy's.

    Args:
        pool: a started worker pool.
        client_app: what the nodes run.
        federations: of each the folder of shards and the number of clients.
    """

    def __init__(self, pool: WorkerPool, client_app: ClientApp, federations: list[tuple[Path, int]]) -> None:
        self._pool, self._app = pool, client_app
        self._end = threading.Event()
        self._messages: Queue[Message] = Queue()
        self._state = PromptState(self._messages)
        self._factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self._factory.state_instance = self._state
        self._run = self._register_run()
        self._stores: dict[int, Any] = {}
        self._grid = InMemoryGrid(state_factory=self._factory)
        self._grid.set_run(self._run)
        self.federations = [self._register_nodes(*federation) for federation in federations]
        self._threads: list[threading.Thread] = []

    def _register_run(self) -> Run:
        run = Run.create_empty(run_id=_RUN_ID)
        run.primary_task_id = _TASK_ID
        run.federation_id = NOOP_FEDERATION_ID
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _TASK_ID, _RUN_ID, SUPERLINK_NODE_ID
        self._state.run_ids[_RUN_ID] = RunRecord(run=run)
        self._state.task_store[_TASK_ID] = Task(task_id=_TASK_ID, run_id=_RUN_ID)
        return run

    def _register_nodes(self, folder: Path, clients: int) -> Federation:
        nodes = {}
        for client in range(clients):
            key = len(self._stores).to_bytes(32, "big")
            node = self._state.create_node(
                NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, heartbeat_interval=HEARTBEAT_INTERVAL_INF
            )
            self._state.acknowledge_node_heartbeat(node_id=node, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
            shard = str(folder / shard_name(client))
            config: UserConfig = {"partition-id": client, "num-partitions": clients, "shard": shard}
            store = DeprecatedRunInfoStore(node_id=node, node_config=config)
            store.register_context(run_id=_RUN_ID, run=self._run)
            self._stores[node], nodes[client] = store, node
        return Federation(self._grid, nodes, self._state.bell_for(nodes.values()), self._drop)

    def _drop(self, message_ids: Iterable[str]) -> None:
        """Keep nothing of messages whose replies nobody waits for: their contestant has failed."""
        self._state.delete_messages(set(message_ids))

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Let messages flow; `failed` hears of an end of the runtime that nobody asked for."""

        def run(function: Callable[..., None], *arguments: object) -> None:
            def work() -> None:
                try:
                    function(*arguments, self._end)
                except BaseException as error:  # noqa: BLE001 - a thread has nobody above it to tell
                    failed(error)

            self._threads.append(threading.Thread(target=work, name="flower-simulation", daemon=True))
            self._threads[-1].start()

        replies: Queue[Message] = Queue()
        metrics = VceMetrics()

        def serve(end: threading.Event) -> None:
            worker(self._messages, replies, self._stores, self._pool, end, metrics)

        for _ in range(self._pool.num_workers):
            run(serve)
        run(put_message_into_state, self._state, replies)

    def stop(self) -> None:
        """End the runtime and the workers, at once."""
        self._end.set()
        self._pool.terminate()
        for thread in self._threads:
            thread.join()
