"""`python -m client`: take part in a federation with one private shard."""

import gc
import sys

sys.setswitchinterval(0.0005)  # seconds; threads that talk wait for their turn beside those that compute
gc.disable()  # importing makes no garbage; switched on before training

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from task.command import run_command  # noqa: E402
from task.leave import leave  # noqa: E402
from task.options import Parser  # noqa: E402

PROGRAM = "python -m client"


def main(arguments: list[str] | None = None) -> int:
    """Take part until stopped; the exit status.

    0: the run is over (`--once`); 2: a mistake of the user's, or the server refuses this client; 130: Ctrl-C or
    SIGTERM.
    """
    return run_command(PROGRAM, lambda: _join(_parser().parse_args(arguments)))


def _join(given: argparse.Namespace) -> int:
    from client.join import Member, join

    return join(
        Member(
            shard=given.shard,
            server=given.server,
            identity=given.identity,
            insecure=given.insecure,
            facts=given.facts,
            dp=given.dp,
            models=tuple(given.model),
            once=given.once,
            logs=given.logs,
            runtime=given.runtime,
            verbose=given.verbose,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Take part in a federation with one private shard. Only model updates and the documented facts "
        "leave this process.",
    )

    def add(name: str, text: str, **kind: Any) -> None:
        parser.add_argument(name, help=text, **kind)

    add("--shard", "this client's private data; the only data that it opens", type=Path, required=True, metavar="FILE")
    add("--server", "where the server listens; default: what the identity says", metavar="HOST:PORT")
    add("--identity", "the file that `python -m server enroll` made for this client", type=Path, metavar="FILE")
    add("--insecure", "plain HTTP without authentication; needs no flag on 127.0.0.1", action="store_true")
    add("--once", "end with the run; default: stay for the next", action="store_true")
    add(
        "--facts",
        "all (default), or minimal: send only what the strategy needs beside the arrays",
        choices=("all", "minimal"),
        default="all",
    )
    add(
        "--dp",
        "clip every update and add noise: clip=C,noise=Z[,delta=D]; epsilon is reported and kept in a ledger",
        metavar="SPEC",
    )
    add(
        "--model",
        "an own model that the server may ask for, as package.module:function; repeat for more",
        action="append",
        default=[],
        metavar="NAME",
    )
    add(
        "--runtime",
        "resident (default): one warm process; stock: Flower's own SuperNode, a fresh process for every message",
        choices=("resident", "stock"),
        default="resident",
    )
    add("--logs", "folder of the log files; default: logs", type=Path, default=Path("logs"), metavar="DIR")
    add("--verbose", "show what Flower and TensorFlow say, too", action="store_true")
    return parser


if __name__ == "__main__":
    leave(main())
