"""What is wrong with this side's own files is said before the start, in one sentence."""

import os
import re
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from fusion.base.program import UserError
from fusion.security import credentials as security
from fusion.security.credentials import Credentials
from tests.fusion.tls import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def both(certificates):
    """A certificate for either side."""
    return certificates.issue("192.0.2.1", client=True)


@pytest.fixture(params=["server_context", "client_context"])
def side(request):
    """Makes the context of a server, then that of a client."""
    return lambda credentials: getattr(credentials, request.param)()


def refusal(side, *files):
    with pytest.raises(UserError) as raised:
        side(Credentials(None, *(name and str(name) for name in files)))
    return str(raised.value)


def test_good_ones(side, both):
    context = side(both)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_for_the_other_side(certificates):
    server, client = certificates.issue("192.0.2.1"), certificates.issue(client=True)
    assert server.server_context() and client.client_context()
    with pytest.raises(UserError, match="is not fit for a client: unsuitable certificate purpose"):
        server.client_context()
    with pytest.raises(UserError, match="is not fit for a server: unsuitable certificate purpose"):
        client.server_context()


@pytest.mark.parametrize(("shift_days", "said"), [(-2, "is not valid before"), (31, "expired at")])
def test_clocks(side, both, monkeypatch, shift_days, said):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + shift_days * 86400)
    found = refusal(side, None, both.tls_cert, both.tls_key)
    edge, clock = (
        time.strftime("%Y-%m-%d", time.gmtime(now + days * 86400))
        for days in (-1 if shift_days < 0 else 30, shift_days)
    )
    pattern = rf"certificate '{both.tls_cert}' {said} {edge} ..:.. UTC, and the clock of this machine says {clock} "
    assert re.match(pattern, found) and found.endswith("UTC; legal: one that is valid now.")


def test_authority_that_has_ended(side, both, tmp_path):
    old = Certificates(tmp_path / "old", age_days=3660)
    assert f"the authority in {old.ca!r} expired at " in refusal(side, old.ca, both.tls_cert, both.tls_key)
    # As long as one in the file is there to trust.
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(old.pem + Path(both.tls_ca).read_bytes())
    assert side(Credentials(None, str(bundle), both.tls_cert, both.tls_key))


def test_files_that_are_something_else(side, both, certificates, tmp_path):
    other = certificates.issue("192.0.2.2", client=True)
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    ca, cert, key = both.tls_ca, both.tls_cert, both.tls_key
    found = refusal(side, ca, cert, other.tls_key)
    assert found == f"private key {other.tls_key!r} is not that of certificate {cert!r}; legal: its own."
    assert f"TLS file {cert!r} holds a certificate, but of no authority" in refusal(side, cert, cert, key)
    for files, wrong in (((junk, cert, key), junk), ((ca, junk, key), junk), ((ca, key, key), key)):
        assert f"TLS file {str(wrong)!r} holds no PEM certificate" in refusal(side, *files)
    for wrong in (junk, cert):
        assert f"TLS file {str(wrong)!r} holds no PEM private key." in refusal(side, ca, cert, wrong)
    for name in ("none", tmp_path):
        assert f"TLS file {str(name)!r} does not exist." in refusal(side, ca, cert, name)


def test_files_of_others(side, both, monkeypatch):
    def refuse(name, mode):
        raise PermissionError(13, "Permission denied", name)

    # Root, as whom tests may run, can read every file.
    monkeypatch.setattr(security, "open", refuse, raising=False)
    assert refusal(side, None, both.tls_cert, both.tls_key).endswith(".pem' cannot be read: Permission denied.")


def test_encrypted_key(side, both, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    key = tmp_path / "key.pem"
    command = ["openssl", "ec", "-in", both.tls_key, "-aes128", "-passout", "pass:secret", "-out", key]
    subprocess.run(command, check=True, capture_output=True)
    found = refusal(side, both.tls_ca, both.tls_cert, key)
    assert found == f"private key {str(key)!r} cannot be used: it is encrypted; legal: an unencrypted one."


def test_open_secrets_are_told_once(both, tmp_path, capsys):
    token = tmp_path / "token.txt"
    token.write_text("correct-horse-battery")
    for mode in (0o600, 0o640, 0o644):
        token.chmod(mode)
        os.chmod(both.tls_key, mode)
        security.warn_if_open.cache_clear()
        for _ in range(2):
            shown = Credentials(str(token), both.tls_ca, both.tls_cert, both.tls_key)
            assert shown.token() and shown.server_context() and shown.client_context()
        said = capsys.readouterr().err.splitlines()
        names = [str(token), both.tls_key] if mode == 0o644 else []
        assert [line.split("'")[1] for line in said] == names
        assert all(line.endswith("(mode 0644); legal: chmod 600.") for line in said)
