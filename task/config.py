"""One frozen, typed, validated description of a run. Command line, TOML and Flower's run config all parse to it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from task.errors import UserError, describe_invalid
from task.scenario import Scenario, scenario_of

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Factor = Annotated[float, Field(gt=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Optimizer = Literal["sgd", "adam", "adamw", "adagrad", "rmsprop", "nadam", "lion"]
Init = Literal["shared", "independent"]  # how clients begin: from common initial weights, or each from its own
Seeds = tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]


class Frozen(BaseModel):
    """Immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=BaseModel)


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
    """A comparison: which strategies, on what data, for how long. Defaults are the mission's.

    With `init` "independent" every client begins round 1 from initial weights of its own, whatever the global model is.
    """

    strategies: tuple[str, ...] = ("fedavg", "fedmedian", "weighted", "fednova")
    rounds: Positive = 10
    clients: Positive | None = Field(default=None, description="5, or as many as a folder of ready shards holds")
    sample: Positive | None = Field(default=None, description="clients that take part in a round; all when not given")
    seeds: Seeds = (0,)
    dataset: str = "mnist-5k"
    scenario: tuple[str, ...] = ("iid",)
    model: str = "cnn"
    init: Init = "shared"
    training: Training = Training()
    client_eval: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="rounds from one to the next in which clients test on their training data, before and after it; "
        "0: the last only",
    )
    quorum: Positive | None = Field(
        default=None,
        description="valid updates that a round needs; 1 in a simulation, else more than half",
    )
    tries: Positive | None = Field(
        default=None,
        description="how often a round without a quorum is played; 3, or 1 in a simulation without one",
    )
    max_update_norm: Rate | None = Field(
        default=None, description="largest L2 norm of an update that is used; any when not given"
    )
    max_relative_norm: Factor | None = Field(
        default=None,
        description="largest L2 norm of an update that is used, in medians of its round; any when not given",
    )
    target: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.9, description="test accuracy to reach")

    @cached_property
    def scenarios(self) -> tuple[Scenario, ...]:
        """What `scenario` says, read."""
        return tuple(map(scenario_of, self.scenario))

    def measures(self, server_round: int) -> bool:
        """Whether clients test on their own training data in this round."""
        return server_round == self.rounds or bool(self.client_eval and server_round % self.client_eval == 0)

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for name in ("strategies", "seeds", "scenario"):
            check_different(name, getattr(self, name))
        check_different("scenario", [scenario.name for scenario in self.scenarios])
        if self.sample and self.clients and self.sample > self.clients:
            raise ValueError(f"sample ({self.sample}) is more than clients ({self.clients})")
        asked = self.sample or self.clients
        if self.quorum and asked and self.quorum > asked:
            raise ValueError(f"quorum ({self.quorum}) is more than the {asked} clients of a round")
        return self

    def train_config(self, num_classes: int, seed: int) -> dict[str, Any]:
        """What every train message of a contestant says, except its round."""
        return train_config(self.training, self.model, self.init, num_classes, seed)


def train_config(training: Training, model: str, init: Init, num_classes: int, seed: int) -> dict[str, Any]:
    """What every train message of a run with this seed says, except its round; `client.trainer` reads it."""
    return {
        **training.model_dump(exclude_none=True),
        "model": model,
        "init": init,
        "num-classes": num_classes,
        "seed": seed,
    }


def check_different(name: str, values: Sequence[Any]) -> None:
    """See that there is a value, and none twice.

    Raises:
        ValueError: there is not, or one is.
    """
    if not values:
        raise ValueError(f"{name} must not be empty")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} are given twice: {' '.join(map(str, values))}")


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A run's configuration from plain values; see `parse_as`."""
    return parse_as(RunConfig, values)


def parse_as(kind: type[Model], values: Mapping[str, Any]) -> Model:
    """A configuration from plain values, nested as the models are.

    Raises:
        UserError: one line with every wrong value and what is allowed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(describe_invalid(error)) from None
