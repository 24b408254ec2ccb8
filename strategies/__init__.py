"""Aggregation strategies: one file a strategy, one row here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from strategies.base import Shell, rule_options
from strategies.centered_clipping import CenteredClipping
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedmedian import FedMedian
from strategies.fednova import FedNova
from strategies.fedprox import FedProx
from strategies.fedyogi import FedYogi
from strategies.geometric_median import GeometricMedian
from strategies.krum import Krum
from strategies.matched import Matched
from strategies.multi_krum import MultiKrum
from strategies.scaffold import Scaffold
from strategies.trimmed_mean import TrimmedMean
from strategies.weighted import Weighted
from task.update import Arrays, Update, check_update

REGISTRY: Mapping[str, type[Shell]] = MappingProxyType(
    {
        "fedavg": FedAvg,
        "fedmedian": FedMedian,
        "weighted": Weighted,
        "fednova": FedNova,
        "matched": Matched,
        "fedprox": FedProx,
        "fedavgm": FedAvgM,
        "fedadam": FedAdam,
        "fedyogi": FedYogi,
        "scaffold": Scaffold,
        "trimmed-mean": TrimmedMean,
        "krum": Krum,
        "multi-krum": MultiKrum,
        "geometric-median": GeometricMedian,
        "centered-clipping": CenteredClipping,
    }
)

__all__ = ["REGISTRY", "Shell", "Update", "aggregate"]


def aggregate(name: str, global_arrays: Sequence[np.ndarray], updates: Iterable[Update], **options: Any) -> Arrays:
    """One aggregation, offline, by the same pure rule that the Flower strategy uses.

    A strategy with a memory does its first step, from an empty one; for more of them there is its `step`.

    Args:
        name: a key of REGISTRY.
        global_arrays: x, the arrays that the clients started from.
        updates: the clients' updates, at least one, in any order: the result is the same to the bit.
        options: the rule's own options.

    Returns:
        The new global arrays, in the shapes and dtypes of global_arrays; no input is changed.

    Raises:
        ValueError: for an unknown name, no update, fewer than the options need, an option out of its range, or an
            update that `check_update` refuses, naming the client.
        TypeError: for an option that the rule does not have.

    Example:
        >>> x = [np.zeros(2, np.float32)]
        >>> one, two = np.ones(2, np.float32), np.full(2, 4, np.float32)
        >>> aggregate("weighted", x, [Update([one], 2), Update([two], 1)])
        [array([2., 2.], dtype=float32)]
    """
    if name not in REGISTRY:
        raise ValueError(f"unknown strategy {name!r}; there are {', '.join(REGISTRY)}")
    shell = REGISTRY[name]
    if unknown := options.keys() - rule_options(shell.rule):
        raise TypeError(f"{name} has no option {', '.join(sorted(unknown))}")
    shell.check_options(options)
    given = [_check(name, position, update, global_arrays) for position, update in enumerate(updates)]
    if not given:
        raise ValueError("no updates to aggregate")
    if len(given) < (fewest := shell.fewest(options)):
        said = ", ".join(f"{option}={value}" for option, value in options.items()) or "its default options"
        raise ValueError(f"{name} with {said} needs at least {fewest} updates, not {len(given)}")
    return shell.rule(list(global_arrays), given, **options)


def _check(name: str, position: int, update: Update, like: Sequence[np.ndarray]) -> Update:
    """The update in the dtypes of `like`, or a ValueError that names its client."""
    # Arithmetic on a 0-d array gives a NumPy scalar, which is as good.
    arrays = [np.asarray(a) if isinstance(a, np.generic) else a for a in update.arrays]
    update = replace(update, arrays=arrays)
    try:
        check_update(update, like, strict_dtypes=False)
        for need in REGISTRY[name].needs:
            if getattr(update, need) is None:
                raise ValueError(f"{need} is missing, which {name} needs")
    except ValueError as error:
        raise ValueError(f"client {position if update.client is None else update.client}: {error}") from None
    return replace(update, arrays=[a.astype(x.dtype, copy=False) for a, x in zip(arrays, like, strict=True)])
