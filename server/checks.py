"""What can be checked of a configuration before anything is started."""

from task.config import RunConfig
from task.errors import UserError


def check_strategies(config: RunConfig) -> None:
    """See that every strategy can be made and is defined for the local training.

    Raises:
        UserError: one cannot, or is not.
    """
    from strategies.specify import make_strategy, needs_local_norm

    reason = config.training.norm_undefined
    for strategy in config.strategies:
        make_strategy(strategy)
        if reason and needs_local_norm(strategy):
            raise UserError(
                f"{strategy} is not defined for {reason}: its local_norm exists for sgd, plain or with momentum; "
                f"use --optimizer sgd without --nesterov, or leave {strategy} out"
            )
        if config.init == "independent" and needs_local_norm(strategy):
            raise UserError(
                f"{strategy} is not defined for --init independent: it subtracts a common start, which round 1 does "
                f"not have; choose --strategies without {strategy}"
            )
