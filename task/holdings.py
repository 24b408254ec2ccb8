"""What each client holds of a data set, as a scenario says: which examples, how they look, and which are wrong."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from task import corrupt, partition, seeds
from task.arrays import Array
from task.data import Dataset
from task.errors import UserError
from task.features import Span, check, skewed, told
from task.scenario import FeatureSkew, Outlier, Scenario, draw_clients


@dataclass(frozen=True)
class Holdings:
    """The private data of all clients; images are made one client at a time.

    Attributes:
        whole: the data set that was cut.
        seed: of the run.
        scenario: what differs between the clients.
        indices: for each client its examples in `whole`, ascending.
        labels: for each client the labels as it holds them, wrong ones included.
        outliers: clients with corrupted data, ascending.
        flipped: clients that attack by flipped labels, ascending.
        features: for each client what happened to its images, in words; empty where nothing did.
    """

    whole: Dataset
    seed: int
    scenario: Scenario
    indices: list[Array]
    labels: list[Array]
    outliers: tuple[int, ...]
    flipped: tuple[int, ...]
    features: tuple[str, ...]

    def images(self, client: int) -> Array:
        """One client's images, shape (examples, ...).

        Raises:
            UserError: corrupted pixels that no model can take.
        """
        x = self.whole.x_train[self.indices[client]]
        if skew := self.scenario.find(FeatureSkew):
            rng = seeds.stream(self.seed, "features", client)
            x = skewed(x, skew, client, len(self.indices), self._span, rng)
        outlier = self.scenario.find(Outlier)
        if outlier and client in self.outliers:
            x = corrupt.outlier_images(x, outlier, self._span, seeds.stream(self.seed, "outlier images", client))
        return x

    @cached_property
    def _span(self) -> Span:
        return float(self.whole.x_train.min()), float(self.whole.x_train.max())


def hold(whole: Dataset, clients: int, seed: int, scenario: Scenario) -> Holdings:
    """Give every client its part.

    Args:
        whole: the data set; its test set is nobody's.
        clients: how many.
        seed: the run's seed; with the scenario it decides everything.
        scenario: parts that act in the rounds say nothing here, except an attack that flips labels.

    Raises:
        UserError: the data set cannot be cut or changed like this, or not so many clients can be outliers or attackers.
    """
    outlier, skew = scenario.find(Outlier), scenario.find(FeatureSkew)
    outliers = draw_clients(seed, "outliers", clients, outlier.clients) if outlier else ()
    flipped = scenario.cut.attackers(seed, clients)  # of the cut: other attackers have honest data
    if skew:
        check(skew, whole.x_train.shape)
    indices = partition.split(whole.y_train, clients, seed, scenario)
    labels = [whole.y_train[mine] for mine in indices]
    if outlier:
        for client in outliers:
            rng = seeds.stream(seed, "outlier labels", client)
            labels[client] = corrupt.outlier_labels(labels[client], outlier, whole.num_classes, rng)
    for client in flipped:
        labels[client] = corrupt.flipped(labels[client], whole.num_classes)
    changes = tuple(told(skew, client, clients) for client in range(clients)) if skew else ()
    return Holdings(whole, seed, scenario, indices, labels, outliers, flipped, changes)


def hold_out(whole: Dataset, public: int, clients: int, seed: int) -> tuple[Dataset, Array]:
    """Set images aside that no client has.

    Args:
        whole: the data set.
        public: how many of its training images, drawn uniformly and without a look at labels.
        clients: that need at least one of the others each.
        seed: the run's seed.

    Returns:
        The data set without them, and the images, shape (public, ...).

    Raises:
        UserError: there are not so many.
    """
    examples = len(whole.y_train)
    if public > examples - clients:
        raise UserError(
            f"{public} public examples are too many: {whole.name} has {examples} to train on, and {clients} clients "
            f"need one each; hold out at most {max(examples - clients, 0)}"
        )
    chosen = np.zeros(examples, bool)
    chosen[seeds.stream(seed, "public").choice(examples, public, replace=False)] = True
    return replace(whole, x_train=whole.x_train[~chosen], y_train=whole.y_train[~chosen]), whole.x_train[chosen]
