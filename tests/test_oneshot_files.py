"""Finished `.keras` files from anywhere: what is loaded, and what is refused before anything of it runs."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import ROOT

from server.oneshot.from_files import Order, read_material
from server.oneshot.keras_files import load_models
from task.backend import load
from task.errors import UserError

keras, tf = load()
layers = keras.layers


def small(units: int = 4, classes: int = 3, activation: str = "relu", extra: bool = False) -> Any:
    stack = [keras.Input((6,)), layers.Dense(units, activation=activation)]
    stack += [layers.BatchNormalization()] if extra else []
    return keras.Sequential([*stack, layers.Dense(classes)])


def residual(units: int = 4) -> Any:
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(units, 3, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    y = layers.Conv2D(units, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dropout(0.2)(x)))


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(small(), tmp_path_factory.mktemp("good") / "good.keras")


def rewritten(source: Path, target: Path, **parts: bytes) -> Path:
    """The same file with other parts: config, weights."""
    names = {"config": "config.json", "weights": "model.weights.h5"}
    new = {names[part]: content for part, content in parts.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name in old.namelist():
            out.writestr(name, new.get(name, old.read(name)))
    return target


def config_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def with_config(source: Path, target: Path, change: Any) -> Path:
    config = config_of(source)
    change(config)
    return rewritten(source, target, config=json.dumps(config).encode())


def with_weights(source: Path, target: Path, change: Any) -> Path:
    with zipfile.ZipFile(source) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        change(file)
    return rewritten(source, target, weights=content.getvalue())


def refusal(*paths: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_models(paths)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_models_come_back_with_their_weights(tmp_path):
    for make in (small, residual):
        models = [make() for _ in range(3)]
        paths = [saved(model, tmp_path / f"{make.__name__}-{k}.keras") for k, model in enumerate(models)]
        template, arrays = load_models(paths)
        for model, loaded in zip(models, arrays, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded, strict=True))
        template.set_weights(arrays[2])
        x = np.random.default_rng(0).normal(size=(5, *models[2].input_shape[1:])).astype(np.float32)
        np.testing.assert_allclose(template(x), models[2](x), rtol=1e-5)


def test_a_model_trained_with_an_optimizer_and_a_loss_of_its_own_loads(tmp_path):
    model = small()
    model.compile("adam", loss="sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 6)), np.zeros(4), verbose=0)
    _, arrays = load_models([saved(model, tmp_path / "a.keras")])
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), arrays[0], strict=True))


class Marker(keras.layers.Layer):
    """A custom layer: whoever loads its file must not run it."""

    def call(self, inputs: Any) -> Any:
        return inputs


def test_lambda_layers_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Lambda(lambda x: x * 2), layers.Dense(3)])
    message = refusal(saved(model, tmp_path / "lambda.keras"))
    assert "lambda.keras" in message and "Lambda" in message and "never run" in message


def test_custom_layers_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((6,)), Marker(), layers.Dense(3)])
    message = refusal(saved(model, tmp_path / "own.keras"))
    assert "own.keras" in message and "Marker" in message


@pytest.mark.parametrize(
    "node",
    [
        {"module": "os", "class_name": "system", "config": {}, "registered_name": None},
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}, "registered_name": None},
        {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "evil>Dense"},
        {"module": "keras.src.saving", "class_name": "load_model", "config": {}, "registered_name": None},
        {"module": "keras.initializers", "class_name": "deserialize", "config": {}, "registered_name": None},
        {"module": "keras.ops", "class_name": "function", "config": "save", "registered_name": None},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"},
        {"class_name": "__lambda__", "config": {"value": "abc"}},
        {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": [], "registered_name": None},
        {"class_name": "Dense", "config": {}},
    ],
)
def test_configs_that_name_anything_else_are_refused(good, tmp_path, node):
    def change(config: Any) -> None:
        config["config"]["layers"][1]["config"]["activation"] = node

    message = refusal(with_config(good, tmp_path / "foreign.keras", change))
    assert "foreign.keras" in message and "never" in message


def test_no_code_of_a_foreign_module_runs(good, tmp_path, monkeypatch):
    (tmp_path / "foreign_module.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    monkeypatch.syspath_prepend(tmp_path)

    def change(config: Any) -> None:
        config["config"]["layers"][1] |= {"module": "foreign_module", "class_name": "Layer", "registered_name": None}

    assert "foreign_module" in refusal(with_config(good, tmp_path / "foreign.keras", change))
    assert not (tmp_path / "ran").exists() and "foreign_module" not in sys.modules


def test_other_numbers_than_float32_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, dtype="float16")])
    assert "float32" in refusal(saved(model, tmp_path / "half.keras"))
    mixed = keras.Sequential([keras.Input((6,)), layers.Dense(3, dtype="mixed_bfloat16")])
    assert "float32" in refusal(saved(mixed, tmp_path / "mixed.keras"))


def test_a_config_larger_than_its_weights_is_refused_without_making_room(good, tmp_path):
    def change(config: Any) -> None:
        for layer in config["config"]["layers"][1:]:
            layer["config"]["units"] = 10**8  # 40 petabytes
            layer.pop("build_config")

    message = refusal(with_config(good, tmp_path / "huge.keras", change))
    assert "huge.keras" in message and "10,000,000,800,000,000" in message, message


def test_files_that_unpack_to_much_more_are_refused(good, tmp_path):
    message = refusal(rewritten(good, tmp_path / "bomb.keras", weights=bytes(8 * 2**20)))
    assert "bomb.keras" in message and "8,388,608" in message
    message = refusal(rewritten(good, tmp_path / "bomb.keras", config=b" " * (17 * 2**20)))
    assert "bomb.keras" in message and "config.json" in message

    def change(file: Any) -> None:
        file.create_dataset("huge", shape=(2**36,), chunks=(2**16,), dtype="f4")  # declared, but not stored

    assert "would unpack" in refusal(with_weights(good, tmp_path / "sparse.keras", change))


def test_weights_that_lie_elsewhere_are_refused(good, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(4.0, dtype=np.float32)
    place = "layers/dense/vars"

    def link(new: Any) -> Any:
        def change(file: Any) -> None:
            del file[place]["1"]
            file[place]["1"] = new

        return change

    def external(file: Any) -> None:
        del file[place]["1"]
        file[place].create_dataset("1", shape=(4,), dtype="f4", external=[(str(secret), 0, 16)])

    def virtual(file: Any) -> None:
        del file[place]["1"]
        layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
        layout[:] = h5py.VirtualSource(str(secret), "data", shape=(4,))
        file[place].create_virtual_dataset("1", layout)

    outside, inside = h5py.ExternalLink(str(secret), "data"), h5py.SoftLink("/layers/dense_1/vars/1")
    for change in (link(outside), link(inside), external, virtual):
        message = refusal(with_weights(good, tmp_path / "link.keras", change))
        assert "link.keras" in message and "layers/dense/vars/1" in message and "never" in message


def test_broken_files_are_refused(good, tmp_path):
    whole = good.read_bytes()
    for name, content in {
        "cut.keras": whole[: len(whole) // 2],
        "flipped.keras": whole[: len(whole) // 2] + b"\xff" * 64 + whole[len(whole) // 2 + 64 :],
        "empty.keras": b"",
        "text.keras": b"no model at all",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert name in refusal(tmp_path / name)
    assert "config.json" in refusal(rewritten(good, tmp_path / "json.keras", config=b"{"))
    assert "json.keras" in refusal(rewritten(good, tmp_path / "json.keras", config=b"[" * 10**5))
    assert "weights" in refusal(rewritten(good, tmp_path / "weights.keras", weights=b"none"))
    assert "no such file" in refusal(tmp_path / "missing.keras")
    assert "folder" in refusal(tmp_path)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["x"] = 1
    assert "old format" in refusal(tmp_path / "old.h5")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("something", "else")
    assert "config.json" in refusal(tmp_path / "zip.keras")


def test_weights_that_are_missing_or_no_numbers_are_refused(good, tmp_path):
    def missing(file: Any) -> None:
        del file["layers/dense/vars/1"]
        file["spare"] = np.zeros(100, np.float32)

    def text(file: Any) -> None:
        file["layers/dense/text"] = "words"

    assert "missing.keras" in refusal(with_weights(good, tmp_path / "missing.keras", missing))
    assert "no plain numbers" in refusal(with_weights(good, tmp_path / "text.keras", text))


def test_a_model_with_nan_is_refused(tmp_path):
    model = small()
    arrays = model.get_weights()
    arrays[2][0, 0] = np.nan
    model.set_weights(arrays)
    message = refusal(saved(model, tmp_path / "nan.keras"))
    assert "nan.keras" in message and "NaN" in message and "kernel" in message


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: small(units=5), ("layer 1", "units 5", "4")),
        (lambda: small(classes=4), ("layer 2", "units 4", "3")),
        (lambda: small(activation="tanh"), ("layer 1", "tanh", "relu")),
        (lambda: small(extra=True), ("layer 2", "BatchNormalization", "Dense")),
        (lambda: keras.Sequential([keras.Input((7,)), layers.Dense(4), layers.Dense(3)]), ("layer 0", "7", "6")),
        (lambda: keras.Sequential([keras.Input((6,)), *small().layers, layers.Softmax()]), ("4 layers and 3",)),
    ],
)
def test_other_architectures_are_refused_with_the_layer_that_differs(good, tmp_path, other, words):
    message = refusal(good, saved(other(), tmp_path / "other.keras"))
    assert "good.keras" in message and "other.keras" in message
    assert all(word in message for word in words), message


def test_another_wiring_is_refused(tmp_path):
    def make(swap: bool) -> Any:
        inputs = keras.Input((6,))
        first = layers.Dense(6)(inputs)
        second = layers.Dense(6)(first)
        return keras.Model(inputs, layers.Dense(3)(layers.Add()([second, first if swap else inputs])))

    one, two = (saved(make(swap), tmp_path / f"{swap}.keras") for swap in (False, True))
    assert "different architectures" in refusal(one, two)


def test_names_seeds_and_initializers_do_not_matter(tmp_path):
    def make(name: str, start: str) -> Any:
        inputs = keras.Input((6,), name=f"{name}-in")
        x = layers.Dense(4, name=f"{name}-a", kernel_initializer=start)(inputs)
        x = layers.Dropout(0.1, seed=len(name), name=f"{name}-d")(x)
        return keras.Model(inputs, layers.Dense(3, name=f"{name}-b")(x), name=name)

    files = [saved(make(*words), tmp_path / f"{words[0]}.keras") for words in (("north", "ones"), ("up", "he_normal"))]
    assert len(load_models(files)[1]) == 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: keras.Sequential([keras.Input((6,)), layers.Dense(1)]), "two or more"),
        (lambda: keras.Sequential([keras.Input((6, 2)), layers.Dense(3)]), "(None, classes)"),
        (lambda: keras.Sequential([keras.Input((None, 2)), layers.GlobalMaxPooling1D(), layers.Dense(3)]), "fix"),
    ],
)
def test_models_that_are_no_classifiers_are_refused(tmp_path, model, words):
    assert words in refusal(saved(model(), tmp_path / "odd.keras"))


def run_command(*options: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server.oneshot", *map(str, options)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(3)
    file = tmp_path_factory.mktemp("examples") / "test.npz"
    np.savez(file, x=random.normal(size=(30, 6)).astype(np.float32), y=random.integers(0, 3, 30))
    return file


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("two")
    return saved(small(extra=True), folder / "north.keras"), saved(small(extra=True), folder / "south.keras")


def test_material_is_what_the_user_gave(two, examples, tmp_path):
    public = tmp_path / "public.npz"
    np.savez(public, x=np.ones((7, 6)), y=np.array(["no", "label"]))
    order = Order(two, examples, public=public, base=two[0], examples=(8,), norms=(2.0, 4.0), seed=3)
    material = read_material(order)
    assert [(u.num_examples, u.local_norm, u.client) for u in material.locals] == [(8, 2.0, 0), (8, 4.0, 1)]
    assert material.names == tuple(map(str, two)) and (material.seed, material.init) == (3, "files")
    assert all(np.array_equal(a, b) for a, b in zip(material.base, material.locals[0].arrays, strict=True))
    assert material.public.shape == (7, 6) and material.public.dtype == np.float32
    assert len(material.structure.counted) == len(material.base)
    bare = read_material(Order(two, examples))
    assert bare.public is None and bare.base is None
    assert [(u.num_examples, u.local_norm) for u in bare.locals] == [(1, None), (1, None)]


def test_public_whole_numbers_are_scaled_as_the_test_set(two, tmp_path):
    whole = np.random.default_rng(0).integers(0, 16, (9, 6)).astype(np.int16)
    np.savez(tmp_path / "test.npz", x=whole, y=np.zeros(9, np.int64), scale=16)
    np.savez(tmp_path / "public.npz", x=whole)
    material = read_material(Order(two, tmp_path / "test.npz", public=tmp_path / "public.npz"))
    np.testing.assert_array_equal(material.public, material.test[0].numpy())
    np.testing.assert_array_equal(material.public, (whole / 16).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"examples": (800, 800, 800)}, ("--examples", "3 numbers", "2 model files")),
        ({"norms": (1.0, 2.0, 3.0)}, ("--norms", "3 numbers", "2 model files")),
        ({"test": {"x": np.zeros((4, 7)), "y": np.zeros(4, int)}}, ("test.npz", "(7,)", "(6,)")),
        ({"test": {"x": np.zeros((4, 6)), "y": np.full(4, 3)}}, ("test.npz", "label 3", "3 classes")),
        ({"public": {"x": np.zeros((4, 5))}}, ("public.npz", "(5,)", "(6,)")),
        ({"public": {"x": np.full((4, 6), np.nan)}}, ("public.npz", "NaN")),
        ({"public": {"y": np.zeros(4)}}, ("public.npz", "no array named x")),
    ],
)
def test_what_does_not_fit_is_refused(two, examples, tmp_path, change, words):
    for name, arrays in change.items():
        if isinstance(arrays, dict):
            np.savez(tmp_path / f"{name}.npz", **arrays)
            change = {name: tmp_path / f"{name}.npz"}
    with pytest.raises(UserError) as caught:
        read_material(Order(**{"files": two, "test": examples, **change}))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_file_given_twice_is_refused(two, examples):
    with pytest.raises(UserError, match="twice"):
        read_material(Order((*two, two[0]), examples))


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("python -m server.oneshot: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_the_command_says_in_one_line_what_is_wrong_and_leaves_nothing(good, examples, tmp_path):
    evil = saved(keras.Sequential([keras.Input((6,)), layers.Lambda(abs), layers.Dense(3)]), tmp_path / "evil.keras")
    assert_one_line(run_command(good, evil, "--test", examples, "--out", "out", cwd=tmp_path), "evil.keras", "Lambda")
    assert not (tmp_path / "out").exists()
    assert_one_line(run_command(good, "--test", examples, cwd=tmp_path), "two or more")
    assert_one_line(run_command(good, "none.keras", "--test", examples, cwd=tmp_path), "none.keras: no such file")
    assert not (tmp_path / "runs").exists()


def test_the_command_writes_table_report_models_and_run(two, examples, tmp_path):
    base = saved(small(extra=True), tmp_path / "base.keras")
    options = (*two, "--test", examples, "--public", examples, "--base", base, "--examples", 10, 20, "--steps", 5)
    done = run_command(*options, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "matched" in done.stdout and "Results: out" in done.stdout
    with (tmp_path / "out" / "oneshot.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows][:5] == ["local-0", "local-1", "mean-local", "best-local", "ensemble"]
    assert [row["method"] for row in rows][5:9] == ["fedavg", "fedmedian", "weighted", "fednova"]
    assert {row["init"] for row in rows} == {"files"}
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["status"] == "finished" and run["undefined"] == {} and run["kind"] == "one-shot"
    assert [model["num_examples"] for model in run["models"]] == [10, 20]
    assert run["models"][0]["sha256"] != run["models"][1]["sha256"]
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    _, arrays = load_models([tmp_path / "out" / "models" / "seed0-local-1.keras", two[1]])
    assert all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))
    assert_one_line(run_command(*options, "--out", "out", cwd=tmp_path), "already holds a run")
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == run
