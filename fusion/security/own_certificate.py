"""This side's own certificate: loaded, and looked at as the other side will, so that what is wrong is said at the start
and not by a handshake that fails at the other side."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any

from ..base.program import UserError

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for.
_NO_CHECK_TIME = 0x200000
# A handshake needs three turns of each side.
_MOST_TURNS = 10


def load(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Loads a certificate and its private key, PEM files, into the context of a server or a client.

    Raises `UserError` when they cannot be used or do not belong together, when the key is encrypted, and when the
    certificate has expired, is not valid yet, or is not for this side.
    """
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        scratch.load_verify_locations(cert)
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
    is_server = context.protocol == ssl.PROTOCOL_TLS_SERVER
    try:
        shown = _shown(cert, key, is_server)
    except ssl.SSLCertVerificationError as error:
        side = "server" if is_server else "client"
        raise UserError(f"certificate {cert!r} is not fit for a {side}: {error.verify_message}.") from error
    except ssl.SSLError as error:
        raise UserError(f"certificate {cert!r} with key {key!r} cannot be used: {error.reason or error}.") from error
    wrong = untimely(shown)
    if wrong is not None:
        raise UserError(f"certificate {cert!r} {wrong}; legal: one that is valid now.")


def untimely(certificate: Mapping[str, Any]) -> str | None:
    """Why a certificate, as `ssl` describes it, is not valid now: the end of a sentence about it; None where it is."""
    begin, end = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    now = time.time()
    if now < begin:
        return f"is not valid before {_utc(begin)}, and {clock()}"
    if now > end:
        return f"expired at {_utc(end)}, and {clock()}"
    return None


def clock() -> str:
    """What this machine takes the time for: boards without a battery often start with an old one."""
    return f"the clock of this machine says {_utc(time.time())}"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _shown(cert: str, key: str, is_server: bool) -> Mapping[str, Any]:
    """The certificate as the other side sees it: a handshake with ourselves, in memory, whatever the time is."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    ours, theirs = (server, client) if is_server else (client, server)
    ours.verify_mode, theirs.verify_mode = ssl.CERT_NONE, ssl.CERT_REQUIRED
    for context in (server, client):
        context.load_cert_chain(cert, key, password=_no_password)
    theirs.load_verify_locations(cert)
    theirs.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        server: server.wrap_bio(to_server, to_client, server_side=True),
        client: client.wrap_bio(to_client, to_server),
    }
    for _ in range(_MOST_TURNS):
        for context in (client, server):
            try:
                sides[context].do_handshake()
            except ssl.SSLWantReadError:
                continue
    return sides[theirs].getpeercert() or {}


def _no_password() -> str:
    # Without this OpenSSL would stop and ask at the terminal.
    raise ValueError("it is encrypted; legal: an unencrypted one")
