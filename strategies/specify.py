"""From what the user wrote to a strategy: a name of ours, or the dotted path of any Flower message-API strategy."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy

from strategies import REGISTRY
from strategies.base import rule_options
from task.errors import UserError, describe, did_you_mean, quoted
from task.jsontext import value_of
from task.structure import Structure

# A comparison decides itself who takes part, and evaluates centrally; Flower's own minima would only make it wait.
_FLOWER_DEFAULTS: dict[str, Any] = {
    "fraction_train": 1.0,
    "min_train_nodes": 1,
    "min_available_nodes": 1,
}


def make_strategy(
    specification: str,
    trainable: Sequence[bool] | None = None,
    structure: Callable[[], Structure] | None = None,
) -> Strategy:
    """A fresh strategy.

    Args:
        specification: "NAME" or "package.module.Class", with options as "NAME:option=value,option=value"; values are
            read as JSON and otherwise as text.
        trainable: which arrays of the model gradients move, for rules that treat the others differently.
        structure: gives the model's hidden units; called only for a rule that wants them.

    Raises:
        UserError: one line, with the nearest name for an unknown one.
    """
    name, options = parse_specification(specification)
    if name in REGISTRY:
        kind: type[Strategy] = REGISTRY[name]
        known = rule_options(REGISTRY[name].rule)
        if "trainable" in known:
            options.setdefault("trainable", trainable)
        if "structure" in known:
            if "structure" in options:
                raise UserError(f"strategy {specification}: the structure is the model's own and cannot be given")
            options["structure"] = structure() if structure else None
        known |= _arguments(FedAvg)
    else:
        kind = _import_strategy(name)
        known = _arguments(kind)
    if unknown := sorted(options.keys() - known):
        told = [f"strategy {name} has no option {unknown[0]!r}", did_you_mean(unknown[0], known)]
        raise UserError("; ".join(filter(None, told)))
    defaults = {key: value for key, value in _FLOWER_DEFAULTS.items() if key in known}
    try:
        return kind(**{**defaults, **options})
    except Exception as error:  # the user's choice of class or options is the user's to mend
        raise UserError(f"strategy {specification}: {describe(error)}") from error


def is_ours(specification: str) -> bool:
    """Whether it names a strategy of REGISTRY; what others remember between rounds is not known here."""
    return specification.partition(":")[0] in REGISTRY


def parse_specification(specification: str) -> tuple[str, dict[str, Any]]:
    """The name or dotted path, and the options.

    Raises:
        UserError: options are not written as NAME:option=value,option=value.
    """
    name, _, text = specification.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise UserError(f"strategy {specification}: options are written as NAME:option=value,option=value")
        options[key] = value_of(value)
    return name, options


def _import_strategy(path: str) -> type[Strategy]:
    module_name, dot, class_name = path.rpartition(".")
    if not dot:
        there_are = f"there are {', '.join(REGISTRY)}, or any of Flower's by its dotted path"
        told = [did_you_mean(path, REGISTRY, cutoff=0.4), there_are]
        raise UserError(f"unknown strategy {quoted(path)}; {' '.join(filter(None, told))}")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise UserError(f"strategy {path}: {describe(error)}") from error
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        raise UserError(f"strategy {path} is not a subclass of flwr.serverapp.strategy.Strategy")
    return found


def _arguments(kind: type[Strategy]) -> set[str]:
    """Names that the constructor takes, also through the **kwargs of a subclass."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names
