"""`python sim.py one-shot`: local models trained to the end on this machine, then combined in every way there is."""

import gc
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.background import Background
from server.cluster import Cluster, ray_for
from server.cut import Cut, data_bytes, data_facts, first_of, introduction
from server.files import writing
from server.machine import Machine, number_of_workers, versions
from server.oneshot.folder import AGAIN, OneShotFolder
from server.record import __version__
from server.screen import Screen, open_screen
from server.stop import Broken, Stop, Stopped
from task.chatter import Chatter, console_on
from task.errors import UserError, describe
from task.oneshot import OneShotConfig
from task.shardfile import shard_name
from task.shards import Shards, prepare

if TYPE_CHECKING:  # imported when needed, beside each other: start-up counts
    from flwr.clientapp import ClientApp
    from rich.console import Console

    from server.oneshot.combination import Combination
    from server.oneshot.studio import Studio
    from server.oneshot.training import Job
    from server.play import WarmUp
    from server.workers import WorkerPool

TITLE = "{clients} models trained apart on {dataset}, combined once"


def simulate(
    config: OneShotConfig,
    folder: Path,
    machine: Machine,
    client_app: "ClientApp",
    warm_up: "WarmUp",
    *,
    command: list[str],
    started: float,
) -> int:
    """Train, combine, evaluate, report.

    Args:
        config: what to train and on what.
        folder: where the results go.
        machine: how to run it.
        client_app: what the clients run.
        warm_up: see `server.compare.compare`.
        command: how the user called, for run.json and the report.
        started: Unix time of the start of the command.

    Returns:
        The exit status: 0, 1 if a client failed, 130 after Ctrl-C.

    Raises:
        UserError: for everything that only the user can mend.
    """
    with Chatter(verbose=machine.verbose) as chatter:
        console = console_on(chatter, live=not machine.verbose)
        screen = open_screen(machine.quiet, console, chatter.err)
        run = None
        try:
            screen.step(f"reading {Path(config.dataset).name}, cutting its shards")
            cut = _cut_shards(config)
            if machine.ray_address is None:  # a cluster tells how many it carries when it is joined
                machine = replace(machine, workers=number_of_workers(machine.workers, data_bytes(cut)))
            with OneShotFolder.create(folder) as results:
                chatter.redirect(results.log_path)
                run = OneShot(config, cut, results, screen, machine, command, started)
                return run.run(client_app, warm_up)
        finally:
            screen.close()
            if run and not machine.quiet:
                run.tell(console)


def _cut_shards(config: OneShotConfig) -> dict[tuple[str, int], Shards]:
    cut = {
        (config.scenario, seed): prepare(config.dataset, config.clients, seed, config.scenario, public=config.public)
        for seed in config.seeds
    }
    shards = first_of(cut)
    if shards.clients < 2:
        raise UserError(
            f"{config.dataset}: one shard makes one model, and there is nothing to combine; give two or more"
        )
    return cut


