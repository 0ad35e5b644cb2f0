"""What caller and coordinator say of servers whose certificates they, or who, refuse."""

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


CLOCK = ", and the clock of this machine says 20"
SHOWN = {
    "expired": (lambda mine, foreign: mine.issue("127.0.0.1", days=5, age_days=6), "certificate has expired" + CLOCK),
    "early": (lambda mine, foreign: mine.issue("127.0.0.1", age_days=-2), "certificate is not yet valid" + CLOCK),
    "other names": (
        lambda mine, foreign: mine.issue("pi.example", "192.0.2.1"),
        "it is for 'pi.example', '192.0.2.1' and not for '127.0.0.1'.",
    ),
    "foreign": (lambda mine, foreign: foreign.issue("127.0.0.1"), "unable to get local issuer certificate"),
    "client's": (lambda mine, foreign: mine.issue(client=True), "unsuitable certificate purpose"),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_certificates_that_the_caller_refuses(certificates, foreign, kind):
    make, said = SHOWN[kind]
    shown = make(certificates, foreign)
    with server(shown.tls_cert, shown.tls_key) as port, pytest.raises(UserError) as raised:
        FusionClient(f"https://127.0.0.1:{port}", Credentials(tls_ca=certificates.ca), 10)
    assert str(raised.value).startswith(
        f"server https://127.0.0.1:{port}, while connecting: its certificate is refused: {said}"
    )


@pytest.mark.parametrize("kind", ["expired", "other names"])
def test_the_coordinator_names_the_device(bundle, runner, cluster_file, certificates, kind):
    make, said = SHOWN[kind]
    shown = make(certificates, None)
    with server(shown.tls_cert, shown.tls_key) as port:
        url = f"https://127.0.0.1:{port}"
        cluster = cluster_file(url, tls_ca=certificates.ca)
        done = runner("coordinator", f"--bundle={bundle}", f"--cluster={cluster}", "--switch=1.0")
    assert done.returncode == 2
    assert f"device pi-0 at {url}, while connecting (" in done.stderr
    assert f"): its certificate is refused: {said}" in done.stderr


def test_tls_there(bundle, runner, cluster_file, certificates):
    shown = certificates.issue("127.0.0.1")
    with server(shown.tls_cert, shown.tls_key) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match="index: it speaks TLS; legal: an https:// address.$"):
            FusionClient(url, Credentials(), 10)
        options = (f"--bundle={bundle}", f"--cluster={cluster_file(url)}", "--switch=1.0", "--startup_timeout_s=0")
        done = runner("coordinator", *options)
    assert f"device pi-0 at {url}, while waiting" in done.stderr
    assert " (asking whether it is there): it speaks TLS; legal: an https:// address.\n" in done.stderr


def test_no_tls_there(worker, certificates):
    url = worker.url.replace("http", "https")
    with pytest.raises(UserError, match="it does not speak TLS; legal: an http:// address, or TLS there.$"):
        FusionClient(url, Credentials(tls_ca=certificates.ca))


def test_nobody_there(free_port, certificates):
    with pytest.raises(UserError, match="while connecting: Connection refused"):
        FusionClient(f"https://127.0.0.1:{free_port}", Credentials(tls_ca=certificates.ca))


def test_certificates_that_the_server_refuses(bundle, start, runner, cluster_file, certificates, foreign, curl):
    mine = certificates.issue("127.0.0.1", client=True)
    worker = start("worker", f"--bundle={bundle}", "--switch=1.0", *options(mine))
    shown = {
        "certificate '{}'; legal: one of an authority that it trusts, valid by its clock": [
            foreign.issue(client=True, ca=certificates.ca),
        ],
        "no certificate; legal: tls_cert and tls_key": [Credentials(tls_ca=certificates.ca)],
    }
    for said, all_shown in shown.items():
        for credentials in all_shown:
            expected = f"it turns down callers that show {said.format(credentials.tls_cert)}."
            with pytest.raises(UserError) as raised:
                FusionClient(worker.url, credentials)
            assert str(raised.value).startswith(f"server {worker.url}, while ")
            assert str(raised.value).endswith(f": {expected}")
            files = {key: value for key, value in vars(credentials).items() if value}
            cluster = cluster_file(worker.url, **files)
            done = runner("coordinator", f"--bundle={bundle}", f"--cluster={cluster}", "--startup_timeout_s=0")
            assert done.returncode == 2 and f"device pi-0 at {worker.url}, while " in done.stderr
            assert f"): {expected}" in done.stderr
            others = ("--cacert", mine.tls_ca, "--cert", mine.tls_cert, "--key", mine.tls_key)
            assert curl(f"{worker.url}/v2/health/ready", *others)[0] == 200


@pytest.mark.parametrize("kind", ["worker", "coordinator"])
def test_programs_look_at_their_own_certificate_first(bundle, runner, certificates, cluster_file, free_port, kind):
    expired = certificates.issue("127.0.0.1", days=5, age_days=6)
    more = [f"--cluster={cluster_file(f'http://127.0.0.1:{free_port}')}"] if kind == "coordinator" else []
    done = runner(kind, f"--bundle={bundle}", "--switch=1.0", *options(expired), *more)
    assert done.returncode == 2
    assert f"error: certificate {expired.tls_cert!r} expired at 20" in done.stderr.splitlines()[-1]
    assert CLOCK in done.stderr
