"""What is different about the clients: how the data is cut, who works how much, who fails, who attacks.

A scenario is a sum of parts, written `label-skew:alpha=0.1+uneven-work`; each part has documented defaults and stands
for a scenario alone, too. A name of one's own goes before: `hospitals=label-skew:alpha=0.1+dropout:p=0.3`. In a TOML
file a part is a table, and `name` says how to call it if not like the file.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from task import seeds
from task.errors import UserError, describe_invalid, did_you_mean, quoted, shown
from task.jsontext import value_of

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_LARGEST = 1 << 14  # bytes of a .toml file; Python's parser takes seconds for a key of more dots than that
Probability = Annotated[float, Field(ge=0, lt=1)]


class Part(BaseModel):
    """One thing in which clients differ. Immutable; an unknown option is an error.

    Attributes:
        name: as users write it.
        cuts: whether it says who gets which examples; a scenario has one part of this kind at most.
        of_data: whether the shards on disk differ by it; the other parts act in the rounds of a simulation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    cuts: ClassVar[bool] = False
    of_data: ClassVar[bool] = False


P = TypeVar("P", bound=Part)


class Iid(Part):
    """Shards that are statistically alike: equal sizes, the same share of every class."""

    name = "iid"
    cuts = of_data = True


class QuantitySkew(Part):
    """Clients hold different numbers of examples, in the shares of one draw from Dirichlet(alpha, ..., alpha).

    Attributes:
        alpha: the smaller, the more unequal; 1: every way of sharing is as likely as any other.
        least: examples that every client has at least.
    """

    name = "quantity-skew"
    cuts = of_data = True
    alpha: Rate = 1.0
    least: Count = 10


class LabelSkew(Part):
    """The shares of each class over the clients are drawn from Dirichlet(alpha, ..., alpha) (arXiv:1905.12022).

    Attributes:
        alpha: the smaller, the fewer classes a client mostly holds; large: iid.
        least: examples that every client has at least.
    """

    name = "label-skew"
    cuts = of_data = True
    alpha: Rate = 0.3
    least: Count = 10


class Pathological(Part):
    """Every client holds examples of so many classes only (after McMahan et al. 2017, arXiv:1602.05629, section 3).

    Attributes:
        classes: that one client holds.
    """

    name = "pathological"
    cuts = of_data = True
    classes: Count = 2


class FeatureSkew(Part):
    """The same classes look different at each client (after Li et al. 2022, arXiv:2102.02079, section 4.2).

    Client k of m gets the strength s * k / (m - 1), so client 0 keeps its data; rotations go from -s to s.

    Attributes:
        kind: `noise`, Gaussian; `rotation` of images; `brightness`, a factor of the pixels.
        strength: s: standard deviation as a share of the pixel range; degrees; by how much the factor falls below 1.
            Default: 0.5 for noise, 45 for rotation, 0.8 for brightness.
    """

    name = "feature-skew"
    of_data = True
    kind: Literal["noise", "rotation", "brightness"] = "noise"
    strength: Rate | None = None

    @property
    def s(self) -> float:
        """The strength that holds."""
        return (
            {"noise": 0.5, "rotation": 45.0, "brightness": 0.8}[self.kind] if self.strength is None else self.strength
        )

    @model_validator(mode="after")
    def _brightness_stays_above_zero(self) -> Self:
        if self.kind == "brightness" and self.s >= 1:
            raise ValueError("strength of brightness must be below 1: the factor falls by it")
        return self


class Outlier(Part):
    """Some clients, drawn from the seed, hold corrupted data; they are honest otherwise.

    Attributes:
        clients: how many.
        kind: `labels`: drawn at random; `noise`: images replaced by noise, labels kept; `unscaled`: pixels `factor`
            times too large, as where the division by 255 was forgotten.
        factor: of `unscaled`.
    """

    name = "outlier"
    of_data = True
    clients: Count = 1
    kind: Literal["labels", "noise", "unscaled"] = "labels"
    factor: Rate = 10.0


