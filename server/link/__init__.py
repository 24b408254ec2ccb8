"""Flower's SuperLink inside the server's process: the one adapter to its internals (flwr 1.41) for real clients.

`flower-superlink` serves three APIs on one port. Two of them, Control and Runtime, let whoever reaches that port start
runs, register keys and take over a run, so here the open port serves the Fleet API alone, with Flower's own routes,
authentication and message store, and the ServerApp's side talks to that store directly, without polling.
"""

from server.link.link import Link, Tls

__all__ = ["Link", "Tls"]
