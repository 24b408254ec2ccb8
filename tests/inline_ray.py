"""Ray without processes: what `server.workers` calls of it, so that its pool runs messages in this process.

Everything else of a simulation is real. An actor's call is made when its result is asked for, by whoever asks, one at a
time for each actor; no worker ever dies.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

import server.oneshot.simulate
import server.play
import server.workers
from server.machine import Machine

WORKERS = 1


class Ref:
    """What a call will return."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._lock, self._made = call, threading.Lock(), False
        self._value: Any = None

    def get(self) -> Any:
        with self._lock:
            if not self._made:
                self._value, self._made = self._call(), True
            return self._value


class Actor:
    """An object each of whose methods is called with `.remote`."""

    def __init__(self, actual: Any) -> None:
        self._actual, self._lock = actual, threading.Lock()

    def __getattr__(self, name: str) -> SimpleNamespace:
        method = getattr(self._actual, name)

        def call(*arguments: Any) -> Any:
            with self._lock:
                return method(*(one.get() if isinstance(one, Ref) else one for one in arguments))

        return SimpleNamespace(remote=lambda *arguments: Ref(lambda: call(*arguments)))


class RayError(Exception):
    """Never raised here."""


def remote(**_: Any) -> Callable[[type], SimpleNamespace]:
    return lambda kind: SimpleNamespace(remote=lambda *arguments, **options: Actor(kind(*arguments, **options)))


def get(refs: Any) -> Any:
    return [ref.get() for ref in refs] if isinstance(refs, list) else refs.get()


def wait(refs: list[Ref], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Ref], list[Ref]]:
    for ref in refs:
        with suppress(Exception):  # told to whoever asks for the result
            ref.get()
    return refs, []


@contextmanager
def ray_for(machine: Machine, model: str, note: Any) -> Iterator[SimpleNamespace]:
    """In the place of `server.cluster.ray_for`."""
    yield SimpleNamespace(workers=lambda: WORKERS, check=lambda folder: None, is_no_longer_needed=lambda: None)


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let simulations of this process run without Ray, as long as the patch lasts."""
    fake = SimpleNamespace(
        cluster_resources=lambda: {"CPU": float(WORKERS)},
        put=lambda value: Ref(lambda: value),
        get=get,
        wait=wait,
        remote=remote,
        kill=lambda actor: None,
        exceptions=SimpleNamespace(RayError=RayError),
    )
    monkeypatch.setattr(server.workers, "ray", fake)
    for module in (server.play, server.oneshot.simulate):
        monkeypatch.setattr(module, "ray_for", ray_for)
