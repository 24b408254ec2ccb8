"""The shards of a run, as its start needs them and as it tells of them."""

from collections.abc import Mapping
from typing import Any

from server.machine import Machine
from task.shards import Shards

Cut = Mapping[tuple[str, int], Shards]
"""By scenario and seed; all have the same shapes."""


def first_of(cut: Cut) -> Shards:
    """One of them, for what all have in common."""
    return next(iter(cut.values()))


def data_facts(cut: Cut) -> dict[str, Any]:
    """What run.json says of the data."""
    shards = first_of(cut)
    return {
        "sha256": shards.sha256,
        "p_value": shards.p_value,
        "counts": shards.counts,
        "shards": {f"{scenario}/seed{seed}": s.sha256 for (scenario, seed), s in cut.items()},
    }


def data_bytes(cut: Cut) -> int:
    """What all shards take as float32."""
    total = 0
    for shards in cut.values():
        one = 4
        for side in shards.input_shape:
            one *= side
        total += one * sum(map(sum, shards.counts))
    return total


def introduction(shards: Shards, machine: Machine) -> str:
    """The line that says what a run is about to train on, and where."""
    workers, address = machine.workers, machine.ray_address
    carried = f"{workers} worker{'s' if workers != 1 else ''}" if workers else "one worker a CPU"
    where = f" of the Ray cluster at {address}" if address else ""
    sizes = sorted({sum(row) for row in shards.counts})
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    public = f", {shards.public_examples:,} public and unlabelled" if shards.public_examples else ""
    return (
        f"{shards.dataset}: {shards.clients} clients with {size} examples each, {shards.test_examples:,} to test on"
        f"{public}; labels spread alike: chi-square p = {shards.p_value:.3g}; {carried}{where}"
    )
