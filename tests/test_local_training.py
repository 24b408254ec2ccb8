"""The private side: batches, FedNova's norm, the warm engine, the NumPyClient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.batches import plan
from client.engine import Engine
from client.local_norm import local_norm
from client.trainer import ShardClient, training_of
from task.config import Training
from task.evaluation import resident
from task.model import build_model, initial_arrays
from task.shardfile import shard_name
from task.shards import prepare


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"steps": 7}, 7),
        ({"steps": 3, "momentum": 0.9}, 5.61),
        ({"steps": 3, "learning_rate": 0.5, "proximal_mu": 0.1}, 2.8525),
        ({"steps": 3, "momentum": 0.9, "learning_rate": 0.5, "proximal_mu": 0.1}, None),
    ],
)
def test_local_norm_closed_forms(arguments, expected):
    assert local_norm(**arguments) == (None if expected is None else pytest.approx(expected, abs=1e-12))


@given(st.integers(1, 60), st.floats(0, 0.99))
def test_local_norm_is_the_sum_of_the_gradients_weights(steps, rho):
    """Unrolled: a gradient of step k moves the model in every later step, damped by rho each time."""
    weights = [sum(rho**later for later in range(steps - k)) for k in range(steps)]
    assert local_norm(steps, rho) == pytest.approx(sum(weights), rel=1e-9)


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 4), st.none() | st.integers(1, 30))
def test_batches_are_whole_passes_in_a_fresh_order(n, batch, epochs, steps):
    batches = plan(n, batch, epochs, steps, seed=3, server_round=2, client=1)
    a_pass = -(-n // batch)
    assert batches.steps == (steps or epochs * a_pass)
    sizes = batches.ends - batches.starts
    assert sizes.min() >= 1
    assert sizes.max() <= batch
    for begin in range(0, batches.steps - a_pass + 1, a_pass):
        seen = np.concatenate(
            [batches.order[s:e] for s, e in zip(batches.starts, batches.ends, strict=True)][begin : begin + a_pass]
        )
        assert sorted(seen) == list(range(n))


def test_batches_depend_on_seed_round_and_client_alone():
    def order(**where):
        return plan(50, 8, 1, None, **{"seed": 0, "server_round": 1, "client": 0, **where}).order.tolist()

    assert order() == order()
    assert len({tuple(order(**w)) for w in ({}, {"seed": 1}, {"server_round": 2}, {"client": 1})}) == 4


# The engine against a plain Keras loop ------------------------------------------------------------------------------


def plain_keras(optimizer: str, config: dict, x: np.ndarray, y: np.ndarray, batches) -> list[np.ndarray]:
    """The same local training, one eager step after the other."""
    import keras
    import tensorflow as tf

    model = build_model("mlp", (4, 4, 1), 3, 5)
    optimizer = keras.optimizers.get({"class_name": optimizer, "config": config})
    for start, end in zip(batches.starts, batches.ends, strict=True):
        pick = batches.order[start:end]
        with tf.GradientTape() as tape:
            output = model(x[pick], training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y[pick], output, from_logits=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return model.get_weights()


@pytest.fixture(scope="module")
def tiny() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((30, 4, 4, 1), dtype=np.float32), random.integers(0, 3, 30).astype(np.int32)


@pytest.mark.parametrize(
    "training",
    [
        Training(learning_rate=0.1),
        Training(learning_rate=0.1, momentum=0.9),
        Training(learning_rate=0.1, momentum=0.9, nesterov=True),
        Training(optimizer="adam", learning_rate=0.01),
        Training(optimizer="adagrad", learning_rate=0.01),
        Training(optimizer="nadam", learning_rate=0.01),
    ],
    ids=lambda t: f"{t.optimizer}-{t.momentum}-{t.nesterov}",
)
def test_engine_trains_as_keras_does_and_forgets_everything_between_rounds(training, tiny):
    engine = Engine("mlp", (4, 4, 1), 3, training)
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3, 5))
    batches = plan(30, 8, 2, None, seed=0, server_round=1, client=0)
    where = {"seed": 0, "server_round": 1, "client": 0}
    first, loss = engine.train(start, *resident(*tiny), batches, **where)
    again, same_loss = engine.train(start, *resident(*tiny), batches, **where)
    assert [a.tobytes() for a in first] == [a.tobytes() for a in again]
    assert loss == same_loss
    config = {"learning_rate": training.learning_rate}
    if training.optimizer == "sgd":
        config |= {"momentum": training.momentum, "nesterov": training.nesterov}
    for ours, theirs in zip(first, plain_keras(training.optimizer, config, *tiny, batches), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


def test_proximal_term_pulls_towards_the_global_model(tiny):
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3, 5))
    batches = plan(30, 8, 5, None, seed=0, server_round=1, client=0)
    where = {"seed": 0, "server_round": 1, "client": 0}

    def drift(mu: float) -> float:
        new, _ = Engine("mlp", (4, 4, 1), 3, Training(), mu).train(start, *resident(*tiny), batches, **where)
        return float(sum(np.square(a - b).sum() for a, b in zip(new, start, strict=True)))

    assert drift(1.0) < 0.5 * drift(0.0)


def test_engine_refuses_arrays_of_another_model(tiny):
    engine = Engine("mlp", (4, 4, 1), 3, Training())
    batches = plan(30, 8, 1, None, seed=0, server_round=1, client=0)
    with pytest.raises(ValueError, match="do not fit the model"):
        engine.train(engine.initial[:-1], *resident(*tiny), batches, seed=0, server_round=1, client=0)


# A user's own model -------------------------------------------------------------------------------------------------

OWN = """
import keras

