"""The shards of a run, as its start needs them and as it tells of them."""

from collections.abc import Mapping
from typing import Any

from server.attacks import strength_of
from server.machine import Machine
from task.config import RunConfig
from task.scenario import Byzantine, Scenario
from task.shards import Shards

Cut = Mapping[tuple[str, int], Shards]
"""By scenario and seed; all have the same shapes."""


def first_of(cut: Cut) -> Shards:
    """One of them, for what all have in common."""
    return next(iter(cut.values()))


def data_facts(cut: Cut) -> dict[str, Any]:
    """What run.json says of the data; counts and p-value are those of the first scenario and seed."""
    shards = first_of(cut)
    return {
        "sha256": shards.sha256,
        "p_value": shards.p_value,
        "counts": shards.counts,
        "shards": {f"{scenario}/seed{seed}": s.sha256 for (scenario, seed), s in cut.items()},
    }


def scenario_facts(config: RunConfig, cut: Cut) -> dict[str, Any]:
    """What run.json says of each scenario: all its parts and values, and who had which part with which seed.

    Raises:
        UserError: a scenario asks for more attackers or slow clients than there are clients, or for an attack that is
            none.
    """
    return {
        scenario.name: {
            "written": scenario.written,
            "seeds": {
                str(seed): _roles(scenario, seed, shards)
                for seed in config.seeds
                for shards in [cut[scenario.name, seed]]
            },
        }
        for scenario in config.scenarios
    }


def _roles(scenario: Scenario, seed: int, shards: Shards) -> dict[str, Any]:
    byzantine = scenario.find(Byzantine)
    return {
        "counts": shards.counts,
        "p_value": shards.p_value,
        "attackers": scenario.attackers(seed, shards.clients),
        "strength": byzantine and strength_of(byzantine, shards.clients, scenario.name),
        "slow": scenario.slow(seed, shards.clients),
        "outliers": shards.outliers,
        "flipped": shards.flipped,
        "features": shards.features,
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


def introduction(cut: Cut, machine: Machine) -> str:
    """The line that says what a run is about to train on, and where."""
    shards = first_of(cut)
    workers, address = machine.workers, machine.ray_address
    carried = f"{workers} worker{'s' if workers != 1 else ''}" if workers else "one worker a CPU"
    where = f" of the Ray cluster at {address}" if address else ""
    sizes = sorted({sum(row) for each in cut.values() for row in each.counts})
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    public = f", {shards.public_examples:,} public and unlabelled" if shards.public_examples else ""
    scenarios = len({scenario for scenario, _ in cut})
    alike = f"labels spread alike: chi-square p = {shards.p_value:.3g}" if scenarios == 1 else f"{scenarios} scenarios"
    return (
        f"{shards.dataset}: {shards.clients} clients with {size} examples each, {shards.test_examples:,} to test on"
        f"{public}; {alike}; {carried}{where}"
    )
