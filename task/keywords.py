"""A command line as a Python function: the same options as keywords, by way of the parser that the command has."""

import argparse
import inspect
import operator
import os
import re
from collections.abc import Iterable, Mapping
from functools import reduce
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from task.errors import UserError, did_you_mean
from task.options import Parser


class RaisingParser(Parser):
    """A parser of keywords: a mistake is raised instead of told on stderr."""

    def error(self, message: str) -> NoReturn:
        """Raise it.

        Raises:
            UserError: always.
        """
        raise UserError(message.removeprefix("argument "))


def words_of(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> list[str]:
    """Keywords as the words of a command line.

    Args:
        parser: knows the options.
        given: values by the names of the options with `_` for `-`. None: not given. Where the command line takes
            several values, one alone or any iterable.

    Raises:
        UserError: a name that there is not, or a value of the wrong kind.
    """
    known = _actions(parser)
    words: list[str] = []
    for name, value in given.items():
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
            raise UserError(f"there is no keyword {name!r}; {hint}")
        if value is not None:
            words += _words(known[name], value)
    return words


def in_python(text: str, parser: argparse.ArgumentParser) -> str:
    """A message that speaks of `--batch-size` speaks of `batch_size`."""
    known = _actions(parser)

    def keyword(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        return name if name in known else option[0]

    return re.sub(r"--([a-z][a-z-]*)", keyword, text)


def signature_of(
    parser: argparse.ArgumentParser, fields: Mapping[str, tuple[Any, Any]], returns: Any
) -> inspect.Signature:
    """What `help` and notebooks show of the function.

    Args:
        parser: knows the options.
        fields: type and default of what an option becomes, by its name; of others both are read off the option.
        returns: what the function returns.
    """
    parameters = []
    for name, action in _actions(parser).items():
        kind, default = fields.get(name, (bool, False) if action.nargs == 0 else (str | os.PathLike[str] | None, None))
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_plain(kind))
        )
    return inspect.Signature(parameters, return_annotation=returns)


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {action.dest: action for action in parser._actions if action.option_strings and action.dest != "help"}


def _words(action: argparse.Action, value: Any) -> list[str]:
    option = action.option_strings[-1]
    if action.nargs == 0:
        if value not in (True, False):
            raise UserError(f"{action.dest} is True or False, not {value!r}")
        return [option] if value else []
    several = isinstance(value, Iterable) and not isinstance(value, str)
    if action.nargs == "+":
        return [option, *map(str, value if several else [value])]
    if several:
        raise UserError(f"{action.dest} takes one value, not {value!r}")
    text = str(value)
    return [f"{option}={text}"] if text.startswith("-") else [option, text]


def _plain(kind: Any) -> Any:
    """A type without what else is annotated to it."""
    parts = tuple(part if part is Ellipsis else _plain(part) for part in get_args(kind))
    origin = get_origin(kind)
    if origin is Annotated:
        return parts[0]
    if origin in (Union, UnionType):
        return reduce(operator.or_, parts)
    return kind if origin in (None, Literal) else origin[parts]
