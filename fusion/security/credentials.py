"""Bearer tokens and TLS, for the side that listens and for the side that calls."""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from ..base.program import UserError
from . import own_certificate


@dataclass(frozen=True)
class Credentials:
    """What one side of a connection shows and trusts; every field is a file name or None.

    Attributes:
      token_file: a text file with the bearer token, 16 or more printable characters without spaces.
      tls_ca: PEM certificates that the other side's certificate must come from.
      tls_cert: this side's PEM certificate.
      tls_key: its private key, unencrypted PEM.
    """

    token_file: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def token(self) -> str | None:
        """The token, or None without a token file. Raises `UserError` on an unreadable or unfit
        file."""
        if self.token_file is None:
            return None
        try:
            token = Path(self.token_file).read_text(encoding="ascii").strip()
        except OSError as error:
            raise UserError(f"token file {self.token_file!r} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"token file {self.token_file!r} is not ASCII text.") from error
        warn_if_open(self.token_file)
        if len(token) < 16 or not token.isprintable() or " " in token:
            raise UserError(
                f"token file {self.token_file!r} holds {len(token)} characters; "
                "legal: 16 or more printable ones without spaces."
            )
        return token

    def server_context(self) -> ssl.SSLContext | None:
        """TLS 1.2 or newer for listening, asking clients for a certificate (mutual TLS) if there is
        a `tls_ca`.

        Returns None without TLS. Raises `UserError` on a key without a certificate, on files that cannot be used, and
        on a certificate that is not valid now or not for a server.
        """
        if self.tls_cert is None and self.tls_key is None and self.tls_ca is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise UserError("TLS needs both tls_cert and tls_key; one of them is missing.")
        context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        if self.tls_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer for calling https: the server's certificate and name are always checked,
        against `tls_ca` or else the system's authorities. Raises `UserError` as `server_context`
        does."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UserError("TLS needs both tls_cert and tls_key; one of them is missing.")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.tls_ca is None:
            context.load_default_certs()
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for name in (self.tls_ca, self.tls_cert, self.tls_key):
            if name is not None:
                _check_readable(name)
        if self.tls_ca is not None:
            _trust(context, self.tls_ca)
        if self.tls_cert is not None and self.tls_key is not None:
            warn_if_open(self.tls_key)
            own_certificate.load(context, self.tls_cert, self.tls_key)
        return context


@functools.cache
def warn_if_open(name: str) -> None:
    """Says, once per file, on standard error that every user of this machine can read or change it.

    Its group may: a service often runs as a user of its own, that reads a file of root's by its group.
    """
    if os.name != "posix":
        return
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        print(
            f"warning: file {name!r} is secret, and every user of this machine can read it (mode "
            f"{stat.S_IMODE(mode):04o}); legal: chmod 600.",
            file=sys.stderr,
            flush=True,
        )


def _check_readable(name: str) -> None:
    try:
        if not Path(name).is_file():
            raise UserError(f"TLS file {name!r} does not exist.")
        with open(name, "rb"):
            return
    except OSError as error:
        raise UserError(f"TLS file {name!r} cannot be read: {error.strerror}.") from error


def _trust(context: ssl.SSLContext, name: str) -> None:
    """Adds the authorities of a file to those the other side's certificate may come from."""
    try:
        context.load_verify_locations(name)
    except ssl.SSLError as error:
        raise UserError(f"TLS file {name!r} holds no PEM certificate.") from error
    authorities = context.get_ca_certs()
    if not authorities:
        raise UserError(
            f"TLS file {name!r} holds a certificate, but of no authority; legal: as tls_ca, that of the authority "
            "which signed the other side's."
        )
    reasons = [own_certificate.untimely(authority) for authority in authorities]
    if all(reasons):
        raise UserError(f"the authority in {name!r} {reasons[0]}; legal: one that is valid now.")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
