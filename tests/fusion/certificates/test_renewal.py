"""Tokens and certificates that change while worker and coordinator run, read anew at SIGHUP."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.fusion.conftest import cluster_text
from tests.fusion.tls import Certificates, options

IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
OLD, NEW = "the-token-of-yesterday", "the-token-of-tomorrow"
WAIT_S = 180


def put(source, target):
    """Replaces the files of `target` by those of `source`."""
    for key, path in vars(target).items():
        if path != getattr(source, key):
            shutil.copyfile(getattr(source, key), path)


def token(folder, text):
    path = folder / f"{text}.txt"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


def copied(folder, credentials):
    """Copies of the files, to be replaced."""
    folder.mkdir()
    return type(credentials)(*(shutil.copy(path, folder) for path in vars(credentials).values()))


def hang_up(program, said):
    """Sends SIGHUP, and waits until the program has said this."""
    program.process.send_signal(signal.SIGHUP)
    handle, heard = program.process.stderr.fileno(), b""
    deadline = time.monotonic() + WAIT_S
    while said.encode() not in heard:
        assert select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0], heard
        heard += os.read(handle, 65_536)
    return heard.decode()


def serial(program, friend):
    """The number of the certificate that a server shows."""
    address = urlsplit(program.url)
    context = friend.client_context()
    with (
        contextlib.closing(socket.create_connection((address.hostname, address.port))) as plain,
        context.wrap_socket(plain, server_hostname=address.hostname) as secured,
    ):
        return secured.getpeercert()["serialNumber"]


def ask(curl, program, friend, bearer):
    """The status of an inference; None where the connection is turned down."""
    files = ("--cacert", friend.tls_ca, "--cert", friend.tls_cert, "--key", friend.tls_key)
    model = {"worker": "tiny-1.0-0", "coordinator": "tiny"}[program.kind]
    body = json.dumps({"inputs": [IMAGE]}).encode()
    try:
        return curl(
            f"{program.url}/v2/models/{model}/infer", *files, "-H", f"Authorization: Bearer {bearer}", body=body
        )[0]
    except AssertionError:
        return None


@pytest.fixture
def parts(tmp_path):
    """The credentials of worker, coordinator and user by two authorities, of which all trust either alone."""
    made = []
    for name, text in (("old", OLD), ("new", NEW)):
        authority, shown = Certificates(tmp_path / name), token(tmp_path, text)
        made.append(
            {
                "worker": authority.issue("127.0.0.1", token_file=shown),
                "coordinator": authority.issue("127.0.0.1", token_file=shown),
                "client": authority.issue(client=True, token_file=shown),
            }
        )
    return made


def test_token_certificate_and_authority_change_without_a_restart(bundle, parts, start, curl, tmp_path):
    old, new = parts
    mine = {name: copied(tmp_path / f"of_{name}", credentials) for name, credentials in old.items()}
    given = (f"--bundle={bundle}", "--switch=1.0")
    worker = start("worker", *given, *options(mine["worker"]))
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(cluster_text(worker.url, **vars(mine["client"])))
    coordinator = start("coordinator", *given, f"--cluster={cluster}", *options(mine["coordinator"]))
    assert ask(curl, coordinator, old["client"], OLD) == 200

    # What is unfit is not taken over, not even the half of it that is fit.
    before = serial(worker, old["client"])
    put(new["worker"], mine["worker"])
    with open(mine["worker"].token_file, "w") as file:
        file.write("short")
    said = hang_up(worker, "stay as they were")
    assert f"token file '{mine['worker'].token_file}' holds 5 characters; legal: " in said
    assert serial(worker, old["client"]) == before and ask(curl, coordinator, old["client"], OLD) == 200

    put(new["worker"], mine["worker"])
    hang_up(worker, "worker: token and certificate were read anew")
    assert serial(worker, new["client"]) != before
    assert ask(curl, worker, new["client"], NEW) == 200
    assert ask(curl, worker, new["client"], OLD) == 401
    # The old authority counts no more.
    shown = replace(old["client"], tls_ca=new["client"].tls_ca)
    assert ask(curl, worker, shown, NEW) is None

    # The coordinator calls the worker with what is new, and asks for what is new itself.
    for name in ("client", "coordinator"):
        put(new[name], mine[name])
    hang_up(coordinator, "that it names, were read anew")
    deadline = time.monotonic() + WAIT_S
    while ask(curl, coordinator, new["client"], NEW) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ask(curl, coordinator, new["client"], OLD) == 401
    for program in (worker, coordinator):
        status, _, said = program.stop()
        assert status == 143 and "Traceback" not in said


def test_devices_keep_their_old_credentials_where_the_new_are_bad(bundle, start, curl, tmp_path):
    given = token(tmp_path, OLD)
    mine = shutil.copy(given, tmp_path / "mine.txt")
    worker = start("worker", f"--bundle={bundle}", f"--token_file={given}")
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(cluster_text(worker.url, token_file=mine))
    coordinator = start("coordinator", f"--bundle={bundle}", f"--cluster={cluster}")
    with open(mine, "w") as file:
        file.write("short")
    said = hang_up(coordinator, "the cluster stays as it was")
    assert f"token file '{mine}' holds 5 characters" in said
    body = json.dumps({"inputs": [IMAGE]}).encode()
    assert curl(f"{coordinator.url}/v2/models/tiny/infer", body=body)[0] == 200
