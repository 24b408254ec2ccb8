"""The command line's share of a run's configuration, the same for simulation and server."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from task.config import RunConfig, Training, parse
from task.errors import UserError, printable
from task.scenario import PARTS, resolved

DATASETS = (
    "mnist-5k (default), digits, mnist, fashion-mnist, an .npz file, a folder of IDX files, or a folder of shards"
)
MODELS = "cnn (default), mlp, or your own Keras model as package.module:function"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")


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
    many = (
        "5, or as many as a folder of shards holds" if data else "all who are enrolled, else 5; N: the clients 0 to N-1"
    )
    add("--clients", f"default: {many}", type=int, metavar="N")
    add(
        "--sample",
        "clients that take part in a round, the same for all strategies; default: all",
        type=int,
        metavar="N",
    )
    add("--seeds", "default: 0", type=int, nargs="+", metavar="K")
    if data:
        add("--dataset", DATASETS, metavar="NAME|PATH")
        add(
            "--scenario",
            f"{', '.join(PARTS)}; with options as NAME:option=value,..., several at once as NAME+NAME, your own from a "
            ".toml file; default: iid",
            nargs="+",
            metavar="NAME",
        )
    add("--model", MODELS, metavar="NAME")
    add(
        "--init",
        "how clients begin round 1: shared (default), from the global model; independent, each from initial weights "
        "of its own",
        metavar="HOW",
    )
    add(
        "--client-eval",
        "in every N-th round and the last its clients test on their own training data, before and after training; "
        "default: the last only",
        type=int,
        metavar="N",
    )
    add(
        "--quorum",
        "valid updates that a round needs; default: " + ("1" if data else "more than half of the round's clients"),
        type=int,
        metavar="N",
    )
    add(
        "--tries",
        "how often a round without a quorum is played; default: 3" + (" with --quorum, else 1" if data else ""),
        type=int,
        metavar="N",
    )
    add(
        "--max-update-norm",
        "updates with a larger L2 norm are rejected; default: none",
        type=float,
        metavar="C",
    )
    add(
        "--max-relative-norm",
        "updates whose L2 norm exceeds F times the median norm of the round's valid updates are rejected, F > 1; all "
        "updates of a round are held in memory for it; with fewer than three none is; default: none",
        type=float,
        metavar="F",
    )
    add("--target", f"test accuracy for rounds-to-target; default: {default.target}", type=float, metavar="SHARE")
    add_training_options(parser, Training(), " a round")


def add_training_options(parser: argparse.ArgumentParser, default: Training, per: str = "") -> None:
    """The options of local training.

    Args:
        parser: gets them.
        default: what holds where the user says nothing.
        per: for what the work is counted, such as " a round".
    """
    group = parser.add_argument_group("local training")

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add("--epochs", f"passes over the shard{per}; default: {default.epochs}", type=int, metavar="N")
    add("--steps", f"batches{per}, instead of epochs", type=int, metavar="N")
    add("--batch-size", f"default: {default.batch_size}", type=int, metavar="N")
    add("--optimizer", "sgd (default), adam, adamw, adagrad, rmsprop, nadam, lion", metavar="NAME")
    add("--learning-rate", f"default: {default.learning_rate}", type=float, metavar="ETA")
    add("--momentum", "of sgd; default: 0", type=float, metavar="RHO")
    add("--nesterov", "Nesterov's variant of the momentum", action="store_true")


def add_folder_options(group: Any) -> None:
    """Where a run is kept, and in which forms.

    Args:
        group: argparse's group, which gets the options.
    """

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add("--out", "where the results go; default: runs/<time>", metavar="DIR")
    add("--resume", "go on with the run in this folder", metavar="DIR")
    add("--tensorboard", "write event files for TensorBoard, too: tensorboard --logdir DIR", action="store_true")


def add_machine_options(group: Any) -> None:
    """How a simulation uses this machine, or a cluster; none of it changes a result.

    Args:
        group: argparse's group, which gets the options.
    """

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add("--workers", "processes that train; default: one a core", type=positive, metavar="N")
    add(
        "--ray-address",
        "train on a Ray cluster that runs already, as one of its machines: auto, or HOST:PORT of its head; "
        "default: this machine alone",
        type=_ray_address,
        metavar="ADDRESS",
    )
    add(
        "--gpus-per-client",
        "share of a GPU for each client; default: 0.2 where there is one",
        type=float,
        metavar="F",
    )
    add("--quiet", "show failures only", action="store_true")
    add("--verbose", "show what Flower, Ray and TensorFlow say, too", action="store_true")


def config_from(given: Mapping[str, Any]) -> RunConfig:
    """The configuration that a namespace describes; names that are not of a run are ignored.

    Raises:
        UserError: for values that are not allowed.
    """
    training = {name: given[name] for name in Training.model_fields if name in given}
    rest = {name: given[name] for name in RunConfig.model_fields if name in given}
    if "scenario" in rest:
        rest["scenario"] = [resolved(text) for text in rest["scenario"]]
    config = parse({**rest, **({"training": training} if training else {})})
    return config.model_copy(update={"dataset": absolute_if_path(config.dataset)})


def absolute_if_path(dataset: str) -> str:
    """A path given on the command line is relative to where it was given, also for workers elsewhere."""
    if any(mark in dataset for mark in ("/", ".")) or Path(dataset).exists():
        return str(Path(dataset).expanduser().absolute())
    return dataset


def given_run_options(given: Mapping[str, Any]) -> list[str]:
    """Names of the run's options that the user gave and a run that goes on has already, as on the command line."""
    names = [*RunConfig.model_fields, *Training.model_fields]
    return [f"--{name.replace('_', '-')}" for name in names if name in given and name not in TERMS]


def with_terms(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run that goes on, with those `TERMS` that the user gives anew.

    Raises:
        UserError: for values that are not allowed.
    """
    return parse({**config.model_dump(), **{name: given[name] for name in TERMS if name in given}})


TERMS = ("quorum", "tries")
"""Options of a run that may be others when it goes on: they change no finished round."""


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


def _ray_address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text != "auto" and not (host and colon and port.isdecimal() and "/" not in host):
        raise argparse.ArgumentTypeError(f"must be auto or HOST:PORT of the head, such as 10.0.0.5:6379, not {text!r}")
    return text


def seconds(text: str) -> float:
    """The type of an option that is a time > 0."""
    return above_zero(text, "a number of seconds")


def above_zero(text: str, what: str = "a number") -> float:
    """The type of an option that is a number > 0, and finite."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be {what} > 0, not {text!r}")
    return value
