"""The numbers that must come out, driven through real rounds: messages, gate, strategy, memory, rows.

Some clients are functions; others are the ClientApp with shard, engine and TensorFlow, on an objective whose gradient
is known: F_i(w) = (w - e_i)^2 / 2.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from inline_grid import Client, InlineGrid
from test_memory import ETA, REMEMBER, Corrected, bits, two, vector
from test_rounds import Notes

from client.app import app
from server.conditions import Conditions, Fate
from server.federation import Federation
from server.results import Entry
from server.rounds import Contestant, Terms, run_rounds
from server.stop import Stop
from strategies import REGISTRY
from strategies.specify import make_strategy
from task import wire
from task.scenario import scenario_of
from task.shardfile import Header, shard_name, write_shard
from task.structure import Group, Place, Structure
from task.update import Arrays, Memory

UNITS = Structure((Group("hidden", 2, (Place(0, 0, np.array([[0], [1]])),)),), (True, True, False))


class Fated(Conditions):
    """Conditions that are written down, by round and client."""

    def __init__(self, fates: Mapping[tuple[int, int], Fate]) -> None:
        super().__init__(scenario_of("iid"), 0, len(fates))
        self._fates = fates

    def fate(self, server_round: int, client: int) -> Fate:
        return self._fates.get((server_round, client), Fate())


def contestant(specification: str, grid: InlineGrid, **others: Any) -> Contestant:
    config, structure = others.pop("config", {}), others.pop("structure", None)
    return Contestant(
        Entry("truth", specification, 0),
        make_strategy(specification, structure=lambda: structure),
        Federation(grid, grid.nodes, lambda seconds: None),
        {"seed": 0, **config},
        None,
        lambda arrays: (0.0, 0.0),
        **others,
    )


def play(specification: str, grid: InlineGrid, x: Arrays, rounds: int, **others: Any) -> Notes:
    """What was taken down of so many rounds; `models[r]` and `memories[r]` are those after round r."""
    notes = Notes()
    run_rounds(contestant(specification, grid, **others), x, 0, rounds, notes, Stop())
    return notes


def memory_bits(memory: Memory) -> dict[str, Any]:
    return {name: bits(arrays) for name, arrays in memory.items()}


def says(*values: float, examples: int = 10, norm: float = 1.0) -> Client:
    """A client that ends at these values, wherever it began."""

    def fit(arrays: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        return [np.array(values, arrays[0].dtype)], examples, {"local_norm": norm, "local_steps": 1}

    return fit


def moves(by: float, examples: int = 10) -> Client:
    """A client that ends so much further, in each value."""
    return lambda arrays, config: ([a + by for a in arrays], examples, {"local_norm": 1.0, "local_steps": 1})


# F_i(w) = (w - e_i)^2 / 2 ---------------------------------------------------------------------------------------------

SLOW_AND_FAST = "uneven-work:low=2,high=8,slow=1"  # tau = (2, 8): all examples are one batch, so an epoch is a step
START = 0.9  # eta = .01
C = [1 - 0.99**2, 1 - 0.99**8]  # a client goes this share of the way to its e_i: x_i = x + c_i (e_i - x)
# From x = .9, e = (0, 1), p = (.5, .5): x + sum p c (e - x), and x + tau_eff sum (p c / tau) (e - x), tau_eff = 5.
FIRST = {
    "weighted": 0.9 + 0.5 * C[0] * (0 - 0.9) + 0.5 * C[1] * (1 - 0.9),
    "fednova": 0.9 + 5 * (0.5 * C[0] / 2 * (0 - 0.9) + 0.5 * C[1] / 8 * (1 - 0.9)),
    "scaffold": 0.9 + 0.5 * C[0] * (0 - 0.9) + 0.5 * C[1] * (1 - 0.9),  # nothing to correct yet
}
# sum p c e / sum p c; sum (p c / tau) e / sum (p c / tau); the minimum of (F_1 + F_2) / 2.
FIXED = {"weighted": 0.795173, "fednova": 0.492526, "scaffold": 0.5}

QUADRATIC = """
import keras


