"""What noised updates have cost this client: a ledger on its own disk, and the total (epsilon, delta)."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from task import cache
from task.errors import UserError, remedy
from task.jsontext import read_object

SENSITIVITY = 2.0  # in units of the clip: how far apart the clipped updates of two shards can be

_FORMAT = 1
_MOST = 2**53  # updates at one noise, beyond which floats do not count
# Every order > 1 gives a valid bound, and steps of 0.5 % come within 0.01 % of the best one.
_GAPS = np.geomspace(1e-3, 1e6, 4000)  # order - 1


class Spent(NamedTuple):
    """The privacy that a client's updates have cost so far.

    Attributes:
        updates: noised updates that left, over all runs and restarts.
        epsilon: with delta, the differential privacy of all of them together; 0 for none, inf beyond numbers.
        delta: the share that epsilon may miss.
    """

    updates: int
    epsilon: float
    delta: float


def rdp(order: float, noise: float, updates: int = 1) -> float:
    """Renyi differential privacy of Gaussian updates: updates * order * Delta^2 / (2 sigma^2).

    Mironov 2017 (arXiv:1702.07476), corollary 3 and proposition 1. Local privacy: the server sees every single update,
    and any two shards are neighbours, so clipped updates can point in opposite directions and Delta is 2 * clip, not
    clip. No subsampling is credited, as the server knows who took part.

    Args:
        order: alpha, > 1.
        noise: sigma in units of the clip, > 0.
        updates: how many, also when later models were chosen in the light of earlier updates.
    """
    distance = SENSITIVITY / noise
    return updates * order * distance * distance / 2  # a power would raise where this is inf


def epsilon(updates: Mapping[float, int], delta: float) -> float:
    """Epsilon of all updates together, at delta.

    The orders' minimum of the conversion of Canonne, Kamath and Steinke 2020 (arXiv:2004.00010, proposition 12), which
    is also that of `flwr.supercore.privacy_accounting`. Flower's accountant wraps a package that flwr does not install
    by itself, for mechanisms with subsampling; of this mechanism the closed form is exact, and the figures agree.

    Args:
        updates: how many at which noise (sigma in units of the clip).
        delta: 0 < delta < 1.

    Returns:
        An upper bound, >= 0; 0 without updates.
    """
    if not any(updates.values()):
        return 0.0
    at_one = math.fsum(rdp(1.0, noise, count) for noise, count in updates.items())  # linear in the order
    orders = 1 + _GAPS
    bounds = at_one * orders + np.log(_GAPS / orders) - (math.log(delta) + np.log(orders)) / _GAPS
    return max(0.0, float(bounds.min()))


class Ledger:
    """The count of noised updates that left a client, kept over restarts.

    Several processes may use one file. Its loss is the loss of the count, so it belongs where the client's identity is.

    Args:
        path: a small JSON file; made at the first update, in a folder that exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, noise: float, delta: float) -> Spent:
        """Count one more update, on disk for good, before it leaves: a crash in between can only over-count.

        Args:
            noise: sigma of this update in units of the clip.
            delta: for the total.

        Returns:
            The total, this update included.

        Raises:
            UserError: the ledger is damaged or cannot be written; the update must not leave then.
        """
        with self._locked():
            updates = self._read()
            updates[noise] = updates.get(noise, 0) + 1
            self._write(updates)
        return _total(updates, delta)

    def check(self) -> None:
        """Refuse, with a `UserError`, a ledger that is damaged or lies where nothing can be written."""
        with self._locked():
            self._read()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with cache.lock(self._path.with_name(f".{self._path.name}.lock")):
                yield
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot count what leaves this client ({error.strerror}), so nothing leaves; "
                + remedy(error, "make it writable, or name another file as dp-ledger")
            ) from error

    def spent(self, delta: float) -> Spent:
        """The total so far.

        Raises:
            UserError: the ledger is damaged or cannot be read.
        """
        return _total(self._read(), delta)

    def _read(self) -> dict[float, int]:
        try:
            content = read_object(self._path.read_bytes())
            if content["format"] != _FORMAT:
                raise ValueError("unknown format")
            updates = {float(entry["noise"]): entry["updates"] for entry in content["spent"]}
            whole = all(type(count) is int and 0 < count < _MOST for count in updates.values())
            if not whole or not all(math.isfinite(noise) and noise > 0 for noise in updates):
                raise ValueError("impossible numbers")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(
                f"{self._path}: cannot be read as a ledger of what has left this client ({type(error).__name__}); "
                "restore it from a backup: without it the total would be told too low"
            ) from error
        return updates

    def _write(self, updates: Mapping[float, int]) -> None:
        spent = [{"noise": noise, "updates": count} for noise, count in sorted(updates.items())]
        content = json.dumps({"format": _FORMAT, "spent": spent}, indent=2).encode() + b"\n"
        cache.write(self._path, lambda file: file.write(content), sync=True)


def _total(updates: Mapping[float, int], delta: float) -> Spent:
    return Spent(sum(updates.values()), epsilon(updates, delta), delta)
