"""A run as TensorBoard event files: one TensorBoard run a contestant, a scalar a column of rounds.csv.

The `tensorboard` package is not needed. An event file is a TFRecord file of `Event` messages, the first of which gives
the version; a scalar is a tensor whose metadata names the plugin `scalars`. They are written as that, and not through
`tf.summary`, because each event then has the time at which its round ended and not that of the writing.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from server.results import Entry, RoundRow, RunFolder
from task.backend import load

FOLDER = "tensorboard"
SCALARS = {
    "test/accuracy": "test_accuracy",
    "test/loss": "test_loss",
    "clients/ok": "clients_ok",
    "clients/rejected": "clients_rejected",
    "cost/bytes_up": "bytes_up",
    "cost/bytes_down": "bytes_down",
    "cost/seconds": "seconds",
}
"""Tag of each scalar, and its column of rounds.csv."""

_FILE = "events.out.tfevents.fedarena"  # one name: what a resumed run writes takes the place of what was there


def write_events(folder: RunFolder) -> Path:
    """Write `tensorboard/<scenario>-<strategy>-seed<k>/events...`; the step is the round.

    Wall times: rounds of a contestant end one after the other, the last one when the run ended.

    Returns:
        The folder for `tensorboard --logdir`.

    Raises:
        UserError: rounds.csv was changed by hand into something else.
    """
    _, tf = load()
    rows: dict[Entry, list[RoundRow]] = defaultdict(list)
    for row in folder.read_rounds():
        rows[row.entry].append(row)
    ended = _ended(folder.path)
    for entry, some in rows.items():
        place = folder.path / FOLDER / folder.model_path(entry).stem
        place.mkdir(parents=True, exist_ok=True)
        part = place / ".part"
        with tf.io.TFRecordWriter(str(part)) as file:
            for event in _events(tf, sorted(some, key=lambda row: row.round), ended):
                file.write(event.SerializeToString())
        part.replace(place / _FILE)
    return folder.path / FOLDER


def _events(tf: Any, rows: Sequence[RoundRow], ended: float) -> Iterator[Any]:
    times = [ended - left for left in _seconds_left(rows)]
    yield tf.compat.v1.Event(wall_time=times[0], file_version="brain.Event:2")
    for row, time in zip(rows, times, strict=True):
        values = [_scalar(tf, tag, float(getattr(row, column))) for tag, column in SCALARS.items()]
        yield tf.compat.v1.Event(wall_time=time, step=row.round, summary=tf.compat.v1.Summary(value=values))


def _seconds_left(rows: Sequence[RoundRow]) -> list[float]:
    """Of each round the time from its end to the end of the last one."""
    return [*accumulate((row.seconds for row in reversed(rows[1:])), initial=0.0)][::-1]


def _scalar(tf: Any, tag: str, value: float) -> Any:
    metadata = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
    metadata.plugin_data.plugin_name = "scalars"
    return tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tf.make_tensor_proto(value, tf.float32))


def _ended(folder: Path) -> float:
    """Unix time of the end of the training."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads((folder / "timing.json").read_bytes())["finished"])
    return (folder / "rounds.csv").stat().st_mtime
