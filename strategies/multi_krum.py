"""Multi-Krum: the mean of the clients with the closest neighbours (Blanchard et al. 2017, arXiv:1703.02757)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from strategies.base import Range, Shell
from strategies.fedavg import fedavg
from strategies.krum import ATTACKERS, Krum, best_by_krum
from strategies.robust import Whole
from task.update import Arrays, Update


def multi_krum(x: Arrays, updates: Iterable[Update], *, attackers: int = ATTACKERS, keep: int | None = None) -> Arrays:
    """(1/m) sum of the m models with the least scores of Krum, all scored once.

    Between Krum (m = 1), which trusts one client, and the mean (m = n). Scores, and what is asked of the number of
    clients, are those of `strategies.krum.krum`. With fewer updates than m, as where clients drop out of a round, all
    are kept.

    Args:
        x: the global arrays, for shapes and dtypes.
        updates: at least one; all are held at once.
        attackers: f, how many of the clients may send anything at all, >= 0.
        keep: m, >= 1; None: n - f of the n updates that are there, at least one.

    Returns:
        New arrays in the shapes and dtypes of x: the same bits as `fedavg` of those kept.

    Example:
        x_1 = [0, 0], x_2 = [1, 0], x_3 = [0, 2], x_4 = [9, 9], f = 1: the scores are 1, 1, 4, 130; [1/3, 2/3].
    """
    given = list(updates)
    kept = max(1, len(given) - attackers) if keep is None else keep
    return fedavg(x, best_by_krum(given, attackers)[:kept])


class MultiKrum(Shell):
    """Flower strategy around `multi_krum`."""

    rule = staticmethod(multi_krum)
    weights_by = "clients"
    ranges: ClassVar[Mapping[str, Range]] = {"attackers": Whole(0), "keep": Whole(1)}

    @classmethod
    def fewest(cls, options: Mapping[str, Any]) -> int:
        """As Krum, and not fewer than are to be kept."""
        return max(Krum.fewest(options), options.get("keep") or 1)
