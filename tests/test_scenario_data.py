"""What a scenario does to the data: every change against a formula, and nothing else changed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from task import corrupt, data, features, seeds, split
from task.errors import UserError
from task.scenario import FeatureSkew, Outlier, draw_clients, scenario_of
from task.shardfile import read_raw
from task.shards import load_shard, load_test, prepare

ROOT = Path(__file__).parents[1]
CLIENTS = 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FEDARENA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """200 + 20 images of 6 x 6, 5 classes; pixels from 0 to 255."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (220, 6, 6), dtype=np.uint8)
    y = np.arange(220) % 5
    path = tmp_path_factory.mktemp("data") / "whole.npz"
    np.savez(path, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return str(path)


def raw(shards):
    """Per client x, y and the scale as stored."""
    files = (read_raw(shards.folder / f"shard-{client}.npz") for client in range(shards.clients))
    return [(x, y, header.scale) for x, y, header in files]


def refuse(says, *arguments, **options):
    with pytest.raises(UserError) as caught:
        prepare(*arguments, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# What features.py and corrupt.py compute ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noise", (0, 0.125, 0.25, 0.375, 0.5)),
        ("noise:0.2", (0, 0.05, 0.1, 0.15, 0.2)),
        ("rotation", (-45, -22.5, 0, 22.5, 45)),
        ("brightness", (1, 0.8, 0.6, 0.4, 0.2)),
        ("rotation:0.1", (-0.1, 0)),
        ("noise", (0,)),
        ("rotation", (0,)),
        ("brightness", (1,)),
    ],
)
def test_how_strong_by_the_number_of_the_client(text, expected):
    kind, _, s = text.partition(":")
    skew = FeatureSkew(kind=kind, strength=float(s) if s else None)
    clients = max(len(expected), 3) if text == "rotation:0.1" else len(expected)
    got = [features.strength(skew, client, clients) for client in range(len(expected))]
    assert got == pytest.approx(expected, abs=1e-15)


def test_changes_in_words():
    def told(kind, client):
        return features.told(FeatureSkew(kind=kind), client, 5)

    assert [told("noise", 2), told("rotation", 1), told("rotation", 2)] == [
        "noise 0.25",
        "rotated -22.5°",
        "rotated 0°",
    ]
    assert [told("brightness", client) for client in (0, 2)] == ["brightness 1", "brightness 0.6"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 5, 4), (9, 5, 4, 3), (9, 7)])
def test_noise_is_a_share_of_the_range_and_stays_in_it(dtype, shape):
    x = (np.random.default_rng(1).random(shape) * 90 + 10).astype(dtype)
    skew, span = FeatureSkew(kind="noise", strength=0.4), (10.0, 100.0)
    got = features.skewed(x, skew, 1, 3, span, np.random.default_rng(5))
    wide = np.float32 if dtype in (np.uint8, np.float32) else np.float64
    exact = np.clip(x + wide(0.2 * 90) * np.random.default_rng(5).standard_normal(shape, wide), 10, 100)
    np.testing.assert_array_equal(got, (exact if dtype in (np.float32, np.float64) else np.rint(exact)).astype(dtype))
    assert got.dtype == dtype
    np.testing.assert_array_equal(features.skewed(x, skew, 0, 3, span, np.random.default_rng(5)), x)


def test_noise_has_the_standard_deviation_that_it_says():
    x = np.full((50, 20, 20), 0.5)
    got = features.skewed(x, FeatureSkew(strength=0.1), 1, 2, (0.0, 1.0), np.random.default_rng(0))
    assert abs(got.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * x.size)  # standard error of a normal's standard deviation


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_quarter_turn_is_rot90_and_the_client_in_the_middle_keeps_its_images(channels):
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 5, *channels), dtype=np.uint8)
    for client, turns in ((0, -1), (1, 0), (2, 1)):
        skew = FeatureSkew(kind="rotation", strength=90)
        got = features.skewed(x, skew, client, 3, (0.0, 255.0), np.random.default_rng(0))
        np.testing.assert_array_equal(got, np.rot90(x, turns, axes=(1, 2)))
        assert got.dtype == np.uint8


