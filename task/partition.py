"""Who gets which examples: index arrays, one a client."""

from collections.abc import Callable, Sequence

import numpy as np

from task import seeds
from task.arrays import Array
from task.errors import UserError

Split = Callable[[Array, int, int], list[Array]]
"""(labels, clients, seed) -> for each client the indices of its examples, ascending."""


def stratified(labels: Array, clients: int, seed: int) -> list[Array]:
    """Shards that are statistically alike: the split of the seed project.

    scikit-learn's StratifiedKFold deals the examples, sorted by class, to the folds in turn: the sizes of any two folds
    differ by at most 1, and so do their numbers of examples of any one class. Its folds are the shards.

    Args:
        labels: shape (n,), integers.
        clients: number of shards, at least 1.
        seed: the run's seed; equal seeds give equal shards.

    Returns:
        Index arrays, int64, ascending; disjoint, and together all of 0..n-1.

    Raises:
        UserError: some class has fewer examples than there are clients.
    """
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(np.argmin(counts))
    if clients > counts[rarest]:
        raise UserError(
            f"{clients} clients are too many: class {classes[rarest]} has {counts[rarest]} examples; "
            f"at most {counts[rarest]} clients can have one of each class"
        )
    if clients == 1:  # one fold is no cross-validation to scikit-learn
        return [np.arange(len(labels))]
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(clients, shuffle=True, random_state=seeds.integer(seed, "split"))
    return [shard for _, shard in folds.split(np.empty((len(labels), 0)), labels)]


SCENARIOS: dict[str, Split] = {"iid": stratified}
"""Scenario -> how its shards are cut."""


def label_counts(shard_labels: Sequence[Array], num_classes: int) -> Array:
    """How many examples of each class each shard holds.

    Args:
        shard_labels: per shard its labels, shape (examples,), in 0..num_classes-1.
        num_classes: number of classes.

    Returns:
        Shape (clients, classes), int64.
    """
    return np.stack([np.bincount(labels, minlength=num_classes) for labels in shard_labels]).astype(np.int64)


def chi_square_p(counts: Array) -> float:
    """Pearson's chi-square test that all shards draw their labels from one distribution.

    Args:
        counts: shape (clients, classes), integers.

    Returns:
        The p-value: 1 where all shards have the same shares of every class (or there is one shard or one class), near 0
        where they plainly differ.
    """
    table = counts[:, counts.sum(axis=0) > 0]  # a class nobody has says nothing, and would divide by zero
    if min(table.shape) < 2:
        return 1.0
    from scipy.stats import chi2_contingency

    return float(chi2_contingency(table).pvalue)
