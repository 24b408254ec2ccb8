"""The run itself: start everything that takes long at once, let all contestants play, keep what they made."""

import gc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.background import Background
from server.cluster import Cluster, ray_for
from server.cut import Cut, first_of, introduction
from server.files import go_on
from server.machine import Machine
from server.record import RunRecord
from server.results import entries_of
from server.screen import Screen
from server.stop import Broken, Stop
from task.config import RunConfig
from task.errors import UserError, describe
from task.shardfile import TEST, shard_name

if TYPE_CHECKING:  # imported when needed, beside each other: start-up counts
    from flwr.clientapp import ClientApp

    from server.contest import Contest
    from server.models import Models
    from server.recorder import Recorder
    from server.workers import WorkerPool

_AT_ONCE = 12  # contestants: so many keep the workers busy while some aggregate; more would only hold more models

WarmUp = Callable[[Path, dict[str, Any]], None]


class Play:
    """One comparison, from an opened folder to its report.

    Args:
        config: what to compare.
        cut: its shards.
        record: the run's folder and run.json.
        screen: what the user sees.
        machine: how this machine is used, or a cluster; without a cluster `workers` is given.
        started: Unix time of the start of the command.
    """

    def __init__(
        self,
        config: RunConfig,
        cut: Cut,
        record: RunRecord,
        screen: Screen,
        machine: Machine,
        started: float,
    ) -> None:
        self._config, self._cut, self._record, self._screen = config, cut, record, screen
        self._machine, self._started = machine, started
        self._shards = first_of(cut)
        self._entries = entries_of(config)
        self._stop = Stop()
        self._at_once = max(_AT_ONCE, 2 * (machine.workers or 0))

    def run(self, client_app: "ClientApp", warm_up: WarmUp) -> int:
        """Play to the end; the exit status.

        Raises:
            UserError: for a model or a machine that does not do.
        """
        self._record.begin()
        self._screen.note(introduction(self._cut, self._machine))
        self._screen.step("starting Ray and its workers, importing TensorFlow")
        with ray_for(self._machine, self._config.model, self._screen.note) as cluster:
            try:
                from server.recorder import Recorder

                recorder = Recorder(
                    self._record.folder,
                    self._record.checkpoints,
                    self._screen,
                    self._entries,
                    self._started,
                    self._at_once,
                )
                pool = self._new_pool(client_app, warm_up)
                recorder.reached("Flower imported")
                models = Background(partial(self._models, recorder))
                pool.start(cluster.workers())
                recorder.reached("Ray started")
                return self._play(cluster, pool, client_app, recorder, models.result())
            except Broken:
                raise  # what is there is kept
            except UserError:
                self._record.discard()
                raise
            except KeyboardInterrupt:
                cluster.check(go_on(self._record.folder.path))
                self._record.interrupted()
                return 130

    def _play(
        self, cluster: Cluster, pool: "WorkerPool", client_app: "ClientApp", recorder: "Recorder", models: "Models"
    ) -> int:
        self._screen.step("warming up the workers")
        contest, end_simulation = self._contest(pool, client_app, recorder, models)
        pool.wait_warm()
        recorder.reached("workers imported TensorFlow, built and traced")
        begun = {entry: start.round for entry, start in models.starts.items()}
        self._screen.begin(self._entries, self._config.rounds, begun)
        gc.freeze()  # what was imported stays
        gc.enable()
        try:
            contest.run()
        except KeyboardInterrupt:
            cluster.check(go_on(self._record.folder.path))
            self._stop.set()
        except Broken:
            end_simulation()
            raise
        cluster.is_no_longer_needed()
        ending = Background(end_simulation)  # takes as long as the report
        self._screen.step("writing the models and the report")
        recorder.write_timing()
        status = self._record.finish(contest.endings, models.tests.export, interrupted=self._stop.is_set())
        with suppress(TimeoutError):
            ending.result(timeout=5)
        return status

    def _new_pool(self, client_app: "ClientApp", warm_up: WarmUp) -> "WorkerPool":
        from server.workers import WorkerPool

        config = self._config.train_config(self._shards.num_classes, self._config.seeds[0])
        first = self._shards.folder / shard_name(0)
        return WorkerPool(self._machine, client_app, warm_up, first, config, self._screen.note)

    def _models(self, recorder: "Recorder") -> "Models":
        from server.models import Shape, make_models

        s = self._shards
        tests = {entry: self._cut[entry.scenario, entry.seed].folder / TEST for entry in self._entries}
        updates = self._config.sample or s.clients
        shape = Shape(s.input_shape, s.num_classes)
        return make_models(self._config, shape, tests, self._record.folder, recorder, updates)

    def _contest(
        self, pool: "WorkerPool", client_app: "ClientApp", recorder: "Recorder", models: "Models"
    ) -> "tuple[Contest, Callable[[], None]]":
        """The contest, ready to run, and what ends the simulation below it."""
        from server.conditions import Conditions
        from server.contest import Contest
        from server.rounds import Contestant, terms_of
        from server.simulation import Simulation
        from strategies.specify import make_strategy

        cuts = [self._cut[entry.scenario, entry.seed] for entry in self._entries]
        simulation = Simulation(pool, client_app, [(cut.folder, cut.clients) for cut in cuts])
        scenarios = {scenario.name: scenario for scenario in self._config.scenarios}
        contestants = [
            Contestant(
                entry,
                make_strategy(entry.strategy, models.trainable, models.structure),
                federation,
                self._config.train_config(self._shards.num_classes, entry.seed),
                self._config.sample,
                models.tests.on(cut.folder / TEST),
                terms_of(self._config),
                conditions=Conditions(scenarios[entry.scenario], entry.seed, cut.clients),
                measures=self._config.measures,
                examples=dict(enumerate(map(sum, cut.counts))),
            )
            for entry, federation, cut in zip(self._entries, simulation.federations, cuts, strict=True)
        ]
        simulation.start(lambda error: self._stop.because(f"the simulation ended: {describe(error)}"))
        contest = Contest(contestants, models.starts, self._config.rounds, recorder, self._stop, self._at_once)
        return contest, simulation.stop
