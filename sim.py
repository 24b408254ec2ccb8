"""`python sim.py`: compare aggregation strategies on this machine, round by round and on equal terms."""

import gc
import os
import sys
import time

_STARTED = time.time()
sys.setswitchinterval(0.0005)  # seconds; Ray's start and every contestant's thread wait for their turn beside imports
gc.disable()  # importing makes no garbage; switched on before training

# Before any library reads them: no telemetry, no update check, nothing that needs a network.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse  # noqa: E402
from typing import Any  # noqa: E402

from task.errors import UserError  # noqa: E402
from task.options import Parser, add_run_options, config_and_folder, fail, positive  # noqa: E402

PROGRAM = "sim.py"


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; the exit status is 0 only if every strategy finished."""
    given = vars(_parser().parse_args(arguments))
    try:
        return _run(given)
    except UserError as error:
        return fail(PROGRAM, error)
    except KeyboardInterrupt:
        return 130


def _run(given: dict[str, Any]) -> int:
    config, folder = config_and_folder(given)

    from client.app import app
    from client.trainer import warm_up
    from server.compare import compare
    from server.machine import Machine

    machine = Machine(
        workers=given.get("workers"),
        ray_address=given.get("ray_address"),
        gpus_per_client=given.get("gpus_per_client"),
        quiet=given.get("quiet", False),
        verbose=given.get("verbose", False),
    )
    command = ["python", PROGRAM, *sys.argv[1:]]
    return compare(config, folder, machine, app, warm_up, command=command, started=_STARTED)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Compare federated aggregation strategies on this machine, round by round and on equal terms.",
    )
    add_run_options(parser)
    group = parser.add_argument_group("this run")

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add("--out", "where the results go; default: runs/<time>", metavar="DIR")
    add("--resume", "go on with the run in this folder", metavar="DIR")
    add("--workers", "processes that train; default: one a core", type=positive, metavar="N")
    add(
        "--ray-address",
        "train on a Ray cluster that runs already, as one of its machines: auto, or HOST:PORT of its head; "
        "default: this machine alone",
        type=_address,
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
    return parser


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text != "auto" and not (host and colon and port.isdecimal() and "/" not in host):
        raise argparse.ArgumentTypeError(f"must be auto or HOST:PORT of the head, such as 10.0.0.5:6379, not {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
