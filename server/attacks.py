# ruff: noqa: ARG001 - all attacks have one signature
"""What attackers send instead of what they trained.

An attack is a pure function `attack(x, own, honest, random, strength) -> arrays`:

- `x`: the global arrays of the round;
- `own`: what the attacker trained honestly;
- `honest`: the models of the round's honest clients, ascending by client; empty for attacks that do not need them;
- `random`: of this attacker in this round alone;
- `strength`: one number, whose meaning is the attack's own; 1 for those that have none.

With d_i = x_i - x for the update of client i, an attack chooses the update d and sends x + d, in the shapes and dtypes
of x. It is computed in float64 and rounded once; what no longer fits a dtype becomes infinite. Integer and boolean
arrays are left as `own`. Inputs are not changed. What is sent beside the arrays stays what the attacker honestly says.

The definitions are those of the papers named at each function, in the forms of ByzFL (arXiv:2505.24802) and Blades
(arXiv:2206.05359); where these disagree, or we differ, it is said there. Both attack gradients or updates as we do.
The flipping of labels is in the data (`task.corrupt.flipped`): its attackers send what they trained.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from task.errors import UserError
from task.scenario import Byzantine
from task.update import Arrays

Function = Callable[[Arrays, Arrays, Sequence[Arrays], np.random.Generator, float], Arrays]


def sign_flip(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    """Back along the way that the attacker's own data points: d = -strength * d_own (arXiv:1811.03761).

    `scaled-sign-flip` is this with a strength, `sign-flip` with 1. ByzFL flips the mean of the honest updates instead
    (that is `ipm:strength=1`), and Blades the gradient at every local step, which is not the same as soon as there is
    more than one.
    """
    return _sent(x, own, lambda i: -strength * _delta(x[i], own[i]))


def gaussian(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    """Noise instead of an update: d ~ N(0, strength^2) in every coordinate, anew in every round (arXiv:1703.02757).

    The paper has a deviation of 200, ByzFL 1 as we do; Blades draws from N(0.1, 0.1^2).
    """
    return _sent(x, own, lambda i: strength * random.standard_normal(x[i].shape))


def same_value(
    x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float
) -> Arrays:
    """One value everywhere: d = strength in every coordinate (arXiv:1811.03761).

    There all coordinates of the message have one value, such as 100. In the authors' code for mean-like rules that
    message is a gradient, so here it is the update and not the model. ByzFL and Blades do not have it.
    """
    return _sent(x, own, lambda i: np.full(x[i].shape, strength))


def nan(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    """All values are NaN: what a broken client sends, and what one that knows no better tries (ByzFL: infinity)."""
    return _sent(x, own, lambda i: np.full(x[i].shape, np.nan))


def alie(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    """A Little Is Enough: d = mean - z * std of the honest d_i per coordinate, z = strength (arXiv:1902.06156).

    std has n - 1 below the sum for n honest clients, as in the code of ByzFL, Blades and of arXiv:2006.09365, and is 0
    for one client. All honest updates are seen, as there; in the paper attackers estimate from what they trained
    themselves. The sign is that of arXiv:2006.09365; ByzFL and Blades add z * std. z is `alie_strength`.
    """

    def update(i: int) -> np.ndarray:
        mean = _mean(_delta(x[i], one[i]) for one in honest)
        if len(honest) == 1:
            return mean
        square = _mean((_delta(x[i], one[i]) - mean) ** 2 for one in honest)
        return mean - strength * np.sqrt(square * (len(honest) / (len(honest) - 1)))

    return _sent(x, own, update)


def ipm(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    """Inner product manipulation: d = -strength * mean of the honest d_i (arXiv:1903.03936).

    As in ByzFL and Blades; strength is the paper's epsilon. Their defaults are 2 and 1; 0.5 is that of early versions
    of Blades; a small one is how the paper deceives rules that go by distances.
    """
    return _sent(x, own, lambda i: -strength * _mean(_delta(x[i], one[i]) for one in honest))


def mimic(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    """One honest client counts several times: d is its d_i (arXiv:2006.09365).

    All arrays are that client's, integers as well. It is the one with the lowest number that came in the round, so as
    a rule the same one all the time, as in ByzFL; the paper watches some rounds and then fixes the client whose updates
    go farthest along the direction of greatest variance.
    """
    return [array.copy() for array in honest[0]]


def z_max(clients: int, attackers: int) -> float:
    """The z of `alie` with which the attackers expect to find enough honest clients farther out (arXiv:1902.06156).

    Phi(z) = (n - f - s) / (n - f) with s = floor(n / 2 + 1) - f, where n counts the attackers, too (algorithm 3).
    n = 50 and f = 24 give 1.43. It is above 0 only for f > 2 of an even n and f > 1 of an odd n: with fewer, half of
    the honest clients or more would have to be farther out than the attackers.

    Args:
        clients: n, of the federation.
        attackers: f, below n.

    Raises:
        ValueError: the formula has no value: the attackers are the majority, or one of two.
    """
    supporters = clients // 2 + 1 - attackers
    share = (clients - attackers - supporters) / (clients - attackers)
    if not 0 < share < 1:
        raise ValueError(f"alie's paper defines no z where {attackers} of {clients} clients attack")
    return NormalDist().inv_cdf(share)


def alie_strength(clients: int, attackers: int) -> float:
    """`z_max`, or ByzFL's 1.5 where the paper's z is no attack: it is not above 0, or not defined."""
    with suppress(ValueError):
        if (z := z_max(clients, attackers)) > 0:
            return z
    return 1.5


@dataclass(frozen=True)
class Attack:
    """One kind of attack.

    Attributes:
        function: what is sent.
        strength: how strong where the scenario does not say; None: it has no strength.
        of_others: whether it needs the honest updates of the round.
        paper: where it comes from.
    """

    function: Function
    strength: float | Callable[[int, int], float] | None
    of_others: bool
    paper: str

    def strength_for(self, given: float | None, clients: int, attackers: int) -> float | None:
        """The strength that holds; None of an attack that has none.

        Args:
            given: by the scenario; None: the default.
            clients: of the federation, attackers among them.
            attackers: how many.

        Raises:
            ValueError: one is given that the attack does not have.
        """
        if self.strength is None:
            if given is not None:
                raise ValueError("has no strength; leave it out")
            return None
        if given is not None:
            return given
        if isinstance(self.strength, float):
            return self.strength
        return self.strength(clients, attackers)


# A mean that f of n sign-flip by s goes (n - f - s f) / n of the honest way: 10 turns it around from 1 of 10 on, and
# takes it 1.2 times the way back at 1 of 5, where 4 would just stop it.
ATTACKS: Mapping[str, Attack] = {
    "sign-flip": Attack(sign_flip, None, False, "arXiv:1811.03761"),
    "scaled-sign-flip": Attack(sign_flip, 10.0, False, "arXiv:1811.03761"),
    "gaussian": Attack(gaussian, 1.0, False, "arXiv:1703.02757"),
    "same-value": Attack(same_value, 1.0, False, "arXiv:1811.03761"),
    "nan": Attack(nan, None, False, ""),
    "alie": Attack(alie, alie_strength, True, "arXiv:1902.06156"),
    "ipm": Attack(ipm, 0.5, True, "arXiv:1903.03936"),
    "mimic": Attack(mimic, None, True, "arXiv:2006.09365"),
}
"""By name, all that change what is sent; `label-flip` changes the data."""


def strength_of(byzantine: Byzantine, clients: int, where: str) -> float | None:
    """The strength with which a scenario's attackers attack, None if the attack has none.

    Cheap, so that mistakes are found before anything starts.

    Args:
        byzantine: the scenario's part.
        clients: of the federation.
        where: the scenario's name, for the message.

    Raises:
        UserError: the attack has no strength and one is given.
    """
    attack = ATTACKS.get(byzantine.attack, _IN_THE_DATA)
    try:
        return attack.strength_for(byzantine.strength, clients, byzantine.attackers)
    except ValueError as error:
        raise UserError(f"scenario {where!r}: the attack {byzantine.attack} {error}") from None


def _honest(x: Arrays, own: Arrays, honest: Sequence[Arrays], random: np.random.Generator, strength: float) -> Arrays:
    return own


_IN_THE_DATA = Attack(_honest, None, False, "")


def _sent(x: Arrays, own: Arrays, update: Callable[[int], np.ndarray]) -> Arrays:
    """The model x + d, where update(i) is array i of d; integer arrays are own's."""
    sent = []
    with np.errstate(over="ignore", invalid="ignore"):  # the gate says what it thinks of infinities
        for i, array in enumerate(x):
            if array.dtype.kind in "iub":
                sent.append(own[i].copy())
            else:
                sent.append(np.asarray(array.astype(np.float64) + update(i)).astype(array.dtype))
    return sent


def _delta(x: np.ndarray, model: np.ndarray) -> np.ndarray:
    return np.asarray(model, np.float64) - np.asarray(x, np.float64)


def _mean(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """One by one, in the order given, so that no stack of all models is held."""
    count, total = 0, np.zeros(())
    for array in arrays:
        count, total = count + 1, total + array
    return np.asarray(total / count)
