"""The coordinate-wise trimmed mean (Yin et al. 2018, arXiv:1803.01498, definition 2)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from strategies.base import Range, Shell
from strategies.fedavg import fedavg
from strategies.kernels import trimmed_mean as trimmed
from strategies.robust import Whole
from task.update import Arrays, Update

TRIM = 1


def trimmed_mean(x: Arrays, updates: Iterable[Update], *, trim: int = TRIM) -> Arrays:
    """Per coordinate the mean of what is left without the `trim` smallest and the `trim` largest values.

    Whatever up to `trim` attackers send, each value of the result lies between values of others. With fewer than
    2 trim + 1 updates, as where clients drop out of a round, as many are trimmed as leave one (or two): the median.

    Args:
        x: the global arrays, for shapes and dtypes.
        updates: at least one, each with the same say; all are held at once.
        trim: how many at each side of each coordinate, >= 0; the paper's beta times the number of clients.

    Returns:
        New arrays in the shapes and dtypes of x, each value rounded once from the exact mean of those kept. trim = 0:
        the same bits as `fedavg`. One or two left: the same bits as `fedmedian`.

    Example:
        x_1 = [2, 1], x_2 = [1, 4], x_3 = [9, 2], x_4 = [3, 8], trim = 1: [2.5, 3].
    """
    given = list(updates)
    fitting = min(trim, (len(given) - 1) // 2)
    if fitting == 0:
        return fedavg(x, given)
    return [trimmed([update.arrays[i] for update in given], fitting) for i in range(len(x))]


class TrimmedMean(Shell):
    """Flower strategy around `trimmed_mean`."""

    rule = staticmethod(trimmed_mean)
    weights_by = "clients"
    ranges: ClassVar[Mapping[str, Range]] = {"trim": Whole(0)}

    @classmethod
    def fewest(cls, options: Mapping[str, Any]) -> int:
        """One more than are cut off."""
        return 2 * int(options.get("trim", TRIM)) + 1
