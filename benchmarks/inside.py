"""`python -m benchmarks.inside NOTES EVERY ...`: `sim.py` with these options, and a look inside every EVERY rounds.

Whenever a contestant has finished such a round, one line of JSON goes to NOTES:

    messages   in Flower's message store, to clients and back
    contents   pieces of messages in Flower's object store
    objects    to which the driver's part of Ray counts references; in a simulation all objects are the driver's
    python     objects that Python's garbage collector tracks, those of the imports left out
"""

import gc
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from ray._private.worker import global_worker

from benchmarks.command import ROOT
from server import recorder, simulation

_states: list[simulation.PromptState] = []


class _Seen(simulation.PromptState):
    """The message store, known here from its making."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        _states.append(self)


class _Looking(recorder.Recorder):
    """The journal, with a look around."""

    def round(self, row: Any, *arguments: Any) -> None:
        super().round(row, *arguments)
        if row.round and row.round % every == 0:
            (state,) = _states
            look = {
                "round": row.round,
                "messages": state.num_message_ins() + state.num_message_res(),
                "contents": len(state.object_store),
                "objects": len(global_worker.core_worker.get_all_reference_counts()),
                "python": len(gc.get_objects()),
            }
            with notes.open("a") as file:
                file.write(f"{json.dumps(look)}\n")


if __name__ == "__main__":
    notes, every = Path(sys.argv[1]), int(sys.argv[2])
    del sys.argv[1:3]
    simulation.PromptState, recorder.Recorder = _Seen, _Looking  # type: ignore[assignment, misc]
    runpy.run_path(str(ROOT / "sim.py"), run_name="__main__")
