"""Token and TLS files: what is wrong with them is said before the start, in one sentence."""

import os
import shutil
import ssl
import subprocess
import sys

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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short", "holds 5 characters"),
        ("two words, many letters", "spaces"),
        ("ä" * 20, "not ASCII"),
    ],
)
def test_refuses_a_token_file(tmp_path, text, said):
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        Credentials(token_file=str(path)).token()


def test_refuses_bad_credentials(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        Credentials(token_file=str(tmp_path / "none")).token()
    for one in (Credentials(tls_cert="a"), Credentials(tls_key="a"), Credentials(tls_ca="a")):
        with pytest.raises(UserError, match="needs both tls_cert and tls_key"):
            one.server_context()
    with pytest.raises(UserError, match="needs both"):
        Credentials(tls_cert="a").client_context()
    with pytest.raises(UserError, match="TLS file 'a' does not exist"):
        Credentials(tls_cert="a", tls_key="b").server_context()
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(UserError, match="ca' holds no PEM certificate"):
        Credentials(tls_ca=str(tmp_path / "ca")).client_context()


TOKEN = "0123456789abcdef"


def test_a_token_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "token.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    path.chmod(0o600)
    assert Credentials(token_file=str(path)).token() == TOKEN
    path.write_bytes(TOKEN.encode("utf-16"))
    with pytest.raises(UserError, match="token.txt' is UTF-16 text"):
        Credentials(token_file=str(path)).token()


def test_a_pipe_that_the_shell_hands_over_holds_a_token():
    code = (
        "import sys; from fusion.security.credentials import Credentials; own = Credentials(sys.argv[1]);"
        " print(own.token(), own.token())"
    )
    line = f'"$0" -c "$1" <(echo {TOKEN})'
    done = subprocess.run(["bash", "-c", line, sys.executable, code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{TOKEN} {TOKEN}\n", "")


def test_a_token_that_would_be_waited_for_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reason = "is a pipe, a socket or a device; legal: a file, or a shell's <"
    for name, text in ((str(pipe), reason), (str(tmp_path), "cannot be read: Is a directory"), ("/dev/null", reason)):
        with pytest.raises(UserError, match=f"token file '{name}' {text}"):
            Credentials(token_file=name).token()
