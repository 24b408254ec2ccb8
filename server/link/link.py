"""The SuperLink as one object: who may come in, what is sent, what comes back."""

import logging
import socket
import ssl
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from flwr.cli.config_utils import get_fab_metadata
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, Status
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from server.federation import REVOKED, Federation
from server.link.accept import Server
from server.link.door import Door
from server.link.express import Express, is_from
from server.link.gate import Gate
from server.link.grid import LinkGrid
from server.link.lines import Lines
from server.link.protocol import Refused
from server.link.quiet import quiet_errors
from server.link.state import LinkState
from server.link.visitors import Limits, Visitors, raised_descriptors
from task.errors import UserError, describe, remedy
from task.greeting import SIGN_OF_LIFE_SECONDS

_LONGEST_CONTACT = 3 * SIGN_OF_LIFE_SECONDS  # of silence
_log = logging.getLogger("fedarena")


@dataclass(frozen=True)
class Tls:
    """Paths of the server's certificate chain and its key, PEM."""

    certificate: Path
    key: Path


class Link:
    """Flower's SuperLink on one port.

    Args:
        host: address to listen on.
        port: TCP port; 0 picks a free one.
        tls: certificate and key; None serves plain HTTP.
        open_to_all: nodes may register themselves with any key, as Flower has it without node authentication.
        patience: seconds without a sign of life after which a node that owes a reply is given up.
        refused: told of refused calls, see `Gate`; of requests that are no HTTP, with an empty path; and with status 0
            and the reason as path of failed TLS handshakes, of TLS where plain HTTP is spoken ("TLS"), and of
            connections that are closed or not taken.
    """

    def __init__(
        self, host: str, port: int, tls: Tls | None, *, open_to_all: bool, patience: float, refused: Refused
    ) -> None:
        self._host, self._port, self._tls, self._patience = host, port, tls, patience
        self._refused = refused
        self._bells: list[threading.Event] = []
        self._visitors = Visitors(Limits.of(raised_descriptors()), lambda address, what: refused(address, b"", 0, what))
        self._lines = Lines(self._visitors.__contains__)
        self.state = LinkState(lambda node: self._door.ring(node), self._ring, self._is_taken)
        app = _fleet_app(self.state, open_to_all=open_to_all)
        self._door = Door(Express(app, self.state), self.state.waits, partial(is_from, self.state), self._lines)
        self._gate = Gate(self._door, self._is_known, self._visitors.welcome, refused)
        self.run = self._begin_run()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            UserError: the address cannot be had, or the certificate cannot be used.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listening = socket.create_server((self._host, self._port), family=family, backlog=512)
        except OSError as error:
            raise UserError(
                f"cannot listen on {self._host}:{self._port} ({error.strerror}): "
                + remedy(error, "another server may run there; choose another address with --listen")
            ) from None
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._gate,
            ws="none",
            lifespan="off",
            proxy_headers=False,  # who calls is whom the connection comes from, not what a header says
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ssl_certfile=self._tls.certificate if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            listening.close()
            assert self._tls is not None
            raise UserError(f"{self._tls.certificate}: cannot be used for TLS: {describe(error)}") from None
        if config.ssl:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = Server(config, listening, self._visitors, self._refused)
        self._thread = threading.Thread(target=self._server.run, name="superlink", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port; known after `start` where 0 was asked for."""
        return self._port

    def stop(self) -> None:
        """Hang up. Again: no effect."""
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(timeout=5)

    def offer(self, fab: Fab) -> None:
        """The app that Flower's own SuperNodes fetch for this run."""
        self.run.fab_id, self.run.fab_version = get_fab_metadata(fab.content)
        self.run.fab_hash = self.state.store_fab(fab)

    def is_here(self, node: int) -> bool:
        """Whether a node has come, has not left, and shows signs of life; never of one that `_lost` gives up."""
        return not self.state.has_left(node) and self._silence(node) < min(_LONGEST_CONTACT, self._patience)

    def arrived(self) -> Mapping[int, str]:
        """The nodes that have come, each with a mark that changes when it starts anew."""
        return self.state.activations()

    def federation(self, label: str, nodes: Mapping[int, int]) -> Federation:
        """What one contestant sees of the clients, which are nodes by their numbers."""
        bell = threading.Event()
        self._bells.append(bell)

        def wait(seconds: float) -> None:
            bell.wait(seconds)
            bell.clear()

        def reachable(clients: Collection[int]) -> int:
            return sum(self.is_here(nodes[client]) for client in clients)

        grid = LinkGrid(self.state, self.run, label, self._lost, wait)
        return Federation(grid, nodes, wait, grid.drop, reachable)

    def _is_known(self, key: bytes) -> bool:
        return self.state.get_node_id_by_public_key(key) is not None

    def _is_taken(self, node: int) -> bool:
        key = self.state.nodes[node].public_key
        return self._lines.is_taken(key, polling=self._door.is_polling(node))

    def _silence(self, node: int) -> float:
        """Return for how many seconds a node has shown no sign of life: the one clock by which it is judged."""
        return 0.0 if self._door.is_polling(node) else self.state.seconds_since(node)

    def _lost(self, node: int) -> str | None:
        """Return why a node that owes a reply is given up; None while it is waited for."""
        if self.state.was_expelled(node):
            return REVOKED
        if self.state.has_left(node):
            return "the client has left"
        silent = self._silence(node)
        if silent < self._patience:
            return None
        if silent == float("inf"):
            return "the client has not come back since the server started"
        return f"no contact with the client for {silent:.0f} s"

    def _begin_run(self) -> Run:
        run_id = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        run = self.state.run_ids[run_id].run
        assert run.primary_task_id is not None
        task = self.state.task_store[run.primary_task_id]
        task.status.status = Status.RUNNING
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, run_id, SUPERLINK_NODE_ID
        return run

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()


def _fleet_app(state: LinkState, *, open_to_all: bool) -> FastAPI:
    """Flower's application with its Fleet API and nothing else."""
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    factory.state_instance = state
    app = FastAPI(
        openapi_url=None,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=quiet_errors),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
        ],
    )
    app.state.linkstate_factory = factory
    app.state.enable_supernode_auth = not open_to_all
    app.include_router(fleet_router)
    return app