def test_a_rotation_interpolates_between_four_pixels_and_fills_with_the_darkest():
    """Every pixel by hand: turned back by 30 degrees around the centre, bilinear where that falls into the image."""
    x = np.random.default_rng(2).random((1, 6, 5))
    got = features.skewed(x, FeatureSkew(kind="rotation", strength=30), 1, 2, (-0.25, 1.0), np.random.default_rng(0))
    expected = np.full((6, 5), -0.25)
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    for row in range(6):
        for column in range(5):
            down, right = row - 2.5, column - 2  # rows count downwards: a turn to the left moves what is right upwards
            r, c = cos * down + sin * right + 2.5, -sin * down + cos * right + 2
            if 0 <= r <= 5 and 0 <= c <= 4:
                r0, c0 = min(int(r), 4), min(int(c), 3)
                u, v = r - r0, c - c0
                expected[row, column] = (
                    (1 - u) * (1 - v) * x[0, r0, c0] + (1 - u) * v * x[0, r0, c0 + 1]
                    + u * (1 - v) * x[0, r0 + 1, c0] + u * v * x[0, r0 + 1, c0 + 1]
                )  # fmt: skip
    np.testing.assert_allclose(got[0], expected, atol=1e-12)
    assert (got == -0.25).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_brightness_is_a_factor(dtype):
    x = np.random.default_rng(0).integers(0, 256, (3, 4, 4)).astype(dtype)
    got = features.skewed(x, FeatureSkew(kind="brightness"), 2, 5, (0.0, 255.0), np.random.default_rng(0))
    exact = x.astype(np.float32) * np.float32(0.6)
    np.testing.assert_array_equal(got, np.rint(exact).astype(np.uint8) if dtype == np.uint8 else exact)
    assert got.dtype == dtype


def test_flipped_labels_are_the_mirror_image():
    np.testing.assert_array_equal(corrupt.flipped(np.array([0, 1, 4, 9], np.uint8), 10), [9, 8, 5, 0])
    np.testing.assert_array_equal(corrupt.flipped(np.array([0, 1, 2]), 3), [2, 1, 0])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
def test_noise_instead_of_images_is_uniform_over_the_range(dtype):
    low, high = (0.0, 1.0) if dtype is bool else (3.0, 18.0)
    x = np.full((40, 10, 10), high, dtype)
    got = corrupt.outlier_images(x, Outlier(kind="noise"), (low, high), np.random.default_rng(0))
    assert (got.shape, got.dtype) == (x.shape, x.dtype)
    values = got.astype(float)
    assert (values.min() >= low) and (values.max() <= high)
    steps = high - low + 1
    variance = (high - low) ** 2 / 12 if x.dtype.kind == "f" else (steps**2 - 1) / 12
    assert abs(values.mean() - (low + high) / 2) < 4 * np.sqrt(variance / x.size)
    assert values.var() == pytest.approx(variance, rel=0.05)


# What is on disk ------------------------------------------------------------------------------------------------------

ALL = (
    "quantity-skew", "label-skew", "pathological", "feature-skew", "feature-skew:kind=rotation+label-skew:least=2",
    "outlier", "outlier:kind=noise", "outlier:kind=unscaled", "byzantine:attack=label-flip,attackers=2",
)  # fmt: skip


@pytest.mark.parametrize("text", ALL)
def test_shards_are_a_function_of_scenario_and_seed_and_the_test_set_stays(whole, text, tmp_path):
    made = prepare(whole, CLIENTS, 0, text)
    again = prepare(whole, CLIENTS, 0, text, cache=tmp_path)
    assert (made.sha256, made.counts, made.outliers) == (again.sha256, again.counts, again.outliers)
    assert prepare(whole, CLIENTS, 1, text).sha256 != made.sha256
    plain = prepare(whole, CLIENTS, 0)
    assert made.sha256 != plain.sha256
    for mine, clean in zip(load_test(made.folder), load_test(plain.folder), strict=True):
        np.testing.assert_array_equal(mine, clean)
    assert sum(map(sum, made.counts)) == 200
    for client, (_, y, _) in enumerate(raw(made)):
        assert made.counts[client] == tuple(np.bincount(y, minlength=5))
    assert made.scenario == scenario_of(text).cut.name


def test_a_cut_moves_images_with_their_labels(whole):
    with np.load(whole) as file:
        examples = {image.tobytes(): label for image, label in zip(file["x_train"], file["y_train"], strict=True)}
    for text in ("quantity-skew", "label-skew", "pathological"):
        shards = raw(prepare(whole, CLIENTS, 0, text))
        held = [(image.tobytes(), label) for x, y, _ in shards for image, label in zip(x, y, strict=True)]
        assert dict(held) == examples
        assert len(held) == 200


@pytest.mark.parametrize("kind", ["noise", "rotation", "brightness"])
def test_features_differ_by_client_on_top_of_the_cut(whole, kind):
    text = f"feature-skew:kind={kind}"
    made, plain = prepare(whole, CLIENTS, 7, text), prepare(whole, CLIENTS, 7)
    skew = FeatureSkew(kind=kind)
    for client, ((x, y, scale), (clean, labels, _)) in enumerate(zip(raw(made), raw(plain), strict=True)):
        stream = seeds.stream(7, "features", client)
        np.testing.assert_array_equal(x, features.skewed(clean, skew, client, CLIENTS, (0.0, 255.0), stream))
        np.testing.assert_array_equal(y, labels)
        assert (x.dtype, scale) == (np.uint8, 255)
    assert made.features == tuple(features.told(skew, client, CLIENTS) for client in range(CLIENTS))
    assert (plain.features, made.counts) == ((), plain.counts)


