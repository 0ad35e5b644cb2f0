"""Bearer tokens and TLS, for the side that listens and for the side that calls."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from .program import UserError


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
        if len(token) < 16 or not token.isprintable() or " " in token:
            raise UserError(
                f"token file {self.token_file!r} holds {len(token)} characters; "
                "legal: 16 or more printable ones without spaces."
            )
        return token

    def server_context(self) -> ssl.SSLContext | None:
        """TLS 1.2 or newer for listening, asking clients for a certificate (mutual TLS) if there is
        a `tls_ca`.

        Returns None without TLS. Raises `UserError` on a key without a certificate and on
        unreadable files.
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
            if name is not None and not Path(name).is_file():
                raise UserError(f"TLS file {name!r} does not exist.")
        try:
            if self.tls_ca is not None:
                context.load_verify_locations(self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key, password=_no_password)
        except (OSError, ValueError) as error:
            files = ", ".join(repr(n) for n in (self.tls_ca, self.tls_cert, self.tls_key) if n)
            raise UserError(f"TLS files {files} cannot be used: {error}.") from error
        return context


def _no_password() -> str:
    # Without this OpenSSL would stop and ask at the terminal.
    raise ValueError("the private key is encrypted; legal: an unencrypted one")
