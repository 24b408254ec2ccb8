"""Who a client is: one file that holds its name, its shard's number, its private key and whom it trusts.

The key is Flower's own scheme for SuperNodes: an elliptic curve SECP384R1 (flwr/supercore/primitives/asymmetric.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from task.errors import UserError, quoted
from task.jsontext import read_object

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

SUFFIX = ".identity"

_MARK = "fedarena-identity"  # the key of the format's number, which also tells the file from any other JSON
_FORMAT = 1
_LARGEST = 1 << 20  # bytes; who gives a shard by mistake does not wait for it


@dataclass(frozen=True)
class Identity:
    """A member of a federation, as its own machine knows it.

    Attributes:
        name: what people call it; unique in its federation.
        client: the number of the shard that it may hold, from 0.
        server: where its server listens, as HOST:PORT with an IPv6 address in brackets; None if that is told elsewhere.
        ca: the certificate, in PEM, that the server's must be signed by.
        private_key: in OpenSSH's PEM, as `flower-supernode --auth-supernode-private-key` reads it too.
    """

    name: str
    client: int
    server: str | None
    ca: bytes = field(repr=False)
    private_key: bytes = field(repr=False)

    @classmethod
    def new(cls, name: str, client: int, server: str | None, ca: bytes) -> Identity:
        """An identity with a fresh key."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        return cls(name, client, server, ca, key)

    @classmethod
    def read(cls, path: Path | str) -> Identity:
        """The identity in a file.

        Raises:
            UserError: the file is missing, cannot be read, is no identity or a damaged one, is open to other users of
                the machine, or trusts a CA certificate that has expired.
        """
        try:
            with Path(path).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode  # of the file that is read, whatever the path means by now
                content = file.read(_LARGEST)
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such file; give the {SUFFIX} file that `python -m server enroll` made"
            ) from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}; check path and permissions") from None
        identity, expiry = _parse(path, content)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"{path}: holds a private key and is open to other users; close it: chmod 600 {path}")
        if expiry <= datetime.now(UTC):
            raise UserError(
                f"{path}: its federation's CA certificate expired on {expiry:%Y-%m-%d}; ask whoever runs the server for"
                " a new identity"
            )
        return identity

    def write(self, path: Path) -> None:
        """Write the file, for its owner's eyes only.

        Raises:
            UserError: there is a file already; it is left alone.
            OSError: the folder cannot be written.
        """
        content = {
            _MARK: _FORMAT,
            "name": self.name,
            "client": self.client,
            "server": self.server,
            "ca": self.ca.decode("ascii"),
            "private_key": self.private_key.decode("ascii"),
        }
        write_private(path, (json.dumps(content, indent=1) + "\n").encode())

    def key(self) -> EllipticCurvePrivateKey:
        """The private key, to sign with.

        Raises:
            ValueError: it is damaged or of another kind; never for an identity that was read from a file.
        """
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        key = load_ssh_private_key(self.private_key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
            raise ValueError("not a private key on the curve SECP384R1")
        return key

    def public_key(self) -> bytes:
        """The public key as the server's roster and Flower's SuperLink know it."""
        return public_key_to_bytes(self.key().public_key())


def public_key_to_bytes(key: EllipticCurvePublicKey) -> bytes:
    """A public key in PEM, byte for byte what Flower's function of this name gives, without importing Flower."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key_bytes: bytes) -> str:
    """What people compare to know that two keys are one: 64 bits of its SHA-256, as `3f:00:...` (23 characters)."""
    return hashlib.sha256(public_key_bytes).digest()[:8].hex(":")


def write_private(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 that appears whole or not at all, also when the machine stops.

    Raises:
        UserError: there is a file already; it is left alone.
        OSError: the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(part)  # unlike a rename it refuses to replace
    except FileExistsError:
        raise UserError(f"{path}: is there already and is not overwritten; move it away or choose another") from None
    finally:
        part.unlink(missing_ok=True)


def _parse(path: Path | str, content: bytes) -> tuple[Identity, datetime]:
    """What a file holds, and until when its CA certificate is valid."""
    try:
        values = read_object(content)
        if _MARK not in values:
            raise ValueError("no identity")
    except ValueError:
        raise UserError(
            f"{path}: not an identity, or a damaged one; give the {SUFFIX} file that `python -m server enroll` made"
        ) from None
    if values[_MARK] != _FORMAT:
        raise UserError(
            f"{path}: is of format {quoted(values[_MARK])}, and this FedArena reads format {_FORMAT}; "
            "use the server's version"
        )
    from cryptography import x509

    try:
        name, client, server = values["name"], values["client"], values["server"]
        ca, private_key = values["ca"].encode("ascii"), values["private_key"].encode("ascii")
        if not isinstance(name, str) or type(client) is not int or client < 0 or not isinstance(server, str | None):
            raise ValueError("a value of the wrong kind")
        identity = Identity(name, client, server, ca, private_key)
        identity.key()
        return identity, x509.load_pem_x509_certificate(ca).not_valid_after_utc
    except Exception:  # noqa: BLE001 - of keys and certificates that there are none of, each has its own
        raise UserError(f"{path}: is a damaged identity; copy it from the server's machine again") from None
