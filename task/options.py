"""The command line's share of a run's configuration, the same for simulation and server."""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from task.config import RunConfig, Training, parse
from task.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_run_options(parser: argparse.ArgumentParser, *, data: bool = True) -> None:
    """Everything that `RunConfig` holds. An option that is not given is absent from the namespace.

    Args:
        parser: gets the options.
        data: whether this program cuts the shards itself; else clients bring their own.
    """
    default = RunConfig()
    group = parser.add_argument_group("the comparison")

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add(
        "--strategies",
        f"default: {' '.join(default.strategies)}; also any Flower strategy by its dotted path, "
        "and options as NAME:option=value,...",
        nargs="+",
        metavar="NAME",
    )
    add("--rounds", f"default: {default.rounds}", type=int, metavar="N")
    many = ", or as many as a folder of shards holds" if data else "; their shards are numbered from 0"
    add("--clients", f"default: 5{many}", type=int, metavar="N")
    add(
        "--sample",
        "clients that take part in a round, the same for all strategies; default: all",
        type=int,
        metavar="N",
    )
    add("--seeds", "default: 0", type=int, nargs="+", metavar="K")
    if data:
        add(
            "--dataset",
            "mnist-5k (default), digits, mnist, fashion-mnist, an .npz file, a folder of IDX files, "
            "or a folder of shards",
            metavar="NAME|PATH",
        )
        add("--scenario", "default: iid", nargs="+", metavar="NAME")
    add("--model", "cnn (default), mlp, or your own Keras model as package.module:function", metavar="NAME")

    group = parser.add_argument_group("local training")
    train = Training()
    add("--epochs", f"passes over the shard a round; default: {train.epochs}", type=int, metavar="N")
    add("--steps", "batches a round, instead of epochs", type=int, metavar="N")
    add("--batch-size", f"default: {train.batch_size}", type=int, metavar="N")
    add("--optimizer", "sgd (default), adam, adamw, adagrad, rmsprop, nadam, lion", metavar="NAME")
    add("--learning-rate", f"default: {train.learning_rate}", type=float, metavar="ETA")
    add("--momentum", "of sgd; default: 0", type=float, metavar="RHO")
    add("--nesterov", "Nesterov's variant of the momentum", action="store_true")


def config_from(given: Mapping[str, Any]) -> RunConfig:
    """The configuration that a namespace describes; names that are not of a run are ignored.

    Raises:
        UserError: for values that are not allowed.
    """
    training = {name: given[name] for name in Training.model_fields if name in given}
    rest = {name: given[name] for name in RunConfig.model_fields if name in given}
    config = parse({**rest, **({"training": training} if training else {})})
    # A path given on the command line is relative to where it was given, also for workers elsewhere.
    if any(mark in config.dataset for mark in ("/", ".")) or Path(config.dataset).exists():
        config = config.model_copy(update={"dataset": str(Path(config.dataset).expanduser().absolute())})
    return config


def given_run_options(given: Mapping[str, Any]) -> list[str]:
    """Names of the run's options that the user gave, as written on the command line."""
    names = [*RunConfig.model_fields, *Training.model_fields]
    return [f"--{name.replace('_', '-')}" for name in names if name in given]


def config_and_folder(given: dict[str, Any]) -> tuple[RunConfig | None, Path]:
    """What a command with --out and --resume is to compare, and where; None: what the folder says.

    Args:
        given: the namespace; `out` and `resume` are taken out of it.

    Raises:
        UserError: for values that are not allowed, or together with --resume.
    """
    out, resume = given.pop("out", None), given.pop("resume", None)
    if resume is None:
        return config_from(given), Path(out or time.strftime("runs/%Y%m%d-%H%M%S"))
    if clash := given_run_options(given) + (["--out"] if out else []):
        raise UserError(f"--resume goes on with the configuration of {resume}; leave out {', '.join(clash)}")
    return None, Path(resume)


def positive(text: str) -> int:
    """The type of an option that is a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """The type of an option that is a time > 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, not {text!r}")
    return value


def fail(program: str, error: UserError) -> int:
    """Tell the user's mistake in one line on stderr; the exit status for it."""
    sys.stderr.write(f"{program}: {error}\n")
    return 2
