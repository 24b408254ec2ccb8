"""What a comparison gave, as Python has it: rows as data frames, models, verdict, report."""

import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.cell import cell
from server.export import frame_of
from server.results import ONE_SHOT, ClientRow, Entry, LocalRow, RoundRow
from server.run_files import RunFiles
from task.backend import load
from task.errors import UserError, describe

if TYPE_CHECKING:
    import pandas as pd

    from server.summary import Outcome

Key = tuple[str, str, int]
"""Scenario, strategy, seed."""

_PLURAL = {"strategy": "strategies"}


class ComparisonResult:
    """A finished run, or what there is of one; nothing is read before it is asked for.

    Args:
        folder: of the run.

    Attributes:
        folder: where everything lies.
        report: report.html.

    Raises:
        UserError: there is no comparison in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._files = RunFiles(self.folder)
        self.report = self.folder / "report.html"
        if self._files.read_run().get("kind") == ONE_SHOT:
            raise UserError(f"{folder} holds a one-shot run: its rows are in oneshot.csv")

    @cached_property
    def rounds(self) -> "pd.DataFrame":
        """rounds.csv: a row per scenario, strategy, seed and round; accuracies in 0..1, losses in nats."""
        return frame_of(self._files.table("rounds.csv", RoundRow))

    @cached_property
    def clients(self) -> "pd.DataFrame":
        """clients.csv: a row per client and round, also of those that were rejected or failed."""
        return frame_of(self._files.table("clients.csv", ClientRow))

    @cached_property
    def local(self) -> "pd.DataFrame":
        """local.csv: each used update beside the global model: norm, cosine, accuracies on the client's training data.

        The latter are of the clients of the last round (`client_eval=N`: of every Nth, too). These are no held-out
        data: they make no strategy better or worse.
        """
        return frame_of(self._files.table("local.csv", LocalRow))

    @cached_property
    def comparison(self) -> "pd.DataFrame":
        """comparison.csv: every pair of strategies, paired by seed; empty where there is nothing to compare."""
        from server.statistics.pairs import Comparison
        from server.statistics.write import COMPARISON

        return frame_of(self._files.table(COMPARISON, Comparison))

    @cached_property
    def targets(self) -> "pd.DataFrame":
        """targets.csv: rounds to the target accuracy, with those that never reached it."""
        from server.statistics.targets import Target
        from server.statistics.write import TARGETS

        return frame_of(self._files.table(TARGETS, Target))

    @cached_property
    def models(self) -> "Models":
        """The final models by (scenario, strategy, seed); each is loaded when it is asked for."""
        return Models(self._files)

    @property
    def verdict(self) -> list[str]:
        """What the report says first, a sentence each."""
        return list(self._outcome.verdict)

    @property
    def status(self) -> str:
        """As in run.json: finished, failed, interrupted; running also where a run was killed."""
        return str(self._files.read_run().get("status", "running"))

    @property
    def finished(self) -> bool:
        """Whether every strategy came to its end."""
        return self.status == "finished"

    @property
    def _outcome(self) -> "Outcome":
        from server.summary import Outcome

        return Outcome.read(self._files)

    def __repr__(self) -> str:
        config = self._files.read_run().get("config", {})
        sizes = [
            (word, len(config[name]))
            for name, word in (("scenario", "scenario"), ("strategies", "strategy"), ("seeds", "seed"))
            if isinstance(config.get(name), list)
        ]
        sizes += [(name.removesuffix("s"), config[name]) for name in ("clients", "rounds") if config.get(name)]
        said = ", ".join(f"{n} {word if n == 1 else _PLURAL.get(word, word + 's')}" for word, n in sizes)
        return f"<{type(self).__name__} {self.status}: {said}; {self.folder}>"

    def _repr_html_(self) -> str:
        return cell(self._outcome, self.status, self.folder, self._link())

    def _link(self) -> str:
        """Notebooks serve what is below them, and nothing else, by relative paths."""
        here = Path.cwd()
        below = self.report.is_relative_to(here)
        return self.report.relative_to(here).as_posix() if below else self.report.as_uri()


class Models(Mapping[Key, Any]):
    """The final models of a run by (scenario, strategy, seed), in the order of the results.

    Args:
        files: of the run.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        keys = (Entry(**row) for row in files.table("rounds.csv", RoundRow).select(list(Entry._fields)).to_pylist())
        self._paths: dict[Key, Path] = {
            entry: path for entry in dict.fromkeys(keys) if (path := files.model_path(entry)).exists()
        }
        self._loaded: dict[Key, Any] = {}

    def __getitem__(self, key: tuple[str, str, int]) -> Any:
        """A keras.Model, uncompiled.

        Raises:
            KeyError: there is no such contestant, or it has no final model yet.
            UserError: the file cannot be read.
        """
        path = self._paths[key]
        if key not in self._loaded:
            keras, _ = load()
            try:
                self._loaded[key] = keras.saving.load_model(path, compile=False, safe_mode=True)
            except Exception as error:  # Keras raises whatever the layers raise
                raise UserError(f"{path} cannot be loaded{self._hint()}: {describe(error)}") from error
        return self._loaded[key]

    def __contains__(self, key: object) -> bool:
        return key in self._paths  # without loading it

    def __iter__(self) -> Iterator[Key]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return f"<{len(self)} models: {', '.join(map(str, map(tuple, self)))}>"

    def _hint(self) -> str:
        """A user's model may have layers that its module makes known to Keras; what a file names is not imported."""
        module, colon, _ = str(self._files.read_run().get("config", {}).get("model", "")).partition(":")
        missing = colon and module not in sys.modules
        return f", perhaps because of layers of {module}, to be imported before if you trust it" if missing else ""
