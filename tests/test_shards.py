"""Shards on disk: the same for every command, private, checked, and quick to find again."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from task import data, split
from task.errors import UserError
from task.shards import load_public, load_shard, load_test, prepare, read_header

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FEDARENA_CACHE", str(folder))
    return folder


@pytest.fixture
def whole(tmp_path):
    """A data set of 40 + 10 examples, 5 classes: every image holds its own number."""
    path = tmp_path / "whole.npz"
    images = np.repeat(np.arange(50, dtype=np.uint8), 12).reshape(50, 4, 3)
    labels = np.arange(50) % 5
    np.savez(path, x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    return str(path)


@pytest.fixture
def ready(whole, tmp_path):
    """A folder of three ready shards of it."""
    return prepare(whole, 3, 0, out=tmp_path / "ready").folder


def rewrite(path, drop=(), **changes):
    with np.load(path) as file:
        content = {name: file[name] for name in file.files if name not in drop}
    np.savez(path, **(content | changes))


def refuse(words, *arguments, **options):
    with pytest.raises(UserError) as caught:
        prepare(*arguments, **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_mnist_5k_over_five_clients():
    made = prepare("mnist-5k", 5, 0)
    assert made.counts == ((80,) * 10,) * 5
    assert (made.p_value, made.input_shape, made.num_classes, made.test_examples) == (1, (28, 28, 1), 10, 1000)
    whole = data.load("mnist-5k")
    got = [load_shard(made.folder, client) for client in range(5)]
    images = np.concatenate([x for x, _ in got])
    assert (images.shape, images.dtype, images.max()) == ((4000, 28, 28, 1), np.float32, 1)
    rows = np.sort(np.rint(images * 255).astype(np.uint8).reshape(4000, -1).view("V784").ravel())
    np.testing.assert_array_equal(rows, np.sort(whole.x_train.reshape(4000, -1).view("V784").ravel()))
    x, y = load_test(made.folder)
    assert (x.shape, y.dtype) == ((1000, 28, 28, 1), np.int32)
    np.testing.assert_array_equal(y, whole.y_test)


def test_images_stay_with_their_labels_and_other_seeds_cut_otherwise(whole):
    first, other = prepare(whole, 4, 0), prepare(whole, 4, 1)
    for client in range(4):
        x, y = load_shard(first.folder, client)
        np.testing.assert_array_equal(np.rint(x[:, 0, 0, 0] * 255).astype(int) % 5, y)
    assert first.sha256 != other.sha256
    assert first.sha256 == prepare(whole, 4, 0).sha256


def test_a_shard_knows_its_number_and_is_private(ready):
    for client in range(3):
        header = read_header(ready / f"shard-{client}.npz")
        assert (header.client, header.clients, header.num_classes) == (client, 3, 5)
        assert (header.dataset, header.scale) == ("whole", 255)
        assert stat.S_IMODE((ready / f"shard-{client}.npz").stat().st_mode) == 0o600
    assert read_header(ready / "test.npz").client is None


def test_the_header_is_read_without_the_images(ready, tmp_path):
    with np.load(ready / "shard-1.npz") as file:
        image = file["x"][3].tobytes()
    raw = (ready / "shard-1.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(raw.replace(image, bytes(12)))
    assert read_header(tmp_path / "damaged.npz").client == 1
    with pytest.raises(UserError, match=r"damaged.npz: damaged or not an .npz file"):
        load_shard(tmp_path / "damaged.npz")


def test_the_command_writes_the_shards_that_a_simulation_uses(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert split.main(["split", "--dataset", "digits", "--clients", "4", "--seed", "3", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    simulated = prepare("digits", 4, 3)
    for name in ("shard-0.npz", "shard-1.npz", "shard-2.npz", "shard-3.npz", "test.npz", "shards.json"):
        assert (out / name).read_bytes() == (simulated.folder / name).read_bytes()
    assert f"p-value of the label counts: {simulated.p_value:.4g}" in shown
    assert str(out) in shown
    cells = [line.split() for line in shown.splitlines()[2:6]]
    assert cells == [[str(k), str(sum(row)), *map(str, row)] for k, row in enumerate(simulated.counts)]
    assert prepare(str(out), None, 3).sha256 == simulated.sha256


def test_the_same_split_may_be_written_twice_and_another_not(whole, tmp_path, capsys):
    command = ["split", "--dataset", whole, "--out", str(tmp_path / "out")]
    assert split.main(command) == 0
    (tmp_path / "out" / "shard-2.npz").unlink()  # an interrupted copy is completed
    assert split.main(command) == 0
    capsys.readouterr()
    for other in (["--seed", "1"], ["--clients", "4"]):
        assert split.main(command + other) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "already holds other shards" in error


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "minst"], "did you mean mnist?"),
        (["--clients", "9"], "class 0 has 8 examples; at most 8 clients"),
        (["--clients", "0"], "0 clients"),
        (["--clients", "x"], "invalid int value: 'x'"),
        (["--seed", "-1"], "seed -1 is negative"),
        (["--out", "FILE/below"], "cannot write"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_the_command_refuses_in_one_line(whole, tmp_path, arguments, word):
    (tmp_path / "FILE").write_text("no folder")
    command = [sys.executable, "-m", "task.data", "split", "--dataset", whole, "--out", str(tmp_path / "out")]
    given = [argument.replace("FILE", str(tmp_path / "FILE")) for argument in arguments]
    done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert word in done.stderr


def test_finding_cached_shards_imports_nothing_heavy():
    names = ("iid", "label-skew+feature-skew:kind=rotation")
    for name in names:
        prepare("digits", 5, 0, name)
    heavy = ("sklearn", "scipy", "mlxtend", "keras", "tensorflow", "pandas", "flwr_datasets", "datasets", "matplotlib")
    code = (
        f"import sys; from task.shards import *\nfor name in {names}:\n"
        "    folder = prepare('digits', 5, 0, name).folder\n    load_shard(folder, 2), load_test(folder)\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_cached_shards_are_reused_and_damaged_ones_made_again(whole, monkeypatch):
    made = prepare(whole, 3, 0)
    content = (made.folder / "shard-1.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(data, "load", lambda *arguments: pytest.fail("built again"))
        assert prepare(whole, 3, 0) == made
    flipped = content[:400] + bytes([content[400] ^ 1]) + content[401:]
    for name, damage in (("shard-1.npz", flipped), ("shard-1.npz", b""), ("test.npz", None), ("shards.json", b"{")):
        (made.folder / name).unlink() if damage is None else (made.folder / name).write_bytes(damage)
        assert prepare(whole, 3, 0) == made
        assert (made.folder / "shard-1.npz").read_bytes() == content
    assert [path.name for path in made.folder.parent.glob(".part-*")] == []


def test_a_changed_file_is_another_data_set(whole):
    before = prepare(whole, 3, 0)
    rewrite(whole, x_train=np.full((40, 4, 3), 7, np.uint8))
    after = prepare(whole, 3, 0)
    assert after.sha256 != before.sha256
    assert load_shard(after.folder, 0)[0].max() == np.float32(7) / np.float32(255)


def test_two_processes_at_once(whole):
    code = f"from task.shards import *; print(prepare({whole!r}, 4, 0).sha256)"
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0, 0]
    assert answers == {prepare(whole, 4, 0).sha256 + "\n"}


def test_ready_shards_are_used_as_they_are(whole, ready, monkeypatch):
    cut = prepare(whole, 3, 0)
    for asked in (None, 3):
        found = prepare(str(ready), asked, 0)
        assert (found.folder, found.seed) == (ready, None)
        assert (found.counts, found.sha256, found.p_value) == (cut.counts, cut.sha256, cut.p_value)
        assert (found.dataset, found.input_shape, found.test_examples) == ("whole", (4, 3, 1), 10)
    monkeypatch.chdir(ready.parent)
    assert prepare("ready", None, 0).folder == ready  # absolute: workers have other working folders
    refuse(["holds 3 shards, not 5"], str(ready), 5, 0)
    refuse(["holds ready shards"], str(ready), 3, 0, out=ready.parent / "again")


def test_ready_shards_of_others_need_x_and_y_alone(whole, ready):
    expected = prepare(whole, 3, 0)
    (ready / "shards.json").unlink()
    for path in ready.iterdir():
        rewrite(path, drop=("client", "clients", "num_classes", "dataset", "scale"))
    found = prepare(str(ready), None, 0)
    assert (found.dataset, found.num_classes, found.sha256) == ("ready", 5, expected.sha256)
    assert read_header(ready / "shard-2.npz").client == 2
    np.testing.assert_array_equal(load_shard(ready, 2)[0], load_shard(expected.folder, 2)[0])
    with np.load(ready / "shard-1.npz") as file:
        labels = file["y"].copy()
    labels[4] = 10
    rewrite(ready / "shard-1.npz", y=labels)
    refuse(["shard-1.npz", "label 10 of example 4 is outside 0..4"], str(ready), None, 0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"drop": ("y",)}, "has no array named y"),
        ({"x": np.zeros((0, 4, 3), np.uint8), "y": np.zeros(0, int)}, "holds no examples"),
        ({"y": np.zeros(3, int)}, "images but 3 labels"),
        ({"y": np.zeros(13)}, "labels must be integers"),
        ({"y": np.array([object()] * 13)}, "pickled objects"),
        ({"x": np.zeros((13, 3, 3), np.uint8), "y": np.zeros(13, int)}, "its images are"),
        ({"x": np.full((13, 4, 3), np.nan), "y": np.zeros(13, int)}, "NaN or infinite pixel in example 0"),
        (
            {"y": np.r_[np.zeros(12, int), 5], "x": np.zeros((13, 4, 3), np.uint8)},
            "label 5 of example 12 is outside 0..4",
        ),
        ({"client": 0}, "says that it is the shard of client 0"),
        ({"num_classes": 6}, "disagree on num_classes (5, 6)"),
        ({"num_classes": "many"}, "num_classes must be one scalar"),
    ],
)
def test_a_bad_ready_shard_is_named(ready, changes, word):
    rewrite(ready / "shard-1.npz", **changes)
    refuse([word, "ready" if "disagree" in word else "shard-1.npz"], str(ready), None, 0)


def test_missing_files_of_a_ready_folder(ready):
    (ready / "test.npz").rename(ready / "kept")
    refuse(["test.npz", "no such file"], str(ready), None, 0)
    (ready / "kept").rename(ready / "test.npz")
    (ready / "shard-1.npz").unlink()
    refuse(["shard-1.npz", "no such file"], str(ready), None, 0)
    with pytest.raises(UserError, match=r"shard-1.npz: no such file"):
        load_shard(ready, 1)


def test_a_shard_under_anothers_name_is_refused(ready):
    shutil.copy(ready / "shard-0.npz", ready / "shard-1.npz")
    with pytest.raises(UserError, match="shard of client 0"):
        load_shard(ready, 1)
    x, _ = load_shard(ready / "shard-1.npz")  # a file alone may have any name
    assert x.shape[1:] == (4, 3, 1)


def test_the_index_leaves_out_local_paths(whole, ready):
    text = (ready / "shards.json").read_text()
    assert str(Path(whole).parent) not in text
    assert json.loads(text)["counts"] == [list(row) for row in prepare(whole, 3, 0).counts]


def test_an_unknown_scenario_is_refused(whole, ready):
    for dataset in (whole, str(ready)):
        refuse(["no scenario 'iiid'", "did you mean 'iid'?"], dataset, 3, 0, "iiid")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 8), st.integers(0, 99))
def test_every_example_is_in_one_shard(whole, clients, seed):
    made = prepare(whole, clients, seed)
    numbers = [np.rint(load_shard(made.folder, k)[0][:, 0, 0, 0] * 255) for k in range(clients)]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(40))
    assert sum(map(sum, made.counts)) == 40


# Public images ------------------------------------------------------------------------------------------------------


def number_of(image):
    return int(np.rint(image.reshape(-1)[0] * 255))


def test_public_images_are_held_out_without_labels_and_the_rest_is_cut(whole):
    made = prepare(whole, 3, 0, public=10)
    assert (made.public_examples, sum(map(sum, made.counts))) == (10, 30)
    with np.load(made.folder / "public.npz") as file:
        assert set(file.files) == {"x", "clients", "num_classes", "dataset", "scale"}
    x = load_public(made.folder)
    assert (x.shape, x.dtype) == ((10, 4, 3, 1), np.float32)
    np.testing.assert_array_equal(x, load_public(made.folder / "public.npz"))
    private = [number_of(image) for client in range(3) for image in load_shard(made.folder, client)[0]]
    assert sorted(private + [number_of(image) for image in x]) == list(range(40))
    np.testing.assert_array_equal(load_test(made.folder)[1], load_test(prepare(whole, 3, 0).folder)[1])


def test_who_is_public_depends_on_the_seed_and_not_on_clients_or_labels(whole):
    def public(**changes):
        if changes:
            rewrite(whole, **changes)
        return {seed: sorted(map(number_of, load_public(prepare(whole, 2, seed, public=7).folder))) for seed in (0, 1)}

    first = public()
    assert first[0] != first[1]
    assert first[0] == sorted(map(number_of, load_public(prepare(whole, 3, 0, public=7).folder)))
    assert public(y_train=np.arange(40)[::-1] % 5) == first


def test_without_public_images_nothing_is_as_if_there_were_such_a_thing(whole):
    held_out, plain = prepare(whole, 3, 0, public=5), prepare(whole, 3, 0)
    assert held_out.folder != plain.folder
    assert held_out.sha256 != plain.sha256
    assert not (plain.folder / "public.npz").exists()
    index = json.loads((plain.folder / "shards.json").read_text())
    assert "public_examples" not in index
    assert "public.npz" not in index["crc32"]
    assert prepare(whole, 3, 0) == plain


def test_the_cut_of_a_known_data_set_has_not_changed():
    # What these seeds gave before there were public images: old results can be repeated.
    assert prepare("digits", 3, 1).sha256 == "581eaa5f66710893e26e64fa663f991642ab373a8c70935cc7fc562ea0bad0e9"


def test_cached_public_images_are_reused_and_damaged_ones_made_again(whole, monkeypatch, tmp_path):
    made = prepare(whole, 3, 0, public=5)
    content = (made.folder / "public.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(data, "load", lambda *arguments: pytest.fail("built again"))
        assert prepare(whole, 3, 0, public=5) == made
    (made.folder / "public.npz").write_bytes(content[:-9])
    assert prepare(whole, 3, 0, public=5) == made
    assert (made.folder / "public.npz").read_bytes() == content
    copied = prepare(whole, 3, 0, public=5, out=tmp_path / "out").folder
    assert (copied / "public.npz").read_bytes() == content


def test_too_many_public_images_are_refused(whole):
    refuse(["38 public examples are too many", "at most 37"], whole, 3, 0, public=38)
    refuse(["35 public examples held out", "clients are too many"], whole, 3, 0, public=35)
    refuse(["-1 public examples"], whole, 3, 0, public=-1)


def test_ready_shards_bring_their_own_public_images(whole, tmp_path):
    made = prepare(whole, 3, 0, public=6, out=tmp_path / "ready")
    folder = str(made.folder)
    found = prepare(folder, None, 0, public=500)
    assert (found.public_examples, found.sha256) == (6, made.sha256)
    assert prepare(folder, None, 0).public_examples == 0  # there, but not asked for
    rewrite(made.folder / "public.npz", y=np.array([object()] * 6))  # whatever it is, nobody reads it
    assert load_public(made.folder).shape == (6, 4, 3, 1)
    rewrite(made.folder / "public.npz", drop=("y",), x=np.zeros((6, 5, 5), np.uint8))
    refuse(["public.npz", "its images are"], folder, None, 0, public=1)
    rewrite(made.folder / "public.npz", x=np.full((6, 4, 3), np.nan))
    refuse(["public.npz", "NaN or infinite pixel"], folder, None, 0, public=1)
    (made.folder / "public.npz").unlink()
    refuse(["no public.npz", "--public 0"], folder, None, 0, public=1)
