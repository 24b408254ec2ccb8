"""Who gets which examples: index arrays, one a client."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from task import seeds
from task.arrays import Array
from task.errors import UserError
from task.scenario import LabelSkew, Pathological, QuantitySkew, Scenario

_EVEN = 1e9  # an alpha above it draws equal shares, too; near the largest float the draw would overflow
_ATTEMPTS = 10  # flwr-datasets makes 11 draws in each


def split(labels: Array, clients: int, seed: int, scenario: Scenario) -> list[Array]:
    """Cut a data set as a scenario says.

    Args:
        labels: shape (n,), integers.
        clients: number of shards, at least 1.
        seed: the run's seed, >= 0; it alone draws the cut.
        scenario: its part that cuts; none means `stratified`.

    Returns:
        For each client the indices of its examples, int64, ascending; disjoint, none empty, and together all of
        0..n-1.

    Raises:
        UserError: the data set cannot be cut like this.
    """
    if quantity := scenario.find(QuantitySkew):
        return quantity_skew(labels, clients, seed, quantity)
    if label := scenario.find(LabelSkew):
        return label_skew(labels, clients, seed, label)
    if few := scenario.find(Pathological):
        return pathological(labels, clients, seed, few)
    return stratified(labels, clients, seed)


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


def quantity_skew(labels: Array, clients: int, seed: int, skew: QuantitySkew) -> list[Array]:
    """Shards of unequal size, each a uniform sample of the whole.

    Every client gets `least` examples, and of the others a share out of one draw from Dirichlet(alpha, ..., alpha),
    rounded by largest remainders. So no draw has to be thrown away, which would favour equal shares.

    Args:
        labels: shape (n,); only their number matters.
        clients: number of shards.
        seed: the run's seed.
        skew: alpha and least.

    Returns:
        As `split`.

    Raises:
        UserError: fewer than `clients` times `least` examples.
    """
    examples = len(labels)
    _check_enough(skew, examples, clients)
    rng = seeds.stream(seed, skew.name)
    order = rng.permutation(examples)
    free = examples - clients * skew.least
    exact = rng.dirichlet(np.full(clients, min(skew.alpha, _EVEN))) * free
    sizes = np.floor(exact).astype(int)
    left = free - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:left]] += 1
    from flwr_datasets.partitioner import SizePartitioner

    return _dealt(SizePartitioner((sizes + skew.least).tolist()), labels, order, clients)


def label_skew(labels: Array, clients: int, seed: int, skew: LabelSkew) -> list[Array]:
    """Shards with unequal shares of the classes, and of unequal size.

    For each class the shares of the clients are one draw from Dirichlet(alpha, ..., alpha) (Yurochkin et al. 2019,
    arXiv:1905.12022, section 4), by flwr-datasets' DirichletPartitioner without its balancing. All draws are repeated
    until every client has `least` examples. The partitioner deals the examples of a class in their order; they are
    shuffled before.

    Args:
        labels: shape (n,), integers.
        clients: number of shards.
        seed: the run's seed.
        skew: alpha and least.

    Returns:
        As `split`.

    Raises:
        UserError: fewer than `clients` times `least` examples, or no draw in 110 left each client so many.
    """
    _check_enough(skew, len(labels), clients)
    from flwr_datasets.partitioner import DirichletPartitioner

    order = seeds.stream(seed, skew.name).permutation(len(labels))
    for attempt in range(_ATTEMPTS):
        partitioner = DirichletPartitioner(
            num_partitions=clients,
            partition_by="label",
            alpha=min(skew.alpha, _EVEN),
            min_partition_size=skew.least,
            self_balancing=False,
            shuffle=False,
            seed=seeds.integer(seed, "label-skew draw", attempt),
        )
        try:
            with warnings.catch_warnings(action="ignore"):  # one a draw that is thrown away
                return _dealt(partitioner, labels, order, clients)
        except ValueError:  # it gave up
            continue
    raise UserError(
        f"{skew.name}: alpha={skew.alpha:g} leaves some of {clients} clients fewer than {skew.least} examples in every "
        "draw; give a larger alpha, a smaller least or fewer clients"
    )


def pathological(labels: Array, clients: int, seed: int, few: Pathological) -> list[Array]:
    """Shards that hold examples of exactly so many classes each (after McMahan et al. 2017, arXiv:1602.05629).

    Clients take their classes in turn: those that the fewest clients hold so far, ties drawn from the seed. So every
    class is held, and by as many clients as any other, give or take one. Its examples, shuffled, are dealt in equal
    parts to its holders. flwr-datasets' PathologicalPartitioner is not used, for it drops the examples of classes that
    it gave to nobody; with five clients, two classes each and ten classes its deterministic mode drops four classes.

    Args:
        labels: shape (n,), integers.
        clients: number of shards.
        seed: the run's seed.
        few: classes of one client.

    Returns:
        As `split`.

    Raises:
        UserError: more classes a client than there are; clients too few to hold all classes; a class with fewer
            examples than holders.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if few.classes > len(classes):
        raise UserError(
            f"{few.name}: classes={few.classes} is more than the {len(classes)} classes there are; give at most those"
        )
    if clients * few.classes < len(classes):
        raise UserError(
            f"{few.name}: {clients} clients with {few.classes} of {len(classes)} classes each leave some to nobody; "
            f"give classes={-(-len(classes) // clients)} or {-(-len(classes) // few.classes)} clients"
        )
    rng = seeds.stream(seed, few.name)
    holds = np.zeros((clients, len(classes)), bool)
    for client in range(clients):
        holds[client, np.lexsort((rng.random(len(classes)), holds.sum(axis=0)))[: few.classes]] = True
    shards: list[list[Array]] = [[] for _ in range(clients)]
    for label, held, examples in zip(classes, holds.T, counts, strict=True):
        holders = np.flatnonzero(held)
        if examples < len(holders):
            raise UserError(
                f"{few.name}: class {label} has {examples} examples for {len(holders)} clients that hold it; "
                "give fewer classes or clients"
            )
        dealt = np.array_split(rng.permutation(np.flatnonzero(labels == label)), len(holders))
        for holder, part in zip(holders, dealt, strict=True):
            shards[holder].append(part)
    return [np.sort(np.concatenate(parts)) for parts in shards]


def _check_enough(skew: QuantitySkew | LabelSkew, examples: int, clients: int) -> None:
    if clients * skew.least > examples:
        raise UserError(
            f"{skew.name}: {clients} clients with at least {skew.least} examples each need {clients * skew.least}, "
            f"there are {examples}; give fewer clients or a smaller least"
        )


def _dealt(partitioner: Any, labels: Array, order: Array, clients: int) -> list[Array]:
    """What a partitioner of flwr-datasets makes of the examples in this order; in memory, nothing is downloaded."""
    from datasets import Dataset

    partitioner.dataset = Dataset.from_dict({"label": labels[order], "index": order})
    shards = (partitioner.load_partition(client).with_format("numpy")["index"][:] for client in range(clients))
    return [np.sort(np.asarray(shard, np.int64)) for shard in shards]


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
