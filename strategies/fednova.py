"""FedNova: normalised averaging (Wang et al. 2020, arXiv:2007.07481, equation 6)."""

from collections.abc import Iterable, Sequence
from math import fsum

from strategies.base import Shell
from strategies.kernels import Sum
from task.update import Arrays, Update


def fednova(x: Arrays, updates: Iterable[Update], *, trainable: Sequence[bool] | None = None) -> Arrays:
    """X - tau_eff * sum_i p_i (x - x_i) / a_i with tau_eff = sum_i p_i a_i.

    p_i is the client's share of the examples, a_i its `local_norm`. The per-step progress of a client counts, not how
    many steps it made, so the fixed point is that of the true objective where clients do unequal work.

    Args:
        x: the global arrays that every client started from.
        updates: at least one, each with a local_norm; consumed once, so the state is O(model).
        trainable: which arrays gradients moved; None: all. The others (a BatchNorm's running statistics) made no
            gradient steps to normalise and are averaged as in `weighted`.

    Returns:
        New arrays in the shapes and dtypes of x. Equal a_i: the same bits as `weighted`. Nobody moved: x, exactly.

    Raises:
        ValueError: if an update has no local_norm.

    Example:
        x = [1, 1], x_1 = [2, 1], x_2 = [1, 4], p = (1/2, 1/2), a = (1, 3): [2, 2].
    """
    mean, progress = Sum(x), Sum(x)
    examples, weighted_norms, norms = 0, [], set()
    for update in updates:
        n, a = update.num_examples, update.local_norm
        if a is None:
            raise ValueError(f"client {update.client}: fednova needs local_norm")
        mean.add(update.arrays, n)
        progress.add_difference(update.arrays, x, n / a)
        examples += n
        weighted_norms.append(n * a)
        norms.add(a)
    average = mean.divided_by(examples)
    if len(norms) == 1:
        return average
    tau_eff = fsum(weighted_norms) / examples
    normalised = progress.added_to(x, tau_eff / examples)
    moved = trainable if trainable is not None else [True] * len(x)
    return [new if by_steps else old for new, old, by_steps in zip(normalised, average, moved, strict=True)]


class FedNova(Shell):
    """Flower strategy around `fednova`."""

    rule = staticmethod(fednova)
    needs = ("num_examples", "local_norm")
