"""What can be checked of a configuration before anything is started."""

from task.config import RunConfig
from task.errors import UserError
from task.scenario import UnevenWork


def check_strategies(config: RunConfig) -> None:
    """See that every strategy can be made and is defined for the local training.

    Raises:
        UserError: one cannot, or is not.
    """
    if config.training.steps and any(scenario.find(UnevenWork) for scenario in config.scenarios):
        raise UserError("uneven-work counts local epochs, which --steps takes the place of; leave out --steps")
    from strategies.base import Shell
    from strategies.specify import make_strategy

    for name in config.strategies:
        strategy = make_strategy(name)
        if not isinstance(strategy, Shell):
            continue
        if reason := strategy.undefined_for(config.training):
            raise UserError(f"{name} is not defined for {reason}, or leave {name} out")
        if config.init == "independent" and strategy.subtracts:
            raise UserError(
                f"{name} is not defined for --init independent: it subtracts a common start, which round 1 does "
                f"not have; choose --strategies without {name}"
            )
