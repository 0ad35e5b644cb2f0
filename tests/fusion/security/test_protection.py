"""A worker and a coordinator with TLS, mutual TLS and tokens, as strangers and as friends see them."""

import asyncio
import hmac
import json
import select
import shutil
import socket
import subprocess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from aiohttp.test_utils import make_mocked_request
from tritonclient.utils import InferenceServerException

from fusion.serving.server import Metrics, Server
from tests.fusion.conftest import cluster_text
from tests.fusion.tls import Certificates, options

OF_WORKER, OF_COORDINATOR = "token-that-workers-ask-for", "token-the-coordinator-asks-for"
LIVE = "/v2/health/live"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The credentials of every part, by the parts' names."""
    folder = tmp_path_factory.mktemp("parts")
    for name, token in (("worker", OF_WORKER), ("coordinator", OF_COORDINATOR)):
        (folder / f"{name}.txt").write_text(f"{token}\n")
        (folder / f"{name}.txt").chmod(0o600)
    mine, foreign = Certificates(folder / "mine"), Certificates(folder / "foreign")
    return SimpleNamespace(
        worker=mine.issue("127.0.0.1", token_file=str(folder / "worker.txt")),
        coordinator=mine.issue("127.0.0.1", client=True, token_file=str(folder / "coordinator.txt")),
        to_worker=mine.issue(client=True, token_file=str(folder / "worker.txt")),
        user=mine.issue(client=True, token_file=str(folder / "coordinator.txt")),
        foreigner=foreign.issue(client=True, ca=mine.ca, token_file=str(folder / "coordinator.txt")),
        other_device=mine.issue("192.0.2.1", token_file=str(folder / "worker.txt")),
        expired=mine.issue(client=True, days=5, age_days=6, token_file=str(folder / "coordinator.txt")),
    )


@pytest.fixture(scope="module")
def guarded(bundle, parts, start_for_module, tmp_path_factory):
    """(worker, coordinator), both with mutual TLS and tokens."""
    worker = start_for_module("worker", f"--bundle={bundle}", "--switch=1.0", *options(parts.worker))
    cluster = tmp_path_factory.mktemp("cluster") / "cluster.toml"
    cluster.write_text(cluster_text(worker.url, **vars(parts.to_worker)))
    given = (f"--bundle={bundle}", f"--cluster={cluster}", "--switch=1.0", *options(parts.coordinator))
    return worker, start_for_module("coordinator", *given)


def shown(credentials, token=None):
    """curl's options for these."""
    files = ("--cacert", credentials.tls_ca, "--cert", credentials.tls_cert, "--key", credentials.tls_key)
    return (*files, "-H", f"Authorization: Bearer {token}") if token else files


def paths():
    """Every path that a server answers, and some that it may some day."""
    model: Any = SimpleNamespace(name="tiny-1.0-0")
    answered = set(Server("worker", [model], Metrics(), None, 1, 1).paths)
    assert {LIVE, "/v2/models/tiny-1.0-0/infer", "/metrics"} <= answered
    others = {"/", "/status", "/nowhere", "/v2/health/live/", "/v2/health/../models", "/v2//health/live"}
    return sorted(answered | others)


def asked(program, path):
    """How the token is asked for: of a browser, which opens these, as a password."""
    return "basic" if program.kind == "coordinator" and path in ("/", "/status") else "bearer"


def test_without_the_token_all_but_liveness_is_refused(guarded, parts, curl):
    for program, friend in zip(guarded, (parts.to_worker, parts.user), strict=True):
        for path in paths():
            for more in ((), ("-X", "POST", "-d", "{}", "-H", "Authorization: Bearer wrong")):
                status, headers, body = curl(program.url + path, *shown(friend), "--path-as-is", *more)
                if path == LIVE:
                    assert status == (405 if more else 200)
                    continue
                assert status == 401 and headers["www-authenticate"].startswith(asked(program, path)), path
                assert list(json.loads(body)) == ["error"]


def test_without_the_right_certificate_nothing_is_answered(guarded, parts, curl):
    strangers = (parts.foreigner, parts.expired, parts.other_device)
    for program, friend, token in zip(guarded, (parts.to_worker, parts.user), (OF_WORKER, OF_COORDINATOR), strict=True):
        ca = ("--cacert", friend.tls_ca)
        for stranger in (ca, *(shown(credentials, token) for credentials in strangers)):
            for path in (LIVE, "/v2"):
                done = subprocess.run(["curl", "-sS", *stranger, program.url + path], capture_output=True, text=True)
                assert done.returncode != 0 and done.stdout == "", (stranger, done)
        assert curl(f"{program.url}/v2/health/ready", *shown(friend, token))[0] == 200


