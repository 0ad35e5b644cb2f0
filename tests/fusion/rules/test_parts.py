"""The small parts: fusion, the cluster file, images, tokens and TLS files, result files."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fusion.base import files
from fusion.base.program import UserError
from fusion.cluster import file as cluster
from fusion.images import reading as images
from fusion.rules import sum as fuse
from fusion.security.credentials import Credentials


def test_dequantizes_and_sums():
    stored = np.array([[-128, 127]], np.int8)
    np.testing.assert_array_equal(fuse.dequantize(stored, 0.5, 127), [[-127.5, 0]])
    np.testing.assert_array_equal(fuse.dequantize(np.array([[1.5]], np.float32), None, None), [[1.5]])
    fused = fuse.fuse([np.array([[1e-9, 1.0]]), np.array([[1.0, -0.25]])])
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused, [[1.0, 0.75]])


def test_softmax():
    confidences = fuse.softmax(np.array([[0, np.log(3)], [1e4, -1e4]], np.float32))
    np.testing.assert_allclose(confidences, [[0.25, 0.75], [1.0, 0.0]], rtol=1e-6)


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


def test_reads_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(images.read(tmp_path / "rgb.png", (4, 5, 3)), pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    grey = images.read(tmp_path / "grey.png", (4, 5, 3))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, -1))


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "1", "LA", "CMYK"])
def test_refuses_other_modes(tmp_path, mode):
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    Image.new(mode, (5, 4)).save(path)
    with pytest.raises(UserError, match=f"x.*' has mode {mode}; legal: RGB, or L"):
        images.read(path, (4, 5, 3))


def test_refuses_bad_images(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(UserError, match="does not exist"):
        images.read(path, (4, 5, 3))
    with pytest.raises(UserError, match="is a folder; legal: an image file"):
        images.read(tmp_path, (4, 5, 3))
    Image.new("RGB", (4, 5)).save(path)
    with pytest.raises(UserError, match="is 4 x 5 pixels; legal: 5 x 4"):
        images.read(path, (4, 5, 3))
    with pytest.raises(UserError, match="takes 1 channels"):
        images.read(path, (5, 4, 1))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read: "):
        images.read(path, (64, 64, 3))
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="is not an image that can be read"):
        images.read(path, (4, 5, 3))


def png_of(width, height):
    """The start of a PNG of that size; whoever decodes it finds that there is no more."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (chunk, b"IDAT")
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("resize", images.RESIZES)
@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (8000, 8000, "cannot be read"),
        (8000, 8001, "is 8000 x 8001 pixels; legal: 64 million in all."),
        (1_000_000, 1_000_000, "has far too many pixels; legal: 64 million in all."),
    ],
)
def test_images_of_too_many_pixels_are_not_decoded(resize, width, height, said):
    shape = None if resize == images.REFUSE else (4, 5, 3)
    with pytest.raises(UserError, match=said):
        images.read(png_of(width, height), shape, resize)


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


def test_accepts_the_hosts_there_are():
    for url in ("http://a_b.local.:1", "http://[::1]:1", "https://[fe80::1%25eth0]", "http://b\u00fccher.example"):
        assert cluster.check_url(url, "x") == url


def test_checks_where_json_is_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (None, "", "out.json", tmp_path / "out.json"):
        files.check_json_target(path)
    (tmp_path / "file").touch()
    for path in ("none/out.json", tmp_path / "none" / "out.json", "file/out.json"):
        with pytest.raises(UserError, match="out.json' cannot be written: .* is no folder; legal: "):
            files.check_json_target(path)
    with pytest.raises(UserError, match="it is a folder; legal: "):
        files.check_json_target(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writes_json_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.json"
    files.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(UserError, match="cannot be written: No such file"):
        files.write_json(tmp_path / "none" / "out.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        files.write_json(tmp_path / "folder", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "out.json"]
