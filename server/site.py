"""Where clients come to: our own SuperLink (`server.link`), or whatever is behind a Flower grid."""

import time
from collections.abc import Collection, Mapping
from typing import Protocol

from flwr.serverapp import Grid

from server.federation import Federation


class Site(Protocol):
    """Knows which nodes there are, by Flower's node ids; which client each of them is, they say themselves."""

    def arrived(self) -> Mapping[int, str]:
        """The nodes that have come, each with a mark that changes when it starts anew."""

    def is_here(self, node: int) -> bool:
        """Whether it can be reached right now."""

    def federation(self, label: str, nodes: Mapping[int, int]) -> Federation:
        """What one contestant sees of the clients.

        Args:
            label: tells its messages from other contestants'.
            nodes: node id of each client, by the client's number; may change while the federation is used.
        """


class GridSite:
    """The nodes of anyone's SuperLink, as a ServerApp's grid shows them."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def arrived(self) -> Mapping[int, str]:
        """The nodes that are online; a node that starts anew cannot be told from one that stayed."""
        return dict.fromkeys(self._grid.get_node_ids(), "")

    def is_here(self, node: int) -> bool:
        """Whether the SuperLink thinks that it is online."""
        return node in self.arrived()

    def federation(self, label: str, nodes: Mapping[int, int]) -> Federation:  # noqa: ARG002
        """The same grid for every contestant."""

        def reachable(clients: Collection[int]) -> int:
            arrived = self.arrived()
            return sum(nodes[client] in arrived for client in clients)

        return Federation(self._grid, nodes, time.sleep, reachable=reachable)
