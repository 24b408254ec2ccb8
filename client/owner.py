"""Tell the owner of a client what failed, in full, while the server gets the class of the error only.

The text and the traceback go to the client's log. The one line for the terminal waits here until the process that has
the terminal takes it; under Flower's own SuperNode, whose apps are other processes, it goes through the file that
`notices` in the node's configuration names.
"""

import json
import logging
from pathlib import Path
from typing import Any

from flwr.app import Context, Message

from task.errors import UserError, describe, shown

_LONGEST = 2000  # characters of an error on the owner's terminal; the log has all of it
_MOST = 16  # texts that nobody has taken yet
_untaken: dict[str, str] = {}  # by the id of the message whose answer says only the class
_log = logging.getLogger("fedarena")


def tell(message: Message, context: Context, error: BaseException | str, doing: str = "") -> None:
    """Log an error with its traceback, and keep its line for the owner's terminal.

    Args:
        message: what could not be answered.
        context: of this node.
        error: what was raised; or what the reason of an error reply says.
        doing: what failed, put before the text of an error that is not the user's.
    """
    text = f"{doing}: {in_full(error)}" if doing and not isinstance(error, UserError) else in_full(error)
    trace = error if isinstance(error, BaseException) else None
    _log.error("a %s message failed: %s", message.metadata.message_type, text, exc_info=trace)
    if context.node_config.get("notices"):
        if message.metadata.message_type == "query":
            notice(context, "unfit", text)
        else:
            notice(context, "failed", f"{round_name(message.metadata.group_id)} failed: {text}")
        return
    while len(_untaken) >= _MOST:
        _untaken.pop(next(iter(_untaken)), None)
    _untaken[message.metadata.message_id] = text


def take(message: Message) -> str | None:
    """Return the line of what failed when this message was answered, once; None where nothing did."""
    return _untaken.pop(message.metadata.message_id, None)


def notice(context: Context, topic: str, text: str) -> None:
    """Write a line for the process that has the owner's terminal, if this node's configuration names a file for it."""
    if notices := context.node_config.get("notices"):
        with Path(str(notices)).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps([topic, text])}\n")


def in_full(error: BaseException | str) -> str:
    """Return an error on one printable line: class and message; of a `UserError` its message, which says it all."""
    text: Any = error if isinstance(error, str | UserError) else describe(error, _LONGEST)
    return shown(str(text), _LONGEST)


def round_name(group: str) -> str:
    """Return a message's group id, such as "fedavg 1", as the owner reads it."""
    label, _, number = group.rpartition(" ")
    return f"{label} round {number}".strip() if number.isdecimal() else group
