"""`python -m task.download mnist FILE.npz`: fetch a data set through Keras, in a process of its own.

Its own process because importing Keras takes seconds and prints, and a stalled download needs a time limit that must
not touch the sockets of a running server.
"""

import socket
import sys
from pathlib import Path

import numpy as np


def main(name: str, file: str) -> None:
    """Write x_train, y_train, x_test, y_test of `keras.datasets.<name>` ("-" as "_") to an .npz file."""
    socket.setdefaulttimeout(30)  # seconds without a byte
    import keras

    module = getattr(keras.datasets, name.replace("-", "_"))
    (x_train, y_train), (x_test, y_test) = module.load_data()
    np.savez(Path(file), x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


if __name__ == "__main__":
    main(*sys.argv[1:])
