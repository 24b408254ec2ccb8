"""Central test of global models; the server's only use of TensorFlow."""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from task.cache import PART
from task.evaluation import Evaluator, resident
from task.shardfile import load_test
from task.update import Arrays

Evaluate = Callable[[Arrays], tuple[float, float]]


class TestSets:
    """Accuracy and loss on several test sets, with one compiled model, one call at a time.

    Args:
        model: a built Keras model; its weights are whatever came last.
        files: the test sets; equal files are kept once.
        spent: told the wall and the CPU seconds of each evaluation.
    """

    __test__ = False  # not a test case, whatever a test runner thinks of the name

    def __init__(self, model: Any, files: set[Path], spent: Callable[[float, float], None]) -> None:
        self._evaluator, self._spent = Evaluator(model), spent
        self._lock = threading.Lock()
        self._known: dict[tuple[Path, int], tuple[float, float]] = {}
        by_content: dict[bytes, Any] = {}
        self._data: Mapping[Path, Any] = {file: _once(by_content, file) for file in sorted(files)}

    def on(self, file: Path) -> Evaluate:
        """Accuracy (0..1) and mean cross-entropy (nats) on the test set in this file."""

        def evaluate(arrays: Arrays) -> tuple[float, float]:
            if known := self._known.get((file, id(arrays))):
                return known
            with self._lock:
                wall, cpu = time.perf_counter(), time.process_time()
                result = self._evaluator(arrays, *self._data[file])
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                # TensorFlow computes in a thread of its own; what the process used meanwhile is at least that.
                self._spent(wall, min(wall, cpu))
            return result

        return evaluate

    def remember(self, file: Path, arrays: Arrays) -> None:
        """Evaluate arrays that several contestants begin with, once; they must outlive this object."""
        self._known[file, id(arrays)] = self.on(file)(arrays)

    def export(self, arrays: Arrays, file: Path) -> None:
        """Save the model with these arrays as a `.keras` file, which appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        # Keras wants a name that ends in .keras, so what is not whole yet has a folder of its own.
        with self._lock, tempfile.TemporaryDirectory(dir=file.parent, prefix=".", suffix=PART) as folder:
            self._evaluator.model.set_weights(arrays)
            self._evaluator.model.save(Path(folder, file.name))
            Path(folder, file.name).replace(file)


def _once(by_content: dict[bytes, Any], file: Path) -> Any:
    key = hashlib.sha256(file.read_bytes()).digest()
    if key not in by_content:
        by_content[key] = resident(*load_test(file))
    return by_content[key]
