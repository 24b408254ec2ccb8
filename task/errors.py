"""The one exception that a user's mistake raises, and how errors of others are told in a line."""

import difflib
import errno
import re
from collections.abc import Iterable
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something only the user can mend: an option, a file, data, the environment.

    The message is a single line that says what is wrong, where, and how to mend it. The command line prints it on
    stderr without a traceback and exits with status 2. Whatever a file or an option put into it: it becomes one
    printable line of at most 500 characters, of which the first and the last stay.

    Attributes:
        status: the exit status.
    """

    status = 2

    def __init__(self, text: str) -> None:
        super().__init__(shown(text, _LONGEST))


def describe(error: BaseException, longest: int = 300) -> str:
    """An exception on one line: its kind, and what it says without TensorFlow's list of where a graph was traced.

    Keras's colours and its list of arguments are left out as well.
    """
    lines = takewhile(lambda line: not line.startswith(_ARGUMENTS), map(str.strip, _plain(str(error)).splitlines()))
    told = [line for line in lines if line and not line.startswith(_TRACE)]
    return one_line(": ".join([type(error).__name__, " ".join(told)]).rstrip(": "), longest)


def one_line(text: str, longest: int = 300) -> str:
    """A text on one line of at most so many characters, for tables and terminals."""
    words = printable(" ".join(text.split()))
    return words if len(words) <= longest else words[: longest - 3] + "..."


def printable(text: str) -> str:
    """A text as terminals, logs and pages may get it, wherever it came from.

    No control character stays that a terminal obeys or that begins a line, and no mark that turns or hides what is
    around it: white space becomes a space, the rest a question mark.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def printable_tree(value: Any) -> Any:
    """What JSON can hold, with every line of every text in it printable."""
    if isinstance(value, str):
        return "\n".join(map(printable, value.split("\n")))
    if isinstance(value, dict):
        return {printable_tree(key): printable_tree(part) for key, part in value.items()}
    return [printable_tree(part) for part in value] if isinstance(value, list) else value


def remedy(error: OSError, otherwise: str = "mend it") -> str:
    """What helps against an error of the operating system, where that is the same whatever was being done.

    Args:
        error: the error.
        otherwise: what helps against any other error there.
    """
    return _REMEDIES.get(error.errno or 0, otherwise)


SHORT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_REMEDIES = {
    errno.EMFILE: "allow more open files (ulimit -n, or LimitNOFILE of the service)",
    errno.ENFILE: "allow more open files on this machine, or close some",
    errno.ENOMEM: "free some memory, or raise `ulimit -v`",
    errno.EAGAIN: "end some processes, or raise `ulimit -u`",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or ask for a larger quota",
}


def shown(value: object, longest: int = 120) -> str:
    """What a file or a user says, on one line and without characters that a terminal would obey.

    Args:
        value: a text as it is, anything else as its repr.
        longest: characters; the middle of more is left out.
    """
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or a nest of thousands of levels
        text = f"a {type(value).__name__} too large to show"
    line = printable(text)
    return line if len(line) <= longest else f"{line[: longest * 3 // 5 - 3]}...{line[-(longest * 2 // 5) :]}"


def quoted(value: object, longest: int = 60) -> str:
    """As `shown`, but a text in quotes: a value that a message repeats."""
    return shown(repr(value) if isinstance(value, str) else value, longest)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question with the nearest of the known words; "" where none is near enough (0..1, the higher the nearer)."""
    near = difflib.get_close_matches(word, list(known), 1, cutoff)
    return f"did you mean {near[0]!r}?" if near else ""


def describe_invalid(error: "ValidationError") -> str:
    """Every wrong value of a configuration and what is allowed, on one line."""
    told = []
    for detail in error.errors()[:_NAMED]:
        message = detail["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in detail["loc"]) or "options"
        plain = not detail["loc"] or detail["type"] == "value_error"
        told.append(message if plain else f"{where}: {message} (got {quoted(detail['input'])})")
    more = error.error_count() - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])


_plain = partial(re.compile(r"\x1b\[[0-9;]*m").sub, "")
_ARGUMENTS = "Arguments received by"
_NAMED = 5  # wrong values of a configuration
_LONGEST = 500  # characters of a message: a path, and what is wrong with what lies there
_TRACE = ("File ", "Detected at node", "Graph execution error", "[[{{node")
