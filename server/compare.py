"""A whole comparison on this machine: check what the user asked for, then open the folder and play."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.checks import check_strategies
from server.cut import Cut, data_bytes, data_facts, first_of, scenario_facts
from server.machine import Machine, number_of_workers
from server.play import Play, WarmUp
from server.record import RunRecord
from server.results import RunFolder
from server.screen import open_screen
from task.chatter import Chatter, console_on
from task.config import RunConfig, parse
from task.errors import UserError
from task.options import with_terms
from task.shards import prepare

if TYPE_CHECKING:  # Flower is imported when it is needed: start-up counts
    from flwr.clientapp import ClientApp


def compare(
    config: RunConfig | None,
    folder: Path,
    machine: Machine,
    client_app: "ClientApp",
    warm_up: WarmUp,
    *,
    command: list[str],
    started: float,
    tensorboard: bool = False,
    anew: Mapping[str, Any] | None = None,
) -> int:
    """Run a comparison.

    Args:
        config: what to compare; None: go on with the run in `folder`.
        folder: where the results go.
        machine: how to run it.
        client_app: what the clients run.
        warm_up: `warm_up(shard file, train config)` prepares a worker process; importable by name.
        command: how the user called, for run.json.
        started: Unix time of the start of the command.
        tensorboard: whether event files are written, too; a run that goes on keeps those that it has up to date.
        anew: options that the user gives to a run that goes on, see `task.options.TERMS`.

    Returns:
        The exit status: 0 if every strategy finished, 1 if one did not, 130 after Ctrl-C.

    Raises:
        UserError: for everything that only the user can mend.
    """
    opened = RunFolder.resume(folder) if config is None else None
    config = with_terms(opened.read_config(), anew or {}) if opened else config
    assert config is not None
    check_strategies(config)
    with Chatter(verbose=machine.verbose) as chatter:
        console = console_on(chatter, live=not machine.verbose)
        screen = open_screen(machine.quiet, console, chatter.err)
        record = None
        try:
            screen.step(f"reading {Path(config.dataset).name}, cutting its shards")
            cut = _cut_shards(config)
            known = parse({**config.model_dump(), "clients": first_of(cut).clients})
            facts = scenario_facts(config, cut)
            if machine.ray_address is None:  # a cluster tells how many it carries when it is joined
                machine = replace(machine, workers=number_of_workers(machine.workers, data_bytes(cut)))
            with opened or RunFolder.create(folder) as results:
                chatter.redirect(results.log_path)
                data = data_facts(cut)
                record = RunRecord(
                    results, known, data, command, resumed=opened is not None, scenarios=facts, tensorboard=tensorboard
                )
                return Play(config, cut, record, screen, machine, started).run(client_app, warm_up)
        finally:
            screen.close()
            if record and not machine.quiet:
                record.tell(console)


def _cut_shards(config: RunConfig) -> Cut:
    """The shards of each scenario and seed."""
    cut = {
        (scenario.name, seed): prepare(config.dataset, config.clients, seed, scenario.written)
        for scenario in config.scenarios
        for seed in config.seeds
    }
    for shards in cut.values():
        if config.sample and config.sample > shards.clients:
            raise UserError(f"--sample {config.sample} is more than the {shards.clients} clients of {shards.dataset}")
    return cut
