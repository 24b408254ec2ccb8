"""Shards on disk: cut once from a data set and kept in the cache, or found ready. Nothing else opens private data.

What a cached set is made of (data set, version of its content, clients, seed, scenario) names its folder, so the same
question finds the same files, by whichever command; `test.npz` lies beside the shards, and `public.npz` where public
images were held out. Scenarios whose data are the same share their files.
"""

import filecmp
import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from task import cache as caching
from task import data, partition, ready
from task.arrays import input_shape
from task.errors import UserError, remedy
from task.holdings import hold, hold_out
from task.jsontext import read_object
from task.scenario import Scenario, scenario_of
from task.shardfile import (
    PATTERN,
    PUBLIC,
    TEST,
    Header,
    load_public,
    load_shard,
    load_test,
    read_header,
    shard_name,
    write_public,
    write_shard,
)

__all__ = ["DEFAULT_CLIENTS", "Header", "Shards", "load_public", "load_shard", "load_test", "prepare", "read_header"]

DEFAULT_CLIENTS = 5
INDEX = "shards.json"
_TUPLES = ("input_shape", "outliers", "flipped", "features")
_OPTIONAL = ("public_examples", "outliers", "flipped", "features")  # not in the index where there is nothing to say


@dataclass(frozen=True)
class Shards:
    """A folder of shards: `shard-0.npz` ... `shard-<clients-1>.npz` and `test.npz`.

    Attributes:
        folder: where they are, absolute.
        clients: number of shards.
        seed: the seed of the split; None for shards found ready.
        dataset: the data set's name.
        num_classes: labels are in 0..num_classes-1.
        input_shape: one example as the model sees it, such as (28, 28, 1).
        counts: for each client its number of examples of each class, by the labels that it holds.
        p_value: of the chi-square test that all shards draw their labels from one distribution.
        test_examples: size of the test set.
        sha256: over the content of all arrays, shards in order, then the test set, then public images.
        public_examples: images in `public.npz`, which no client has; 0: there is no such file.
        scenario: what the data depend on, as `Scenario.cut` calls it; "ready" of shards found ready.
        outliers: clients with corrupted data.
        flipped: clients that attack by flipped labels.
        features: for each client what happened to its images, such as "noise 0.25"; empty where nothing did.
    """

    folder: Path
    clients: int
    seed: int | None
    dataset: str
    num_classes: int
    input_shape: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    p_value: float
    test_examples: int
    sha256: str
    public_examples: int = 0
    scenario: str = "iid"
    outliers: tuple[int, ...] = ()
    flipped: tuple[int, ...] = ()
    features: tuple[str, ...] = ()


def prepare(
    dataset: str,
    clients: int | None,
    seed: int,
    scenario: str = "iid",
    out: Path | None = None,
    cache: Path | None = None,
    *,
    public: int = 0,
) -> Shards:
    """Shards of a data set: out of the cache in milliseconds, cut on first use.

    Args:
        dataset: a name or path as `task.data.load` takes it, or a folder that holds ready shards.
        clients: number of shards; None: all that are ready, or DEFAULT_CLIENTS.
        seed: the run's seed, >= 0; it alone draws the split, and who is an outlier or an attacker.
        scenario: as `task.scenario.scenario_of` reads it; only what it says of the data counts, which must be nothing
            for ready shards.
        out: copy them to this folder too (made if missing) and say so in `folder`.
        cache: the cache folder; None means `task.cache.folder()`.
        public: training examples to hold out before the rest is cut, drawn uniformly and without a look at labels,
            which are not written either; 0: none. Of ready shards: above 0 asks for the `public.npz` beside them, all
            of it.

    Returns:
        Where they are and what they hold.

    Raises:
        UserError: data that `task.data.load` refuses; more clients or public examples than there are examples for; an
            unknown scenario; ready shards that are damaged, at odds with each other or not as many as asked for; an
            `out` that holds other shards; a folder that cannot be written.
    """
    cut = scenario_of(scenario).cut
    if clients is not None and clients < 1:
        raise UserError(f"{clients} clients make no federation; ask for 1 or more")
    if public < 0:
        raise UserError(f"{public} public examples cannot be held out; ask for 0 or more")
    if seed < 0:
        raise UserError(f"seed {seed} is negative; give one of 0 or more")
    try:
        if dataset not in data.NAMES and ready.is_ready(Path(dataset)):
            if out is not None or cut.name != "iid":
                raise UserError(f"{dataset}: holds ready shards, used as they are; give a whole data set to split")
            return _ready(Path(dataset), clients, public)
        shards = _cached(dataset, clients or DEFAULT_CLIENTS, seed, cut, cache, public)
    except OSError as error:
        raise UserError(
            f"{error.filename or dataset}: {error.strerror}; " + remedy(error, "check path and permissions")
        ) from None
    return shards if out is None else _copy(shards, out)


