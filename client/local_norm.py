"""FedNova's a_i: the L1 norm of the weights with which local gradients enter x - x_i."""


def local_norm(steps: int, momentum: float = 0.0, learning_rate: float = 0.0, proximal_mu: float = 0.0) -> float | None:
    """The norm after `steps` local steps (Wang et al. 2020, arXiv:2007.07481, section 3 and appendix).

    Args:
        steps: tau, local steps of this round, >= 1.
        momentum: rho of SGD's momentum, its buffer zeroed at the start of the round; 0 <= rho < 1.
        learning_rate: eta; only the proximal case needs it.
        proximal_mu: mu of FedProx's term (mu / 2) |x_i - x|^2; 0: none.

    Returns:
        tau for plain SGD; [tau - rho (1 - rho^tau) / (1 - rho)] / (1 - rho) with momentum;
        [1 - (1 - eta mu)^tau] / (eta mu) with the proximal term; None for both at once, which the paper leaves open.

    Example:
        rho = 0.9, tau = 3: 5.61. eta mu = 0.05, tau = 3: 2.8525.
    """
    if momentum and proximal_mu:
        return None
    if momentum:
        return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
    if proximal_mu:
        shrink = learning_rate * proximal_mu
        return (1 - (1 - shrink) ** steps) / shrink
    return float(steps)
