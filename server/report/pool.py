"""Several runs as one: their seeds become one comparison, their scenarios panels, their strategies lines.

Only what was equal for all strategies may be drawn together, so runs must agree in everything but strategies, seeds and
scenarios, and must not contradict each other where they meet.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from server.names import enumerate_words
from server.report.read import ReadRun
from server.results import Entry, RoundRow
from task.config import parse
from task.errors import UserError

_POOLED: Final = ("strategies", "seeds", "scenario")  # options in which runs may differ


def pool(runs: Sequence[ReadRun]) -> ReadRun:
    """One run of all of them, as if one command had made it; at least one.

    Its run.json says under `sources` what each of them was.

    Raises:
        UserError: they differ in another option or in their data, hold the same contestant twice, or have strategies
            in one scenario that share no seed.
    """
    first, *others = runs
    if not others:
        return first
    facts = [run.read_run() for run in runs]
    for other, run in zip(others, facts[1:], strict=True):
        _check_options(first.path, facts[0], other.path, run)
    _check_data(runs, facts)
    _check_different(runs)
    rounds = [row for run in runs for row in run.read_rounds()]
    _check_seeds(rounds)
    return ReadRun(
        Path(_name(runs)),
        _merged(runs, facts),
        rounds,
        [row for run in runs for row in run.read_clients()],
        [row for run in runs for row in run.read_local()],
    )


def _check_options(path: Path, run: Mapping[str, Any], other: Path, second: Mapping[str, Any]) -> None:
    one, two = _options(run), _options(second)
    for name in {**one, **two}:
        if one.get(name) != two.get(name):
            raise UserError(
                f"{path} and {other} cannot share a page: --{name.replace('_', '-')} differs"
                f" ({one.get(name)} and {two.get(name)})"
            )


def _options(run: Mapping[str, Any]) -> dict[str, Any]:
    """By name, with those that an older run does not know as they were then: the defaults."""
    config = dict(run.get("config", {}))
    with suppress(UserError):  # of another version
        config = parse(config).model_dump(mode="json")
    training = config.pop("training", None)
    return {name: value for name, value in config.items() if name not in _POOLED} | (training or {})


def _check_data(runs: Sequence[ReadRun], facts: Sequence[Mapping[str, Any]]) -> None:
    """See that the same scenario and seed is the same everywhere."""
    seen: dict[tuple[str, str], tuple[Any, Path]] = {}
    for run, fact in zip(runs, facts, strict=True):
        told = {("--dataset: the data of", key): value for key, value in fact.get("data", {}).get("shards", {}).items()}
        told |= {
            ("--scenario: the values of", name): one.get("written") for name, one in fact.get("scenarios", {}).items()
        }
        for key, value in told.items():
            other, path = seen.setdefault(key, (value, run.path))
            if other != value:
                raise UserError(
                    f"{path} and {run.path} cannot share a page: {key[0]} {key[1]} differ ({other} and {value})"
                )


def _check_different(runs: Sequence[ReadRun]) -> None:
    seen: dict[Entry, Path] = {}
    for run in runs:
        for entry in dict.fromkeys(row.entry for row in run.read_rounds()):
            if entry in seen:
                raise UserError(
                    f"{entry.strategy} with seed {entry.seed} in {entry.scenario} is in both {seen[entry]} and"
                    f" {run.path}: leave one out"
                )
            seen[entry] = run.path


def _check_seeds(rounds: Sequence[RoundRow]) -> None:
    """See that there is something to pair in each scenario."""
    found: dict[str, dict[str, set[int]]] = {}
    for row in rounds:
        found.setdefault(row.scenario, {}).setdefault(row.strategy, set()).add(row.seed)
    for scenario, seeds in found.items():
        if not set.intersection(*seeds.values()):
            told = (f"{name} (seeds {' '.join(map(str, sorted(some)))})" for name, some in seeds.items())
            raise UserError(
                f"the strategies in {scenario} share no seed, so nothing can be paired: {enumerate_words(told)};"
                " run them with the same --seeds"
            )


def _merged(runs: Sequence[ReadRun], facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    configs = [run.get("config", {}) for run in facts]
    pooled = {
        name: list(dict.fromkeys(value for config in configs for value in config.get(name, ()))) for name in _POOLED
    }
    pooled["seeds"].sort()
    scenarios: dict[str, dict[str, Any]] = {}
    for run in facts:
        for name, one in run.get("scenarios", {}).items():
            scenarios.setdefault(name, {"written": one.get("written", ""), "seeds": {}})["seeds"] |= one.get(
                "seeds", {}
            )
    return {
        "fedarena": facts[0].get("fedarena", ""),
        "config": {**configs[0], **{name: values for name, values in pooled.items() if values}},
        "data": {
            "shards": {key: value for run in facts for key, value in run.get("data", {}).get("shards", {}).items()}
        },
        "scenarios": scenarios,
        "results": {key: value for run in facts for key, value in run.get("results", {}).items()},
        "weights_by": {name: kind for run in facts for name, kind in run.get("weights_by", {}).items()},
        "status": next((run["status"] for run in facts if run.get("status", "finished") != "finished"), "finished"),
        "dp_epsilon": {
            f"{one.path.name}: {client}": epsilon
            for one, run in zip(runs, facts, strict=True)
            for client, epsilon in run.get("dp_epsilon", {}).items()
        },
        "sources": [
            {"folder": str(one.path), "command": run.get("command", []), "versions": run.get("versions", {})}
            for one, run in zip(runs, facts, strict=True)
        ],
    }


def _name(runs: Sequence[ReadRun]) -> str:
    names = [run.path.resolve().name for run in runs]
    return "+".join(names) if len(names) < 4 else f"{len(names)} runs"
