"""One frozen, typed, validated description of a run. Command line, TOML and Flower's run config all parse to it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from task.errors import UserError

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Optimizer = Literal["sgd", "adam", "adamw", "adagrad", "rmsprop", "nadam", "lion"]


class Frozen(BaseModel):
    """Immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Training(Frozen):
    """What one client does in one round.

    Attributes:
        epochs: passes over the shard; the last batch of a pass may be smaller.
        steps: batches instead of epochs, when given; passes repeat until they are reached.
        batch_size: examples a local step.
        optimizer: a Keras optimizer, its state reset at the start of every round.
        learning_rate: the client's, eta.
        momentum: rho of SGD.
        nesterov: Nesterov's variant of the momentum.
    """

    epochs: Positive = 1
    steps: Positive | None = None
    batch_size: Positive = 32
    optimizer: Optimizer = "sgd"
    learning_rate: Rate = 0.1
    momentum: Fraction = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd, not to {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum > 0")
        return self

    @property
    def norm_undefined(self) -> str | None:
        """Why FedNova's a_i is not defined for this optimizer; None when it is."""
        if self.optimizer != "sgd":
            return f"the optimizer {self.optimizer}"
        return "Nesterov momentum" if self.nesterov else None


class RunConfig(Frozen):
    """A comparison: which strategies, on what data, for how long. Defaults are the mission's."""

    strategies: tuple[str, ...] = ("fedavg", "fedmedian", "weighted", "fednova")
    rounds: Positive = 10
    clients: Positive | None = Field(default=None, description="5, or as many as a folder of ready shards holds")
    sample: Positive | None = Field(default=None, description="clients that take part in a round; all when not given")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    dataset: str = "mnist-5k"
    scenario: tuple[str, ...] = ("iid",)
    model: str = "cnn"
    training: Training = Training()

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for name in ("strategies", "seeds", "scenario"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} must not be empty")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} are given twice: {' '.join(map(str, values))}")
        if self.sample and self.clients and self.sample > self.clients:
            raise ValueError(f"sample ({self.sample}) is more than clients ({self.clients})")
        return self

    def train_config(self, num_classes: int, seed: int) -> dict[str, Any]:
        """What every train message of a contestant says, except its round."""
        return {
            **self.training.model_dump(exclude_none=True),
            "model": self.model,
            "num-classes": num_classes,
            "seed": seed,
        }


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A configuration from plain values, nested as the models are.

    Raises:
        UserError: one line with every wrong value and what is allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            where = ".".join(str(part) for part in detail["loc"]) or "options"
            lines.append(
                f"{where}: {detail['msg'].removeprefix('Value error, ')} (got {detail['input']!r})"
                if detail["loc"] and detail["type"] != "value_error"
                else detail["msg"].removeprefix("Value error, ")
            )
        raise UserError("; ".join(lines)) from None
