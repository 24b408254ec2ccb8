"""Strategies that remember something between rounds: a pure function again, and a shell that keeps what it returns."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from strategies.base import Rule, Shell
from task.update import Arrays, Memory, Update

Step = Callable[..., tuple[Arrays, Memory]]


class MemoryShell(Shell):
    """A Flower strategy around a rule that remembers: `step(x, updates, memory, *, options) -> (new x, new memory)`.

    The step is pure: it changes neither x nor updates nor memory, which is empty before the first round. What it needs
    of the past is in the memory alone, whose arrays a checkpoint keeps to the bit in their own dtypes; so a resumed run
    comes to the bits of one that was never stopped. `rule` is its first step, for one aggregation offline.
    """

    step: ClassVar[Step]
    subtracts = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.rule = staticmethod(_first(cls.step))

    def _apply(self, updates: Iterable[Update]) -> tuple[Arrays, Memory]:
        return type(self).step(self._global, updates, self.memory, **self._step_options())

    def _step_options(self) -> dict[str, Any]:
        return self.options


def _first(step: Step) -> Rule:
    """The first step as a rule, with the options of the step."""

    def rule(x: Arrays, updates: Iterable[Update], **options: Any) -> Arrays:
        return step(x, updates, {}, **options)[0]

    signature = inspect.signature(step)
    rule.__doc__ = getattr(step, "func", step).__doc__
    rule.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p for p in signature.parameters.values() if p.name != "memory"], return_annotation=Arrays
    )
    return rule
