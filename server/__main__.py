"""`python -m server`: serve real clients; and enroll them."""

import gc
import sys
import time

_STARTED = time.time()
sys.setswitchinterval(0.0005)  # seconds; threads that talk wait for their turn beside those that compute
gc.disable()  # importing makes no garbage; switched on before training

import argparse  # noqa: E402
from typing import Any  # noqa: E402

from task.command import run_command  # noqa: E402
from task.leave import leave  # noqa: E402
from task.options import Parser, add_run_options, config_and_folder, positive, seconds  # noqa: E402

PROGRAM = "python -m server"
COMMANDS = ("enroll", "revoke", "members", "renew")


def main(arguments: list[str] | None = None) -> int:
    """Serve one run, or do what a sub-command says; the exit status.

    0: every strategy finished; 1: one did not; 2: a mistake of the user's; 130: Ctrl-C or SIGTERM.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS:
        return run_command(PROGRAM, lambda: _manage(given))
    return run_command(PROGRAM, lambda: _serve(vars(_parser().parse_args(given)), given))


def _manage(arguments: list[str]) -> int:
    from server.enroll import add_commands, run

    parser = Parser(prog=PROGRAM, description="Who may take part.")
    add_commands(parser.add_subparsers(required=True, metavar="command"))
    return run(parser.parse_args(arguments))


def _serve(given: dict[str, Any], words: list[str]) -> int:
    config, folder = config_and_folder(given)

    from server.serve import serve

    return serve(
        config,
        folder,
        given,
        quiet=given.get("quiet", False),
        verbose=given.get("verbose", False),
        command=["python", "-m", "server", *words],
        started=_STARTED,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Serve real clients, which train on their own machines: python -m client.",
        epilog=f"Who may take part: {PROGRAM} {{{','.join(COMMANDS)}}} --help",
    )
    add_run_options(parser, data=False)
    group = parser.add_argument_group("this server")

    def add(name: str, text: str, **kind: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    add("--listen", "default: 127.0.0.1:9092", metavar="HOST:PORT")
    add("--test", "the test set, as `python -m task.data split` writes it; default: test.npz", metavar="FILE")
    add("--federation", "the folder that `enroll` made; default: federation", metavar="DIR")
    add("--insecure", "plain HTTP, anyone may take part; needs no flag on 127.0.0.1", action="store_true")
    add("--round-deadline", "leave out who has not answered after so long; default: none", type=seconds, metavar="S")
    add("--patience", "how long a silent client is waited for; default: 60", type=seconds, metavar="S")
    add(
        "--min-clients",
        "begin with so many when --start-after is over, and let the others join later; default: wait for all",
        type=positive,
        metavar="K",
    )
    add(
        "--start-after",
        "seconds since the server listens, for --min-clients; default: 60. Alone: with as many as --quorum",
        type=seconds,
        metavar="S",
    )
    add("--out", "where the results go; default: runs/<time>", metavar="DIR")
    add("--resume", "go on with the run in this folder", metavar="DIR")
    add("--quiet", "show failures only", action="store_true")
    add("--verbose", "show what Flower and TensorFlow say, too", action="store_true")
    return parser


if __name__ == "__main__":
    leave(main())
