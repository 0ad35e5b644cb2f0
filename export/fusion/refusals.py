"""Why TLS with a server failed, in words that name what to mend."""

from __future__ import annotations

import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from .own_certificate import clock
from .program import UserError
from .security import Credentials

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
    """Why TLS with a server failed: the middle of a sentence about the server; None where `error` is not of TLS.

    Args:
      error: what was raised, also where an `ssl.SSLError` is but its cause.
      url: the server's https address.
      credentials: what was shown to it and trusted.
      timeout_s: the most that asking a server for its names may take, in seconds. That is a second connection, made
        where its certificate is for others than the one in `url`, and nothing is sent over it.

    Source: ours.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return None if cause is None else _REASONS.get(str(cause.reason))
    message = cause.verify_message.rstrip(".")
    if cause.verify_code in (_NOT_YET_VALID, _EXPIRED):
        message += f", and {clock()}"
    if cause.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        host = urlsplit(url).hostname
        message = f"it is for {_names(url, credentials, timeout_s)} and not for {host!r}"
    return f"its certificate is refused: {message}"


def _names(url: str, credentials: Credentials, timeout_s: float) -> str:
    """The names that a server's certificate is for, if it comes from an authority that is trusted."""
    parts = urlsplit(url)
    try:
        context = credentials.client_context()
        context.check_hostname = False
        with (
            socket.create_connection((parts.hostname, parts.port or 443), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
        ):
            certificate = secured.getpeercert() or {}
    except (OSError, ValueError, UserError):
        return "another name"
    alternatives: Any = certificate.get("subjectAltName", ())
    names = [value for _, value in alternatives]
    return ", ".join(repr(name) for name in names) or "no name"
