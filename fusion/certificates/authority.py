"""A private certificate authority: keys and certificates for the two sides of TLS.

Needs the `cryptography` package, which nothing else of the runner does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..base.files import PRIVATE, read_bytes, write_bytes
from ..base.program import UserError

AUTHORITY_DAYS = 3650
_CLOCK_SKEW = timedelta(days=1)
_LONGEST_COMMON_NAME = 64
# All that a certificate has to say yes or no to.
_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True)
class Subject:
    """What a certificate says.

    Attributes:
      title: whose it is, for people; programs go by the names.
      names: DNS names and IP addresses that a server with it is called by; empty for a mere client.
      client: whether it can be shown to servers that ask for one.
    """

    title: str
    names: tuple[str, ...]
    client: bool

    def alternatives(self) -> list[x509.GeneralName]:
        """The names as a certificate holds them."""
        return [_general_name(name) for name in self.names]

    def usages(self) -> list[x509.ObjectIdentifier]:
        """What the certificate is good for."""
        server = [ExtendedKeyUsageOID.SERVER_AUTH] if self.names else []
        return server + ([ExtendedKeyUsageOID.CLIENT_AUTH] if self.client else [])


class Authority:
    """The authority of a folder: `ca.pem`, which all sides may have, and `ca_key.pem`, which nobody else may.

    Args:
      folder: where its files are; there if both are missing, the authority is made, for ten years.
      now: the time, with its zone.

    Attributes:
      pem: its certificate.
      until: when it ends.

    Keys are of the curve P-256. Raises `UserError` where its files cannot be read or written or do not belong together,
    and where it has ended. Extensions are those of RFC 5280.
    """

    def __init__(self, folder: Path, now: datetime) -> None:
        self._now = now
        cert_path, key_path = folder / "ca.pem", folder / "ca_key.pem"
        if cert_path.exists():
            self._certificate, self._key = _load(cert_path, key_path)
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._certificate = self._root()
            # The key first: a certificate without one would be of no use.
            write_bytes(key_path, _pem_of(self._key), PRIVATE)
            write_bytes(cert_path, self._certificate.public_bytes(serialization.Encoding.PEM))
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        self.until = self._certificate.not_valid_after_utc
        begin = self._certificate.not_valid_before_utc
        if not begin <= now < self.until:
            raise UserError(
                f"the authority {str(cert_path)!r} is valid from {begin:%Y-%m-%d} to {self.until:%Y-%m-%d}, and the "
                f"clock of this machine says {now:%Y-%m-%d}; legal: a new --target, with an authority of its own."
            )

    def issue(self, subject: Subject, days: int) -> tuple[bytes, bytes]:
        """A new (certificate, private key) as PEM, valid for `days`, but no longer than the authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(self._now + timedelta(days=days), self.until)
        builder = self._builder(subject.title, key.public_key(), until)
        builder = builder.add_extension(x509.ExtendedKeyUsage(subject.usages()), critical=False)
        if subject.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(subject.alternatives()), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False).issuer_name(self._certificate.subject)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM), _pem_of(key)

    def reason_to_renew(self, cert_path: Path, key_path: Path, subject: Subject) -> str | None:
        """Why a subject's certificate and key have to be made, in a few words; None where they can stay."""
        if not cert_path.exists() and not key_path.exists():
            return "new"
        try:
            certificate, _ = _load(cert_path, key_path)
            certificate.verify_directly_issued_by(self._certificate)
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (UserError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return "new, as the old one could not be used"
        if names_of(certificate) != _as_text(subject.alternatives()) or set(usages) != set(subject.usages()):
            return "new, as its names have changed"
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if end <= self._now:
            return "new, as the old one had expired"
        if end - self._now < (end - begin) / 4 and end < self.until:
            return "new, as the old one was about to expire"
        return None

    def _root(self) -> x509.Certificate:
        title = f"Fusion cluster authority of {self._now:%Y-%m-%d}"
        until = self._now + timedelta(days=AUTHORITY_DAYS)
        builder = self._builder(title, self._key.public_key(), until, authority=True)
        return builder.issuer_name(_x509_name(title)).sign(self._key, hashes.SHA256())

    def _builder(
        self, title: str, key: ec.EllipticCurvePublicKey, until: datetime, authority: bool = False
    ) -> x509.CertificateBuilder:
        """What all certificates have; begins a day early, for boards whose clocks are slow."""
        builder = x509.CertificateBuilder(subject_name=_x509_name(title), public_key=key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(self._now - _CLOCK_SKEW).not_valid_after(until)
        constraints = x509.BasicConstraints(ca=authority, path_length=0 if authority else None)
        uses = ("key_cert_sign", "crl_sign") if authority else ("digital_signature",)
        usage = x509.KeyUsage(**{use: use in uses for use in _USES})
        builder = builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def read(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises `UserError` where there is none."""
    data = read_bytes(path, "certificate")
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise UserError(f"file {str(path)!r} holds no PEM certificate.") from error


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and addresses that a certificate is for."""
    try:
        return _as_text(list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value))
    except x509.ExtensionNotFound:
        return []


def _as_text(names: Sequence[x509.GeneralName]) -> list[str]:
    return [str(name.value) for name in names]


def _load(cert_path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, data = read(cert_path), read_bytes(key_path, "private key")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise UserError(f"file {str(key_path)!r} holds no unencrypted PEM private key.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise UserError(f"private key {str(key_path)!r} is not that of certificate {str(cert_path)!r}.")
    return certificate, key


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _x509_name(title: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title[:_LONGEST_COMMON_NAME])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        # The zone of a link-local address is a matter of the caller's own machine.
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii").lower())