def test_tritonclient(guarded, parts, data, reference):
    url = guarded[1].url.removeprefix("https://")
    files = {"ca_certs": parts.user.tls_ca, "certfile": parts.user.tls_cert, "keyfile": parts.user.tls_key}
    tensor = triton.InferInput("image", [4, *data[0].shape[1:]], "UINT8")
    tensor.set_data_from_numpy(data[0][:4])
    with triton.InferenceServerClient(url, ssl=True, ssl_options=files) as client:
        assert client.is_server_live()
        headers = {"Authorization": f"Bearer {OF_COORDINATOR}"}
        answer = client.infer("tiny", [tensor], headers=headers)
        np.testing.assert_allclose(answer.as_numpy("logits"), reference(0, 8)[:4], atol=0.5)
        assert client.get_model_metadata("tiny", headers=headers)["name"] == "tiny"
        with pytest.raises(InferenceServerException, match="the bearer token is missing or wrong"):
            client.infer("tiny", [tensor])


@pytest.mark.parametrize("place", [0, 1])
def test_versions_of_tls(guarded, parts, place):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    friend = (parts.to_worker, parts.user)[place]
    address = guarded[place].url.removeprefix("https://")
    files = ["-CAfile", friend.tls_ca, "-cert", friend.tls_cert, "-key", friend.tls_key]
    # At openssl's own lowest level, so that it is the server that refuses.
    command = ["openssl", "s_client", "-connect", address, "-verify_return_error", "-cipher", "ALL@SECLEVEL=0", *files]

    def ask(version):
        return subprocess.run([*command, version], stdin=subprocess.DEVNULL, capture_output=True, text=True)

    for version, name in (("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")):
        done = ask(version)
        assert done.returncode == 0 and f"New, {name}" in done.stdout, done.stderr
        assert "Verify return code: 0 (ok)" in done.stdout
    for version in ("-tls1_1", "-tls1"):
        done = ask(version)
        assert done.returncode != 0 and "Cipher is (NONE)" in done.stdout
        assert "no protocols available" not in done.stderr


def test_handshakes_that_never_end_hinder_nobody(guarded, parts, curl):
    host, port = guarded[1].url.removeprefix("https://").split(":")
    friend = shown(parts.user, OF_COORDINATOR)
    curl(f"{guarded[1].url}/v2", *friend)
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        for connection in silent[::2]:
            connection.sendall(b"\x16\x03\x01\x40\x00" + bytes(20))
        assert curl(f"{guarded[1].url}/v2", *friend)[0] == 200
        # They have not ended yet.
        assert not select.select(silent, [], [], 0)[0]
    finally:
        for connection in silent:
            connection.close()


def test_tokens_are_told_to_nobody(bundle, parts, start, runner, curl, cluster_file, tmp_path):
    wrong = "wrong-but-as-secret-as-any"
    path = tmp_path / "wrong.txt"
    path.write_text(wrong)
    path.chmod(0o600)
    worker = start("worker", f"--bundle={bundle}", "--switch=1.0", f"--token_file={parts.worker.token_file}")
    cluster = cluster_file(worker.url, token_file=parts.worker.token_file)
    given = (f"--bundle={bundle}", "--switch=1.0", f"--token_file={parts.coordinator.token_file}")
    coordinator = start("coordinator", f"--cluster={cluster}", *given)
    heard = []
    for program, token in ((worker, OF_WORKER), (coordinator, OF_COORDINATOR)):
        for bearer, body in ((token, None), (token, b'{"inputs": 1}'), (wrong, b"{}")):
            for route in paths():
                heard += curl(program.url + route, "-H", f"Authorization: Bearer {bearer}", body=body)
    image = bundle / "samples" / "0.png"
    done = runner("predict", f"--url={coordinator.url}", f"--token_file={path}", image)
    assert done.returncode == 2 and f"it answered 401, refusing the token in '{path}'; legal: its own" in done.stderr
    heard += [done.stdout, done.stderr]
    cluster = cluster_file(worker.url, token_file=path)
    done = runner("coordinator", f"--bundle={bundle}", f"--cluster={cluster}", "--startup_timeout_s=0")
    assert done.returncode == 2 and "it answered 401" in done.stderr
    heard += [done.stdout, done.stderr]
    # A worker that is gone is told of at length.
    heard += worker.stop()
    asked = {"inputs": [{"name": "image", "shape": [1, 8, 6, 3], "datatype": "UINT8", "data": [0] * 144}]}
    bearer = f"Authorization: Bearer {OF_COORDINATOR}"
    status, *rest = curl(f"{coordinator.url}/v2/models/tiny/infer", "-H", bearer, body=json.dumps(asked).encode())
    assert status in (502, 503, 504)
    heard += [*rest, *coordinator.stop()]
    for secret in (OF_WORKER, OF_COORDINATOR, wrong):
        assert not any(secret in str(part) for part in heard)


async def _answer(server, token):
    request = make_mocked_request("GET", "/v2", headers={"Authorization": f"Bearer {token}"})
    return (await server.answer(request)).status


def test_nothing_but_the_constant_time_comparison_decides(monkeypatch):
    """Whatever it says of two tokens is what counts; so no other comparison, whose time may tell, is made."""
    for says, status in ((True, 200), (False, 401)):
        monkeypatch.setattr(hmac, "compare_digest", lambda shown, right, says=says: says)
        for token in (OF_WORKER, OF_WORKER[:-1] + "x", OF_WORKER[:-1], "x", ""):
            server = Server("worker", [], Metrics(), OF_WORKER, 1, 1)
            assert asyncio.run(_answer(server, token)) == status