class UnevenWork(Part):
    """Clients train for different numbers of local epochs.

    Attributes:
        low: fewest epochs.
        high: most; without `slow`, each client draws its number uniformly from low..high anew in every round.
        slow: so many clients, drawn from the seed, always train for `low` epochs and all others for `high`.
    """

    name = "uneven-work"
    low: Count = 1
    high: Count = 5
    slow: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is more than high ({self.high})")
        return self


class Dropout(Part):
    """A client misses a round with probability p; it neither gets the model nor trains.

    Attributes:
        p: probability, each round and client anew.
    """

    name = "dropout"
    p: Probability = 0.2


class Straggler(Part):
    """Some clients are slow, and a round does not wait for them.

    A client takes speed * exp(spread * z) of a usual round's time, z standard normal in every round anew; speed is
    `factor` for slow clients and 1 for the others.

    Attributes:
        slow: how many clients, drawn from the seed, are slow.
        factor: how many times slower.
        spread: of the times of one client from round to round.
        deadline: in usual rounds' times; the update of a client that takes longer is not used.
        partial: clients that would be late send what they have at the deadline instead: the share of their local steps
            that they made until then.
    """

    name = "straggler"
    slow: Count = 1
    factor: Rate = 3.0
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    deadline: Rate = 2.0
    partial: bool = False


Attack = Literal["sign-flip", "scaled-sign-flip", "gaussian", "label-flip", "alie", "ipm", "mimic", "nan", "same-value"]


class Byzantine(Part):
    """Some clients, drawn from the seed, send what harms (definitions and papers: `server.attacks`).

    Attributes:
        attack: what they do.
        attackers: how many.
        strength: of the attack; None: its own default.
    """

    name = "byzantine"
    attack: Attack = "scaled-sign-flip"
    attackers: Count = 1
    strength: Rate | None = None


PARTS: Mapping[str, type[Part]] = {
    part.name: part
    for part in (
        Iid, QuantitySkew, LabelSkew, Pathological, FeatureSkew, UnevenWork, Dropout, Straggler, Byzantine, Outlier
    )
}  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Parts under one name.

    Attributes:
        name: as the results call it.
        parts: in the order of PARTS, at most one of each.
    """

    name: str
    parts: tuple[Part, ...]

    def find(self, kind: type[P]) -> P | None:
        """The part of this kind, if the scenario has one."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    @property
    def cut(self) -> "Scenario":
        """What the shards on disk depend on, under a name that says all of it; "iid" where they are plain."""
        parts: list[Part] = []
        for part in self.parts:
            if isinstance(part, Byzantine) and part.attack == "label-flip":  # poisoned data; the only attack that is
                parts.append(Byzantine(attack="label-flip", attackers=part.attackers))
            elif part.of_data and not isinstance(part, Iid):
                parts.append(part)
        parts = parts or [Iid()]
        return Scenario("+".join(_written(part) for part in parts), tuple(parts))

    @property
    def acting(self) -> tuple[Part, ...]:
        """The parts that are not in the data but act in the rounds of a simulation."""
        held = {part.name for part in self.cut.parts}
        return tuple(part for part in self.parts if part.name not in {*held, Iid.name})

    def attackers(self, seed: int, clients: int) -> tuple[int, ...]:
        """Numbers of the clients that attack.

        Raises:
            UserError: nobody would be honest.
        """
        byzantine = self.find(Byzantine)
        if byzantine is None:
            return ()
        if byzantine.attackers >= clients:
            raise UserError(
                f"scenario {self.name!r}: {byzantine.attackers} attackers of {clients} clients leave nobody honest"
            )
        return draw_clients(seed, "attackers", clients, byzantine.attackers)

    def slow(self, seed: int, clients: int) -> tuple[int, ...]:
        """Numbers of the clients that are slow, in work or in time.

        Raises:
            UserError: there are not so many clients.
        """
        counts = [part.slow for part in self.parts if isinstance(part, UnevenWork | Straggler)]
        return draw_clients(seed, "slow", clients, max(counts, default=0))

    @property
    def written(self) -> str:
        """All parts with all their values, as `scenario_of` reads them."""
        return "+".join(_written(part) for part in self.parts)