class Pull(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(1,), initializer="zeros")

    def call(self, x):
        # e is what the pixels are. The logits are all 0: cross-entropy says nothing about w.
        self.add_loss(keras.ops.sum((self.w - keras.ops.mean(x)) ** 2) / 2)
        return keras.ops.zeros((keras.ops.shape(x)[0], 2))


def build(input_shape):
    return keras.Sequential([keras.Input(input_shape), Pull()])
"""


class Apps(InlineGrid):
    """Each client is the real ClientApp on a shard of its own.

    Args:
        folder: for the shards of them all.
        pixels: e_i, the value of all pixels of client i.
        examples: n_i.

    Attributes:
        corrections: what each message told to add to the gradients, by round and client.
    """

    def __init__(self, folder: Path, pixels: list[float], examples: list[int]) -> None:
        super().__init__(dict.fromkeys(range(len(pixels)), says()))
        self.corrections: dict[tuple[int, int], dict[int, list[float]]] = {}
        self._shards = [folder / shard_name(k) for k in range(len(pixels))]
        for k, (file, pixel, n) in enumerate(zip(self._shards, pixels, examples, strict=True)):
            x = np.full((n, 2, 2), pixel, np.float32)
            write_shard(file, x, np.arange(n) % 2, Header(client=k, clients=len(pixels), num_classes=2))

    def _answer(self, message: Message) -> Message:
        k = message.metadata.dst_node_id - 100
        told = {i: array.tolist() for i, array in wire.correction_of(message).items()}
        self.corrections[wire.read(message)[1]["server-round"], k] = told
        node = {"shard": str(self._shards[k]), "partition-id": k}
        return app(message, Context(run_id=1, node_id=100 + k, node_config=node, state=RecordDict(), run_config={}))


@pytest.fixture
def quadratic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Apps]:
    """Makes real clients that minimise F_i."""
    (tmp_path / "truth_model.py").write_text(QUADRATIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda pixels, examples: Apps(tmp_path, pixels, examples)


def local(eta: float, **more: Any) -> dict[str, Any]:
    return {"model": "truth_model:build", "batch_size": 64, "learning_rate": eta, **more}


@pytest.mark.parametrize("name", FIXED)
def test_objective_inconsistency(name):
    """TRUTH: the first step and the fixed point; each alone misses a known bug. A round contracts by .951."""
    config = {"learning_rate": ETA}  # which scaffold's server needs to know
    notes = play(name, two(), vector(START), 500, config=config)
    assert notes.models[1][0][0] == pytest.approx(FIRST[name], abs=1e-12)
    assert notes.models[-1][0][0] == pytest.approx(FIXED[name], abs=1e-6)
    assert {row.local_norm for row in notes.clients if row.client == 1} == {8.0}


@pytest.mark.parametrize("name", FIXED)
def test_objective_inconsistency_with_real_clients(name, quadratic):
    """The same from shards, TensorFlow and the uneven-work scenario; in float32, so to its last digits."""
    conditions = Conditions(scenario_of(SLOW_AND_FAST), 0, 2)
    (slow,) = conditions.slow
    pixels = [0.0 if k == slow else 1.0 for k in range(2)]
    grid = quadratic(pixels, [6, 6])
    x = vector(START, dtype=np.float32)
    notes = play(name, grid, x, 280, conditions=conditions, config=local(ETA))
    assert notes.models[1][0][0] == pytest.approx(FIRST[name], abs=2e-7)
    assert notes.models[-1][0][0] == pytest.approx(FIXED[name], abs=2e-5)
    told = {(row.client == slow, row.local_steps, row.local_norm, row.num_examples) for row in notes.clients}
    assert told == {(True, 2, 2.0, 6), (False, 8, 8.0, 6)}


def test_fednova_with_momentum_by_hand(quadratic):
    """Rho = .9, tau = 3: a = 5.61. Eta = .1 from x = .5: client 0 (e = 0) goes to .45, .36, .243; client 1 (e = 1, one
    step, so a = 1) to .55. p = (1/4, 3/4): tau_eff = 2.1525; x' = .5 - 2.1525 (.257 / 5.61 / 4 - .05 * 3/4)."""
    fates = {(1, 0): Fate(epochs=3)}
    x = vector(0.5, dtype=np.float32)
    config = local(0.1, momentum=0.9)
    notes = play("fednova", quadratic([0.0, 1.0], [2, 6]), x, 1, conditions=Fated(fates), config=config)
    assert {row.client: row.local_norm for row in notes.clients} == {0: pytest.approx(5.61), 1: 1.0}
    expected = 0.5 - 2.1525 * (0.257 / 5.61 / 4 - 0.05 * 3 / 4)
    assert notes.models[1][0][0] == pytest.approx(expected, abs=2e-7)