class OneShot:
    """One run, from an opened folder to its report.

    Args:
        config: what to train and on what.
        cut: its shards.
        folder: where the results go.
        screen: what the user sees.
        machine: how this machine is used, or a cluster; without a cluster `workers` is given.
        command: how the user called.
        started: Unix time of the start of the command.
    """

    def __init__(
        self,
        config: OneShotConfig,
        cut: Cut,
        folder: OneShotFolder,
        screen: Screen,
        machine: Machine,
        command: list[str],
        started: float,
    ) -> None:
        self._config, self._cut, self._folder, self._screen = config, cut, folder, screen
        self._machine, self._command, self._started = machine, command, started
        self._shards = first_of(cut)
        self._stop = Stop()
        self._trained = 0
        self._training = False  # whether the step that the screen shows is the training
        self._done: list[Combination] = []
        self._record: dict[str, Any] = {
            "fedarena": __version__,
            "command": command,
            "config": config.model_copy(update={"clients": self._shards.clients}).model_dump(mode="json"),
            "versions": versions(),
            "data": data_facts(cut) | {"public_examples": self._shards.public_examples},
            "results": {},
        }

    def run(self, client_app: "ClientApp", warm_up: "WarmUp") -> int:
        """Play to the end; the exit status.

        Raises:
            UserError: for a model or a machine that does not do.
        """
        self._write("running", None)
        self._screen.note(introduction(self._cut, self._machine))
        self._screen.step("starting Ray and its workers, importing TensorFlow")
        with ray_for(self._machine, self._config.model, self._screen.note) as cluster:
            try:
                pool = self._new_pool(client_app, warm_up)
                studio = Background(self._new_studio)
                pool.start(cluster.workers())
                return self._play(cluster, pool, client_app, studio.result())
            except Broken:
                raise  # what is there is kept
            except UserError:
                self._folder.discard()
                raise
            except Stopped as stopped:
                self._screen.warn(str(stopped))
                return self._write("failed", 1, ended=str(stopped))
            except KeyboardInterrupt:
                cluster.check(AGAIN)
                return self._write("interrupted", 130)

    def tell(self, console: "Console") -> None:
        """Print the table and where the results are, if it came to results."""
        if self._record.get("exit_status") != 0:
            return
        from server.oneshot.table import summary_table

        console.print(summary_table(self._done), highlight=False)
        console.print(f"Results: {self._folder.path} (open report.html)", highlight=False, soft_wrap=True)

    def _new_pool(self, client_app: "ClientApp", warm_up: "WarmUp") -> "WorkerPool":
        from server.workers import WorkerPool

        config = self._config.train_config(self._shards.num_classes, self._config.seeds[0])
        first = self._shards.folder / shard_name(0)
        return WorkerPool(self._machine, client_app, warm_up, first, config, self._screen.note)

    def _new_studio(self) -> "Studio":
        from server.oneshot.studio import Studio

        return Studio(self._config, self._shards)

    def _play(self, cluster: Cluster, pool: "WorkerPool", client_app: "ClientApp", studio: "Studio") -> int:
        from server.simulation import Simulation

        self._screen.step("warming up the workers")
        simulation = Simulation(pool, client_app, [(cut.folder, cut.clients) for cut in self._cut.values()])
        simulation.start(lambda error: self._stop.because(f"the simulation ended: {describe(error)}"))
        try:
            pool.wait_warm()
            gc.freeze()  # what was imported stays
            gc.enable()
            self._train_and_combine(simulation, studio, pool.num_workers)
        except BaseException:
            simulation.stop()
            raise
        cluster.is_no_longer_needed()
        ending = Background(simulation.stop)  # takes as long as the report
        self._report()
        with suppress(TimeoutError):
            ending.result(timeout=5)
        return self._write("finished", 0)

    def _train_and_combine(self, simulation: Any, studio: "Studio", messages: int) -> None:
        from server.oneshot.combine import combine
        from server.oneshot.training import Job, train_all

        asked = ("num_examples",) if self._config.training.norm_undefined else ("num_examples", "local_norm")
        jobs = [
            Job(
                seed,
                federation,
                studio.starts[seed],
                self._config.train_config(self._shards.num_classes, seed),
                asked,
            )
            for seed, federation in zip(self._config.seeds, simulation.federations, strict=True)
        ]
        ahead = 1 + messages // self._shards.clients  # no worker waits while a seed is combined
        self._show_training()
        for job, updates in train_all(jobs, ahead, self._count, self._stop):
            shards = self._cut[self._config.scenario, job.seed]
            combination = combine(studio.material(shards, job.seed, updates), step=partial(self._combining, job.seed))
            self._keep(job, combination)

    def _keep(self, job: "Job", combination: "Combination") -> None:
        from server.checkpoint import digest
        from server.oneshot.results import write_models, write_rows

        with writing(self._folder.path, AGAIN):
            write_models(self._folder.path, combination)
        self._done.append(combination)
        self._record["results"] |= {
            f"seed{job.seed}/{name}": {"sha256": digest(arrays)} for name, arrays in combination.models.items()
        }
        self._record.setdefault("seconds", {})[f"seed{job.seed}"] = dict(combination.seconds)
        with writing(self._folder.path, AGAIN):
            write_rows(self._folder.path, self._done)  # what is finished stays, whatever comes next

    def _report(self) -> None:
        from server.oneshot.results import write_report

        self._screen.step("writing the report")
        title = TITLE.format(clients=self._shards.clients, dataset=self._shards.dataset)
        with writing(self._folder.path, AGAIN):
            write_report(self._folder.path, self._done, command=self._command, title=title)

    def _count(self) -> None:
        self._trained += 1
        self._show_training()

    def _show_training(self) -> None:
        text = f"training local models: {self._trained} of {len(self._cut) * self._shards.clients}"
        (self._screen.progress if self._training else self._screen.step)(text)
        self._training = True

    def _combining(self, seed: int, text: str) -> None:
        self._training = False
        self._screen.step(f"seed {seed}: {text}")

    def _write(self, status: str, exit_status: int | None, **more: str) -> int:
        self._record |= {"status": status, "exit_status": exit_status, **more}
        self._record["wall_seconds"] = time.time() - self._started
        self._folder.write_run(self._record)
        return exit_status or 0
