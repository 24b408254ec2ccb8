"""Hidden units read off Keras models: permuting them must leave no trace in what the model computes."""

import numpy as np
import pytest

from task import backend
from task.structure import Structure
from task.units import structure_of

keras, _ = backend.load()
layers = keras.layers
IMAGE = (9, 9, 3)


def randomised(model, seed=0):
    """The model with weights that tell its units apart, BatchNorm's statistics and depthwise biases among them."""
    random = np.random.default_rng(seed)
    arrays = []
    for weight in model.weights:
        low, high = (0.5, 2.0) if "variance" in weight.path or "gamma" in weight.path else (-0.5, 0.5)
        arrays.append(random.uniform(low, high, weight.shape).astype(np.float32))
    model.set_weights(arrays)
    return model


def shuffled(structure: Structure, seed=1):
    """Other orders of all groups, none of which keeps a single unit in its place."""
    random = np.random.default_rng(seed)
    return [np.roll(np.arange(group.size), int(random.integers(1, group.size))) for group in structure.groups]


def check(model, sizes, notes=()):
    """Permuted in every group it computes the same function; returns its structure."""
    structure = structure_of(randomised(model))
    assert [group.size for group in structure.groups] == list(sizes)
    assert len(structure.counted) == len(model.get_weights())
    assert len(structure.notes) == len(notes)
    for line, words in zip(structure.notes, notes, strict=True):
        assert all(word in line for word in words), line
        assert "\n" not in line
    x = [np.random.default_rng(2).normal(size=(4, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    before, arrays = np.asarray(model(x[0] if len(x) == 1 else x)), model.get_weights()
    for alone in [None, *range(len(sizes))]:  # all groups at once, and each by itself
        permutations = [p if alone in (None, g) else np.arange(len(p)) for g, p in enumerate(shuffled(structure))]
        permuted = structure.permuted(arrays, permutations)
        assert any(not np.array_equal(a, b) for a, b in zip(arrays, permuted, strict=True)) == bool(sizes)
        model.set_weights(permuted)
        after = np.asarray(model(x[0] if len(x) == 1 else x))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    return structure


def sequential(*parts, shape=IMAGE):
    return keras.Sequential([keras.Input(shape), *parts])


def functional(make, shape=IMAGE):
    x = keras.Input(shape)
    return keras.Model(x, make(x))


HEAD = (layers.GlobalAveragePooling2D, lambda: layers.Dense(4))


def head(x):
    return layers.Dense(4)(layers.Flatten()(x))


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (lambda: [layers.Conv2D(5, 3, activation="relu"), layers.Conv2D(6, 3, strides=2)], [5, 6]),
        (lambda: [layers.Conv2D(5, 3, use_bias=False), layers.ReLU(), layers.MaxPooling2D()], [5]),
        (lambda: [layers.Conv2DTranspose(5, 3, activation="tanh")], [5]),
        (lambda: [layers.Conv2D(4, 1), layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")], [4]),
        (lambda: [layers.Conv2D(4, 1), layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="gelu")], [4, 5]),
        (lambda: [layers.Conv2D(5, 3), layers.BatchNormalization(), layers.Activation("relu")], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.LayerNormalization(), layers.LeakyReLU(0.2)], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.PReLU()], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.PReLU(shared_axes=[1, 2]), layers.AveragePooling2D(2)], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.PReLU(shared_axes=[1, 2, 3]), layers.ELU()], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.ZeroPadding2D(), layers.Cropping2D(2), layers.UpSampling2D()], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.Rescaling(0.5, 1.0), layers.Dropout(0.5), layers.Identity()], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.Reshape((-1, 5)), layers.Conv1D(6, 3, activation="elu")], [5, 6]),
        (lambda: [layers.Conv2D(5, 3), layers.Reshape((7 * 7 * 5,))], [5]),
        (lambda: [layers.Reshape((9, 9, 3, 1)), layers.Conv3D(5, 2), layers.GlobalMaxPooling3D()], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.GlobalAveragePooling2D(keepdims=True)], [5]),
        (lambda: [layers.Conv2D(5, 3), layers.GaussianNoise(0.1), layers.SpatialDropout2D(0.5), layers.ReLU(6)], [5]),
    ],
)
def test_every_known_layer_can_be_permuted(parts, sizes):
    check(sequential(*parts(), layers.Flatten(), layers.Dense(7, activation="relu"), layers.Dense(4)), [*sizes, 7])


