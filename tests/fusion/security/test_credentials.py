"""Token and TLS files."""

import pytest

from fusion.base.program import UserError
from fusion.security.credentials import Credentials


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
