"""What several seeds show: paired differences, rounds to a target, diverged runs; see docs/statistics.md."""