def scenario_of(text: str) -> Scenario:
    """The scenario that the user wrote.

    Args:
        text: `PART:option=value,...+PART...`, or the same after `NAME=`.

    Raises:
        UserError: one line, with the nearest name for an unknown one.
    """
    where = f"scenario {quoted(text, 150)}"
    name, own, rest = text.partition("=")
    if own and ":" not in name and "+" not in name:
        _check_name(name, where)
    else:
        name = rest = text
    values: dict[str, dict[str, Any]] = {}
    for written in rest.split("+"):
        part, _, options = written.partition(":")
        if part in values:
            raise UserError(f"{where}: {part} is given twice")
        values[part] = {}
        for option in filter(None, options.split(",")):
            key, equals, value = option.partition("=")
            if not (key and equals):
                raise UserError(f"{where}: options are written as NAME:option=value,option=value")
            if key in values[part]:
                raise UserError(f"{where}: {key} of {part} is given twice")
            values[part][key] = value_of(value)
    return Scenario(name, _parts(values, where))


def scenario_from_toml(file: Path) -> Scenario:
    """A user's own scenario: a table a part, and perhaps a `name`; else it is called like the file.

    Raises:
        UserError: one line that names the file.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise UserError(f"scenario {file}: is larger than {_LARGEST} bytes; a scenario has a few lines")
        values = tomllib.loads(content.decode())
    except OSError as error:
        raise UserError(f"scenario {file}: {error.strerror}") from None
    except ValueError as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise UserError(f"scenario {file}: {error}") from None
    except RecursionError:
        raise UserError(f"scenario {file}: is nested too deep; parts are written as [label-skew]") from None
    name = values.pop("name", file.stem)
    _check_name(name, f"scenario {file}")
    if not values:
        raise UserError(f"scenario {file} has no part; write a table such as [label-skew]")
    for part, options in values.items():
        if not isinstance(options, dict):
            raise UserError(f"scenario {file}: {quoted(part)} is no table; parts are written as [{shown(part, 60)}]")
    return Scenario(name, _parts(values, f"scenario {file}"))


def resolved(text: str) -> str:
    """A scenario as a run's configuration keeps it: of a TOML file its content, so that a resume needs no file.

    Raises:
        UserError: it is no scenario.
    """
    if not text.endswith(".toml"):
        scenario_of(text)
        return text
    scenario = scenario_from_toml(Path(text).expanduser())
    return f"{scenario.name}={scenario.written}"


def _parts(values: Mapping[str, Mapping[str, Any]], where: str) -> tuple[Part, ...]:
    for name in values:
        if name not in PARTS:
            told = [did_you_mean(name, PARTS), f"choose of {', '.join(PARTS)}, or a .toml file"]
            raise UserError(f"{where}: no scenario {quoted(name)}; {' '.join(filter(None, told))}")
    parts = tuple(_part(kind, values[name], where) for name, kind in PARTS.items() if name in values)
    cutting = [part.name for part in parts if part.cuts]
    if len(cutting) > 1:
        raise UserError(f"{where}: {' and '.join(cutting)} both say who gets which examples; choose one")
    return parts


def _part(kind: type[Part], options: Mapping[str, Any], where: str) -> Part:
    known = kind.model_fields
    for option in options:
        if option not in known:
            told = [did_you_mean(option, known), f"there are {', '.join(known)}" if known else "it has none"]
            raise UserError(f"{where}: {kind.name} has no option {quoted(option)}; {' '.join(filter(None, told))}")
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise UserError(f"{where}: {kind.name}: {describe_invalid(error)}") from None


def _check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{where}: the name {quoted(name)} is no word of letters, digits, '.', '_' and '-'")


def _written(part: Part) -> str:
    options = ",".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in part.model_dump().items()
        if value is not None
    )
    return f"{part.name}:{options}" if options else part.name


def draw_clients(seed: int, use: str, clients: int, count: int) -> tuple[int, ...]:
    """Which clients play a part, ascending: the same for every strategy.

    Args:
        seed: the run's.
        use: the part, such as "attackers", "outliers" or "slow".
        clients: of the federation.
        count: how many play it.

    Raises:
        UserError: there are not so many.
    """
    if count > clients:
        raise UserError(f"{count} clients cannot be {use}, there are {clients}; give fewer")
    return tuple(sorted(int(client) for client in seeds.stream(seed, use).permutation(clients)[:count]))