def test_fednova_with_a_proximal_term_by_hand(quadratic):
    """Eta mu = .05: a = (1, 2.8525) for tau = (1, 3). A step is y <- y - .1 (y - e + .5 (y - x)), so a client goes the
    share s = [1 - .85^tau] / 1.5 of its way: .1 and .25725. p = (1/4, 3/4); tau_eff = sum p tau = 2.5, not 2.389."""
    fates = {(1, 1): Fate(epochs=3)}
    x = vector(0.9, dtype=np.float32)
    grid = quadratic([0.0, 1.0], [2, 6])
    notes = play("fednova:mu=0.5", grid, x, 1, conditions=Fated(fates), config=local(0.1))
    assert {row.client: row.local_norm for row in notes.clients} == {0: pytest.approx(1), 1: pytest.approx(2.8525)}
    expected = 0.9 + 2.5 * (1 / 4 * 0.1 * (0 - 0.9) / 1 + 3 / 4 * 0.25725 * (1 - 0.9) / 2.8525)
    assert notes.models[1][0][0] == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize(("specification", "share"), [("fedprox:mu=0.5", 0.25725), ("weighted", 0.271)])
def test_fedprox_holds_real_clients_back(specification, share, quadratic):
    """Three steps towards e = (0, 2) from 0, n = (2, 6): 3/4 of 2 s with s as above, or 1 - .9^3 without mu."""
    x = vector(0.0, dtype=np.float32)
    grid = quadratic([0.0, 2.0], [2, 6])
    notes = play(specification, grid, x, 1, config=local(0.1, epochs=3))
    assert notes.models[1][0][0] == pytest.approx(3 / 4 * 2 * share, abs=2e-7)


def test_scaffold_by_hand_with_real_clients(quadratic):
    """Eta = .5, e = (2, 4), K = (1, 2), from 0; all numbers are sums of powers of 2, so float32 holds them.

    Round 1: y = (1, 3), x = 2, the plain mean though n = (2, 6). c_i are the mean gradients: -2; (-4 - 2) / 2 = -3.
    Round 2: corrections c - c_i = -2.5 + 2, -2.5 + 3. Client 0: 2 - .5 (0 - .5) = 2.25. Client 1: 2 - .5 (-2 + .5) =
    2.75, 2.75 - .5 (-1.25 + .5) = 3.125. x = 2.6875; c_i = 0; (-2 - 1.25) / 2 = -1.625.
    """
    grid, fates = quadratic([2.0, 4.0], [2, 6]), {(r, 1): Fate(epochs=2) for r in (1, 2)}
    x = vector(0, dtype=np.float32)
    notes = play("scaffold", grid, x, 2, conditions=Fated(fates), config=local(0.5))
    told = [{name: arrays[0].tolist() for name, arrays in memory.items()} for memory in notes.memories[1:]]
    assert [model[0].tolist() for model in notes.models] == [[0], [2], [2.6875]]
    assert told == [
        {"c": [-2.5], "client-0": [-2], "client-1": [-3]},
        {"c": [-0.8125], "client-0": [0], "client-1": [-1.625]},
    ]
    assert grid.corrections == {(1, 0): {}, (1, 1): {}, (2, 0): {0: [-0.5]}, (2, 1): {0: [0.5]}}


