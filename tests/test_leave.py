"""How a command's process ends."""

import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = """
import atexit, sys, threading
from task.leave import leave

atexit.register(print, "handled")
if sys.argv[1] == "busy":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("said", end=" ")
leave(3)
"""


@pytest.mark.parametrize("kind", ["busy", "idle"])
def test_what_was_said_is_written_handlers_run_and_the_status_is_kept(kind: str):
    command = [sys.executable, "-c", SCRIPT, kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said handled\n", "")


def test_an_interpreter_is_not_torn_down_below_a_daemon_thread():
    """A module's finalizer shows whether it was."""
    torn = SCRIPT.replace(
        'print("said"', "class Last:\n    def __del__(self): print('torn down')\nkept = Last()\nprint(\"said\""
    )
    for kind, end in [("busy", "said handled\n"), ("idle", "said handled\ntorn down\n")]:
        command = [sys.executable, "-c", torn, kind]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == end
