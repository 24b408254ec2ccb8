"""The private side: batches, FedNova's norm, the warm engine, the NumPyClient."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from client.batches import plan
from client.engine import Engine, engine_for
from client.local_norm import local_norm
from client.trainer import ShardClient, share_of, training_of
from task.config import Training
from task.errors import UserError
from task.evaluation import resident
from task.model import build_model, initial_arrays
from task.shardfile import Header, shard_name, write_shard
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


def plain_keras(
    optimizer: str, config: dict, x: np.ndarray, y: np.ndarray, batches, correction=None
) -> list[np.ndarray]:
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
        gradients = tape.gradient(loss, model.trainable_variables)
        if correction:
            gradients = [g + correction.get(i, 0.0) for i, g in enumerate(gradients)]
        optimizer.apply(gradients, model.trainable_variables)
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


def test_engine_adds_the_correction_to_every_gradient_and_others_never_meet_it(tiny):
    engine, training = Engine("mlp", (4, 4, 1), 3, Training()), Training(learning_rate=0.1)
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3, 5))
    batches = plan(30, 8, 2, None, seed=0, server_round=1, client=0)
    random = np.random.default_rng(1)
    correction = {i: random.normal(0, 0.1, start[i].shape).astype(np.float32) for i in range(len(start) - 1)}

    def train(plus):
        new, loss = engine.train(start, *resident(*tiny), batches, seed=0, server_round=1, client=0, correction=plus)
        return [a.tobytes() for a in new], loss, new

    plain = train(None)
    assert engine._train_corrected.experimental_get_tracing_count() == 0
    corrected = train(correction)
    assert train({0: np.zeros_like(start[0])})[:2] == train({})[:2] == plain[:2]
    assert train(correction)[:2] == corrected[:2]
    assert train({i: 2 * c for i, c in correction.items()})[0] != corrected[0]
    assert engine._train_corrected.experimental_get_tracing_count() == 1
    assert engine._train.experimental_get_tracing_count() == 1
    config = {"learning_rate": training.learning_rate}
    expected = plain_keras("sgd", config, *tiny, batches, correction)
    for ours, theirs, without in zip(corrected[2], expected, plain[2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)
        assert not np.allclose(ours, without, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("place", [0, 99, -1])
def test_engine_refuses_a_correction_of_another_model(place, tiny):
    wrong = {place: np.zeros(7, np.float32)}
    engine = engine_for("mlp", (4, 4, 1), 3, Training())
    batches = plan(30, 8, 1, None, seed=0, server_round=1, client=0)
    with pytest.raises(ValueError, match="does not fit the model"):
        engine.train(engine.initial, *resident(*tiny), batches, seed=0, server_round=1, client=0, correction=wrong)


def test_clients_with_unequal_work_share_an_engine():
    one = engine_for("mlp", (4, 4, 1), 3, Training())
    assert one is engine_for("mlp", (4, 4, 1), 3, Training(epochs=4, batch_size=7))
    assert one is engine_for("mlp", (4, 4, 1), 3, Training(steps=2))
    assert one is not engine_for("mlp", (4, 4, 1), 3, Training(learning_rate=0.2))
    assert one is not engine_for("mlp", (4, 4, 1), 3, Training(), 0.1)


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

def constant(input_shape, num_classes):
    # On black images the gradient of the kernel is 1 everywhere and always: cross-entropy says nothing.
    dense = keras.layers.Dense(num_classes, use_bias=False, kernel_regularizer=keras.ops.sum)
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), dense])

def brief(input_shape, num_classes):
    dense = keras.layers.Dense(num_classes, dtype="bfloat16")
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), dense])

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
@pytest.mark.parametrize(("momentum", "mu", "steps"), [(0, 0, 5), (0.9, 0, 3), (0.5, 0, 7), (0, 0.5, 3), (0, 4, 6)])
def test_local_norm_is_how_far_a_constant_gradient_moves_the_real_model(momentum, mu, steps):
    training = Training(learning_rate=0.1, momentum=momentum)
    engine = Engine("own_model:constant", (2, 2, 1), 3, training, mu)
    black = resident(np.zeros((4, 2, 2, 1), np.float32), np.zeros(4, np.int32))
    batches = plan(4, 4, 1, steps, seed=0, server_round=1, client=0)
    start = [np.full((4, 3), 0.25, np.float32)]
    where = {"seed": 0, "server_round": 1, "client": 0}
    [end], _ = engine.train(start, *black, batches, **where)
    norm = local_norm(steps, momentum, 0.1, mu)
    np.testing.assert_allclose((start[0] - end) / 0.1, np.full((4, 3), norm), rtol=1e-5)
    [further], _ = engine.train(start, *black, batches, **where, correction={0: np.full((4, 3), 2, np.float32)})
    np.testing.assert_allclose((start[0] - further) / 0.1, np.full((4, 3), 3 * norm), rtol=1e-5)


@pytest.mark.usefixtures("own_model")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cmm", "unknown model 'cmm'; there are cnn, mlp"),
        ("nowhere:build", "model nowhere:build: ModuleNotFoundError"),
        ("own_model:gone", "AttributeError"),
        ("own_model:nothing", "returned int, not a Keras model"),
        ("own_model:broken", "RuntimeError: no such luck"),
        ("own_model:brief", "kernel is of bfloat16, which arrays cannot be sent in; keep weights in float32"),
        ("own_model:narrow", r"gives \(None, 2\) where \(None, 3\) is needed"),
    ],
)
def test_a_model_that_does_not_do_is_one_clear_line(name, says):
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


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client with 30 random images of 3 classes."""
    random = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("shards") / shard_name(2)
    x = random.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    write_shard(file, x, np.arange(30) % 3, Header(client=2, clients=3, num_classes=3, scale=255.0))
    return ShardClient(file)


