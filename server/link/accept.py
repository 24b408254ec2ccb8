"""uvicorn's server with an acceptance of its own, which knows and bounds the connections before they speak."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvicorn

from server.link.protocol import BoundedProtocol, Refused
from server.link.visitors import Address, Visitor, Visitors

Result = TypeVar("Result")

_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.1  # seconds after a connection could not be taken
_SWEEP = 1.0  # seconds between two looks for those that take too long
_GOODBYE = 5.0  # seconds that the other end has for its part of a TLS goodbye


class Server(uvicorn.Server):
    """Serves on a socket that listens already.

    Args:
        config: uvicorn's, loaded.
        listening: the socket.
        visitors: the connections.
        refused: see `server.link.Link`.
    """

    def __init__(self, config: uvicorn.Config, listening: socket.socket, visitors: Visitors, refused: Refused) -> None:
        super().__init__(config)
        self._listening, self._visitors, self._refused = listening, visitors, refused
        self._work: set[asyncio.Task[Any]] = set()
        self._tls: dict[str, Any] = {"ssl": config.ssl, "ssl_shutdown_timeout": _GOODBYE} if config.ssl else {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """See uvicorn."""
        await super().startup(sockets=[])
        self._listening.setblocking(False)
        self._begin(self._accept())
        self._begin(self._sweep())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """See uvicorn."""
        self._visitors.turn_out()
        for task in list(self._work):
            task.cancel()
        self._listening.close()
        await super().shutdown(sockets=[])

    def _begin(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._refused("", b"", 0, "no descriptor")
                if error.errno != errno.ECONNABORTED:
                    await asyncio.sleep(_PAUSE)
                continue
            self._take(connection, (str(address[0]), int(address[1])))

    def _take(self, connection: socket.socket, address: Address) -> None:
        visitor = self._visitors.enter(address, lambda: task.cancel())
        if visitor is None:
            connection.close()
            return
        task = self._begin(self._open(connection, visitor))

        def opened(task: "asyncio.Task[bool]") -> None:  # also where it was cancelled before it began
            if task.cancelled() or not task.result():
                self._visitors.leave(visitor)
                connection.close()

        task.add_done_callback(opened)

    async def _open(self, connection: socket.socket, visitor: Visitor) -> bool:
        """Shake hands; from then on the protocol has the connection. Whether it does."""

        def protocol() -> BoundedProtocol:
            return BoundedProtocol(
                visitor,
                self._visitors.leave,
                self._refused,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection, **self._tls)
        except ssl.SSLError as error:
            reason = str(error.reason)
            self._refused(visitor.address[0], b"", 0, "plain HTTP" if reason == "HTTP_REQUEST" else reason)
            return False
        except OSError:  # it hung up, or its time was over
            return False
        return True

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self._visitors.sweep()
