"""Runs that nobody ran: folders with rows of any size, written with the project's own row types."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from server.results import ClientRow, LocalRow, RoundRow, RunFolder

STRATEGIES = (
    "fedavg",
    "weighted",
    "fedmedian",
    "krum:attackers=1",
    "trimmed-mean:trim=1",
    "fedprox",
    "scaffold",
    "fedadam",
)
SCENARIOS = ("iid", "label-skew", "uneven-work", "byzantine", "outlier")
CLASSES = 10


def made_up_run(
    folder: Path,
    scenarios: Sequence[str] = ("iid", "byzantine"),
    strategies: Sequence[str] = STRATEGIES[:3],
    seeds: Sequence[int] = (0, 1, 2),
    rounds: int = 6,
    clients: int = 5,
    *,
    local: bool = True,
    config: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
) -> Path:
    """A finished run: in `iid` fedavg and weighted coincide, in `byzantine` both diverge and a client is rejected."""
    random = np.random.default_rng(3)
    round_rows, client_rows, local_rows = [], [], []
    for s, scenario in enumerate(scenarios):
        for k, strategy in enumerate(strategies):
            for seed in seeds:
                twin = scenario == "iid" and strategy == "weighted"
                noise = np.random.default_rng([seed, s, 0 if twin else k])
                lost = scenario == "byzantine" and strategy in ("fedavg", "weighted")
                top = 0.1 if lost else 0.97 - 0.02 * s - 0.004 * (0 if twin else k)
                for r in range(rounds + 1):
                    accuracy = (
                        top - (top - 0.1) * math.exp(-r / (2 + 0.3 * (0 if twin else k))) + 0.004 * noise.normal()
                    )
                    loss = 2.3 + 0.3 * r if lost else max(2.3 * (1 - accuracy), 0.01)
                    n = clients if r else 0
                    at = scenario, strategy, seed, r
                    round_rows.append(
                        RoundRow(*at, accuracy, loss, n, 0, 225_000 * n, 225_000 * n, 0.3 + 0.05 * k if r else 0.0)
                    )
                    for client in range(n):
                        bad = scenario == "byzantine" and client == 1 and strategy == "fedmedian"
                        status, reason = ("rejected", "array 3 holds NaN") if bad else ("ok", "")
                        client_rows.append(ClientRow(*at, client, 800, 25, 25.0, 0.3, 0.3, status, reason))  # type: ignore[arg-type]
                        if local and not bad:
                            own = min(1.0, max(0.0, accuracy + 0.05 * random.normal()))
                            local_rows.append(LocalRow(*at, client, own, own + (1 - own) / 2, 1 + random.random(), 0.6))
    with RunFolder.create(folder) as opened:
        # Not row by row: a large run is hundreds of thousands.
        opened._rounds.rewrite(round_rows)
        opened._clients.rewrite(client_rows)
        opened._local.rewrite(local_rows)
        opened.write_run(_facts(scenarios, strategies, seeds, rounds, clients, config or {}) | (run or {}))
    return folder


def _facts(
    scenarios: Sequence[str],
    strategies: Sequence[str],
    seeds: Sequence[int],
    rounds: int,
    clients: int,
    config: dict[str, Any],
) -> dict[str, Any]:
    parts = {}
    for scenario in scenarios:
        of_seeds = {}
        for seed in seeds:
            random = np.random.default_rng(seed)
            shares = random.dirichlet([0.3 if scenario == "label-skew" else 1000.0] * clients, CLASSES).T
            of_seeds[str(seed)] = {
                "counts": (shares * 400).astype(int).tolist(),
                "p_value": 0.5,
                "attackers": [1] if scenario == "byzantine" else [],
                "slow": [2] if scenario == "uneven-work" else [],
                "outliers": [3] if scenario == "outlier" else [],
                "flipped": [],
                "features": [],
            }
        parts[scenario] = {"written": f"{scenario}:made=up", "seeds": of_seeds}
    entries = [(a, b, c) for a in scenarios for b in strategies for c in seeds]
    return {
        "fedarena": "0.1.0",
        "command": ["python", "sim.py", "--rounds", str(rounds), "--out", "my runs"],
        "config": {
            "dataset": "mnist-5k",
            "clients": clients,
            "rounds": rounds,
            "strategies": list(strategies),
            "seeds": list(seeds),
            "scenario": list(scenarios),
            "target": 0.9,
            **config,
        },
        "versions": {"python": "3.11.7", "flwr": "1.41.0"},
        "data": {"sha256": "ab" * 32, "shards": {f"{a}/seed{c}": f"{a}-{c}-digest" for a, _, c in entries}},
        "scenarios": parts,
        "results": {
            f"{a}/{b}/seed{c}": {"sha256": "cd" * 32, "rounds": rounds, "ended": "finished"} for a, b, c in entries
        },
        "status": "finished",
        "exit_status": 0,
    }
