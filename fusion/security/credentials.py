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

from ..base.files import is_handed_pipe, read_text
from ..base.program import UserError


@dataclass(frozen=True)
class Credentials:
    """What one side of a connection shows and trusts; every field is a file name or None.

    Attributes:
      token_file: a text file with the bearer token, 16 or more printable characters without spaces; or a pipe that the
        shell has handed over, `<(...)`, which is read once for as long as the process lives.
      tls_ca: PEM certificates that the other side's certificate must come from.
      tls_cert: this side's PEM certificate.
      tls_key: its private key, unencrypted PEM.
    """

    token_file: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def token(self) -> str | None:
        """The token, or None without a token file. Raises `UserError` on an unreadable or unfit file."""
        if self.token_file is None:
            return None
        token = _token_text(self.token_file).strip()
        if not token.isascii():
            raise UserError(f"token file {self.token_file!r} is not ASCII text.")
        warn_if_open(self.token_file)
        if len(token) < 16 or not token.isprintable() or " " in token:
            raise UserError(
                f"token file {self.token_file!r} holds {len(token)} characters; "
                "legal: 16 or more printable ones without spaces."
            )
        return token

    def server_context(self) -> ssl.SSLContext | None:
        """TLS 1.2 or newer for listening, asking clients for a certificate (mutual TLS) if there is a `tls_ca`.

        Returns None without TLS. Raises `UserError` on a key without a certificate, and on files that cannot be used.
        """
        if self.tls_cert is None and self.tls_key is None and self.tls_ca is None:
            return None
        context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), needs_certificate=True)
        if self.tls_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer for calling https: the server's certificate and name are always checked, against `tls_ca` or
        else the system's authorities. Raises `UserError` as `server_context` does."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.tls_ca is None:
            context.load_default_certs()
        return self._load(context, needs_certificate=False)

    def to_call(self, url: str) -> tuple[ssl.SSLContext | None, dict[str, str]]:
        """What a client of this address needs: the TLS of an https one, and the HTTP fields that show the token.
        Raises `UserError` as `client_context` and `token` do."""
        context, token = self.client_context() if url.startswith("https") else None, self.token()
        return context, {} if token is None else {"Authorization": f"Bearer {token}"}

    def _load(self, context: ssl.SSLContext, needs_certificate: bool) -> ssl.SSLContext:
        names = [name for name in (self.tls_cert, self.tls_key) if name is not None]
        if len(names) == 1 or (needs_certificate and not names):
            raise UserError("TLS needs both tls_cert and tls_key; one of them is missing.")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for name in names if self.tls_ca is None else (self.tls_ca, *names):
            _check_readable(name)
        if self.tls_ca is not None:
            _trust(context, self.tls_ca)
        if names:
            warn_if_open(names[1])
            _show(context, *names)
        return context


def _token_text(name: str) -> str:
    """What a token file holds. Raises `UserError` where it cannot be read, or where that might wait for ever."""
    return _piped(name) if is_handed_pipe(name, "token file") else read_text(Path(name), "token file")


@functools.cache
def _piped(name: str) -> str:
    """What came through a pipe of this process, which can be read but once."""
    return read_text(Path(name), "token file")


@functools.cache
def warn_if_open(name: str) -> None:
    """Says, once per file, on standard error that every user of this machine can read or change it.

    Its group may: a service often runs as a user of its own, that reads a file of root's by its group.
    """
    try:
        mode = os.stat(name).st_mode if os.name == "posix" else 0
    except OSError:
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        text = f"file {name!r} is secret, and every user of this machine can read it (mode {stat.S_IMODE(mode):04o})"
        print(f"warning: {text}; legal: chmod 600.", file=sys.stderr, flush=True)


def _check_readable(name: str) -> None:
    try:
        if not Path(name).is_file():
            raise UserError(f"TLS file {name!r} does not exist.")
        open(name, "rb").close()
    except OSError as error:
        raise UserError(f"TLS file {name!r} cannot be read: {error.strerror}.") from error


def _trust(context: ssl.SSLContext, name: str) -> None:
    """Adds the authorities of a file to those the other side's certificate may come from."""
    try:
        context.load_verify_locations(name)
    except ssl.SSLError as error:
        raise UserError(f"TLS file {name!r} holds no PEM certificate.") from error
    if not context.get_ca_certs():
        raise UserError(
            f"TLS file {name!r} holds a certificate, but of no authority; legal: as tls_ca, that of the authority "
            "which signed the other side's."
        )


def _show(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Shows a certificate to the other side, by its private key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except (ssl.SSLError, ValueError) as error:
        raise UserError(f"TLS file {cert!r} holds no PEM certificate.") from error
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UserError(f"private key {key!r} is not that of certificate {cert!r}; legal: its own.") from error
        if error.reason is not None:
            raise UserError(f"certificate {cert!r} with key {key!r} cannot be used: {error.reason}.") from error
        raise UserError(f"TLS file {key!r} holds no PEM private key.") from error
    except ValueError as error:
        raise UserError(f"private key {key!r} cannot be used: {error}.") from error


def _no_password() -> str:
    # Without this OpenSSL would stop and ask at the terminal.
    raise ValueError("it is encrypted; legal: an unencrypted one")


def unauthorized(credentials: Credentials, legal: str) -> str:
    """What a server means that answers 401 to these credentials; `legal` is where the token is named."""
    if credentials.token_file is None:
        return f"it answered 401, asking for a token; legal: {legal}"
    return f"it answered 401, refusing the token in {credentials.token_file!r}; legal: its own in {legal}"


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
