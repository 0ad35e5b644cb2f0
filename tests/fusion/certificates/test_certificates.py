"""The program that makes certificates and tokens; openssl judges what it made."""

import json
import shlex
import shutil
import stat
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from fusion.base.program import UserError
from fusion.certificates.authority import Authority, Subject
from fusion.cluster import file as cluster
from tests.fusion.conftest import ROOT

NOW = datetime(2030, 5, 17, 12, tzinfo=timezone.utc)  # noqa: UP017 - Python 3.10 has no datetime.UTC.
FOLDERS = ("devices/pi-0", "devices/pi-1", "coordinator", "users/user")


@pytest.fixture
def make(runner, cluster_file, tmp_path):
    """make(*options, urls=..., status=0) -> what the program prints; it writes to tmp_path/made."""
    default = ("https://192.0.2.1:8001", "http://board.example:8001")

    def call(*options, urls=default, status=0):
        done = runner("certificates", f"--cluster={cluster_file(*urls)}", f"--target={tmp_path / 'made'}", *options)
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    return call


def openssl(*options):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    return subprocess.run(["openssl", *map(str, options)], capture_output=True, text=True)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_openssl_says(make, tmp_path):
    said = make("--coordinator=hub.example,::1", "--tokens")
    made = tmp_path / "made"
    assert said.count((made / "start.txt").read_text()) == 1
    names = {
        "devices/pi-0": "IP Address:192.0.2.1",
        "devices/pi-1": "DNS:board.example",
        "coordinator": "DNS:hub.example, IP Address:0:0:0:0:0:0:0:1, DNS:localhost, IP Address:127.0.0.1",
        "users/user": "",
    }
    for folder, alternatives in names.items():
        cert = made / folder / "cert.pem"
        for purpose, legal in (("sslserver", folder != "users/user"), ("sslclient", "devices" not in folder)):
            checked = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", made / folder / "ca.pem", cert)
            assert (checked.returncode == 0) == legal, checked.stderr
        shown = openssl("x509", "-in", cert, "-noout", "-ext", "subjectAltName").stdout
        assert shown.partition("\n")[2].strip() == alternatives
        assert "P-256" in openssl("x509", "-in", cert, "-noout", "-text").stdout
        assert openssl("x509", "-in", cert, "-noout", "-checkend", 729 * 86400).returncode == 0
        assert openssl("x509", "-in", cert, "-noout", "-checkend", 731 * 86400).returncode == 1
        public = openssl("x509", "-in", cert, "-noout", "-pubkey").stdout
        assert openssl("pkey", "-in", made / folder / "key.pem", "-pubout").stdout == public
        assert openssl("verify", "-CAfile", cert, made / "devices/pi-0/cert.pem").returncode != 0
    authority = openssl("x509", "-in", made / "authority/ca.pem", "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in authority and "Certificate Sign, CRL Sign" in authority


def test_secrets_are_for_their_owner_alone(make, tmp_path):
    make("--tokens")
    made = tmp_path / "made"
    for path in (made, made / "authority", *(made / folder for folder in FOLDERS)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    private = [*made.rglob("*key.pem"), *made.rglob("token.txt"), *(made / "coordinator/tokens").iterdir()]
    assert len(private) == 5 + 4 + 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    tokens = [(made / folder / "token.txt").read_text() for folder in FOLDERS]
    assert len(set(tokens[:3])) == 3 and {len(token) for token in tokens} == {44}
    assert (made / "coordinator/tokens/pi-1.txt").read_text() == tokens[1] and tokens[3] == tokens[2]
    assert not list(made.rglob("*.part"))


def test_again(make, tmp_path):
    make("--tokens", "--coordinator=hub.example")
    made = tmp_path / "made"
    first = contents(made)
    make("--tokens")
    assert contents(made) == first
    (made / "devices/pi-0/key.pem").write_bytes(first[(made / "coordinator/key.pem").relative_to(made)])
    (made / "users/user/cert.pem").write_text("junk")
    make("--users=alice", urls=("https://192.0.2.1", "https://192.0.2.9", "https://192.0.2.3"))
    second = contents(made)
    changed = {str(path.parent) for path in second if second[path] != first.get(path)}
    places = {"devices/pi-0", "devices/pi-1", "devices/pi-2", "users/user", "users/alice"}
    # The cluster file, and the commands.
    assert changed == places | {"coordinator", "."}
    make("--renew", "--tokens")
    third = contents(made)
    authority = {path for path in first if path.name in ("ca.pem", "ca_key.pem")}
    assert {path for path in first if third[path] == second[path]} == authority


def test_the_cluster_file_is_ready(make, tmp_path):
    make("--tokens", "--coordinator=[::1]:9000,::2", urls=("http://192.0.2.1", "http://[2001:db8::1]:8001"))
    file = tmp_path / "made/coordinator/cluster.toml"
    found = cluster.load(file)
    assert [device.url for device in found.devices] == ["https://192.0.2.1", "https://[2001:db8::1]:8001"]
    for device in found.devices:
        device.credentials.client_context()
        own = (tmp_path / "made/devices" / device.name / "token.txt").read_text().strip()
        assert device.credentials.token() == own
    worker, other, *_ = started(tmp_path / "made/start.txt")
    assert worker[4:6] == ["--host=0.0.0.0", "--port=443"] and other[4:6] == ["--host=::", "--port=8001"]
    assert "pi-1 USER@[2001:db8::1]:BUNDLE/secrets/\n" in (tmp_path / "made/start.txt").read_text()
    # It may be what the next devices are added to; what was not made for one is called as it was.
    extra = b'[[device]]\nname = "old"\nurl = "https://192.0.2.7"\ntls_ca = "ca.pem"\n\n[discovery]\n'
    file.write_bytes(file.read_bytes() + extra)
    for _ in range(2):
        make(f"--cluster={file}", "--nocertificates", "--tokens")
        again = cluster.load(file)
        assert again.devices[:2] == found.devices and again.discovery is not None
        assert again.devices[2].credentials.tls_ca == str(file.parent / "ca.pem")
        assert again.devices[2].credentials.token_file == str(file.parent / "tokens/old.txt")


def started(file):
    """The words of the commands of a `start.txt` that start programs."""
    lines = file.read_text().replace("\\\n", "").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(".venv/bin/python")]


def looking(file):
    """The commands of a `start.txt` that show the status, and pack a certificate for a browser."""
    lines = file.read_text().replace("\\\n", "").splitlines()
    return [line for line in lines if " curl " in f" {line}" or line.startswith("openssl")]


def test_its_commands_start_a_cluster(make, bundle, start, runner, tmp_path, free_port):
    make("--tokens", "--coordinator=localhost:9000", urls=(f"http://127.0.0.1:{free_port}",))
    made, board = tmp_path / "made", tmp_path / "bundle"
    shutil.copytree(bundle, board)
    head, copying = (made / "start.txt").read_text().split("\n\n")[0].split(".\n")
    assert "USER" not in head and "scp" not in copying
    for _ in range(2):
        subprocess.run(copying.replace("BUNDLE", str(board)), shell=True, check=True)
    assert contents(board / "secrets/coordinator") == contents(made / "coordinator")
    shutil.copytree(made / "users/user", board / "secrets/user")
    there = {"package": "fusion", "cwd": board}
    worker, coordinator, predict = started(made / "start.txt")
    assert [words[2] for words in (worker, coordinator, predict)] == [
        "fusion.worker",
        "fusion.coordinator",
        "fusion.predict",
    ]
    assert start("worker", *worker[3:], **there).url == f"https://127.0.0.1:{free_port}"
    assert "--port=9000" in coordinator and "--url=https://localhost:9000" in predict
    at = start("coordinator", *coordinator[3:], "--port=0", **there).url.replace("localhost", "127.0.0.1")
    done = runner("predict", *predict[3:], f"--url={at}", **there)
    assert done.returncode == 0 and "samples/0.png" in done.stdout, done.stderr
    look, pack = looking(made / "start.txt")
    shown = subprocess.run(look.replace("https://localhost:9000", at), shell=True, cwd=board, capture_output=True)
    assert json.loads(shown.stdout)["name"] == "tiny", shown.stderr
    packed = board / "secrets/user/browser.p12"
    subprocess.run(f"umask 022; {pack} -passout pass:1234", shell=True, cwd=board, check=True)
    assert stat.S_IMODE(packed.stat().st_mode) == 0o600
    key, cert, _ = pkcs12.load_key_and_certificates(packed.read_bytes(), b"1234")
    assert key is not None and cert is not None and key.public_key() == cert.public_key()


def test_odd_targets(runner, cluster_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = cluster_file("http://127.0.0.1:8001")
    for target in ("-t", "a:b", "c d", "\u00fc"):
        options = (f"--cluster={file}", f"--target={target}", "--nocertificates", "--tokens")
        done = runner("certificates", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / target / "start.txt").read_text().splitlines()
        (copied,) = [shlex.split(line)[2:-1] for line in lines if line.startswith("cp -rp ")]
        # A dash begins an option of cp and scp; what has a colon, unless after a slash, is another machine.
        assert copied == [f"./{target}/devices/pi-0", f"./{target}/coordinator"]


@pytest.mark.parametrize(("device", "users"), [("coordinator", "user"), ("pi-0", "user,coordinator")])
def test_the_coordinators_name(runner, tmp_path, device, users):
    (tmp_path / "cluster.toml").write_text(f'[[device]]\nname = "{device}"\nurl = "http://127.0.0.1:8001"\n')
    options = (f"--cluster={tmp_path / 'cluster.toml'}", f"--target={tmp_path / 'made'}", f"--users={users}")
    done = runner("certificates", *options, "--nocertificates", "--tokens")
    assert done.returncode == 2 and "error: name 'coordinator' is the coordinator's" in done.stderr
    assert not (tmp_path / "made").exists()


def test_without_cryptography(make, tmp_path, monkeypatch):
    (tmp_path / "cryptography.py").write_text("raise ImportError('not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "error: certificates need the Python package 'cryptography'" in make(status=2)
    said = make("--nocertificates", "--tokens")
    assert "--token_file=secrets/pi-0/token.txt" in said and "tls" not in said
    devices = cluster.load(tmp_path / "made/coordinator/cluster.toml").devices
    assert [device.url for device in devices] == ["https://192.0.2.1:8001", "http://board.example:8001"]
    assert not list((tmp_path / "made").rglob("*.pem"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--coordinator=a b"], "--coordinator has 'a b'; legal: DNS names and IP addresses"),
        (["--coordinator=hub:70000"], "--coordinator has 'hub:70000'; legal: DNS names and IP addresses, which :port"),
        (["--users=../../etc"], "name '../../etc' cannot be a folder's here"),
        (["--days=0"], "days=0"),
        (["--nocertificates"], "there is nothing to make"),
    ],
)
def test_bad_options(make, tmp_path, options, said):
    assert said in make(*options, status=2)
    assert not (tmp_path / "made").exists()


def test_bad_places(make, tmp_path, cluster_file, runner):
    path = cluster_file("http://192.0.2.1")
    path.write_text(path.read_text().replace("pi-0", ".."))
    done = runner("certificates", f"--cluster={path}", f"--target={tmp_path / 'made'}")
    assert done.returncode == 2 and "error: name '..' cannot be a folder's here" in done.stderr
    (tmp_path / "made").write_text("a file")
    assert "cannot be made: File exists" in make(status=2)


def test_renewal(tmp_path):
    subject = Subject("device pi", ("192.0.2.1",), client=False)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    authority = Authority(tmp_path, NOW)
    assert authority.reason_to_renew(cert, key, subject) == "new"
    for path, made in zip((cert, key), authority.issue(subject, 400), strict=True):
        path.write_bytes(made)
    ends = {0: None, 299: None, 300: "was about to expire", 399: "was about to expire", 400: "had expired"}
    for days, why in ends.items():
        found = Authority(tmp_path, NOW + timedelta(days=days)).reason_to_renew(cert, key, subject)
        assert found == (why and f"new, as the old one {why}")
    for path in (cert, key):
        kept = path.read_bytes()
        path.unlink()
        assert "could not be used" in (authority.reason_to_renew(cert, key, subject) or "")
        path.write_bytes(kept)
    (tmp_path / "other").mkdir()
    assert "could not be used" in (Authority(tmp_path / "other", NOW).reason_to_renew(cert, key, subject) or "")


def test_authority_ends(tmp_path):
    Authority(tmp_path, NOW)
    late = Authority(tmp_path, NOW + timedelta(days=3600))
    subject = Subject("device pi", ("192.0.2.1",), client=False)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path, made in zip((cert, key), late.issue(subject, 730), strict=True):
        path.write_bytes(made)
    # No longer than the authority; hence not made anew at each run, near its end.
    assert late.reason_to_renew(cert, key, subject) is None
    for days in (-2, 3650):
        with pytest.raises(UserError, match="valid from 2030-05-16 to 2040-05-14, and the clock of this machine says"):
            Authority(tmp_path, NOW + timedelta(days=days))
    (tmp_path / "ca_key.pem").unlink()
    with pytest.raises(UserError, match=r"private key '.*ca_key.pem' cannot be read: No such file"):
        Authority(tmp_path, NOW)
