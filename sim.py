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
from typing import TYPE_CHECKING, Any  # noqa: E402

from task.errors import UserError  # noqa: E402
from task.options import Parser, add_machine_options, add_run_options, config_and_folder, fail  # noqa: E402

if TYPE_CHECKING:
    from server.machine import Machine

PROGRAM = "sim.py"
ONE_SHOT = "one-shot"


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison, or the sub-command; the exit status is 0 only if every strategy finished."""
    words = sys.argv[1:] if arguments is None else arguments
    one_shot = words[:1] == [ONE_SHOT]
    try:
        return _one_shot(words) if one_shot else _run(vars(_parser().parse_args(words)), words)
    except UserError as error:
        return fail(f"{PROGRAM} {ONE_SHOT}" if one_shot else PROGRAM, error)
    except KeyboardInterrupt:
        return 130


def _run(given: dict[str, Any], words: list[str]) -> int:
    config, folder = config_and_folder(given)

    from client.app import app
    from client.trainer import warm_up
    from server.compare import compare

    return compare(config, folder, _machine(given), app, warm_up, command=["python", PROGRAM, *words], started=_STARTED)


def _one_shot(words: list[str]) -> int:
    from task.oneshot import one_shot_config, one_shot_parser

    given = vars(one_shot_parser(f"{PROGRAM} {ONE_SHOT}").parse_args(words[1:]))
    config, folder = one_shot_config(given)

    from client.app import app
    from client.trainer import warm_up
    from server.oneshot.simulate import simulate

    return simulate(
        config, folder, _machine(given), app, warm_up, command=["python", PROGRAM, *words], started=_STARTED
    )


def _machine(given: dict[str, Any]) -> "Machine":
    from server.machine import Machine

    return Machine(
        workers=given.get("workers"),
        ray_address=given.get("ray_address"),
        gpus_per_client=given.get("gpus_per_client"),
        quiet=given.get("quiet", False),
        verbose=given.get("verbose", False),
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Compare federated aggregation strategies on this machine, round by round and on equal terms. "
        f"To train apart and combine once: {PROGRAM} {ONE_SHOT} --help",
        epilog=f"Models trained to the end and combined once: {PROGRAM} {ONE_SHOT} --help",
    )
    add_run_options(parser)
    group = parser.add_argument_group("this run")

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add("--out", "where the results go; default: runs/<time>", metavar="DIR")
    add("--resume", "go on with the run in this folder", metavar="DIR")
    add_machine_options(group)
    return parser


if __name__ == "__main__":
    sys.exit(main())
