"""What a client-round and a message cost with 5, 50 and 500 virtual clients."""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import synthetic
from benchmarks.command import Done, busy_cpu_seconds, simulate
from benchmarks.rounds import STRATEGIES
from benchmarks.table import Table

CLIENTS = (5, 50, 500)
SAMPLED = 50
EXAMPLES = 96  # a client: 3 local steps, so that a message costs more beside them than with a real shard
MIB = 2**20


def measure(quick: bool = False) -> list[Table]:
    """Run the four strategies with each number of clients; `quick`: a tenth of the messages."""
    messages = 80 if quick else 800
    rows = []
    with tempfile.TemporaryDirectory(prefix="fedarena-benchmark-") as name:
        for clients in CLIENTS:
            data = Path(name, f"{clients}.npz")
            synthetic.write(data, clients, EXAMPLES)
            rows.append(_row(clients, data, messages, Path(name, f"run-{clients}")))
    return [
        Table(
            f"Virtual clients, {EXAMPLES} examples each, at most {SAMPLED} a round, four strategies at once",
            (
                "clients",
                "a round",
                "client-round (ms)",
                "training CPU (ms)",
                "overhead per message (ms)",
                "start-up (s)",
                "server peak (MiB)",
            ),
            tuple(rows),
            (
                "Client-round: wall after the first round / messages answered in it, all cores together.",
                "Overhead: (cores x wall - CPU of training and evaluation) / messages: Flower's and Ray's handling of "
                "a message, its serialisation, aggregation, and cores that wait, in milliseconds of one core.",
                "Start-up: from the command to the end of the first round of all strategies, shards cut before.",
                "What should grow: start-up, with the messages of the first round (4 x 50 instead of 4 x 5) and the "
                "shard files that are checked and opened; the server, with the replies in flight. A message's own cost "
                "should not depend on how many clients there are, but a worker reads a shard when it first meets it.",
            ),
        )
    ]


def _row(clients: int, data: Path, messages: int, out: Path) -> tuple[str, ...]:
    per_round = min(clients, SAMPLED)
    rounds = 1 + max(1, messages // (per_round * len(STRATEGIES)))
    options = ["--strategies", *STRATEGIES, "--clients", str(clients), "--sample", str(per_round)]
    options += ["--dataset", str(data)]
    # The first run cuts the shards, which is done once for a data set, and is not measured.
    simulate(out.with_name(f"{out.name}-warm"), *options, "--rounds", "1")
    done = simulate(out, *options, "--rounds", str(rounds), watch=True)
    times: dict[str, Any] = json.loads((out / "timing.json").read_text())
    return _cells(clients, per_round, times, done)


def _cells(clients: int, per_round: int, times: dict[str, Any], done: Done) -> tuple[str, ...]:
    after = times["after_first"]
    wall, answered = times["finished"] - times["first_round_all"], after["messages"]
    idle = times["cores"] * wall - busy_cpu_seconds(after)
    return (
        str(clients),
        str(per_round),
        f"{1000 * wall / answered:.1f}",
        f"{1000 * after['client_cpu_seconds'] / answered:.1f}",
        f"{1000 * idle / answered:.1f}",
        f"{times['first_round_all'] - done.launched:.1f}",
        f"{done.peak_bytes / MIB:.0f}",
    )
