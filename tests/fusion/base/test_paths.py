"""Paths with `~`, as flags, arguments and files have them."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.base.paths import expand, in_home
from fusion.base.program import UserError
from fusion.cluster import file as cluster
from fusion.predict import sources

ROOT = Path(__file__).parents[3]
ME = pwd.getpwuid(os.getuid())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of the test; the current folder is another one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_homes_are_filled_in(home: Path) -> None:
    for written, wanted in {
        "~": f"{home}",
        "~/runs/mine": f"{home}/runs/mine",
        "~//runs": f"{home}/runs",
        f"~{getpass.getuser()}/x": f"{ME.pw_dir}/x",
        "": "",
        "-": "-",
        "a/~/b": "a/~/b",
        "./~/b": "./~/b",
        "a~": "a~",
        "tfds:x": "tfds:x",
    }.items():
        assert expand(written) == wanted


def test_what_is_there_by_such_a_name_is_itself(home: Path) -> None:
    Path("~$letter.png").touch()
    assert expand("~$letter.png") == "~$letter.png"


def test_unknown_users_are_one_sentence(home: Path) -> None:
    with pytest.raises(UserError) as raised:
        expand("~nobody-here/x")
    assert str(raised.value) == (
        "path '~nobody-here/x': this machine has no user 'nobody-here'; legal: a path without ~, or './~nobody-here/x'."
    )


def test_a_user_without_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.setenv("HOME", "")
    assert in_home(".cache") is None
    monkeypatch.delenv("HOME")
    assert in_home(".cache") == f"{ME.pw_dir}/.cache"
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert in_home(".cache") is None
    with pytest.raises(UserError, match="path '~/x': this user has no home here; legal: a path without ~, or HOME set"):
        expand("~/x")


CODE = """
from absl import flags
from fusion.base import paths, program
FILE = paths.define_path("file", None, "A file.")
FILES = paths.define_paths("files", [], "Files.")
NEEDED = paths.define_path("needed", None, "A file.", required=True)
program.run(lambda argv: print(FILE.value, *FILES.value, NEEDED.value))
"""


@pytest.mark.parametrize(
    ("flags", "output", "error"),
    [
        (["--file=~/a", "--files=~/b", "--files=c", "--needed=~"], "{0}/a {0}/b c {0}\n", ""),
        (["--needed=d"], "None d\n", ""),
        (["--file=~/a"], "", "error: --needed is missing.\n"),
        (
            ["--needed=~nobody-here/x"],
            "",
            "error: flag --needed=~nobody-here/x: path '~nobody-here/x': this machine has no user 'nobody-here'; "
            "legal: a path without ~, or './~nobody-here/x'; see --help.\n",
        ),
    ],
)
def test_flags(home: Path, flags: list[str], output: str, error: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, *flags], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (output.format(home), error)


def test_files_of_a_cluster(home: Path) -> None:
    Path("cluster.toml").write_text(
        '[[device]]\nname = "a"\nurl = "https://a:1"\ntoken_file = "~/t"\ntls_ca = "ca.pem"\n'
    )
    (device,) = cluster.load("cluster.toml").devices
    assert (device.credentials.token_file, device.credentials.tls_ca) == (f"{home}/t", "ca.pem")


def test_images_to_predict(home: Path, tmp_path: Path) -> None:
    (home / "pictures").mkdir()
    (home / "pictures" / "a.png").touch()
    named = [source.name for source in sources.files(["~/pictures", "~/b.png"])[0]]
    assert named == [f"{home}/pictures/a.png", f"{home}/b.png"]
    (tmp_path / "list").write_text("~/c.png\n~nobody-here/d.png\n")
    with (tmp_path / "list").open("rb") as stream:
        assert [source.name for source in sources.lines(stream)] == [f"{home}/c.png", "~nobody-here/d.png"]
