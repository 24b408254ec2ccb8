"""Finished models combined once: each way of doing so against what it must give."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from server.oneshot.calibrate import calibrate
from server.oneshot.combination import METHODS, Combination, Material
from server.oneshot.combine import anchored, combine
from server.oneshot.distil import distil, mixtures
from server.oneshot.teacher import Logits, ensemble, score
from strategies import aggregate
from task.backend import load
from task.evaluation import resident
from task.units import structure_of
from task.update import Arrays, Update

keras, tf = load()
layers = keras.layers
random = np.random.default_rng(5)
IMAGES = random.random((150, 8, 8, 1), dtype=np.float32)
LABELS = random.integers(0, 3, 150).astype(np.int32)


def plain() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(5, 3, activation="relu"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
            layers.SeparableConv2D(7, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(9, activation="relu"),
            layers.Dense(3),
        ]
    )


def normalised(activation: str | None = None) -> Any:
    """A residual network with BatchNorm."""
    inputs = keras.Input((8, 8, 1))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(inputs))
    y = layers.Conv2D(6, 3, padding="same", activation="relu", use_bias=False)(layers.ReLU()(x))
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3, activation=activation)(x))


def drawn(model: Any, count: int, seed: int = 0) -> list[Arrays]:
    """Weights of other models of the same architecture; variances stay positive."""
    keras.utils.set_random_seed(seed)
    result = []
    for _ in range(count):
        fresh = keras.models.clone_model(model)
        noise = np.random.default_rng(seed + len(result))
        result.append([a + np.abs(noise.normal(0, 0.1, a.shape)).astype(a.dtype) for a in fresh.get_weights()])
    return result


def material(model: Any, arrays: list[Arrays], **changes: Any) -> Material:
    given = Material(
        model=model,
        structure=structure_of(model),
        locals=tuple(Update(a, 10 + k, float(5 + k), k) for k, a in enumerate(arrays)),
        names=tuple(f"site-{k}.keras" for k in range(len(arrays))),
        base=None,
        test=resident(IMAGES, LABELS),
        public=None,
        seed=3,
        init="files",
    )
    return replace(given, **changes)


def pre_activations(model: Any, arrays: Arrays) -> list[np.ndarray]:
    """Of `plain()`: what each layer with weights gives before its activation, computed by a model that has none."""
    model.set_weights(arrays)
    x, result = IMAGES, []
    for layer in model.layers:
        activation, linear = getattr(layer, "activation", None), keras.activations.linear
        if activation is None:
            x = layer(x)
            continue
        layer.activation = linear
        result.append(np.asarray(layer(x)))
        layer.activation = activation
        x = activation(result[-1])
    return [a.reshape(-1, a.shape[-1]).astype(np.float64) for a in result]


def close(one: Arrays, other: Arrays, tolerance: float = 2e-5) -> bool:
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(one, other, strict=True))


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class TestTeacher:
    def test_the_ensemble_of_equal_models_is_the_model(self):
        model = plain()
        logits = Logits(model)
        one = logits(drawn(model, 1)[0], IMAGES)
        np.testing.assert_array_equal(ensemble(logits, drawn(model, 1) * 3, IMAGES), one)

    def test_it_is_the_mean_of_the_logits_in_any_order(self):
        model = plain()
        logits, models = Logits(model), drawn(model, 3)
        each = [logits(arrays, IMAGES) for arrays in models]
        mean = ensemble(logits, models, IMAGES)
        np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-6)
        np.testing.assert_array_equal(mean, ensemble(logits, models[::-1], IMAGES))

    def test_probabilities_are_taken_back_to_logits(self):
        soft, hard = normalised("softmax"), normalised()
        arrays = drawn(hard, 1)[0]
        given, wanted = Logits(soft)(arrays, IMAGES), Logits(hard)(arrays, IMAGES)
        np.testing.assert_allclose(given - given[:, :1], wanted - wanted[:, :1], atol=1e-5)

    def test_score(self):
        logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
        accuracy, loss = score(logits, np.array([0, 2]))
        assert accuracy == 0.5
        assert loss == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2, rel=1e-6)


class TestCalibrate:
    def test_each_unit_gets_the_mean_and_the_spread_of_the_models(self):
        model = plain()
        models = drawn(model, 3)
        merged = aggregate("fedavg", models[0], [Update(a, 1) for a in models])
        before = [a.copy() for a in merged]
        targets = [pre_activations(model, arrays) for arrays in models]
        result = calibrate(model, merged, models, IMAGES)
        assert same(merged, before)
        for k, found in enumerate(pre_activations(model, result)):
            wanted_mean = np.mean([target[k].mean(axis=0) for target in targets], axis=0)
            wanted_spread = np.mean([target[k].std(axis=0) for target in targets], axis=0)
            alive = found.std(axis=0) > 1e-5
            assert alive.any()
            np.testing.assert_allclose(found.mean(axis=0), wanted_mean, atol=1e-4)
            np.testing.assert_allclose(found.std(axis=0)[alive], wanted_spread[alive], rtol=1e-3)

    def test_a_model_against_copies_of_itself_stays_what_it_is(self):
        model = plain()
        arrays = drawn(model, 1)[0]
        assert close(calibrate(model, arrays, [arrays] * 3, IMAGES), arrays)

    def test_batch_norm_gets_the_statistics_of_what_comes_into_it(self):
        model = normalised()
        models = drawn(model, 3)
        merged = aggregate("fedavg", models[0], [Update(a, 1) for a in models])
        result = calibrate(model, merged, models, IMAGES)
        model.set_weights(result)
        norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
        inputs = np.asarray(keras.Model(model.inputs[0], [norm.input for norm in norms])(IMAGES)[0])
        np.testing.assert_allclose(norms[0].moving_mean, inputs.mean(axis=(0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(norms[0].moving_variance, inputs.var(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
        assert close(calibrate(model, result, [result], IMAGES), result)

    def test_a_unit_that_never_changes_keeps_its_scale(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])
        arrays = drawn(model, 1)[0]
        dead = [a.copy() for a in arrays]
        dead[0][:, 1] = 0
        result = calibrate(model, dead, [arrays], IMAGES.reshape(-1, 4)[:200])
        assert all(np.isfinite(a).all() for a in result)
        assert not result[0][:, 1].any()

    def test_a_layer_used_twice_keeps_its_weights_and_layers_of_an_inner_model_do_not(self):
        inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="relu")])
        twice = layers.Dense(6, activation="tanh")
        inputs = keras.Input((6,))
        model = keras.Model(inputs, layers.Dense(2)(inner(twice(twice(inputs)))))
        one, other = drawn(model, 2)
        result = calibrate(model, one, [other], IMAGES.reshape(-1, 64)[:, :6])
        order = {id(variable): place for place, variable in enumerate(model.weights)}
        shared, within = order[id(twice.kernel)], order[id(inner.layers[0].kernel)]
        assert np.array_equal(result[shared], one[shared])
        assert not np.array_equal(result[within], one[within])

    def test_the_models_layers_are_left_as_they_were(self):
        model = normalised()
        arrays = drawn(model, 1)[0]
        before = Logits(model)(arrays, IMAGES)
        calibrate(model, arrays, [arrays], IMAGES)
        assert "call" not in vars(model.layers[2])
        np.testing.assert_array_equal(Logits(model)(arrays, IMAGES), before)


class TestDistil:
    def kl(self, model: Any, arrays: Arrays, teachers: list[Arrays]) -> float:
        logits = Logits(model)
        student, teacher = logits(arrays, IMAGES), ensemble(logits, teachers, IMAGES)
        p, q = (tf.nn.log_softmax(a).numpy() for a in (teacher, student))
        return float((np.exp(p) * (p - q)).sum(axis=1).mean())

    @pytest.mark.parametrize("make", [plain, normalised, lambda: normalised("softmax")])
    def test_it_comes_closer_to_the_ensemble_and_repeats_to_the_bit(self, make):
        model = make()
        start, *teachers = drawn(model, 4)
        kept = [a.copy() for a in start]
        result = distil(model, start, teachers, IMAGES, 1, steps=40)
        assert same(start, kept)
        assert self.kl(model, result, teachers) < 0.5 * self.kl(model, start, teachers)
        assert same(result, distil(model, start, teachers, IMAGES, 1, steps=40))
        assert not same(result, distil(model, start, teachers, IMAGES, 2, steps=40))

    def test_batch_norm_keeps_its_statistics(self):
        model = normalised()
        start, *teachers = drawn(model, 3)
        result = distil(model, start, teachers, IMAGES, 1, steps=3)
        trained = {id(v) for v in model.trainable_variables}
        for variable, before, after in zip(model.weights, start, result, strict=True):
            assert np.array_equal(before, after) == (id(variable) not in trained)

    @pytest.mark.parametrize("shape", [(20, 6), (20, 5, 4, 3), (1, 6)])
    def test_mixtures_lie_between_two_examples(self, shape):
        x = random.random(shape, dtype=np.float32)
        mixed = mixtures(x, np.random.default_rng(0), count=50)
        assert mixed.shape == (50, *shape[1:]) and mixed.dtype == np.float32
        assert (mixed >= x.min(axis=0) - 1e-6).all() and (mixed <= x.max(axis=0) + 1e-6).all()
        if len(x) > 1:
            assert len(np.unique(mixed.reshape(50, -1), axis=0)) > 20


class TestAnchored:
    def test_it_is_the_first_model_moved_by_a_mean_step(self):
        models = [[np.array([1.0, 1.0], np.float32)], [np.array([5.0, -3.0], np.float32)]]
        [moved] = anchored([Update(models[0], 1, 100.0), Update(models[1], 9, 200.0)])
        np.testing.assert_allclose(moved, [1 + 4 / 200 / 2, 1 - 4 / 200 / 2], rtol=1e-6)
        assert moved.dtype == np.float32

    def test_it_needs_the_steps(self):
        with pytest.raises(ValueError, match="local_norm"):
            anchored([Update([np.ones(1)], 1)])


def by_method(combination: Combination) -> dict[str, Any]:
    return {row.method: row for row in combination.rows}


class TestCombine:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr("server.oneshot.combine.distil", partial(distil, steps=20))

    def test_everything_that_is_defined_is_there_in_order(self):
        model = plain()
        base, *models = drawn(model, 4)
        steps: list[str] = []
        combination = combine(material(model, models, base=base, public=IMAGES[:50]), steps.append)
        assert [row.method for row in combination.rows] == ["local-0", "local-1", "local-2", *METHODS]
        assert set(combination.models) == {row.method for row in combination.rows} - {"mean-local", "ensemble"}
        assert not combination.undefined and len(steps) == len(set(steps)) == 5
        assert all(seconds >= 0 for seconds in combination.seconds.values())
        assert all(row.seed == 3 and row.init == "files" for row in combination.rows)

    def test_the_averages_are_the_strategies(self):
        model = normalised()
        base, *models = drawn(model, 4)
        given = material(model, models, base=base)
        combination = combine(given)
        made, matching = combination.models, combination.matching
        trained = {id(v) for v in model.trainable_variables}
        for name in ("fedavg", "fedmedian", "weighted"):
            assert same(made[name], aggregate(name, base, given.locals))
        mask = [id(v) in trained for v in model.weights]
        assert same(made["fednova"], aggregate("fednova", base, given.locals, trainable=mask))
        moved = [replace(u, arrays=a) for u, a in zip(given.locals, matching.models, strict=True)]
        assert same(made["matched"], aggregate("fedavg", base, moved))
        rule = aggregate("matched", base, given.locals, structure=given.structure, seed=given.seed)
        assert same(made["matched"], rule)

    def test_rows_say_what_the_models_give(self):
        model = plain()
        combination = combine(material(model, drawn(model, 3)))
        rows, logits = by_method(combination), Logits(model)
        for method, arrays in combination.models.items():
            accuracy, loss = score(logits(arrays, IMAGES), LABELS)
            assert rows[method].test_accuracy == accuracy
            assert rows[method].test_loss == pytest.approx(loss, rel=1e-5)
            squares = sum(
                float(((a - b) ** 2).sum()) for a, b in zip(arrays, combination.models["local-0"], strict=True)
            )
            assert rows[method].distance_to_first == pytest.approx(squares**0.5, rel=1e-4)
        local = [rows[f"local-{k}"] for k in range(3)]
        assert rows["mean-local"].test_accuracy == pytest.approx(np.mean([row.test_accuracy for row in local]))
        assert rows["best-local"].test_accuracy == max(row.test_accuracy for row in local)
        assert rows["mean-local"].distance_to_first is None and rows["ensemble"].distance_to_first is None
        assert rows["local-0"].distance_to_first == 0

    def test_equal_models_stay_what_they_are(self):
        model = plain()
        arrays = drawn(model, 1)[0]
        combination = combine(material(model, [arrays] * 3))
        for name in ("fedavg", "fedmedian", "weighted", "matched", "fednova-anchored"):
            assert close(combination.models[name], arrays, 1e-6), name
        rows = by_method(combination)
        assert rows["ensemble"].test_accuracy == rows["local-0"].test_accuracy

    def test_running_statistics_do_not_count_in_distances(self):
        model = normalised()
        one = drawn(model, 1)[0]
        trained = {id(v) for v in model.trainable_variables}
        other = [a if id(v) in trained else a + 1 for v, a in zip(model.weights, one, strict=True)]
        assert by_method(combine(material(model, [one, other])))["local-1"].distance_to_first == 0

    def test_what_cannot_be_had_is_missing_with_the_reason(self):
        model = plain()
        base, *models = drawn(model, 3)
        without = combine(material(model, models))
        assert set(without.undefined) == {"fednova", "matched-calibrated", "distilled"}
        assert "common start" in without.undefined["fednova"] and "public" in without.undefined["distilled"]
        silent = (Update(models[0], 1, None, 0), Update(models[1], 1, 4.0, 1))
        unknown = combine(material(model, models, base=base, locals=silent))
        assert set(unknown.undefined) == {"fednova", "fednova-anchored", "matched-calibrated", "distilled"}
        assert "site-0.keras" in unknown.undefined["fednova"] and "site-1" not in unknown.undefined["fednova"]
        for combination in (without, unknown):
            assert not combination.undefined.keys() & by_method(combination).keys()
            assert not combination.undefined.keys() & combination.models.keys()

    def test_the_same_material_gives_the_same_bits(self):
        model = normalised("softmax")
        given = material(model, drawn(model, 2), public=IMAGES[:40])
        one, two = combine(given), combine(given)
        assert one.rows == two.rows
        assert all(same(one.models[name], two.models[name]) for name in one.models)
