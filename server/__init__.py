"""The aggregating side: rounds, evaluation, results."""
