"""What libraries say stays out of the user's sight, whenever they say it."""

import subprocess
import sys
from pathlib import Path

import pytest

LATE = """
import os, sys, threading
from pathlib import Path
from task.chatter import Chatter

begun, left = threading.Event(), threading.Event()

def library():  # still imported when the command ends with an error, as TensorFlow may be
    os.write(2, b"before\\n")
    begun.set()
    left.wait()
    os.write(2, b"after\\n")

with Chatter(verbose=sys.argv[2] == "verbose") as chatter:
    chatter.redirect(Path(sys.argv[1]))
    thread = threading.Thread(target=library)
    thread.start()
    begun.wait()
    print("ours", file=chatter.err)
    print("hidden", flush=True)
left.set()
thread.join()
print("error", file=sys.stderr)
print("result")
"""


@pytest.mark.parametrize(
    ("kind", "out", "err"),
    [("quiet", ["result"], ["error", "ours"]), ("verbose", ["result"], ["after", "before", "error", "hidden", "ours"])],
)
def test_what_a_library_says_after_the_end_goes_to_the_log_too(kind: str, out: list[str], err: list[str], tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LATE, tmp_path / "log", kind],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert sorted(done.stdout.splitlines()) == out
    assert sorted(done.stderr.splitlines()) == err
    said = (tmp_path / "log").read_text().split()
    assert set(said) == {"before", "hidden", *(["after"] if kind == "quiet" else [])}