CONFIG = {"epochs": 2, "batch_size": 8, "model": "mlp", "seed": 0, "server-round": 1}


def test_measuring_tells_the_accuracies_and_changes_nothing_else(client):
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3))
    new, _, facts = client.fit(start, CONFIG)
    same, _, measured = client.fit(start, {**CONFIG, "measure": True})
    assert [a.tobytes() for a in new] == [a.tobytes() for a in same]
    assert measured.keys() - facts.keys() == {"accuracy_before", "accuracy_after"}
    assert measured["accuracy_before"] == client.evaluate(start, CONFIG)[2]["accuracy"]
    assert measured["accuracy_after"] == client.evaluate(new, CONFIG)[2]["accuracy"]
    assert client.fit(start, {**CONFIG, "measure": False})[2].keys() == facts.keys()
    # What was received is tested, also where training begins elsewhere.
    apart = client.fit(start, {**CONFIG, "measure": True, "init": "independent"})[2]
    assert apart["accuracy_before"] == measured["accuracy_before"]


@pytest.mark.parametrize(("share", "steps"), [(1.0, 8), (1, 8), (0.99, 7), (0.5, 4), (0.2, 1), (0.001, 1)])
def test_a_share_of_the_work_is_the_first_steps_of_all(share, steps, client):
    planned = plan(30, 8, 2, None, seed=0, server_round=1, client=2)
    part = share_of(planned, share)
    assert planned.steps == 8
    assert part.starts.tolist() == planned.starts[:steps].tolist()
    assert part.ends.tolist() == planned.ends[:steps].tolist()
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3))
    new, examples, facts = client.fit(start, {**CONFIG, "work-share": share})
    assert (examples, facts["local_steps"], facts["local_norm"]) == (30, steps, steps)
    if share == 0.5:  # 4 steps are one epoch
        assert [a.tobytes() for a in new] == [a.tobytes() for a in client.fit(start, {**CONFIG, "epochs": 1})[0]]


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share, client):
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3))
    with pytest.raises(UserError, match="work-share must be above 0 and at most 1"):
        client.fit(start, {**CONFIG, "work-share": share})


@pytest.mark.parametrize("other", [{"momentum": 0.9}, {"optimizer": "adam"}])
def test_gradients_are_corrected_for_plain_sgd_alone(other, client):
    start = initial_arrays(build_model("mlp", (4, 4, 1), 3))
    correction = {0: np.ones_like(start[0])}
    with pytest.raises(UserError, match="defined for plain sgd without momentum"):
        client.fit(start, {**CONFIG, **other}, correction)
    client.fit(start, {**CONFIG, **other}, {})


def test_scaffold_with_the_real_client(client):
    """The app reads the correction of its message; what the server makes of the reply is the mean gradient."""
    from inline_grid import InlineGrid, mover

    from client.app import app
    from strategies.specify import make_strategy
    from task import wire

    class Real(InlineGrid):
        def _answer(self, message):
            node = {"shard": str(client._file), "partition-id": 2}
            return app(message, Context(run_id=1, node_id=100, node_config=node, state=RecordDict(), run_config={}))

    grid, strategy = Real({0: mover(0)}), make_strategy("scaffold:learning_rate=1")
    x = start = initial_arrays(build_model("mlp", (4, 4, 1), 3))
    strategy.memory = {"c": [np.zeros_like(a) for a in start], "client-2": [np.full_like(a, 0.01) for a in start]}
    strategy.clients = {100: 2, 101: 1}
    config = ConfigRecord({**CONFIG, "learning_rate": 0.1})
    [message] = strategy.configure_train(1, wire.record(x), config, grid)
    arrays, _ = strategy.aggregate_train(1, grid.send_and_receive([message]))
    expected, _, _ = client.fit(start, CONFIG, {i: np.full_like(a, -0.01) for i, a in enumerate(start)})
    new = wire.arrays_of(arrays)
    assert [a.tobytes() for a in new] == [a.tobytes() for a in expected]
    assert [a.tobytes() for a in new] != [a.tobytes() for a in client.fit(start, CONFIG)[0]]
    for before, after, own, c in zip(start, new, strategy.memory["client-2"], strategy.memory["c"], strict=True):
        np.testing.assert_allclose(own, (before - after) / (8 * 0.1) + 0.01, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(c, (own - np.float32(0.01)) / 2, rtol=1e-4, atol=1e-6)


def test_training_of_ignores_what_is_not_its_own():
    assert training_of({"epochs": 3, "server-round": 1, "model": "mlp"}) == Training(epochs=3)
