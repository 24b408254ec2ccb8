"""run.json, the final models, the plot and the report: what is left of a run when it is over."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from server.checkpoint import Checkpoints
from server.contest import FINISHED, Ending
from server.files import writing
from server.machine import SAME, versions
from server.results import Entry, RunFolder, entries_of
from task.config import RunConfig
from task.errors import UserError
from task.options import TERMS
from task.update import Arrays

if TYPE_CHECKING:  # imported when there is something to tell
    from rich.console import Console

    from server.summary import Outcome

__version__ = "0.1.0"

# Of a configuration: which contestants there are, which a checkpoint names itself, and what changes no bit of theirs.
_NOT_OF_A_CHECKPOINT = {"strategies", "scenario", "seeds", "rounds", "client_eval", "target", *TERMS}


class RunRecord:
    """Everything about a run except its rows.

    Args:
        folder: where it is kept.
        config: what is compared; `clients` is given.
        data: what is known of the data; a resumed run must find the same under "shards".
        command: how the user called.
        resumed: whether the folder holds this run already.
        service: how real clients are served, so that `--resume` does it again; None in a simulation.
        members: who takes part, see `server.members.RunMembers.record`; None in a simulation.
        scenarios: who had which part in each scenario of a simulation, see `server.cut.scenario_facts`.
        tensorboard: whether event files are written, too; a run that goes on keeps those that it has up to date.

    Attributes:
        folder: as given.
        checkpoints: of this run, which belong to its configuration, data and versions.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        data: Mapping[str, Any],
        command: list[str],
        *,
        resumed: bool,
        service: Mapping[str, Any] | None = None,
        members: Sequence[Mapping[str, Any]] | None = None,
        scenarios: Mapping[str, Any] | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.folder, self._resumed, self._tensorboard = folder, resumed, tensorboard
        self._outcome: Outcome | None = None
        self._entries = entries_of(config)
        belongs = {
            "fedarena": __version__,
            "versions": versions(SAME),
            "data": data["shards"],
            "config": config.model_dump(mode="json", exclude=_NOT_OF_A_CHECKPOINT),
        }
        self.checkpoints = Checkpoints(folder.checkpoints, belongs)
        self._run: dict[str, Any] = {
            "fedarena": __version__,
            "command": command,
            "config": config.model_dump(mode="json"),
            "versions": versions(),
            "data": dict(data),
            **({"scenarios": dict(scenarios)} if scenarios else {}),
            **({"service": dict(service)} if service else {}),
            "weights_by": _weights_by(config),
            **({"members": [dict(member) for member in members]} if members else {}),
            "results": {},
            "status": "running",
            "exit_status": None,
        }

    def begin(self) -> None:
        """Write run.json, so that a run that is killed from now on can be resumed.

        Raises:
            UserError: if the run is to go on with other data than it began with, or from checkpoints that belong to
                another configuration or other versions; nothing is changed then. Or it cannot be written.
        """
        if self._resumed:
            self._check_data()
            for entry in self._entries:
                self.checkpoints.check(entry)
        with writing(self.folder.path):
            self.folder.write_run(self._run)

    def _check_data(self) -> None:
        there, here = self.folder.read_run().get("data", {}).get("shards") or {}, self._run["data"]["shards"]
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                raise UserError(
                    f"the data have changed since the run in {self.folder.path} began: {name} had SHA-256 "
                    f"{there.get(name)}, now it has {here.get(name)}; bring them back, or start a new run with --out"
                )

    def discard(self) -> None:
        """Leave no trace of a run that came to nothing, so that the same folder can be used again."""
        if not self._resumed:
            self.folder.discard()

    def interrupted(self) -> None:
        """The user ended the run before it began to train."""
        with writing(self.folder.path):
            self.folder.write_run({**self._run, "status": "interrupted", "exit_status": 130})

    def finish(
        self, endings: Mapping[Entry, Ending], export: Callable[[Arrays, Any], None], *, interrupted: bool
    ) -> int:
        """Write the models, run.json, the tables, curves.png and report.html; return the exit status.

        Raises:
            WriteError: something cannot be written; rows and checkpoints are there, and `--resume` writes the rest.
        """
        with writing(self.folder.path):
            return self._finish(endings, export, interrupted=interrupted)

    def _finish(
        self, endings: Mapping[Entry, Ending], export: Callable[[Arrays, Any], None], *, interrupted: bool
    ) -> int:
        from server.export import write_parquet
        from server.report import write_report
        from server.statistics.write import write_statistics
        from server.summary import Outcome
        from server.tensorboard import FOLDER, write_events

        for entry, ending in endings.items():
            export(ending.arrays, self.folder.model_path(entry))
            self._run["results"][entry.key] = {"sha256": ending.sha256, "rounds": ending.round, "ended": ending.ended}
        if interrupted:
            status, word = 130, "interrupted"
        elif all(ending.ended == FINISHED for ending in endings.values()):
            status, word = 0, FINISHED
        else:
            status, word = 1, "failed"
        self._run |= {"status": word, "exit_status": status}
        self.folder.write_run(self._run)
        self._outcome = Outcome.read(self.folder)
        write_statistics(self.folder.path, self._outcome)
        write_parquet(self.folder)
        if self._tensorboard or (self.folder.path / FOLDER).exists():
            write_events(self.folder)
        write_report(self.folder, self._outcome)
        return status

    def privacy(self, epsilons: Mapping[int, float]) -> None:
        """What clients that add noise have spent, as they say; goes into run.json."""
        if epsilons:
            self._run["dp_epsilon"] = {str(client): epsilons[client] for client in sorted(epsilons)}

    def tell(self, console: "Console") -> None:
        """Print the table, who coincided and why, who leads, and where the results are, if it came to results."""
        if self._outcome is None or not self._outcome.rounds:
            return
        from server.summary import summary_by_scenario

        table = summary_by_scenario(self._outcome.summaries, for_terminal=console.is_terminal)
        console.print(table, highlight=False, soft_wrap=not console.is_terminal)
        for line in [*(one.sentence for one in self._outcome.same), *self._outcome.verdict]:
            console.print(line, highlight=False, soft_wrap=not console.is_terminal)
        if epsilons := self._run.get("dp_epsilon"):
            said = ", ".join(f"client {c} {e:.2f}" if e < 1e6 else f"client {c} {e:.1e}" for c, e in epsilons.items())
            console.print(f"Differential privacy, epsilon spent so far as the clients say: {said}", highlight=False)
        console.print(f"Results: {self.folder.path} (open report.html)", highlight=False, soft_wrap=True)


def _weights_by(config: RunConfig) -> dict[str, str]:
    """What each strategy weighs by, where that is known: a fact of the run, so that its report need not import any."""
    from strategies.base import weights_by
    from strategies.specify import make_strategy

    found = {name: weights_by(make_strategy(name)) for name in config.strategies}
    return {name: kind for name, kind in found.items() if kind}