def test_rows_of_features_are_not_rotated(tmp_path):
    rows = np.random.default_rng(0).random((30, 4))
    np.savez(tmp_path / "rows.npz", x_train=rows, y_train=np.arange(30) % 2, x_test=rows, y_test=np.arange(30) % 2)
    says = "rotation is of images (h, w) or (h, w, c), these examples have shape (4,); give kind=noise"
    refuse(says, str(tmp_path / "rows.npz"), 3, 0, "feature-skew:kind=rotation")
    noised = raw(prepare(str(tmp_path / "rows.npz"), 3, 0, "feature-skew"))
    assert max(x.max() for x, _, _ in noised) <= rows.max()
    assert noised[2][0].dtype == np.float64


@pytest.mark.parametrize("kind", ["labels", "noise", "unscaled"])
def test_outliers_are_drawn_from_the_seed_and_the_others_keep_their_data(whole, kind):
    made, plain = prepare(whole, CLIENTS, 3, f"outlier:clients=2,kind={kind}"), prepare(whole, CLIENTS, 3)
    assert made.outliers == draw_clients(3, "outliers", CLIENTS, 2)
    for client, ((x, y, scale), (clean, labels, _)) in enumerate(zip(raw(made), raw(plain), strict=True)):
        odd = client in made.outliers
        assert np.array_equal(y, labels) != (odd and kind == "labels")
        assert np.array_equal(x, clean) != (odd and kind != "labels")
        assert scale == 255
        got, expected = load_shard(made.folder, client)[0], load_shard(plain.folder, client)[0]
        if odd and kind == "unscaled":
            np.testing.assert_allclose(got, 10 * expected, rtol=3e-7)
    ready = prepare(str(made.folder), None, 0)  # whatever was done, the files are shards as any
    assert (ready.sha256, ready.counts) == (made.sha256, made.counts)


def test_corrupted_labels_are_drawn_from_all_classes_stored_ones_included(tmp_path):
    x = np.zeros((400, 2, 2), np.uint8)
    y = np.zeros(400, np.uint8)
    np.savez(tmp_path / "one.npz", x_train=x, y_train=y, x_test=x, y_test=y, num_classes=4)
    (row,) = prepare(str(tmp_path / "one.npz"), 1, 0, "outlier").counts
    assert sum((count - 100) ** 2 / 100 for count in row) < 16.3  # chi-square, 3 degrees of freedom, 99.9 %


def test_a_factor_that_no_float_holds_is_refused(whole):
    refuse("outlier: factor=1e+40 makes infinite pixels", whole, 3, 0, "outlier:kind=unscaled,factor=1e40")


def test_attackers_flip_their_labels_and_nothing_else(whole):
    text = "byzantine:attack=label-flip,attackers=2"
    made, plain = prepare(whole, CLIENTS, 5, text), prepare(whole, CLIENTS, 5)
    assert made.flipped == scenario_of(text).attackers(5, CLIENTS) == draw_clients(5, "attackers", CLIENTS, 2)
    for client, ((x, y, _), (clean, labels, _)) in enumerate(zip(raw(made), raw(plain), strict=True)):
        np.testing.assert_array_equal(x, clean)
        np.testing.assert_array_equal(y, 4 - labels if client in made.flipped else labels)
    refuse("4 attackers of 4 clients leave nobody honest", whole, 4, 0, "byzantine:attack=label-flip,attackers=4")
    refuse("5 clients cannot be outliers, there are 4", whole, 4, 0, "outlier:clients=5")


def test_public_images_are_clean_and_an_impossible_cut_says_that_they_are_missing(whole):
    made, plain = prepare(whole, 2, 0, "feature-skew", public=30), prepare(whole, 2, 0, public=30)
    assert (made.folder / "public.npz").read_bytes() == (plain.folder / "public.npz").read_bytes()
    refuse("30 public examples held out, quantity-skew: 2 clients", whole, 2, 0, "quantity-skew:least=90", public=30)


# The cache, ready shards, the command ---------------------------------------------------------------------------------


def test_scenarios_with_the_same_data_share_their_files(whole, own_cache):
    plain = prepare(whole, CLIENTS, 0)
    for text in ("uneven-work", "mine=iid+dropout", "byzantine:attack=sign-flip", "straggler:slow=2"):
        assert prepare(whole, CLIENTS, 0, text) == plain
    skewed = prepare(whole, CLIENTS, 0, "label-skew")
    for text in ("label-skew:alpha=0.3+dropout", "mine=label-skew:least=10,alpha=0.30"):
        assert prepare(whole, CLIENTS, 0, text) == skewed
    assert prepare(whole, CLIENTS, 0, "label-skew:alpha=0.4").folder != skewed.folder
    prepare(whole, CLIENTS, 0, "feature-skew:kind=rotation,strength=3+quantity-skew+outlier")
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in (own_cache / "shards").iterdir())


