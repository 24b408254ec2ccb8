"""What run.json says of a comparison, as far as anything is made of it: looked at once, where the file is read.

Runs of other versions may say less, or more.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from task.config import parse_as
from task.limits import LIMITS

_Whole = Annotated[int, Field(ge=0, lt=2**63)]
_Epsilon = Annotated[float, Field(ge=LIMITS["dp_epsilon"].low, le=LIMITS["dp_epsilon"].high)]


class _Facts(BaseModel):
    """Strict: what is looked at here is used as it stands in the file."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Config(_Facts):
    dataset: str = ""
    model: str = ""
    strategies: list[str] = []
    scenario: list[str] = []
    seeds: list[_Whole] = []
    clients: _Whole | None = None
    rounds: _Whole | None = None
    training: dict[str, Any] = {}


class _Data(_Facts):
    sha256: str | None = None
    shards: dict[str, str] = {}


class _Roles(_Facts):
    counts: list[list[_Whole]] = []
    p_value: float | None = None
    attackers: list[_Whole] = []
    slow: list[_Whole] = []
    outliers: list[_Whole] = []
    flipped: list[_Whole] = []
    features: list[str] = []


class _Scenario(_Facts):
    written: str = ""
    seeds: dict[Annotated[str, Field(pattern=r"^\d{1,18}$")], _Roles] = {}


class _Result(_Facts):
    sha256: str | None = None
    rounds: _Whole = 0
    ended: str = ""


class _Source(_Facts):
    folder: str = ""
    command: list[str] = []
    versions: dict[str, str] = {}


class _Member(_Facts):
    client: _Whole
    name: str | None = None
    key: str | None = None


class _Run(_Source):
    kind: str | None = None
    fedarena: str = ""
    status: str = ""
    exit_status: int | None = None
    config: _Config = _Config()
    data: _Data = _Data()
    scenarios: dict[str, _Scenario] = {}
    results: dict[str, _Result] = {}
    weights_by: dict[str, str] = {}
    dp_epsilon: dict[str, _Epsilon] = {}
    service: dict[str, Any] = {}
    members: list[_Member] = []
    sources: list[_Source] = []


def check_run(run: dict[str, Any]) -> None:
    """See that nothing in a comparison's run.json is of another kind than its readers expect.

    Raises:
        UserError: one line with what is wrong.
    """
    parse_as(_Run, run)
