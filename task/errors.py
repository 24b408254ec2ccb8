"""The one exception that a user's mistake raises, and how errors of others are told in a line."""


class UserError(Exception):
    """Something only the user can mend: an option, a file, data, the environment.

    The message is a single line that says what is wrong, where, and how to mend it. The command line prints it on
    stderr without a traceback and exits with status 2.
    """


def describe(error: BaseException) -> str:
    """An exception on one line: its kind, and what it says without TensorFlow's list of where a graph was traced."""
    told = [line for line in map(str.strip, str(error).splitlines()) if line and not line.startswith(_TRACE)]
    return one_line(": ".join([type(error).__name__, " ".join(told)]).rstrip(": "))


def one_line(text: str) -> str:
    """A text on one line of at most 300 characters, for tables and terminals."""
    words = " ".join(text.split())
    return words if len(words) <= 300 else words[:297] + "..."


_TRACE = ("File ", "Detected at node", "Graph execution error", "[[{{node")
