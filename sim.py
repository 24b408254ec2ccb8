"""`python sim.py`, and `sim.compare(...)` from Python: compare aggregation strategies on this machine.

Round by round and on equal terms. Importing this module changes nothing in the process.
"""

import gc
import os
import sys
import time

_STARTED = time.time()
if __name__ == "__main__":  # before all other imports; in somebody else's process `server.guest` does it, and undoes it
    sys.setswitchinterval(0.0005)  # seconds; Ray's start and every contestant's thread wait for their turn then
    gc.disable()  # importing makes no garbage; switched on before training

from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from task.command import run_command  # noqa: E402
from task.errors import UserError  # noqa: E402
from task.leave import leave  # noqa: E402
from task.offline import keep_to_ourselves  # noqa: E402
from task.options import Parser, add_folder_options, add_machine_options, add_run_options, config_and_folder  # noqa: E402

if TYPE_CHECKING:
    from server.comparison_result import ComparisonResult
    from server.machine import Machine

PROGRAM = "sim.py"
ONE_SHOT = "one-shot"


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison, or the sub-command; the exit status is 0 only if every strategy finished."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == [ONE_SHOT]:
        return run_command(f"{PROGRAM} {ONE_SHOT}", lambda: _one_shot(words))
    return run_command(PROGRAM, lambda: _run(vars(_parser().parse_args(words)), words, _STARTED)[0])


def compare(**options: Any) -> "ComparisonResult":
    """Run a comparison in this process, as `python sim.py` does in one of its own, and return when it is over.

    It takes what the command line takes, as keywords: `--batch-size 16` is `batch_size=16`, several values are any
    iterable, flags are True or False, and None is the default. `help(sim.compare)` lists them with types and
    defaults, `python sim.py --help` explains them. `quiet` is the default here.

    It may be called again and again, in a script, a notebook, or beside a running event loop, from the main thread; a
    script needs no `if __name__ == "__main__"`. Streams, environment, umask, garbage collector and NumPy's and Python's
    global random states are found as they were. TensorFlow stays imported; where it was imported and used before, with
    more threads than one, test losses may differ in the last bits from those of the command.

    Returns:
        The result: `.rounds`, `.clients`, `.local`, `.comparison`, `.targets` (data frames), `.models`, `.verdict`,
        `.report`, `.folder`, `.status`. A strategy that could not finish is no exception: `.finished` is False then.

    Raises:
        UserError: a mistake in options, data or environment, told in one line.
        KeyboardInterrupt: after Ctrl-C; rounds are kept, `sim.load(folder)` gives them, `resume=folder` goes on.
    """
    started = time.time()
    keep_to_ourselves()
    from server.guest import guest
    from task.keywords import RaisingParser, in_python, words_of

    parser = _parser(RaisingParser)
    try:
        quiet = options.pop("quiet", None)
        words = words_of(parser, options)
        quietly = words_of(parser, {"quiet": True if quiet is None else quiet})
        given = vars(parser.parse_args([*words, *quietly]))
        with guest():
            status, folder = _run(given, words, started)
    except UserError as error:
        raise UserError(in_python(str(error), parser)) from error
    if status == 130:
        raise KeyboardInterrupt(f"stopped; sim.load({str(folder)!r}) gives what there is")
    return load(folder)


def load(folder: str | os.PathLike[str]) -> "ComparisonResult":
    """The result of an earlier run, or of one that is still going on somewhere else.

    Args:
        folder: its `--out`.

    Raises:
        UserError: there is no comparison in it.
    """
    from server.comparison_result import ComparisonResult

    return ComparisonResult(Path(folder))


def _run(given: dict[str, Any], words: list[str], started: float) -> tuple[int, Path]:
    config, folder = config_and_folder(given)

    from client.app import app
    from client.trainer import warm_up
    from server.compare import compare

    status = compare(
        config,
        folder,
        _machine(given),
        app,
        warm_up,
        command=["python", PROGRAM, *words],
        started=started,
        tensorboard=given.get("tensorboard", False),
        anew=given,
    )
    return status, folder


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


def _parser(kind: type[Parser] = Parser) -> Parser:
    parser = kind(
        prog=PROGRAM,
        description="Compare federated aggregation strategies on this machine, round by round and on equal terms. "
        f"To train apart and combine once: {PROGRAM} {ONE_SHOT} --help",
        epilog=f"Models trained to the end and combined once: {PROGRAM} {ONE_SHOT} --help",
    )
    add_run_options(parser)
    group = parser.add_argument_group("this run")
    add_folder_options(group)
    add_machine_options(group)
    return parser


def _describe_keywords() -> None:
    """Give `compare` the signature that its options make; only who imports this module can look at it."""
    from dataclasses import fields

    from server.machine import Machine
    from task.config import RunConfig, Training
    from task.keywords import signature_of

    kinds: dict[str, tuple[Any, Any]] = {
        name: (field.annotation, field.default)
        for model in (RunConfig, Training)
        for name, field in model.model_fields.items()
    }
    kinds |= {field.name: (field.type, field.default) for field in fields(Machine)} | {"quiet": (bool, True)}
    compare.__signature__ = signature_of(_parser(), kinds, "ComparisonResult")  # type: ignore[attr-defined]


if __name__ == "__main__":
    leave(main())
_describe_keywords()
