"""Tokens, TLS and which addresses may be listened on."""

import json
import shutil
import subprocess

import pytest

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "token.txt"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) for 127.0.0.1, signed by itself, hence its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *more], check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_open_hosts_need_protection(bundle, runner, host):
    done = runner("worker", f"--bundle={bundle}", f"--host={host}")
    assert done.returncode == 2
    assert f"error: host {host!r} is reachable from other machines; legal: with --token" in done.stderr


def test_insecure_must_be_said(bundle, start, curl):
    program = start("worker", f"--bundle={bundle}", "--host=0.0.0.0", "--insecure", "--switch=1.0")
    port = program.url.rsplit(":", 1)[1]
    assert curl(f"http://127.0.0.1:{port}/v2/health/ready")[0] == 200


def test_token(bundle, start, curl, runner, cluster_file, token_file):
    options = (f"--bundle={bundle}", f"--token_file={token_file}", "--switch=1.0")
    worker = start("worker", *options, "--host=0.0.0.0")
    url = worker.url.replace("0.0.0.0", "127.0.0.1")
    assert curl(f"{url}/v2/health/live")[0] == 200
    wrong = ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xe4"]
    for path in ("/v2", "/v2/health/ready", "/metrics", "/nowhere", "/v2/models/tiny-1.0-0"):
        for shown in wrong:
            status, headers, body = curl(url + path, "-H", f"Authorization: {shown}")
            assert (status, headers["www-authenticate"]) == (401, "bearer")
            assert "the bearer token is missing or wrong" in json.loads(body)["error"]
        right = ("-H", f"Authorization: Bearer {TOKEN}")
        assert curl(url + path, *right)[0] == (404 if path == "/nowhere" else 200)
    cluster = cluster_file(url)
    done = runner("coordinator", f"--bundle={bundle}", f"--cluster={cluster}", "--startup_timeout_s=0")
    said = "it answered 401, asking for a token; legal: "
    assert done.returncode == 2 and said + "token_file of this device in the cluster file" in done.stderr
    cluster = cluster_file(url, token_file=token_file)
    coordinator = start("coordinator", *options, f"--cluster={cluster}")
    image = bundle / "samples" / "0.png"
    refused = runner("predict", f"--url={coordinator.url}", image)
    assert refused.returncode == 2 and f"while asking /v2/repository/index: {said}--token_file.\n" in refused.stderr
    done = runner("predict", f"--url={coordinator.url}", f"--token_file={token_file}", image)
    assert done.returncode == 0, done.stderr


def test_mutual_tls(bundle, start, curl, runner, cluster_file, certificate):
    cert, key = certificate
    mine = (f"--tls_cert={cert}", f"--tls_key={key}", f"--tls_ca={cert}")
    worker = start("worker", f"--bundle={bundle}", "--switch=1.0", *mine)
    assert worker.url.startswith("https://127.0.0.1:")
    shown = ("--cacert", cert, "--cert", cert, "--key", key)
    assert curl(f"{worker.url}/v2/health/ready", *shown)[0] == 200
    for less in ((), shown[:2]):
        done = subprocess.run(["curl", "-s", *less, f"{worker.url}/v2"], capture_output=True)
        assert done.returncode != 0
    old = subprocess.run(["curl", "-s", *shown, "--tls-max", "1.1", worker.url], capture_output=True)
    assert old.returncode != 0
    options = (f"--bundle={bundle}", "--startup_timeout_s=0")
    done = runner("coordinator", *options, f"--cluster={cluster_file(worker.url)}")
    assert done.returncode == 2
    assert f"device pi-0 at {worker.url}, while connecting (" in done.stderr
    assert "): its certificate is refused: " in done.stderr
    plain = worker.url.replace("https", "http")
    done = runner("coordinator", *options, f"--cluster={cluster_file(plain)}")
    assert done.returncode == 2 and f"device pi-0 at {plain}, while " in done.stderr
    files = {"tls_ca": cert, "tls_cert": cert, "tls_key": key}
    cluster = cluster_file(worker.url, **files)
    coordinator = start("coordinator", f"--bundle={bundle}", f"--cluster={cluster}", *mine)
    image = bundle / "samples" / "0.png"
    done = runner("predict", f"--url={coordinator.url}", *mine, image)
    assert done.returncode == 0, done.stderr
    done = runner("predict", f"--url={coordinator.url}", image)
    assert done.returncode == 2 and "its certificate is refused: " in done.stderr
