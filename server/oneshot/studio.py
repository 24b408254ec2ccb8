"""What takes TensorFlow to make before local models can be combined: the model, where each seed begins, test sets."""

from collections.abc import Sequence

from server.oneshot.combination import LOCAL, Material
from task.evaluation import resident
from task.model import build_model, initial_arrays
from task.oneshot import OneShotConfig
from task.shards import Shards, load_public, load_test
from task.units import structure_of
from task.update import Arrays, Update


class Studio:
    """One model of the architecture for all seeds.

    Args:
        config: what is trained.
        shards: of any seed; all have the same shapes.

    Attributes:
        starts: of each seed the common initial model.

    Raises:
        UserError: for a model that does not do.
    """

    def __init__(self, config: OneShotConfig, shards: Shards) -> None:
        self._config = config
        self.starts: dict[int, Arrays] = {}
        for seed in config.seeds:
            self._model = build_model(config.model, shards.input_shape, shards.num_classes, seed)
            self.starts[seed] = initial_arrays(self._model)
        self._structure = structure_of(self._model)

    def material(self, shards: Shards, seed: int, updates: Sequence[Update]) -> Material:
        """What the local models of a seed are combined from.

        Args:
            shards: of this seed, with its test set and public images.
            seed: of the run.
            updates: the local models, in the order of clients.
        """
        return Material(
            model=self._model,
            structure=self._structure,
            locals=tuple(updates),
            names=tuple(f"{LOCAL}{client}" for client in range(len(updates))),
            base=self.starts[seed] if self._config.init == "shared" else None,
            test=resident(*load_test(shards.folder)),
            public=load_public(shards.folder) if shards.public_examples else None,
            seed=seed,
            init=self._config.init,
        )
