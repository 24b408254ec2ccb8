"""Import TensorFlow and Keras quickly, quietly, and the same way in every process.

Call `load()` before anything else imports either of them.
"""

import gc
import importlib
import os
import sys
from types import ModuleType
from typing import Any

# Keras imports these only to offer wrappers and plots that nothing here uses; they cost 40 % of its import.
_UNUSED = ("sklearn", "pandas", "matplotlib", "PIL", "torch", "jax", "tensorboard")


def load() -> tuple[Any, Any]:
    """The modules (keras, tensorflow), with one intra-op thread.

    One thread: sums of another number of threads have other bits, and many single-threaded workers beat one
    multi-threaded TensorFlow. TensorFlow's own log lines go below errors, and GPU memory grows as needed, so that
    several clients share a device.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        hidden: dict[str, ModuleType | None] = {name: None for name in _UNUSED if name not in sys.modules}
        sys.modules.update(hidden)  # type: ignore[arg-type]
        collecting = gc.isenabled()
        gc.disable()  # 100,000 new objects, none of them garbage: looking for some is a sixth of the import
        try:
            importlib.import_module("keras")
        finally:
            for name in hidden:
                del sys.modules[name]
            if collecting:
                gc.enable()
        tensorflow = importlib.import_module("tensorflow")
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return importlib.import_module("keras"), importlib.import_module("tensorflow")
