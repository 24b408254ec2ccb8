"""What both sides ask of a host's address."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it.

    Args:
        host: a name or an IP address, without port; an IPv6 address may be in brackets.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
