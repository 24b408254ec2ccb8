"""FedNova: normalised averaging (Wang et al. 2020, arXiv:2007.07481, equation 6)."""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import Any, ClassVar

from strategies.base import FROM_ZERO, Range, Shell
from strategies.kernels import Sum
from task import wire
from task.config import Training
from task.update import Arrays, Update


def fednova(
    x: Arrays, updates: Iterable[Update], *, mu: float = 0.0, trainable: Sequence[bool] | None = None
) -> Arrays:
    """X - tau_eff * sum_i p_i (x - x_i) / a_i with tau_eff = sum_i p_i a_i.

    p_i is the client's share of the examples, a_i its `local_norm`. The per-step progress of a client counts, not how
    many steps it made, so the fixed point is that of the true objective where clients do unequal work.

    Args:
        x: the global arrays that every client started from.
        updates: at least one, each with a local_norm; consumed once, so the state is O(model).
        mu: of the proximal term (mu / 2) |w - x|^2 in what the clients minimise, >= 0. It is in their a_i; where it is
            not 0, tau_eff = sum_i p_i tau_i with tau_i the `local_steps`, as the authors' code has it.
        trainable: which arrays gradients moved; None: all. The others (a BatchNorm's running statistics) made no
            gradient steps to normalise and are averaged as in `weighted`.

    Returns:
        New arrays in the shapes and dtypes of x. Equal a_i without mu: the same bits as `weighted`. Nobody moved: x,
        exactly.

    Raises:
        ValueError: if an update has no local_norm, or no local_steps where they are needed.

    Example:
        x = [1, 1], x_1 = [2, 1], x_2 = [1, 4], p = (1/2, 1/2), a = (1, 3): [2, 2].
    """
    mean, progress = Sum(x), Sum(x)
    examples, effective, norms = 0, [], set()
    for update in updates:
        n, a = update.num_examples, update.local_norm
        if a is None:
            raise ValueError(f"client {update.client}: fednova needs local_norm")
        if mu and update.local_steps is None:
            raise ValueError(f"client {update.client}: fednova with mu needs local_steps")
        mean.add(update.arrays, n)
        progress.add_difference(update.arrays, x, n / a)
        examples += n
        effective.append(n * (update.local_steps or 0) if mu else n * a)
        norms.add(a)
    average = mean.divided_by(examples)
    if len(norms) == 1 and not mu:
        return average
    tau_eff = fsum(effective) / examples
    normalised = progress.added_to(x, tau_eff / examples)
    moved = trainable if trainable is not None else [True] * len(x)
    return [new if by_steps else old for new, old, by_steps in zip(normalised, average, moved, strict=True)]


class FedNova(Shell):
    """Flower strategy around `fednova`; with mu, its train messages say it as `proximal-mu`."""

    rule = staticmethod(fednova)
    weights_by = "examples"
    needs: tuple[str, ...] = ("num_examples", "local_norm")
    subtracts = True
    ranges: ClassVar[Mapping[str, Range]] = {"mu": FROM_ZERO}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._mu = float(self.options.get("mu") or 0.0)
        if self._mu:
            self.needs = (*self.needs, "local_steps")
            self.asks = {wire.PROXIMAL_MU: self._mu}

    def undefined_for(self, training: Training) -> str | None:
        """As for any strategy; and a_i is not defined for a proximal term and momentum at once."""
        if self._mu and training.momentum:
            return "a proximal term and momentum at once: its local_norm exists for either of them; use --momentum 0"
        return super().undefined_for(training)
