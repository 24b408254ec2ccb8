"""The plain mean of models whose hidden units were brought into one order first (arXiv:2209.04836, "merge many")."""

import hashlib
from collections.abc import Iterable, Sequence

from strategies.base import Shell
from strategies.fedavg import fedavg
from strategies.matching import match
from task.structure import Structure
from task.update import Arrays, Update


def matched(
    x: Arrays,
    updates: Iterable[Update],
    *,
    structure: Structure | None = None,
    restarts: int | None = None,
    seed: int = 0,
) -> Arrays:
    """(1/m) sum_i P_i x_i, with the orders P_i of the hidden units that bring the models closest to their mean.

    Models that were trained from different starts have the same units in different orders, and their plain mean is
    worth little. The order of the result's units is that of one of the models: of the client with the lowest number,
    if all numbers are known and different, else of that with the smallest digest; so the result does not depend on the
    order of the updates.

    Args:
        x: the global arrays, for shapes and dtypes.
        updates: at least one; all are held at once.
        structure: the hidden units of the model, `task.units.structure_of(model)`; None: it has none that are known,
            and the result is that of `fedavg`. In a comparison the server gives it.
        restarts: how many orders the search begins from, see `strategies.matching.match`.
        seed: of these orders.

    Returns:
        New arrays in the shapes and dtypes of x, each value rounded once from the exact mean. Models that have no
        better order, as from one start and not far apart: the same bits as `fedavg`.

    Raises:
        ValueError: for a structure that does not fit the arrays.
    """
    if structure is None:
        return fedavg(x, updates)
    given = _sorted(list(updates))
    models = match([update.arrays for update in given], structure, restarts=restarts, seed=seed).models
    return fedavg(x, [Update(model, update.num_examples) for model, update in zip(models, given, strict=True)])


class Matched(Shell):
    """Flower strategy around `matched`."""

    rule = staticmethod(matched)
    weights_by = "clients"


def _sorted(updates: Sequence[Update]) -> list[Update]:
    """In an order that does not depend on the one in which they came."""
    numbers = [update.client for update in updates if update.client is not None]
    if len(set(numbers)) == len(updates):
        return sorted(updates, key=lambda update: update.client or 0)
    return sorted(updates, key=_digest)


def _digest(update: Update) -> bytes:
    total = hashlib.sha256()
    for array in update.arrays:
        total.update(array.tobytes())
    return total.digest()
