"""Where each contestant begins: with the initial model, or after the last round that is kept whole."""

from collections.abc import Iterable, Mapping

from server.contest import Start
from server.files import writing
from server.recorder import Recorder
from server.results import Entry, RunFolder
from strategies.specify import is_ours
from task.update import Arrays


def find_starts(
    entries: Iterable[Entry], initial: Mapping[int, Arrays], folder: RunFolder, recorder: Recorder
) -> dict[Entry, Start]:
    """Where to begin; the rows of rounds that will be played again are dropped.

    Args:
        entries: the contestants.
        initial: the initial global arrays by seed.
        folder: where rows may be already.
        recorder: has the checkpoints, and tells the user what is passed over.

    Raises:
        UserError: checkpoints that belong to another run; rows that cannot be read, or not be rewritten.
    """
    complete, starts = folder.complete(), {}
    for entry in entries:
        # What a strategy of others remembers is in no checkpoint: it begins anew, and comes to the same bits.
        rows = complete.get(entry, -1)
        saved = recorder.checkpoints.latest(entry, rows, recorder.note) if is_ours(entry.strategy) else None
        starts[entry] = Start(*saved) if saved else Start(-1, initial[entry.seed])
    with writing(folder.path):
        folder.keep_rounds({entry: start.round for entry, start in starts.items() if start.round >= 0})
    return starts