def _cached(dataset: str, clients: int, seed: int, cut: Scenario, cache: Path | None, public: int) -> Shards:
    question = [*data.version(dataset), str(clients), str(seed), cut.name, *([f"public {public}"] if public else [])]
    key = hashlib.sha256("\0".join(question).encode()).hexdigest()
    root = caching.folder(cache) / "shards"
    folder = root / f"{Path(dataset).stem[:40]}-{clients}-{seed}-{'-'.join(part.name for part in cut.parts)}-{key[:12]}"
    if shards := _reuse(folder, key):
        return shards
    root.mkdir(mode=0o700, exist_ok=True)
    with caching.lock(root / ".lock"):
        return _reuse(folder, key) or _build(folder, key, data.load(dataset, cache), clients, seed, cut, public)


def _ready(folder: Path, clients: int | None, public: int) -> Shards:
    found = ready.read(folder, clients, public=public > 0)
    counts = partition.label_counts(found.labels, found.num_classes)
    return Shards(
        folder=folder.absolute(),
        clients=len(counts),
        seed=None,
        dataset=found.dataset,
        num_classes=found.num_classes,
        input_shape=found.input_shape,
        counts=_rows(counts),
        p_value=partition.chi_square_p(counts),
        test_examples=found.test_examples,
        sha256=found.sha256,
        public_examples=found.public_examples,
        scenario="ready",
    )


def _build(folder: Path, key: str, whole: data.Dataset, clients: int, seed: int, cut: Scenario, public: int) -> Shards:
    """Cut the shards in a folder of their own, which then takes its name in one step."""
    if public:
        whole, images = hold_out(whole, public, clients, seed)
    try:
        held = hold(whole, clients, seed, cut)
    except UserError as error:
        raise UserError(f"{public} public examples held out, {error}" if public else str(error)) from None
    counts = partition.label_counts(held.labels, whole.num_classes)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        header = Header(None, clients, whole.num_classes, whole.name, whole.scale)
        digest = ready.Digest()
        for client, y in enumerate(held.labels):
            x = held.images(client)
            write_shard(part / shard_name(client), x, y, replace(header, client=client))
            digest.add(x, y)
        write_shard(part / TEST, whole.x_test, whole.y_test, header)
        digest.add(whole.x_test, whole.y_test)
        if public:
            write_public(part / PUBLIC, images, header)
            digest.add_images(images)
        shards = Shards(
            folder=folder,
            clients=clients,
            seed=seed,
            dataset=whole.name,
            num_classes=whole.num_classes,
            input_shape=input_shape(whole.x_train.shape),
            counts=_rows(counts),
            p_value=partition.chi_square_p(counts),
            test_examples=len(whole.y_test),
            sha256=digest.hexdigest(),
            public_examples=public,
            scenario=cut.name,
            outliers=held.outliers,
            flipped=held.flipped,
            features=held.features,
        )
        left_out = {"folder", "scenario", *(name for name in _OPTIONAL if not getattr(shards, name))}
        facts = {name: value for name, value in asdict(shards).items() if name not in left_out}
        index: dict[str, Any] = facts | {
            "key": key,
            "scenario": cut.name,
            "crc32": {name: _crc32(part / name) for name in _files(shards)},
        }
        index["crc32"][INDEX] = _own_crc32(index)
        (part / INDEX).write_text(json.dumps(index, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # what is there, if anything, is damaged
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return shards


def _reuse(folder: Path, key: str) -> Shards | None:
    """The cached set, if it is there, answers this question, and is whole to the byte."""
    try:
        index = read_object((folder / INDEX).read_bytes())
        if index["crc32"].pop(INDEX) != _own_crc32(index):
            return None
        checks = index.pop("crc32")
        known = index.pop("key")
        index |= {name: tuple(index[name]) for name in _TUPLES if name in index}
        index["counts"] = _rows(index["counts"])
        shards = Shards(folder=folder, **index)
        whole = known == key and all(_crc32(folder / name) == checks[name] for name in _files(shards))
        return shards if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _copy(shards: Shards, out: Path) -> Shards:
    """The same files in the user's folder; those that are there already must be the same."""
    names = [*_files(shards), INDEX]
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = [path for path in sorted(out.iterdir()) if path.name in names or PATTERN.fullmatch(path.name)]
        for path in held:
            if path.name not in names or not filecmp.cmp(path, shards.folder / path.name, shallow=False):
                raise UserError(f"{out}: already holds other shards ({path.name}); choose another folder")
        for name in names:
            with (shards.folder / name).open("rb") as source:
                caching.write(out / name, lambda file, source=source: shutil.copyfileobj(source, file))  # type: ignore[misc]
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or out} ({error.strerror}); {remedy(error, 'choose another folder')}"
        ) from None
    return replace(shards, folder=out.absolute())


def _files(shards: Shards) -> list[str]:
    return [*map(shard_name, range(shards.clients)), TEST, *([PUBLIC] if shards.public_examples else [])]


def _rows(counts: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) for count in row) for row in counts)


def _own_crc32(index: dict[str, Any]) -> int:
    """Checksum of what an index says, so that nothing is made of one that was damaged."""
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def _crc32(path: Path) -> int:
    """Checksum of a whole file: it finds damage at 1-2 GB/s, where SHA-256 would slow down every start."""
    value, buffer = 0, bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(buffer):
            value = zlib.crc32(memoryview(buffer)[:length], value)
    return value