def test_the_index_of_plain_shards_is_what_it_was_before_there_were_scenarios(whole):
    made = prepare(whole, CLIENTS, 0)
    index = json.loads((made.folder / "shards.json").read_text())
    assert list(index) == [
        "clients", "seed", "dataset", "num_classes", "input_shape", "counts", "p_value", "test_examples", "sha256",
        "key", "scenario", "crc32",
    ]  # fmt: skip
    assert (index["scenario"], made.folder.name.rsplit("-", 1)[0]) == ("iid", "whole-4-0-iid")


def test_what_the_index_says_comes_back_and_damage_is_mended(whole, monkeypatch):
    text = "feature-skew+outlier+byzantine:attack=label-flip"
    made = prepare(whole, CLIENTS, 0, text)
    with monkeypatch.context() as patch:
        patch.setattr(data, "load", lambda *arguments: pytest.fail("built again"))
        assert prepare(whole, CLIENTS, 0, text) == made
    index = (made.folder / "shards.json").read_text()
    shard = (made.folder / "shard-2.npz").read_bytes()
    (made.folder / "shards.json").write_text(json.dumps(json.loads(index) | {"outliers": 3}))
    (made.folder / "shard-2.npz").write_bytes(shard[:-1])
    assert prepare(whole, CLIENTS, 0, text) == made
    assert ((made.folder / "shards.json").read_text(), (made.folder / "shard-2.npz").read_bytes()) == (index, shard)


def test_ready_shards_take_every_scenario_that_leaves_the_data_alone(whole, tmp_path):
    ready = str(prepare(whole, 3, 0, "label-skew:least=2", out=tmp_path / "ready").folder)
    assert prepare(ready, 3, 0, "uneven-work+dropout") == prepare(ready, 3, 0)
    assert prepare(ready, 3, 0).scenario == "ready"
    for text in ("label-skew", "feature-skew", "outlier", "byzantine:attack=label-flip"):
        refuse("holds ready shards, used as they are; give a whole data set to split", ready, 3, 0, text)


def test_the_command_writes_the_shards_of_a_scenario_and_says_what_they_hold(whole, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(
        '[label-skew]\nleast = 5\n[feature-skew]\n[outlier]\n[dropout]\n[byzantine]\nattack = "label-flip"\n'
    )
    out = tmp_path / "out"
    command = [
        "split",
        "--dataset",
        whole,
        "--clients",
        "4",
        "--scenario",
        str(tmp_path / "mine.toml"),
        "--out",
        str(out),
    ]
    assert split.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    text = "label-skew:least=5+feature-skew+outlier+byzantine:attack=label-flip"
    simulated = prepare(whole, 4, 0, text)
    for name in ("shard-0.npz", "shard-3.npz", "test.npz", "shards.json"):
        assert (out / name).read_bytes() == (simulated.folder / name).read_bytes()
    for client, line in enumerate(lines[2:6]):
        row = simulated.counts[client]
        assert line.split()[:7] == [str(client), str(sum(row)), *map(str, row)]
        assert simulated.features[client] in line
        assert ("outlier" in line) == (client in simulated.outliers)
        assert ("labels flipped" in line) == (client in simulated.flipped)
    assert lines[6] == f"scenario: {simulated.scenario}"
    assert lines[-1] == "not in the files, but in the rounds of a simulation: dropout"
    assert split.main([*command[:6], "label-skwe", *command[7:]]) == 2
    assert "did you mean 'label-skew'?" in capsys.readouterr().err


def test_cutting_asks_no_network_writes_nothing_at_home_and_says_nothing(whole, tmp_path):
    import matplotlib as mpl

    code = (
        "import os, socket, sys\n"
        "def refuse(*arguments): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "before = dict(os.environ)\n"
        "from task.shards import prepare\n"
        f"for text in ('label-skew', 'quantity-skew'): print(prepare({whole!r}, 4, 0, text).sha256)\n"
        "assert dict(os.environ) == before\n"
        "assert 'flwr_datasets' in sys.modules\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    left_out = ("HF_", "XDG_", "FLWR_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    environment |= {"HOME": str(home), "FEDARENA_CACHE": str(tmp_path / "cache"), "MPLCONFIGDIR": mpl.get_cachedir()}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [prepare(whole, 4, 0, text).sha256 for text in ("label-skew", "quantity-skew")]
    assert not list(home.iterdir())
