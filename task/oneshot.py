"""What `python sim.py one-shot` does: its configuration and its command line."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from task.config import Frozen, Init, Positive, Rate, Seeds, Training, check_different, parse_as, train_config
from task.options import DATASETS, MODELS, Parser, absolute_if_path, add_machine_options, add_training_options
from task.scenario import resolved, scenario_of


class OneShotTraining(Training):
    """Local training to the end, where a federated round is one step of many: other defaults than a round's.

    Chosen by trial on mnist-5k with the default CNN; longer training lets the models drift further apart than
    matching can mend (docs/oneshot.md).
    """

    epochs: Positive = 5
    batch_size: Positive = 4
    learning_rate: Rate = 0.03


class OneShotConfig(Frozen):
    """Local models trained to the end on the shards of a data set, then combined once.

    Attributes:
        init: whether the local models of a seed share their initial weights.
        public: training examples that no client has and whose labels nobody reads; 0: none.
        clients: local models for each seed; None: as many shards as are ready, or 5.
        seeds: each draws its own shards, public examples and initial weights.
        dataset: as `task.shards.prepare` takes it.
        scenario: how shards are cut.
        model: as `task.model.build_model` takes it.
        training: of each local model.
    """

    init: Init = "independent"
    public: Annotated[int, Field(ge=0)] = 500
    clients: Annotated[int, Field(ge=2)] | None = None
    seeds: Seeds = (0,)
    dataset: str = "mnist-5k"
    scenario: str = "iid"
    model: str = "cnn"
    training: OneShotTraining = OneShotTraining()

    @model_validator(mode="after")
    def _sound(self) -> Self:
        check_different("seeds", self.seeds)
        acting = [part.name for part in scenario_of(self.scenario).acting]
        if acting:
            raise ValueError(f"scenario: {' and '.join(acting)} act in rounds, which one shot does not have")
        return self

    def train_config(self, num_classes: int, seed: int) -> dict[str, Any]:
        """What every train message to the clients of a seed says, except its round."""
        return train_config(self.training, self.model, self.init, num_classes, seed)


def one_shot_parser(program: str) -> argparse.ArgumentParser:
    """The parser of the sub-command; an option that is not given is absent from the namespace."""
    default = OneShotConfig()
    parser = Parser(
        prog=program,
        description="Train local models to the end, combine them once in every way there is, and say what each gives. "
        "For finished models: python -m server.oneshot A.keras B.keras ...",
    )
    group = parser.add_argument_group("the models")

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add(
        "--init",
        "how local models begin: independent (default), each from initial weights of its own; shared, all of a seed "
        "from the same",
        metavar="HOW",
    )
    add(
        "--public",
        f"training images that no client has, their labels never read; 0: none; default: {default.public}",
        type=int,
        metavar="N",
    )
    add("--seeds", "default: 0", type=int, nargs="+", metavar="K")
    add("--clients", "default: 5, or as many as a folder of shards holds", type=int, metavar="N")
    add("--dataset", DATASETS, metavar="NAME|PATH")
    add("--scenario", "how shards are cut, as python sim.py has it; default: iid", metavar="NAME")
    add("--model", MODELS, metavar="NAME")
    add_training_options(parser, default.training)
    group = parser.add_argument_group("this run")
    add("--out", "where the results go; default: runs/oneshot-<time>", metavar="DIR")
    add_machine_options(group)
    return parser


def one_shot_config(given: Mapping[str, Any]) -> tuple[OneShotConfig, Path]:
    """The configuration that a namespace describes, and the folder for its results.

    Raises:
        UserError: for values that are not allowed.
    """
    training = {name: given[name] for name in Training.model_fields if name in given}
    rest = {name: given[name] for name in OneShotConfig.model_fields if name in given}
    if "scenario" in rest:
        rest["scenario"] = resolved(rest["scenario"])
    config = parse_as(OneShotConfig, {**rest, **({"training": training} if training else {})})
    config = config.model_copy(update={"dataset": absolute_if_path(config.dataset)})
    return config, Path(given.get("out") or time.strftime("runs/oneshot-%Y%m%d-%H%M%S"))
