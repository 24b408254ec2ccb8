"""A run inside somebody's own process, such as a notebook's: it uses what is not its own, and puts it back."""

import gc
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from task.command import private
from task.errors import UserError

_SWITCH_SECONDS = 0.0005  # Ray's start and every contestant's thread wait for their turn beside imports
_TALKERS = ("flwr", "ray")  # loggers whose handlers keep the stream that they found when they were made
_ROOT = str(Path(__file__).resolve().parent.parent)


@contextmanager
def hasty() -> Iterator[None]:
    """Quick thread switches, and no collection of garbage that imports do not make, until `Play` switches it on."""
    interval, collecting, frozen = sys.getswitchinterval(), gc.isenabled(), gc.get_freeze_count()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        (gc.enable if collecting else gc.disable)()
        if not frozen:  # what the run froze was partly the host's
            gc.unfreeze()


@contextmanager
def guest() -> Iterator[None]:
    """The host's process for one run: streams, environment, umask, random states, collector and switches come back.

    What Python code prints meanwhile goes to descriptors 1 and 2, as what libraries print does, also where the host's
    `sys.stdout` is none of them: a notebook's cell shows the run and not its libraries.

    Raises:
        UserError: a run cannot be a guest here.
    """
    _check_room()
    with ExitStack() as stack:
        stack.enter_context(hasty())
        stack.enter_context(private())
        stack.callback(_restore_path, os.environ.get("PYTHONPATH"))
        stack.callback(random.setstate, random.getstate())  # Keras seeds both, for models that the run builds
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the host's, not one to draw from
        stack.enter_context(_no_bars())
        stack.enter_context(_own_streams())
        # Workers import the project by name; Ray's start adds what else is on `sys.path`.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        yield


def _check_room() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise UserError("a run handles Ctrl-C: call it from the main thread, or in a process of its own")
    ray: Any = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise UserError("Ray runs in this process already: call ray.shutdown() before, or use a process of its own")


@contextmanager
def _own_streams() -> Iterator[None]:
    host = sys.stdout, sys.stderr
    _flush(*host)
    kept = os.dup(1), os.dup(2)
    _divert(host)
    sys.stdout, sys.stderr = _streams()
    try:
        yield
    finally:
        left = sys.stdout, sys.stderr  # of `task.chatter`, if it came to that: the host's descriptors once more
        _flush(*left, *_streams())
        sys.stdout, sys.stderr = host
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for stream in left:
            if stream not in _streams():
                stream.close()


@contextmanager
def _no_bars() -> Iterator[None]:
    """A library that is imported for partitions would draw bars in notebooks, and warns that it cannot."""
    warnings.filterwarnings("ignore", message="IProgress not found")
    ours = warnings.filters[0]
    try:
        yield
    finally:
        with suppress(ValueError):  # pytest, for one, puts in filters of its own
            warnings.filters.remove(ours)  # type: ignore[attr-defined]


_made: list[TextIO] = []


def _streams() -> tuple[TextIO, TextIO]:
    """Descriptors 1 and 2 for Python, never closed: loggers made during a run keep them, and lead to the host later."""
    if not _made:
        _made.extend(open(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    return _made[0], _made[1]


def _divert(host: tuple[TextIO, TextIO]) -> None:
    """Let loggers of libraries that hold the host's streams write to the descriptors below them instead."""
    for name in _TALKERS:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in host:
                handler.setStream(_streams()[1])


def _restore_path(before: str | None) -> None:
    if before is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = before


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        if not stream.closed:
            stream.flush()
