"""The units: what they run, for whom, what they refuse, and that systemd's own checker finds no fault."""

import configparser
import getpass
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.base.program import UserError
from fusion.systemd.units import unit

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def place(tmp_path):
    """A folder that all may read, with a bundle, a Python, a token and a cluster file."""
    (tmp_path / "bundle").mkdir()
    for name in ("python", "token.txt", "cluster.toml"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def made(place, *options, kind="worker", cluster=None, name="paradis-tf-worker", user=None, memory_max_mb=None):
    files = {"python": str(place / "python"), "bundle": str(place / "bundle")}
    files |= {} if cluster is None else {"cluster": cluster}
    return unit(kind, name, files, user, memory_max_mb, options)


def read(text):
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(text)
    return parser


def test_what_it_runs(place):
    service = read(made(place, "--host=0.0.0.0", "--port=8001", user=getpass.getuser()))["Service"]
    command = shlex.split(service["ExecStart"])
    assert command[:3] == [str(place / "python"), "-m", "fusion.worker"]
    assert command[3:] == [f"--bundle={place}/bundle", "--host=0.0.0.0", "--port=8001"]
    assert service["WorkingDirectory"] == str(ROOT)
    assert (service["User"], "DynamicUser" in service) == (getpass.getuser(), False)
    assert (service["Restart"], service["SuccessExitStatus"]) == ("on-failure", "143 130")
    # To systemd, an end by it is no failure.
    assert service["RestartForceExitStatus"] == "SIGHUP"
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["CapabilityBoundingSet"]) == (
        "yes",
        "strict",
        "",
    )
    assert "MemoryMax" not in service


def test_secrets_are_handed_over(place):
    text = made(place, f"--token_file={place}/token.txt", "--threads=2", memory_max_mb=400.0)
    service = read(text)["Service"]
    assert service["LoadCredential"] == f"token_file:{place}/token.txt"
    assert service["ExecStart"].split()[-2:] == ["--token_file=${CREDENTIALS_DIRECTORY}/token_file", "--threads=2"]
    assert service["MemoryMax"] == "400000000"


def test_a_privileged_port(place):
    assert read(made(place, "--port=443"))["Service"]["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"


def test_a_coordinator(place):
    cluster = str(place / "cluster.toml")
    service = read(made(place, kind="coordinator", cluster=cluster))["Service"]
    assert (service["DynamicUser"], "User" in service) == ("yes", False)
    assert shlex.split(service["ExecStart"])[2:] == [
        "fusion.coordinator",
        f"--bundle={place}/bundle",
        f"--cluster={cluster}",
    ]
    for kind, given in (("coordinator", None), ("worker", cluster)):
        with pytest.raises(UserError, match="--cluster is of the coordinator"):
            made(place, kind=kind, cluster=given)


@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        (("port=1",), {}, "'port=1' after -- is no flag"),
        (("--bundle=x",), {}, "--bundle stands after --; legal: before it"),
        (("--token_file=none",), {}, "--token_file: 'none' does not exist"),
        (("--host=a\nUser=root",), {}, "cannot stand in a unit"),
        ((), {"name": "../x"}, "--name is '../x'; legal: "),
        ((), {"user": "pi\nGroup=root"}, "--user is .*; legal: letters"),
        ((), {"user": "nobody-of-here"}, "--user is 'nobody-of-here', and this machine has no such user"),
        ((), {"user": "4294967294"}, "--user is '4294967294', and this machine has no such user"),
    ],
)
def test_refuses(place, options, more, said):
    with pytest.raises(UserError, match=said):
        made(place, *options, **more)


def test_odd_characters_reach_the_program(place):
    given = '--name=100% $HOME "x" \\n'
    line = read(made(place, given))["Service"]["ExecStart"]
    assert line.endswith('"--name=100%% $$HOME \\"x\\" \\\\n"')


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_no_fault(place):
    text = made(place, f"--token_file={place}/token.txt", "--port=8001")
    path = place / "paradis-tf-worker.service"
    path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
    # Keys of a later version are passed over; what else is said of this file is a fault.
    later = ("Unknown key 'RestartSteps'", "Unknown key 'RestartMaxDelaySec'")
    faults = [line for line in done.stderr.splitlines() if path.name in line and not any(key in line for key in later)]
    assert faults == []
    options = ["--offline=yes", "--threshold=30", "--no-pager"]
    done = subprocess.run(["systemd-analyze", "security", *options, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program(bundle, runner, tmp_path):
    given = ("--kind=worker", f"--bundle={bundle}", f"--target={tmp_path}")
    done = runner("systemd", *given, f"--user={getpass.getuser()}", "--", "--port=1")
    assert done.returncode == 0, done.stderr
    service = read((tmp_path / "paradis-tf-worker.service").read_text())["Service"]
    assert service["ExecStart"] == f"{sys.executable} -m fusion.worker --bundle={bundle} --port=1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind=worker", "--bundle=none"], "bundle 'none' is not a folder"),
        (["--kind=router"], "flag --kind=router"),
        (["--cluster=x"], "--kind is missing; legal: worker, coordinator"),
    ],
)
def test_what_would_not_start_is_not_written(runner, tmp_path, options, said):
    done = runner("systemd", f"--target={tmp_path}", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr and not list(tmp_path.iterdir())
