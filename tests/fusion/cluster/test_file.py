"""The cluster file."""

import pytest

from fusion.base.program import UserError
from fusion.cluster import file as cluster
from fusion.security.credentials import Credentials


def test_reads_a_cluster_file(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(
        '[[device]]\nname = "a"\nurl = "http://10.0.0.1:8001/"\n'
        '[[device]]\nname = "b"\nurl = "https://b.local"\ntls_ca = "ca.pem"\n'
    )
    first, second = cluster.load(path).devices
    assert first == cluster.Device("a", "http://10.0.0.1:8001", Credentials())
    assert second.credentials.tls_ca == str(tmp_path / "ca.pem")


def test_reads_how_discovered_devices_are_called(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text("[discovery]\n")
    assert cluster.load(path) == cluster.ClusterFile((), Credentials())
    path.write_text('[discovery]\ntoken_file = "t"\ntls_ca = "ca.pem"\n')
    found = cluster.load(path).discovery
    assert found == Credentials(token_file=str(tmp_path / "t"), tls_ca=str(tmp_path / "ca.pem"))


ONE = '[[device]]\nname = "a"\nurl = "http://h:1"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no device"),
        ("[device]\n", "names no device"),
        ("device = [1]\n", "names no device"),
        ("x = ", "is not TOML"),
        ("x = " + "1" * 5000, "is not TOML"),
        ("x = " + "[" * 20_000, "is nested too deeply"),
        ("port = 1\n" + ONE, "has the key 'port'; legal: [[device]] tables and one [discovery]"),
        ("discovery = 1\n" + ONE, "is 1; legal: a table"),
        ('[discovery]\nurl = "http://h"\n', "has the key 'url'; legal: token_file, tls_ca"),
        ('[discovery]\ntoken_file = "t"\n', "anyone could announce a device and be shown the token"),
        (ONE + 'ip = "1"\n', "has the key 'ip'; legal: name, url, token_file, tls_ca"),
        ('[[device]]\nname = "a"\n', "has no url"),
        ('[[device]]\nurl = "http://h"\n', "has no name"),
        ('[[device]]\nname = 1\nurl = "http://h"\n', "name is 1; legal: a string"),
        ('[[device]]\nname = "a,b"\nurl = "http://h"\n', "legal: letters, digits"),
        (ONE + ONE.replace(":1", ":2"), "has the name 'a' twice"),
        (ONE + ONE.replace('"a"', '"b"'), "has the url 'http://h:1' twice"),
        (ONE + ONE.replace('"a"', '"b"').replace("http://h", "HTTP://H"), "has the url 'http://h:1' twice"),
        (ONE.replace(":1", r":1\n"), r"url is 'http://h:1\n'; legal: http(s)://host"),
        *(
            (f'[[device]]\nname = "a"\nurl = "{url}"\n', f"url is '{url}'; legal: http(s)://host")
            for url in ("h:1", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://[")
            + ("http://h/v2", "http://h?x", "http://u:p@h", "http://h:0")
            + ("http://a..b", f"http://{'a' * 70}", f"http://{'a.' * 130}b", "http://a b", "http://[::g]")
        ),
    ],
)
def test_refuses_a_cluster_file(tmp_path, text, said):
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        cluster.load(path)
    assert said in str(error.value)


def test_refuses_an_unreadable_cluster_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        cluster.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        cluster.load(tmp_path / "bad.toml")


def test_accepts_the_hosts_there_are():
    for url in ("http://a_b.local.:1", "http://[::1]:1", "https://[fe80::1%25eth0]", "http://b\u00fccher.example"):
        assert cluster.check_url(url, "x") == url


def test_a_byte_order_mark_is_no_part_of_it(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE.encode())
    assert [device.name for device in cluster.load(path).devices] == ["a"]
    path.write_bytes(ONE.encode("utf-16"))
    with pytest.raises(UserError, match="cluster.toml' is UTF-16 text; legal: UTF-8, "):
        cluster.load(path)
