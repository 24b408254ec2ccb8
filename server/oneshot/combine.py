"""Every way of combining finished models once, and what each of them gives on the test set."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from server.oneshot.calibrate import calibrate
from server.oneshot.combination import (
    ANCHORED,
    AVERAGES,
    BEST_LOCAL,
    CALIBRATED,
    DISTILLED,
    ENSEMBLE,
    LOCAL,
    MATCHED,
    MEAN_LOCAL,
    METHODS,
    Combination,
    Material,
    Row,
)
from server.oneshot.distil import distil
from server.oneshot.teacher import Logits, ensemble, score
from strategies import aggregate
from strategies.matching import Matching, match
from task.evaluation import Evaluator
from task.model import trainable_mask
from task.update import Arrays, Update

NO_PUBLIC = "It needs unlabelled public examples, and there are none."
NO_BASE = "FedNova needs the model that all clients started from, and these have no common start."
NOT_GIVEN = "FedNova needs the common start of all models: give it with --base, if they had one."
NO_NORM = "It needs a norm of every model's training, which is not known or, but for SGD, not defined: {names}."


def combine(material: Material, step: Callable[[str], None] = lambda _: None) -> Combination:
    """Combine finished models in every way, and test each.

    Args:
        material: the models and what they are judged on; the weights of `material.model` are overwritten.
        step: told what begins, for the screen.

    Returns:
        The rows, models and reasons. The same material gives the same bits.

    Raises:
        ValueError: models that do not fit the architecture, or are not finite, naming the client.
    """
    work = _Work(material)
    step(f"testing {len(material.locals)} models and their ensemble")
    with work.timed("locals"):
        work.locals()
    with work.timed(ENSEMBLE):
        work.ensemble()
    step("averaging them as they are")
    with work.timed("averages"):
        work.averages()
    step("matching their hidden units")
    with work.timed(MATCHED):
        matching = work.matched()
    for method, text, make in (
        (CALIBRATED, "calibrating the matched model", work.calibrated),
        (DISTILLED, "teaching it what the ensemble knows", work.distilled),
    ):
        if material.public is None or not len(material.public):
            work.undefined[method] = NO_PUBLIC
            continue
        step(text)
        with work.timed(method):
            make(matching, material.public)
    order = [f"{LOCAL}{k}" for k in range(len(material.locals))] + list(METHODS)
    rows = tuple(work.rows[method] for method in order if method in work.rows)
    return Combination(material, rows, work.models, matching, work.undefined, work.seconds)


def anchored(models: Sequence[Update]) -> Arrays:
    """What the seed project's "FedNova" of finished models apparently computed: an artefact, not an aggregation.

    FedNova subtracts the common start from each model. Models that never shared one have none, and with the first of
    them in its place the rule becomes x + (1/m) sum_i (x_i - x) / a_i: the first model x, moved by a difference that
    is divided by the local steps a_i, some hundred. So it stays where it was, and its accuracy is the first model's.

    Args:
        models: at least one, each with a local_norm.

    Returns:
        New arrays in the shapes and dtypes of the first model's.

    Raises:
        ValueError: if a model has no local_norm.
    """
    if any(update.local_norm is None for update in models):
        raise ValueError("fednova-anchored needs local_norm of every model")
    first = models[0].arrays
    result = []
    for place, x in enumerate(first):
        wide = x.astype(np.float64)
        delta = sum((update.arrays[place] - wide) / (update.local_norm or 1.0) for update in models)
        result.append((wide + delta / len(models)).astype(x.dtype))
    return result


@dataclass
class _Work:
    """The results so far."""

    material: Material
    rows: dict[str, Row] = field(default_factory=dict)
    models: dict[str, Arrays] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._evaluate = Evaluator(self.material.model)
        self._logits = Logits(self.material.model)
        self._arrays = [update.arrays for update in self.material.locals]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def locals(self) -> None:
        for k, arrays in enumerate(self._arrays):
            self._add(f"{LOCAL}{k}", arrays)
        rows = list(self.rows.values())
        mean = [float(np.mean([getattr(row, name) for row in rows])) for name in ("test_accuracy", "test_loss")]
        best = max(range(len(rows)), key=lambda k: (rows[k].test_accuracy, -rows[k].test_loss, -k))
        self._row(MEAN_LOCAL, mean[0], mean[1], None)
        self._add(BEST_LOCAL, self._arrays[best])

    def ensemble(self) -> None:
        x, y = self.material.test
        self._row(ENSEMBLE, *score(ensemble(self._logits, self._arrays, x), y), None)

    def averages(self) -> None:
        given, base = self.material.locals, self.material.base
        unknown = [self.material.names[k] for k, update in enumerate(given) if update.local_norm is None]
        no_base = NOT_GIVEN if self.material.init == "files" else NO_BASE
        no_norm = NO_NORM.format(names=", ".join(unknown))
        for name in AVERAGES:
            if name != "fednova":
                self._add(name, aggregate(name, self._arrays[0] if base is None else base, given))
            elif base is None or unknown:
                self.undefined[name] = no_base if base is None else no_norm
            else:
                trained = trainable_mask(self.material.model)
                self._add(name, aggregate(name, base, given, trainable=trained))
        if unknown:
            self.undefined[ANCHORED] = no_norm
        else:
            self._add(ANCHORED, anchored(given))

    def matched(self) -> Matching:
        """The plain mean of the matched models: `aggregate("matched", ...)`, with the matching kept for the report."""
        given = self.material.locals
        matching = match(self._arrays, self.material.structure, seed=self.material.seed)
        updates = [replace(update, arrays=arrays) for update, arrays in zip(given, matching.models, strict=True)]
        self._add(MATCHED, aggregate("fedavg", self._arrays[0], updates))
        return matching

    def calibrated(self, matching: Matching, public: np.ndarray) -> None:
        self._add(CALIBRATED, calibrate(self.material.model, self.models[MATCHED], matching.models, public))

    def distilled(self, _: Matching, public: np.ndarray) -> None:
        start = self.models[CALIBRATED]
        self._add(DISTILLED, distil(self.material.model, start, self._arrays, public, self.material.seed))

    def _add(self, method: str, arrays: Arrays) -> None:
        """Test a model and keep it."""
        self.models[method] = arrays
        self._row(method, *self._evaluate(arrays, *self.material.test), self._distance(arrays))

    def _row(self, method: str, accuracy: float, loss: float, distance: float | None) -> None:
        self.rows[method] = Row(self.material.seed, self.material.init, method, accuracy, loss, distance)

    def _distance(self, arrays: Arrays) -> float:
        """To the first local model, L2 over all counted arrays."""
        total = 0.0
        for a, b, counts in zip(arrays, self._arrays[0], self.material.structure.counted, strict=True):
            if counts:
                total += float(((a.astype(np.float64) - b) ** 2).sum())
        return float(np.sqrt(total))
