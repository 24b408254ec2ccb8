"""A folder of shards that someone else cut: every file is checked, none is kept in memory."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from task.arrays import MAX_CLASSES, Array, input_shape, scale_of
from task.errors import UserError
from task.shardfile import (
    PATTERN,
    PUBLIC,
    TEST,
    read_header,
    read_labels,
    read_raw,
    read_raw_public,
    shard_name,
)


class Digest:
    """SHA-256 over the content of arrays, whatever file they lie in."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, x: Array, y: Array) -> None:
        """One shard's examples (n, ...) and labels (n,): dtype, shape, and the bytes in C order; labels as int32."""
        self.add_images(x)
        self.add_images(y.astype(np.int32))

    def add_images(self, x: Array) -> None:
        """Examples without labels."""
        self._sha.update(f"{x.dtype.str} {x.shape} ".encode())
        self._sha.update(np.ascontiguousarray(x).data)

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._sha.hexdigest()


@dataclass(frozen=True)
class Found:
    """What a folder of ready shards holds.

    Attributes:
        dataset: the name that all its files give, else the folder's.
        num_classes: labels are in 0..num_classes-1.
        input_shape: one example as the model sees it.
        labels: per shard its labels.
        test_examples: size of the test set.
        public_examples: images in public.npz; 0 if they are not asked for.
        sha256: over all arrays, shards in order, then the test set, then public images.
    """

    dataset: str
    num_classes: int
    input_shape: tuple[int, ...]
    labels: list[Array]
    test_examples: int
    public_examples: int
    sha256: str


def is_ready(folder: Path) -> bool:
    """Whether it is a folder with at least one file named like a shard."""
    return folder.is_dir() and any(PATTERN.fullmatch(path.name) for path in folder.iterdir())


def read(folder: Path, clients: int | None, *, public: bool = False) -> Found:
    """Check every shard and the test set of a folder.

    Args:
        folder: holds shard-0.npz ... and test.npz.
        clients: how many shards are expected; None: as many as there are.
        public: whether its public.npz is wanted, too.

    Returns:
        What it holds.

    Raises:
        UserError: a file that is missing, damaged or cannot be learned from; files at odds with each other.
    """
    held = sum(1 for path in folder.iterdir() if PATTERN.fullmatch(path.name))
    if clients is not None and clients != held:
        raise UserError(
            f"{folder}: holds {held} shards, not {clients}; leave out the number of clients or ask for {held}"
        )
    files = [folder / shard_name(client) for client in range(held)]
    headers = [read_header(file) for file in (*files, folder / TEST)]
    for client, (file, header) in enumerate(zip(files, headers, strict=False)):
        if header.client != client:
            raise UserError(f"{file}: says that it is the shard of client {header.client}; put each under its own name")
    num_classes = _agreed(folder, [header.num_classes for header in headers], "num_classes")
    if num_classes is None:
        num_classes = _count_classes(files, folder / TEST)
    names = {header.dataset for header in headers}
    digest, labels, kinds = Digest(), [], []
    for file in (*files, folder / TEST):
        x, y, header = read_raw(file, num_classes)
        kinds.append((input_shape(x.shape), scale_of(x, header.scale, str(file))))
        if kinds[-1] != kinds[0]:
            raise UserError(
                f"{file}: its images are {kinds[-1]} (shape, scale), those of {files[0].name} {kinds[0]}; mend it"
            )
        digest.add(x, y)
        labels.append(y)
    images = _read_public(folder, kinds[0], digest) if public else 0
    name = names.pop() if len(names) == 1 else None
    return Found(
        dataset=name or folder.resolve().name,
        num_classes=num_classes,
        input_shape=kinds[0][0],
        labels=labels[:-1],
        test_examples=len(labels[-1]),
        public_examples=images,
        sha256=digest.hexdigest(),
    )


def _read_public(folder: Path, kind: tuple[tuple[int, ...], float], digest: Digest) -> int:
    """How many public images there are; they go into the digest."""
    file = folder / PUBLIC
    if not file.exists():
        raise UserError(f"{folder}: holds ready shards and no {PUBLIC} beside them; add one, or give --public 0")
    x, header = read_raw_public(file)
    if (found := (input_shape(x.shape), scale_of(x, header.scale, str(file)))) != kind:
        raise UserError(f"{file}: its images are {found} (shape, scale), those of the shards {kind}; mend it")
    digest.add_images(x)
    return len(x)


def _agreed(folder: Path, values: list[int | None], what: str) -> int | None:
    """The one value that those files give that give any."""
    given = {value for value in values if value is not None}
    if len(given) > 1:
        raise UserError(f"{folder}: its files disagree on {what} ({', '.join(map(str, sorted(given)))}); mend them")
    return given.pop() if given else None


def _count_classes(files: list[Path], test: Path) -> int:
    """What the shards and the test set agree on, as for a whole data set in `task.data`."""
    tops = [max((int(y.max()) for y in map(read_labels, part) if _plain(y)), default=-1) for part in (files, [test])]
    return min(max(1, min(tops) + 1), MAX_CLASSES)


def _plain(labels: Array) -> bool:
    """Whether a maximum can be taken; what is wrong with the rest, the check of its shard says."""
    return labels.size > 0 and labels.dtype.kind in "iu"
