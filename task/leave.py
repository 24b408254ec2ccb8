"""The end of a command's process."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the process with this exit status.

    A daemon thread that still imports or runs TensorFlow, as after Ctrl-C during the start, crashes when the
    interpreter is torn down below it. So where one is left, exit handlers run, and the process ends without that.
    """
    if not any(thread.daemon and thread.is_alive() for thread in threading.enumerate()):
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader has left
            stream.flush()
    os._exit(status)
