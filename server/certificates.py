"""Certificates and keys of a federation: its authority, its server's, and the hosts that they are good for."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from task.errors import UserError
from task.identity import write_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

_CA_LIFE = timedelta(days=3652)  # ten years
_SERVER_LIFE = timedelta(days=825)  # more than that some TLS libraries refuse
_SKEW = timedelta(hours=1)  # certificates begin that much earlier, for clients whose clocks are behind
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def check_host(text: str) -> str:
    """A DNS name or IP address in the one way of writing it that certificates and comparisons use.

    Raises:
        UserError: it is neither, or an address such as 0.0.0.0 that nobody can call.
    """
    if address := as_ip(text):
        if address.is_unspecified:
            raise UserError(f"host {text} means every address of this machine; give the one that clients call")
        return str(address)
    labels = text.lower().split(".")
    if len(text) > 253 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        raise UserError(f"host {text!r} is neither a DNS name nor an IP address; give one, without port and scheme")
    return text.lower()


def as_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address that can stand in a certificate; None for anything else."""
    try:
        # A scope such as %eth0 has a meaning on one machine only, so it cannot stand in a certificate.
        return None if "%" in text else ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def read_certificate(path: Path, mend: str) -> x509.Certificate:
    """The certificate in a PEM file.

    Raises:
        UserError: it is missing or damaged; ends with `mend`, how to mend it.
    """
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        # Parsed when they are asked for, which is later than a user can be told.
        certificate.public_key(), certificate.extensions, certificate.not_valid_before_utc
        return certificate
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {mend}") from None
    except Exception:  # noqa: BLE001 - of a version, a curve, an extension that there is none of, each has its own
        raise UserError(f"{path}: is no certificate, or a damaged one; {mend}") from None


def read_key(path: Path, mend: str, *, make: bool = False) -> EllipticCurvePrivateKey:
    """The private key in a PEM file; made first where that is asked for and there is none.

    Raises:
        UserError: it is missing or damaged; ends with `mend`, how to mend it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if make and not path.exists():
            fresh = ec.generate_private_key(ec.SECP384R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(path, fresh)
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {mend}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError):  # TypeError: it wants a password
        pass
    raise UserError(f"{path}: is no private key for this federation, or a damaged one; {mend}")


def ca_certificate(key: EllipticCurvePrivateKey, now: datetime) -> bytes:
    """A self-signed certificate that may sign server certificates and nothing else; PEM."""
    from cryptography import x509

    name = _subject(f"FedArena CA {secrets.token_hex(8)}")  # so that two federations' CAs are told apart
    builder = _builder(name, name, key.public_key(), key.public_key(), now, now + _CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _sign(builder, key, key_cert_sign=True, crl_sign=True)


def server_certificate(
    ca: x509.Certificate,
    ca_key: EllipticCurvePrivateKey,
    key: EllipticCurvePublicKey,
    hosts: Sequence[str],
    now: datetime,
) -> bytes:
    """A certificate for a TLS server at these hosts, valid no longer than its CA; PEM."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    end = min(now - _SKEW + _SERVER_LIFE, ca.not_valid_after_utc)
    builder = _builder(_subject("FedArena server"), ca.subject, key, ca_key.public_key(), now, end)
    names = [x509.IPAddress(address) if (address := as_ip(host)) else x509.DNSName(host) for host in hosts]
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return _sign(builder, ca_key, digital_signature=True)


def _subject(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePublicKey,
    signer: EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    """What every certificate has: names, a random serial number, when it is valid, whose key it is and whose signs."""
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _sign(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey, **usages: bool) -> bytes:
    """Limit the certificate's key to these usages, sign it, and give it in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    none = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = builder.add_extension(x509.KeyUsage(**(none | usages)), critical=True)
    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The hosts that a certificate is good for."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
