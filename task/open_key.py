"""The keys of clients that nobody authenticates: known to all, so that a client that starts anew is the same node."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def open_key(client: int) -> "EllipticCurvePrivateKey":
    """The key of a client without an identity. It protects nothing; it only gives the client a lasting name.

    Args:
        client: the client's number.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = int.from_bytes(hashlib.sha384(f"fedarena open client {client}".encode()).digest(), "big")
    return ec.derive_private_key(secret >> 1 | 1, ec.SECP384R1())  # below the curve's order, never zero