def build(input_shape, num_classes):
    layers = keras.layers
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(16), layers.BatchNormalization(),
                             layers.ReLU(), layers.Dropout(0.5), layers.Dense(num_classes, activation="softmax")])

def nothing():
    return 3

def broken():
    raise RuntimeError("no such luck")

def narrow(input_shape):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(2)])
"""


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    (tmp_path / "own_model.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_model")
def test_own_model_with_batchnorm_and_dropout(tiny):
    from task.model import gives_logits, trainable_mask

    model = build_model("own_model:build", (4, 4, 1), 3)
    assert not gives_logits(model)
    assert trainable_mask(model).count(False) == 2  # BatchNorm's running mean and variance are exchanged, too
    engine = Engine("own_model:build", (4, 4, 1), 3, Training())
    batches = plan(30, 8, 1, None, seed=0, server_round=1, client=0)

    def train(**where):
        new, _ = engine.train(initial_arrays(model), *resident(*tiny), batches, **where)
        return b"".join(a.tobytes() for a in new)

    one = train(seed=0, server_round=1, client=0)
    assert one == train(seed=0, server_round=1, client=0)  # dropout draws the same again
    assert one != train(seed=0, server_round=2, client=0)  # and something else in another round


@pytest.mark.usefixtures("own_model")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cmm", "unknown model 'cmm'; there are cnn, mlp"),
        ("nowhere:build", "model nowhere:build: ModuleNotFoundError"),
        ("own_model:gone", "AttributeError"),
        ("own_model:nothing", "returned int, not a Keras model"),
        ("own_model:broken", "RuntimeError: no such luck"),
        ("own_model:narrow", r"gives \(None, 2\) where \(None, 3\) is needed"),
    ],
)
def test_a_model_that_does_not_do_is_one_clear_line(name, says):
    from task.errors import UserError

    with pytest.raises(UserError, match=says) as caught:
        build_model(name, (4, 4, 1), 3)
    assert "\n" not in str(caught.value)


# The NumPyClient ----------------------------------------------------------------------------------------------------


def test_client_trains_on_its_own_shard_and_reports_the_facts(small_data, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDARENA_CACHE", str(tmp_path))
    shards = prepare(str(small_data), 3, 0)
    others = [shards.folder / shard_name(k) for k in (0, 2)] + [shards.folder / "test.npz"]
    for other in others:
        other.chmod(0)
        other.rename(other.with_suffix(".away"))  # whoever opens them fails, root as well
    client = ShardClient(shards.folder / shard_name(1))
    start = initial_arrays(build_model("mlp", shards.input_shape, 3))
    config = {"epochs": 2, "batch_size": 8, "momentum": 0.5, "model": "mlp", "seed": 0, "server-round": 1}
    new, num_examples, facts = client.fit(start, config)
    assert num_examples == 50
    assert facts["client"] == 1
    assert facts["local_steps"] == 14
    assert facts["local_norm"] == pytest.approx(local_norm(14, 0.5))
    assert facts["train_loss"] > 0
    assert set(facts) == {"client", "local_steps", "local_norm", "train_loss", "seconds", "cpu_seconds"}
    loss, n, more = client.evaluate(new, config)
    assert n == 50
    assert more["accuracy"] > 0.9
    assert loss < client.evaluate(start, config)[0]
    _, _, without = client.fit(start, {"optimizer": "adam", "model": "mlp"})
    assert "local_norm" not in without


def test_training_of_ignores_what_is_not_its_own():
    assert training_of({"epochs": 3, "server-round": 1, "model": "mlp"}) == Training(epochs=3)
