"""A run with real clients, from an opened folder to its report: wait for them, let all play, say goodbye."""

import gc
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from server.arrivals import Arrivals, Expected
from server.background import Background
from server.contest import Contest
from server.models import Models, Shape, make_models
from server.names import labels
from server.record import RunRecord
from server.recorder import Recorder
from server.results import entries_of
from server.rounds import Contestant, Terms
from server.screen import Screen
from server.site import Site
from server.start_policy import StartPolicy, gather
from server.stop import Stop
from strategies.specify import make_strategy
from task.config import RunConfig
from task.greeting import Greeting
from task.model import layout_of

_GOODBYE_SECONDS = 2.0  # that clients get to hear that the run is over


@dataclass(frozen=True)
class Clients:
    """Who takes part.

    Attributes:
        site: where they come to.
        numbers: of the run's members.
        names: what they are called, by number, where that is known.
        number_of: which client a node is enrolled as; None: it says so itself.
        revoked: numbers of those who may not come, as it is known when it is called.
    """

    site: Site
    numbers: Collection[int]
    names: Mapping[int, str]
    number_of: Callable[[int], int | None]
    revoked: Callable[[], Collection[int]] = frozenset


class Hosting:
    """One run with real clients.

    Args:
        config: what is compared; `clients` is given: the number of members.
        record: the run's folder and run.json.
        screen: what the user sees.
        test: the file with the test set.
        shape: of the test set.
        terms: when a round counts.
        policy: when the run begins.
        started: Unix time of the start of the command.
    """

    def __init__(
        self,
        config: RunConfig,
        record: RunRecord,
        screen: Screen,
        test: Path,
        shape: Shape,
        terms: Terms,
        policy: StartPolicy,
        started: float,
    ) -> None:
        self._config, self._record, self._screen = config, record, screen
        self._test, self._shape, self._terms, self._policy = test, shape, terms, policy
        self._entries = entries_of(config)
        self._recorder = Recorder(record.folder, record.checkpoints, screen, self._entries, started)
        self._stop = Stop()

    def run(self, clients: Clients) -> int:
        """Play to the end; the exit status.

        Raises:
            UserError: for a model that does not do.
            KeyboardInterrupt: before the first round.
        """
        listening = time.monotonic()
        models = Background(self._models)
        versions = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
        expected = Expected(clients.numbers, self._shape, names=clients.names, model=self._config.model, **versions)
        hello = Greeting("hello", config=self._config.train_config(self._shape.num_classes, self._config.seeds[0]))
        arrivals = Arrivals(
            clients.site, expected, clients.number_of, hello, self._screen, partial(_layout, models), clients.revoked
        )
        arrivals.start()
        try:
            self._screen.step(f"waiting for {len(arrivals.missing())} clients; importing TensorFlow")
            gather(arrivals, self._policy, models, self._screen, listening)
            self._recorder.reached("all clients here")
            contest = self._contest(clients, arrivals, models.result())
            return self._play(contest, arrivals, models.result())
        finally:
            arrivals.stop()

    def _play(self, contest: Contest, arrivals: Arrivals, models: Models) -> int:
        begun = {entry: start.round for entry, start in models.starts.items()}
        self._screen.begin(self._entries, self._config.rounds, begun)
        gc.freeze()  # what was imported stays
        gc.enable()
        before = signal.signal(signal.SIGINT, self._interrupt), signal.signal(signal.SIGTERM, self._interrupt)
        try:
            contest.run()
        finally:
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])
        self._screen.step("writing the models and the report")
        arrivals.stop()  # who leaves now is not missed
        word = "interrupted" if self._stop.is_set() else "over"
        goodbye = Background(partial(arrivals.tell_all, Greeting("over", f"the run is {word}"), _GOODBYE_SECONDS))
        self._recorder.write_timing()
        self._record.privacy(self._recorder.epsilons)
        status = self._record.finish(contest.endings, models.tests.export, interrupted=self._stop.is_set())
        goodbye.result()
        return status

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _models(self) -> Models:
        tests = dict.fromkeys(self._entries, self._test)
        updates = self._config.sample or self._config.clients or 1
        return make_models(self._config, self._shape, tests, self._record.folder, self._recorder, updates)

    def _contest(self, clients: Clients, arrivals: Arrivals, models: Models) -> Contest:
        names = labels(self._entries)
        contestants = [
            Contestant(
                entry,
                make_strategy(entry.strategy, models.trainable, models.structure),
                clients.site.federation(names[entry], arrivals.nodes),
                self._config.train_config(self._shape.num_classes, entry.seed),
                self._config.sample,
                models.tests.on(self._test),
                self._terms,
                measures=self._config.measures,
                examples=arrivals.examples,
                revoked=clients.revoked,
                late=arrivals.late,
            )
            for entry in self._entries
        ]
        return Contest(contestants, models.starts, self._config.rounds, self._recorder, self._stop)


def _layout(models: Background[Models]) -> str | None:
    """Return the layout of the model that is built beside; None as long as it is not, or where it cannot be."""
    if not models.succeeded:
        return None
    return layout_of(next(iter(models.result().starts.values())).arrays)