def test_dense_layers_on_rows_and_the_softmax_at_the_end():
    structure = check(
        sequential(
            layers.Dense(6, activation="tanh"), layers.Dense(5), layers.Dense(3, activation="softmax"), shape=(4,)
        ),
        [6, 5],
    )
    assert structure.counted == (True,) * 6


def test_a_softmax_layer_at_the_end_is_no_note():
    check(sequential(layers.Dense(6, "relu"), layers.Dense(3), layers.Softmax(), shape=(4,)), [6])


def test_one_place_for_each_pixel_behind_flatten():
    structure = check(sequential(layers.Conv2D(5, 3), layers.Flatten(), layers.Dense(4)), [5])
    [group] = structure.groups
    assert [(p.array, p.axis, p.positions.shape) for p in group.places] == [
        (0, 3, (5, 1)),
        (1, 0, (5, 1)),
        (2, 0, (5, 49)),
    ]
    assert group.places[2].positions[1].tolist() == list(range(1, 49 * 5, 5))


def test_statistics_of_batchnorm_move_along_but_do_not_count():
    model = sequential(layers.Conv2D(5, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(4))
    structure = check(model, [5])
    names = [weight.name for weight in model.weights]
    assert [name for name, counts in zip(names, structure.counted, strict=True) if not counts] == [
        "moving_mean",
        "moving_variance",
    ]


def test_a_layer_that_is_not_trained_counts_all_the_same():
    model = sequential(layers.Dense(5), layers.Dense(4), shape=(3,))
    model.layers[0].trainable = False
    assert structure_of(model).counted == (True,) * 4


def test_arrays_are_those_of_get_weights_whatever_is_trained():
    """Keras sorts layers, and in each of them what is trained before what is not."""
    model = sequential(
        layers.Conv2D(5, 3),
        layers.BatchNormalization(),
        layers.Conv2D(6, 3),
        layers.BatchNormalization(),
        *(part() for part in HEAD),
    )
    model.layers[0].trainable = False
    check(model, [5, 6])


def residual(x):
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(6, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    return head(layers.ReLU()(layers.Add()([x, y])))


def test_a_residual_sum_unites_groups_and_one_array_holds_them_twice():
    structure = check(functional(residual), [6])
    kernels = [place.array for place in structure.groups[0].places if place.axis in (2, 3)]
    assert len(kernels) - len(set(kernels)) == 1


@pytest.mark.parametrize("kind", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
def test_every_way_to_merge_unites(kind):
    def make(x):
        one, two = layers.Conv2D(5, 3)(x), layers.Conv2D(5, 3)(x)
        return head(getattr(layers, kind)()([one, two]))

    check(functional(make), [5])


def test_operators_on_tensors_are_known_too():
    def make(x):
        one, two = layers.Conv2D(5, 3)(x), layers.Conv2D(5, 3)(x)
        return head(keras.ops.relu(2.0 * one + two - 0.5))

    check(functional(make), [5])


def test_a_gate_of_one_value_or_of_each_channel():
    def make(x):
        x = layers.Conv2D(6, 3)(x)
        squeezed = layers.Dense(3, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        x = layers.Multiply()([x, layers.Dense(6, activation="sigmoid")(squeezed)])
        return head(layers.Multiply()([x, layers.Conv2D(1, 1)(x)]))

    check(functional(make), [6, 3])


def test_concatenated_tensors_keep_their_groups():
    def make(x):
        one, two = layers.Conv2D(5, 3)(x), layers.Conv2D(3, 3)(x)
        x = layers.BatchNormalization()(layers.Concatenate()([one, two, one]))
        return head(layers.Conv2D(4, 3, activation="relu")(x))

    check(functional(make), [5, 3, 4])


def test_concatenated_along_rows_they_are_one_group():
    def make(x):
        return head(layers.Concatenate(axis=1)([layers.Conv2D(5, 3)(x), layers.Conv2D(5, 3)(x)]))

    check(functional(make), [5])


def test_sums_of_what_does_not_correspond_keep_their_order():
    def make(x):
        one, two = layers.Conv2D(5, 3)(x), layers.Conv2D(3, 3)(x)
        return head(layers.Add(name="crossed")([layers.Concatenate()([one, two]), layers.Concatenate()([two, one])]))

    check(functional(make), [], notes=[["crossed", "Add", "do not correspond"]])


def test_a_sum_with_the_input_keeps_its_order():
    check(functional(lambda x: head(layers.Add()([x, layers.Conv2D(3, 3, padding="same")(x)]))), [])


def test_nested_models_are_entered_and_may_be_called_twice():
    inner = sequential(layers.Conv2D(5, 3, padding="same", activation="relu"), layers.Conv2D(3, 3, padding="same"))
    other = functional(lambda x: layers.Conv2D(3, 1)(layers.Conv2D(4, 1, activation="relu")(x)))

    def make(x):
        first = layers.Conv2D(3, 3, padding="same")(x)
        return head(other(inner(inner(first))))

    structure = check(functional(make), [3, 5, 4, 3])
    assert not structure.notes


def test_a_layer_that_is_called_several_times_unites_its_places():
    shared = layers.Conv2D(5, 3, padding="same", activation="relu")

    def make(x):
        return head(shared(shared(layers.Conv2D(5, 3)(x))))

    check(functional(make), [5])


class Reversed(layers.Layer):
    """Not alike for all units."""

    def call(self, x):
        return x[..., ::-1]


class Custom(layers.Dense):
    """Looks known, and is not."""

    def call(self, x):
        return super().call(x)[..., ::-1]


class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(5), layers.Dense(3)

    def call(self, x):
        return self.two(self.one(x))


@pytest.mark.parametrize(
    ("parts", "sizes", "words"),
    [
        (lambda: [layers.Conv2D(5, 3), Reversed(name="turned")], [], ["turned", "Reversed", "of its own kind"]),
        (lambda: [layers.Conv2D(5, 3), Custom(6, name="turned")], [], ["turned", "Custom"]),
        (lambda: [layers.Conv2D(6, 3), layers.Conv2D(4, 3, groups=2, name="grouped")], [], ["grouped", "in groups"]),
        (lambda: [layers.Conv2D(5, 3, activation="softmax", name="soft")], [], ["soft", "softmax"]),
        (lambda: [layers.Conv2D(5, 3), layers.Softmax(name="soft")], [], ["soft", "Softmax"]),
        (lambda: [layers.Conv2D(5, 3, activation=lambda x: x * x, name="own")], [], ["own", "<lambda>"]),
        (lambda: [layers.Conv2D(5, 3), layers.BatchNormalization(axis=1, name="rows")], [], ["rows", "last axis"]),
        (lambda: [layers.Conv2D(5, 3), layers.Permute((3, 1, 2), name="turned")], [], ["turned", "Permute"]),
        (lambda: [layers.Conv2D(6, 3), layers.Reshape((7, 7, 3, 2), name="cut")], [], ["cut", "mixes"]),
        (lambda: [layers.Conv2D(2, 3), layers.Rescaling([1.0, 2.0], name="each")], [], ["each", "in its own way"]),
    ],
)
def test_what_is_not_known_keeps_its_order_and_is_named(parts, sizes, words):
    model = sequential(*parts(), layers.Flatten(), layers.Dense(7, activation="relu"), layers.Dense(4))
    check(model, [*sizes, 7], notes=[words])


def test_a_constant_for_each_unit_keeps_the_order():
    constant = np.arange(5, dtype=np.float32)
    check(functional(lambda x: head(layers.Conv2D(5, 3)(x) + constant)), [], notes=[["Add", "constant"]])


def test_channels_first_keep_their_order():
    model = sequential(layers.Conv2D(5, 3), layers.MaxPooling2D(data_format="channels_first"), *(p() for p in HEAD))
    structure = check(model, [], notes=[["channels first"]])
    assert "max_pooling" in structure.notes[0]


def test_a_graph_that_is_not_known_has_no_groups():
    model = Model()
    model(np.zeros((1, 4), np.float32))
    structure = structure_of(model)
    assert structure.groups == ()
    assert "Model" in structure.notes[0]


def test_a_single_unit_is_no_group():
    check(sequential(layers.Dense(1), layers.Dense(3), shape=(4,)), [])


def test_several_inputs_and_outputs():
    one, two = keras.Input((3,)), keras.Input((2,))
    hidden = layers.Concatenate()([layers.Dense(5, "relu")(one), layers.Dense(4, "relu")(two)])
    shown = layers.Dense(6, "relu")(hidden)
    model = keras.Model([one, two], [layers.Dense(3)(shown), shown])
    structure = structure_of(model)
    assert [group.size for group in structure.groups] == [5, 4]  # what is shown keeps its order
