"""What every command does around its work: files that it makes are private, and every end is told in one line."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from task.errors import UserError, one_line, remedy
from task.offline import keep_to_ourselves

CLOSED_PIPE = 141
"""Exit status of a command whose output nobody reads any more, as a shell tells it of a process ended by SIGPIPE."""

_GROUP_AND_OTHERS = 0o077
_PLACES = {
    errno.EROFS: "choose another place",
    errno.EACCES: "mend the permissions, or choose another place",
}
"""What the user does where the operating system refuses to write somewhere."""


@contextmanager
def private() -> Iterator[None]:
    """Make every file and folder for the owner alone, whoever makes it: this process, its libraries or its children.

    The umask belongs to the whole process, so no library or forgotten `mkdir` can make anything else. It is put back.
    """
    before = os.umask(_GROUP_AND_OTHERS)
    os.umask(before | _GROUP_AND_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def run_command(program: str, act: Callable[[], int]) -> int:
    """Run a command in a process of its own.

    Args:
        program: what the user called it; begins the line that tells of a mistake.
        act: does the work and returns the exit status.

    Returns:
        The exit status: that of `act`; 2 after one line on stderr, for a mistake of the user's and for what the
        operating system refuses (75 where a restart may mend that); 130 after Ctrl-C; 141 if nobody reads the output.
    """
    keep_to_ourselves()
    try:
        with private():
            try:
                status = act()
            except SystemExit:  # of argparse
                _flush()
                raise
        return status if _flush() else CLOSED_PIPE
    except UserError as error:
        return _fail(program, error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _flush()
        return CLOSED_PIPE
    except (MemoryError, RuntimeError, OSError) as error:
        told = _refused_by_the_system(error)
        if told is None:
            raise
        return _fail(program, UserError(told))


def _fail(program: str, error: UserError) -> int:
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{program}: {error}\n")
        sys.stderr.flush()  # a library may end the process before Python does
    return error.status


def _flush() -> bool:
    """Write what is left for stdout; False if nobody reads it, and then Python does not try again at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return False
    return True


def _refused_by_the_system(error: BaseException) -> str | None:
    """One line for a lack of memory, threads, files or room; None for anything else, which is a fault of ours."""
    if isinstance(error, MemoryError):
        return "memory is short, or limited: free some, or raise `ulimit -v`"
    if isinstance(error, OSError):
        mend = remedy(error, _PLACES.get(error.errno or 0, ""))
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: {mend}" if mend else None
    if "can't start new thread" in str(error):
        return f"{one_line(str(error))}: threads or memory are limited; raise `ulimit -u` and `ulimit -v`"
    return None
