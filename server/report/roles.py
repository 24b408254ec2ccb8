"""Who had which part in a run: what run.json says of its scenarios, read so that runs of other versions pass, too."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parts:
    """The clients of one scenario with one seed.

    Attributes:
        counts: examples by client and class.
        p_value: of the chi-square test that labels are spread alike; None: not tested.
        words: by client what is different about it: `attacker`, `outlier`, `slow`, what happened to its images.
        ignored: clients whose accuracy says nothing of fairness: attackers, and those with corrupted data.
    """

    counts: tuple[tuple[int, ...], ...]
    p_value: float | None
    words: Mapping[int, str]
    ignored: frozenset[int]


def parts_of(run: Mapping[str, Any]) -> dict[str, dict[int, Parts]]:
    """By scenario and seed.

    Args:
        run: the content of run.json. Runs before there were scenarios say one table of counts: it is shown as that of
            the first scenario and seed.
    """
    found: dict[str, dict[int, Parts]] = {}
    for scenario, facts in _mapping(run.get("scenarios")).items():
        for seed, roles in _mapping(_mapping(facts).get("seeds")).items():
            with suppress(AttributeError, TypeError, ValueError):  # of another version
                number, parts = int(seed), _parts(roles)
                found.setdefault(scenario, {})[number] = parts
    if not found:
        config, data = _mapping(run.get("config")), _mapping(run.get("data"))
        with suppress(AttributeError, TypeError, ValueError, IndexError):
            if data.get("counts"):
                scenario, seed = (config.get("scenario") or ["iid"])[0], (config.get("seeds") or [0])[0]
                found[str(scenario)] = {int(seed): _parts(data)}
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _parts(roles: Mapping[str, Any]) -> Parts:
    counts = tuple(tuple(map(int, row)) for row in roles.get("counts") or ())
    attackers, outliers = ({int(k) for k in roles.get(name) or ()} for name in ("attackers", "outliers"))
    flipped, slow = ({int(k) for k in roles.get(name) or ()} for name in ("flipped", "slow"))
    features = roles.get("features") or ()
    words = {}
    for client in sorted({*range(len(counts)), *attackers, *outliers, *flipped, *slow}):
        told = ["attacker (flips labels)" if client in flipped else "attacker"] * (client in attackers | flipped)
        told += ["outlier"] * (client in outliers) + ["slow"] * (client in slow)
        told += [str(features[client])] if client < len(features) and features[client] else []
        if told:
            words[client] = ", ".join(told)
    p_value = roles.get("p_value")
    return Parts(counts, None if p_value is None else float(p_value), words, frozenset(attackers | outliers | flipped))
