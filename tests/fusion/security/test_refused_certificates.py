"""What a caller says of servers whose certificates it refuses, and of those that refuse its own."""

import re

import pytest

from fusion.asking.client import FusionClient
from fusion.base.program import UserError
from fusion.security.credentials import Credentials
from tests.fusion.tls import Certificates, options, server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("foreign"))


SHOWN = {
    "expired": (lambda mine, foreign: mine.issue("127.0.0.1", days=5, age_days=6), "certificate has expired"),
    "early": (lambda mine, foreign: mine.issue("127.0.0.1", age_days=-2), "certificate is not yet valid"),
    "other names": (
        lambda mine, foreign: mine.issue("pi.example", "192.0.2.1"),
        "IP address mismatch, certificate is not valid for '127.0.0.1'",
    ),
    "foreign": (lambda mine, foreign: foreign.issue("127.0.0.1"), "unable to get local issuer certificate"),
    "client's": (lambda mine, foreign: mine.issue(client=True), "unsuitable certificate purpose"),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_certificates_that_the_caller_refuses(certificates, foreign, kind):
    make, reason = SHOWN[kind]
    shown = make(certificates, foreign)
    with server(shown.tls_cert, shown.tls_key) as port, pytest.raises(UserError) as raised:
        FusionClient(f"https://127.0.0.1:{port}", Credentials(tls_ca=certificates.ca), 10)
    assert str(raised.value) == (
        f"server https://127.0.0.1:{port}, while connecting: its certificate is refused: {reason}."
    )


def test_tls_on_one_side_alone(worker, certificates):
    url = worker.url.replace("http", "https")
    with pytest.raises(UserError, match="while connecting: TLS failed: "):
        FusionClient(url, Credentials(tls_ca=certificates.ca))
    shown = certificates.issue("127.0.0.1")
    with server(shown.tls_cert, shown.tls_key) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match=f"server {url}, while asking /v2/repository/index: "):
            FusionClient(url, Credentials(), 10)


def test_the_coordinator_names_the_device(bundle, start, runner, cluster_file, certificates, foreign, curl):
    """What is wrong with each of three devices, by one coordinator."""
    mine = certificates.issue("127.0.0.1", client=True)
    worker = start("worker", f"--bundle={bundle}", "--switch=1.0", *options(mine))
    expired = certificates.issue("127.0.0.1", days=5, age_days=6)
    with server(expired.tls_cert, expired.tls_key) as port:
        devices: tuple[tuple[str, dict[str, str | None]], ...] = (
            (f"https://127.0.0.1:{port}", {"tls_ca": certificates.ca}),
            (worker.url, {"tls_ca": certificates.ca}),
            (worker.url.replace("127.0.0.1", "localhost"), vars(foreign.issue(client=True, ca=certificates.ca))),
            (worker.url.replace("https", "http"), {}),
        )
        path = cluster_file()
        for number, (url, files) in enumerate(devices):
            lines = [f'{key} = "{value}"\n' for key, value in files.items() if value]
            device = f'[[device]]\nname = "pi-{number}"\nurl = "{url}"\n{"".join(lines)}'
            path.write_text(path.read_text() + device)
        given = (f"--bundle={bundle}", f"--cluster={path}", "--startup_timeout_s=0", "--switch=1.0")
        done = runner("coordinator", *given)
    assert done.returncode == 2
    assert f"device pi-0 at {devices[0][0]}, while connecting (" in done.stderr
    assert "): its certificate is refused: certificate has expired." in done.stderr
    for number, (url, _) in enumerate(devices[1:], 1):
        # What the server says of it, which is little.
        assert re.search(rf"device pi-{number} at {url}, while [a-z ]+ \([a-z ]+\): [^.]+\.", done.stderr), done.stderr
    friend = ("--cacert", mine.tls_ca, "--cert", mine.tls_cert, "--key", mine.tls_key)
    assert curl(f"{worker.url}/v2/health/ready", *friend)[0] == 200