# Steps by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("fednova", [2, 2]), ("weighted", [1.5, 2.5]), ("fedavg", [1.5, 2.5])])
def test_two_clients_with_unequal_steps(name, expected):
    grid = Corrected({0: says(2, 1, norm=1.0), 1: says(1, 4, norm=3.0)})
    assert play(name, grid, vector(1, 1), 1).models[1][0].tolist() == expected


def test_fedavgm_rolls_on():
    """The mean (n = 3, 1) is 1 further in every round: v = 1, 1.9, 2.71."""
    models = play("fedavgm:momentum=0.9", Corrected({0: moves(0, 3), 1: moves(4, 1)}), vector(0), 3).models
    assert [model[0][0] for model in models] == pytest.approx([0, 1, 2.9, 5.61], abs=1e-12)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        # v before: tau^2 = 1e-6. Adam: .99 * 1e-6 + .01 * 4; .99 * .04000099 + .01 * 1
        ("fedadam", [0.04000099, 0.0496009801]),
        # Yogi: 1e-6 + .01 * 4, as 1e-6 < 4; .040001 + .01 * 1, as .040001 < 1
        ("fedyogi", [0.040001, 0.050001]),
    ],
)
def test_adaptive_steps_by_hand(name, second):
    """Means that move by 2, then 1: m = .1 * 2; .9 * .2 + .1 * 1. Nothing is corrected for the beginning."""

    def moved(arrays: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        return [arrays[0] + {1: 2.0, 2: 1.0}[config["server-round"]]], 10, {}

    grid = Corrected({0: moved, 1: moved})
    notes = play(f"{name}:learning_rate=0.1,beta1=0.9,beta2=0.99,tau=0.001", grid, vector(4), 2)
    place = 4.0
    for number, m, v in zip([1, 2], [0.2, 0.28], second, strict=True):
        place += 0.1 * m / (v**0.5 + 0.001)
        assert notes.models[number][0][0] == pytest.approx(place, abs=1e-12)
        assert notes.memories[number]["m"][0][0] == pytest.approx(m, abs=1e-12)
        assert notes.memories[number]["v"][0][0] == pytest.approx(v, abs=1e-12)


@pytest.mark.parametrize("offset", [0, 10_000])
@pytest.mark.parametrize(
    ("specification", "expected"),
    [
        ("krum", [0, 0]),
        ("multi-krum", [1, 0.75]),
        ("multi-krum:keep=2", [0.5, 0]),
        ("multi-krum:keep=3,attackers=1", [1 / 3, 2 / 3]),
        ("krum:attackers=0", [1, 0]),
        ("fedavg", [2.6, 2.4]),
    ],
)
def test_krum_by_hand_also_far_from_zero(specification, expected, offset):
    """A (0, 0), B (1, 0), C (0, 2), D (3, 1), E (9, 9). With f = 1 the squares of the two closest count: A 1 + 4,
    B 1 + 5, C 4 + 5, D 5 + 10, E 100 + 130; with f = 0 three: A 1 + 4 + 10, B 1 + 5 + 5, C 19, D 25, E 375."""
    points = [(0, 0), (1, 0), (0, 2), (3, 1), (9, 9)]
    grid = Corrected({k: says(x + offset, y + offset) for k, (x, y) in enumerate(points)})
    x = vector(offset, offset, dtype=np.float32)
    new = play(specification, grid, x, 1).models[1][0]
    np.testing.assert_allclose(new - offset, expected, rtol=0, atol=1e-3 if offset else 1e-6)


@pytest.mark.parametrize(("examples", "middle"), [((1, 1, 1), 1.0), ((1, 1, 3), 9.0)])
def test_geometric_median_on_a_line(examples, middle):
    """Of 0, 1, 9 the one in the middle, whatever the mean (10 / 3); the third where it has more than half of the p."""
    ends = [(0.0, 0.0), (1.0, 2.0), (9.0, 18.0)]  # y = 2 x
    grid = Corrected({k: says(*end, examples=n) for k, (end, n) in enumerate(zip(ends, examples, strict=True))})
    new = play("geometric-median:iterations=100", grid, vector(0, 0), 1).models[1][0]
    np.testing.assert_allclose(new, [middle, 2 * middle], rtol=0, atol=1e-5)


def test_centered_clipping_lets_an_attacker_move_it_by_its_share_of_the_radius():
    """Radius 5, four clients: (3, 4) and two more within it count whole, the one at 1e6 (.6, -.8) as 5 (.6, -.8)."""
    ends = [(3.0, 4.0), (1.0, 0.0), (0.0, -2.0), (0.6e6, -0.8e6)]
    grid = Corrected({k: says(*end) for k, end in enumerate(ends)})
    new = play("centered-clipping:radius=5", grid, vector(0, 0), 1).models[1][0]
    np.testing.assert_allclose(new, [(3 + 1 + 0 + 3) / 4, (4 + 0 - 2 - 4) / 4], rtol=0, atol=1e-9)


# Whatever is in REGISTRY ---------------------------------------------------------------------------------------------

MODEL = [np.array([[0.1, -2.5e-7], [3.0, -0.0]], np.float32), np.array(1 / 3, np.float64), np.array([7], np.int64)]


def unmoved(n: int, norm: float) -> Client:
    return lambda arrays, config: (arrays, n, {"local_norm": norm, "local_steps": n})


@pytest.mark.parametrize("name", REGISTRY)
def test_nobody_moved(name):
    """The model stays to the bit in every round: a memory makes no movement of its own."""
    grid = Corrected({k: unmoved(n, norm) for k, (n, norm) in enumerate([(3, 1.0), (7, 2.5), (1, 9.0), (50, 0.3)])})
    notes = play(name, grid, MODEL, 4, structure=UNITS)
    assert [bits(model) for model in notes.models] == [bits(MODEL)] * 5


def wanderer(k: int, examples: int, norm: float) -> Client:
    """Goes a way of its own in every round; a correction counts in each of its `norm` local steps."""

    def fit(arrays: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        random = np.random.default_rng([k, config["server-round"]])
        plus = config["correction"]
        new = [a + random.normal(0, 1, a.shape) - 0.1 * norm * plus.get(i, 0.0) for i, a in enumerate(arrays)]
        facts = {"client": k, "local_norm": norm, "local_steps": k + 1}
        return [n.astype(a.dtype) for n, a in zip(new, arrays, strict=True)], examples, facts

    return fit


def wanderers(*, examples: Callable[[int], int], norms: Callable[[int], float], count: int = 5) -> Corrected:
    return Corrected({k: wanderer(k, examples(k), norms(k)) for k in range(count)})


def same(k: int) -> int:
    return 4


def different(k: int) -> int:
    return 3 * k + 2


@pytest.mark.parametrize(
    ("one", "other", "examples", "norms"),
    [
        ("fednova", "weighted", different, same),
        ("fednova", "fedavg", same, same),
        ("weighted", "fedavg", same, different),
        ("fednova:mu=0", "fednova", different, different),
        ("fedprox:mu=0.3", "weighted", different, different),
        ("fedavgm:momentum=0", "weighted", different, different),
        ("fedavgm:momentum=0", "fedavg", same, different),
        ("matched", "fedavg", different, different),
        ("trimmed-mean:trim=0", "fedavg", different, different),
        ("trimmed-mean:trim=2", "fedmedian", different, different),
        ("multi-krum:keep=5", "fedavg", different, different),
        ("multi-krum:keep=1", "krum", different, different),
        ("centered-clipping:radius=1e9", "fedavg", different, different),
    ],
)
def test_rules_that_are_one_to_the_bit(one, other, examples, norms):
    def models(specification: str) -> list[Any]:
        return [
            bits(model) for model in play(specification, wanderers(examples=examples, norms=norms), MODEL, 3).models
        ]

    assert models(one) == models(other)


@pytest.mark.parametrize(
    ("one", "other", "examples", "norms"),
    [
        ("fednova", "weighted", same, different),
        ("weighted", "fedavg", different, same),
        ("fedavgm", "weighted", same, same),
        ("scaffold", "fedavg", same, different),
        ("trimmed-mean", "fedavg", same, same),
        ("multi-krum", "fedavg", same, same),
        ("centered-clipping", "fedavg", same, same),
    ],
)
def test_rules_that_differ_do_so_by_the_second_round(one, other, examples, norms):
    """So that the laws above are no equality of everything with everything."""
    ends = [play(name, wanderers(examples=examples, norms=norms), MODEL, 2).models[-1][0] for name in (one, other)]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


def test_scaffold_moves_to_the_plain_mean():
    """In round 1, where nothing is corrected; in the second its clients were sent elsewhere."""
    grid = wanderers(examples=different, norms=different)
    assert bits(play("scaffold", grid, MODEL, 1).models[1]) == bits(play("fedavg", grid, MODEL, 1).models[1])


def poisonous(arrays: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
    return [a * np.asarray(np.nan, a.dtype) if a.dtype.kind == "f" else a for a in arrays], 10, {"local_norm": 1.0}


@pytest.mark.parametrize("name", REGISTRY)
def test_a_client_that_sends_nan_counts_as_one_that_is_not_there(name):
    """In model and memory, to the bit, while it is named in every round."""
    missing = Fated({(r, 2): Fate(missed="gone") for r in (1, 2, 3)})
    grid = wanderers(examples=different, norms=different, count=6)
    without = play(name, grid, MODEL, 3, conditions=missing, structure=UNITS)
    grid.clients[102] = poisonous
    notes = play(name, grid, MODEL, 3, structure=UNITS)
    assert [bits(model) for model in notes.models] == [bits(model) for model in without.models]
    assert list(map(memory_bits, notes.memories)) == list(map(memory_bits, without.memories))
    assert bits(notes.models[-1]) != bits(MODEL)
    reason = "array 0 holds values that are not finite (NaN or infinity)"
    told = sorted((row.round, row.client, row.status, row.reason) for row in notes.clients)
    assert told == [(r, k, "rejected", reason) if k == 2 else (r, k, "ok", "") for r in (1, 2, 3) for k in range(6)]
    assert [(row.clients_ok, row.clients_rejected) for row in notes.rounds] == [(0, 0)] + [(5, 1)] * 3


class Again(Notes):
    """Takes down, too, which rounds were played again and why."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: list[tuple[int, str]] = []

    def again(self, entry: Entry, server_round: int, reason: str) -> None:
        self.repeated.append((server_round, reason))


@pytest.mark.parametrize("name", REMEMBER)
def test_a_try_without_a_quorum_leaves_no_trace_in_the_memory(name):
    """Client 4 sends NaN in the first try of round 2; the other four alone have moved the strategy's memory by then."""
    grid = wanderers(examples=different, norms=different)
    whole = play(name, grid, MODEL, 4)
    steady, tries = grid.clients[104], []

    def once_bad(arrays: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        tries.append(config["server-round"])
        return (poisonous if tries.count(2) == 1 and tries[-1] == 2 else steady)(arrays, config)

    grid.clients[104] = once_bad
    notes = Again()
    chosen = contestant(name, grid, terms=Terms(quorum=5, tries=2))
    run_rounds(chosen, MODEL, 0, 4, notes, Stop())
    assert tries == [1, 2, 2, 3, 4]
    assert notes.repeated == [(2, "round 2 brought 4 valid updates from 5 clients, 5 are needed; 1 more try")]
    assert [bits(model) for model in notes.models] == [bits(model) for model in whole.models]
    assert list(map(memory_bits, notes.memories)) == list(map(memory_bits, whole.memories))
    assert memory_bits(chosen.memory) == memory_bits(whole.memories[-1]) != memory_bits(whole.memories[1])
