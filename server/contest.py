"""All contestants of a comparison at once, each in a thread of its own."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from server.checkpoint import Saved, digest
from server.recorder import Recorder
from server.results import Entry, LocalRow, RoundRow
from server.rounds import Contestant, run_rounds
from server.stop import Broken, Stop, Stopped
from task.errors import describe
from task.update import Arrays, Memory

FINISHED = "finished"


@dataclass(frozen=True)
class Start:
    """Where a contestant begins: after this round, with these global arrays; -1: before the initial model's row.

    `memory` is what its strategy remembers.
    """

    round: int
    arrays: Arrays
    memory: Memory = field(default_factory=dict)


@dataclass
class Ending:
    """How a contestant ended: `finished` or the reason why not, and the model that it has."""

    ended: str
    round: int
    arrays: Arrays
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        self.sha256 = digest(self.arrays)


class Contest:
    """Plays all contestants to the end.

    Args:
        contestants: who competes.
        starts: where each begins.
        rounds: the last round.
        recorder: the journal.
        stop: set from outside to end early; every contestant keeps what it finished.
        at_once: how many play at the same time; None: all. The bits do not depend on it.
    """

    def __init__(
        self,
        contestants: list[Contestant],
        starts: Mapping[Entry, Start],
        rounds: int,
        recorder: Recorder,
        stop: Stop,
        at_once: int | None = None,
    ) -> None:
        self._contestants, self._starts, self._rounds = contestants, starts, rounds
        self._recorder, self._stop = recorder, stop
        self._threads = min(at_once or len(contestants), len(contestants))
        self._broken = False
        self.endings: dict[Entry, Ending] = {}

    def run(self) -> None:
        """Play; fills `endings` with one entry a contestant, also when it fails or is stopped.

        Raises:
            Broken: what happens cannot be taken down any more; all contestants have ended then.
        """
        self._recorder.reached("first messages sent")
        # Those that share shards play beside each other, so that workers need few shards at a time.
        scenarios = list(dict.fromkeys(one.entry.scenario for one in self._contestants))
        order = sorted(self._contestants, key=lambda one: (scenarios.index(one.entry.scenario), one.entry.seed))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="contestant") as threads:
            try:
                list(threads.map(self._play, order))
            except BaseException:
                self._stop.set()  # or leaving the pool would wait for the last round
                raise
        self.endings = {one.entry: self.endings[one.entry] for one in self._contestants}  # not in order of finishing

    def _play(self, contestant: Contestant) -> None:
        entry, start = contestant.entry, self._starts[contestant.entry]
        last = _Last(self._recorder, start)
        try:
            contestant.remember(start.memory)
            run_rounds(contestant, start.arrays, start.round + 1, self._rounds, last, self._stop)
        except Stopped as stopped:
            reason = str(stopped)
        except Broken as error:
            self._broken = True  # told once, and not by each contestant
            self._stop.because(str(error))
            raise
        except Exception as error:  # noqa: BLE001 - one contestant's failure must not end the others
            reason = describe(error)
        else:
            reason = FINISHED
        if not self._broken:
            self._recorder.ended(entry, None if reason == FINISHED else reason)
        self.endings[entry] = Ending(reason, max(last.round_number, 0), last.arrays)


class _Last:
    """A journal that passes everything on and remembers the last finished round."""

    def __init__(self, recorder: Recorder, start: Start) -> None:
        self.client, self.again = recorder.client, recorder.again
        self._recorder, self.round_number, self.arrays = recorder, start.round, start.arrays

    def round(self, row: RoundRow, arrays: Arrays, memory: Memory, local: Sequence[LocalRow]) -> None:
        self._recorder.round(row, arrays, memory, local)
        self.round_number, self.arrays = row.round, arrays

    def back(self, entry: Entry, server_round: int, reason: str) -> Saved | None:
        saved = self._recorder.back(entry, server_round, reason)
        if saved:
            self.round_number, self.arrays = saved.round, saved.arrays
        return saved
