"""The ServerApp, for `flwr run` on anyone's SuperLink; `python -m server` plays the same `Hosting` on its own."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.checks import check_strategies
from server.hosting import Clients, Hosting
from server.record import RunRecord
from server.results import RunFolder
from server.rounds import majority, terms_of
from server.screen_plain import Plain
from server.serve import read_test
from server.site import GridSite
from server.start_policy import start_policy
from task.command import private
from task.config import Frozen, Positive, RunConfig, Seconds, Training, parse, parse_as
from task.errors import UserError

app = ServerApp()

# Flower's configurations have no None.
_NONE_AS_0 = ("sample", "steps", "quorum", "tries", "max_update_norm", "max_relative_norm")

_ADVICE = "to begin with fewer clients, start the run with min-clients in its --run-config"


class Start(Frozen):
    """When a run begins; see `server.start_policy`."""

    min_clients: Positive | None = None
    start_after: Seconds | None = None


OF_THE_APP = ("test", "out", *Start.model_fields)
"""Flat keys that are not of a `RunConfig`."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run, as the run config says.

    Its keys are those of pyproject.toml's [tool.flwr.app.config].

    Raises:
        UserError: for what only the user can mend; Flower's log shows it.
        RuntimeError: a strategy did not finish.
    """
    started = time.time()
    given = {str(name).replace("-", "_"): value for name, value in context.run_config.items()}
    test, out = Path(str(given.pop("test"))), str(given.pop("out", ""))
    start = parse_as(Start, {name: given.pop(name) or None for name in Start.model_fields if name in given})
    file, shape, dataset, digest = read_test(test)
    config = config_of(given).model_copy(update={"dataset": dataset})
    check_strategies(config)
    terms = terms_of(config, majority(config), tries=3)
    assert config.clients is not None  # pyproject.toml has a default
    policy = start_policy(start.min_clients, start.start_after, config.clients, terms.quorum, _ADVICE)
    folder = Path(out or time.strftime("runs/%Y%m%d-%H%M%S"))
    with private(), RunFolder.create(folder) as results:
        data = {"sha256": digest, "shards": {"test": digest}}
        record = RunRecord(results, config, data, ["flwr", "run"], resumed=False)
        record.begin()
        hosting = Hosting(config, record, Plain(sys.stdout), file, shape, terms, policy, started)
        if hosting.run(Clients(GridSite(grid), range(config.clients), {}, lambda _: None)):
            raise RuntimeError(f"a strategy did not finish; see {folder / 'run.json'}")


def config_of(given: dict[str, Any]) -> RunConfig:
    """The configuration that flat keys describe.

    Args:
        given: lists are words separated by spaces; 0 means that there is no such number, where there can be none.

    Raises:
        UserError: for a key or a value that is not allowed.
    """
    given = {name: value for name, value in given.items() if value or name not in _NONE_AS_0}
    training = {name: given.pop(name) for name in Training.model_fields if name in given}
    for name in ("strategies", "seeds", "scenario"):
        if name in given:
            given[name] = shlex.split(str(given[name]))
    if unknown := sorted(given.keys() - RunConfig.model_fields.keys()):
        raise UserError(f"--run-config: there is no {unknown[0]!r}")
    return parse({**given, "training": training})
