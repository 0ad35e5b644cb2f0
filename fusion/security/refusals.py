"""Why a server turns its caller down, by TLS or for want of a token, in words that name what to mend."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ..base.program import UserError
from .credentials import Credentials
from .own_certificate import clock

_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate and was shown none; legal: tls_cert and tls_key",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of the certificate shown to it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate shown to it has expired, by its clock",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses the certificate shown to it",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the certificate shown to it is not for clients",
    "WRONG_VERSION_NUMBER": "it does not speak TLS; legal: an http:// address, or TLS there",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS of version 1.2 or newer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS of version 1.2 or newer",
}


def why(error: BaseException, url: str, credentials: Credentials, timeout_s: float) -> str | None:
    """Why TLS with a server failed: the middle of a sentence about the server; None where TLS is not the reason.

    Args:
      error: what was raised, also where an `ssl.SSLError` is but its cause.
      url: the server's https address.
      credentials: what was shown to it and trusted.
      timeout_s: the most that connecting to the server once more may take, in seconds, and then waiting for what it
        does. That is done where the error alone does not say which names the server's certificate is for, or whether
        the server turns down everyone who comes like this. Nothing is sent over that connection.

    Blocks; not for where a request waits.
    """
    cause = None
    link: BaseException | None = error
    while link is not None:
        # The innermost is what `ssl` itself raised.
        if isinstance(link, ssl.SSLError):
            cause = link
        link = link.__cause__ or link.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {_certificate(cause, url, credentials, timeout_s)}"
    if cause is not None and cause.reason in _REASONS:
        return _REASONS[cause.reason]
    return _turned_down(url, credentials, timeout_s)


def wants_tls(url: str, timeout_s: float) -> str | None:
    """Why a server at an http address closes the connection, as `why`: that it speaks TLS; None where it does not.

    Blocks, for `timeout_s` at most to connect and again for the handshake; nothing else is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It is told nothing and believed nothing, so it may be anyone.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    parts = urlsplit(url)
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 80), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            pass
    except ssl.SSLError as error:
        # One that answers in TLS that it does not like this caller.
        if "ALERT" not in (error.reason or ""):
            return None
    except (OSError, ValueError):
        return None
    return "it speaks TLS; legal: an https:// address"


def unauthorized(credentials: Credentials, legal: str) -> str:
    """What a server means that answers 401 to these credentials, as `why`; `legal` is where the token is named."""
    if credentials.token_file is None:
        return f"it answered 401, asking for a token; legal: {legal}"
    return f"it answered 401, refusing the token in {credentials.token_file!r}; legal: its own in {legal}"


def _certificate(error: ssl.SSLCertVerificationError, url: str, credentials: Credentials, timeout_s: float) -> str:
    message = error.verify_message.rstrip(".")
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return f"{message}, and {clock()}"
    if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        return f"it is for {_names(url, credentials, timeout_s)} and not for {urlsplit(url).hostname!r}"
    return message


def _names(url: str, credentials: Credentials, timeout_s: float) -> str:
    """The names that a server's certificate is for, if it comes from an authority that is trusted."""
    try:
        with _connection(url, credentials, timeout_s) as secured:
            alternatives: Any = (secured.getpeercert() or {}).get("subjectAltName", ())
    except (OSError, ValueError, UserError):
        return "another name"
    return ", ".join(repr(name) for _, name in alternatives) or "no name"


def _turned_down(url: str, credentials: Credentials, timeout_s: float) -> str | None:
    """What a server has against the certificate shown to it; None where it waits for a request, or is not there.

    A server written in Python only closes the connection, and of TLS 1.3 after the handshake.
    """
    try:
        with _connection(url, credentials, timeout_s) as secured:
            if secured.recv(1):
                return None
    except ssl.SSLCertVerificationError:
        return None
    except ssl.SSLError as error:
        if error.reason in _REASONS:
            return _REASONS[error.reason]
        if not isinstance(error, ssl.SSLEOFError):
            return None
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        pass
    except (OSError, ValueError, UserError):
        return None
    if credentials.tls_cert is None:
        return "it turns down callers that show no certificate; legal: tls_cert and tls_key"
    return (
        f"it turns down callers that show certificate {credentials.tls_cert!r}; legal: one of an authority that it "
        "trusts, valid by its clock"
    )


@contextlib.contextmanager
def _connection(url: str, credentials: Credentials, timeout_s: float) -> Iterator[ssl.SSLSocket]:
    """A connection whose server has to be of a trusted authority, but may have any name."""
    parts = urlsplit(url)
    context = credentials.client_context()
    context.check_hostname = False
    with (
        socket.create_connection((parts.hostname, parts.port or 443), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
    ):
        yield secured
