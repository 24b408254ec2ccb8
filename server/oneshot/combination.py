"""What goes into an aggregation of finished models, and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from strategies.matching import Matching
from task.structure import Structure
from task.update import Arrays, Update

Init = Literal["shared", "independent", "files"]

LOCAL = "local-"
MEAN_LOCAL, BEST_LOCAL, ENSEMBLE = "mean-local", "best-local", "ensemble"
AVERAGES = ("fedavg", "fedmedian", "weighted", "fednova")
ANCHORED, MATCHED, CALIBRATED, DISTILLED = "fednova-anchored", "matched", "matched-calibrated", "distilled"
METHODS = (MEAN_LOCAL, BEST_LOCAL, ENSEMBLE, *AVERAGES, ANCHORED, MATCHED, CALIBRATED, DISTILLED)
"""After the local models, in the order of the table."""


@dataclass(frozen=True)
class Material:
    """Finished models and what they are judged on.

    Attributes:
        model: a Keras model of their architecture; its own weights mean nothing and may be overwritten.
        structure: its hidden units.
        locals: the finished models, at least two, all of that architecture; `client` is 0, 1, ...
        names: what each is called for people: "local-0", or its file.
        base: the common start of all of them; None: they have none.
        test: resident examples and labels, see `task.evaluation.resident`.
        public: unlabelled examples, float32 (n, *input_shape), as the model takes them; None: there are none.
        seed: for restarts and mini-batches.
        init: how they began.
    """

    model: Any
    structure: Structure
    locals: tuple[Update, ...]
    names: tuple[str, ...]
    base: Arrays | None
    test: tuple[Any, Any]
    public: Any | None
    seed: int
    init: Init


@dataclass(frozen=True)
class Row:
    """A row of oneshot.csv."""

    seed: int
    init: str
    method: str
    test_accuracy: float  # share of the test set, 0..1
    test_loss: float  # mean cross-entropy, nats
    distance_to_first: float | None  # L2 norm of the difference to local-0 over all counted arrays; None: not one model


@dataclass(frozen=True)
class Combination:
    """What each method made of one material.

    Attributes:
        material: what it was made of.
        rows: first the local models, then METHODS that are defined here, in that order.
        models: the methods' models by name, local models included; what is no single model is not there.
        matching: of the local models, in their order.
        undefined: methods that cannot be had from this material, each with the reason as a sentence.
        seconds: of each step.
    """

    material: Material
    rows: tuple[Row, ...]
    models: Mapping[str, Arrays]
    matching: Matching
    undefined: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
