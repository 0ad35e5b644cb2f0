"""What a list of runs may say, and the flags that come of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.runs import run_list
from fusion.base.program import UserError

CONFIG = """
from ml_collections import ConfigDict


def get_config(method="paradis"):
    return ConfigDict({"seed": 0, "epochs": 2, "rate": 0.1, "flip": False, "note": "", "sizes": [1],
                       "switches": ("1.0", "0.5+0.5"), "model": {"width": 1.0},
                       "method": {"name": method, "teacher": ""}})
"""


def load(folder: Path, text: str) -> tuple[run_list.ListedRun, ...]:
    (folder / "config.py").write_text(CONFIG)
    (folder / "list.toml").write_text(text.replace("CONFIG", str(folder / "config.py")))
    return run_list.load(folder / "list.toml")


def test_entries_take_the_defaults_and_add_their_own(tmp_path: Path) -> None:
    runs = load(
        tmp_path,
        """
        [defaults]
        config = "CONFIG"
        seeds = [3, 1]
        overrides = {epochs = 5, model.width = 0.5}
        [[runs]]
        name = "joint"
        method = "ParaDiS"
        [[runs]]
        name = "alone"
        config = "CONFIG:individual"
        seeds = [7]
        overrides = {switches = ["0.5+0.5"], "model.width" = 0.25}
        """,
    )
    assert [(run.name, run.method, run.seed) for run in runs] == [
        ("joint_seed3", "ParaDiS", 3),
        ("joint_seed1", "ParaDiS", 1),
        ("alone_seed7", "alone", 7),
    ]
    joint, alone = runs[0].config, runs[2].config
    assert (joint.epochs, joint.model.width, joint.seed, joint.method.name) == (5, 0.5, 3, "paradis")
    assert (alone.epochs, alone.model.width, alone.switches) == (5, 0.25, ("0.5+0.5",))
    assert alone.method.name == "individual"


def test_the_flags_give_the_same_config_as_the_list(tmp_path: Path) -> None:
    (run,) = load(
        tmp_path,
        """
        [[runs]]
        name = "a"
        config = "CONFIG:slimmable"
        seeds = [4]
        [runs.overrides]
        switches = ["4x0.25", "é'\\"\\\\"]
        flip = true
        rate = 1e-5
        note = "it's a=b, ('c')"
        model.width = 1
        """,
    )
    # The flag of the train program, in a process of its own because flags are defined once.
    script = (
        "import sys; from absl import flags; from ml_collections import config_flags\n"
        "holder = config_flags.DEFINE_config_file('config', None, lock_config=True)\n"
        "flags.FLAGS(sys.argv); print(holder.value.to_json())"
    )
    done = subprocess.run([sys.executable, "-c", script, *run.train_flags()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == run.config.to_json()


BAD = {
    "not TOML": ("[[runs", "is not TOML"),
    "deep": ("a = " + "[" * 99999, "is not TOML"),
    "long number": ("a = 1" + "0" * 5000, "is not TOML"),
    "long name": (f'[[runs]]\nname = "{"a" * 201}"\nconfig = "CONFIG"\n', "200 at most"),
    "large seed": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\nseeds = [9999999999]\n', "seeds is [9999999999]"),
    "no runs": ("[defaults]\n", "names no runs; it has one [[runs]] table each"),
    "runs is a table": ("[runs]\n", "names no runs"),
    "unknown table": ("[default]\n", "has the key 'default'; it takes defaults, runs"),
    "unknown default": ("[defaults]\nseed = 1\n[[runs]]\n", "[defaults] of list"),
    "unknown key": ('[[runs]]\nname = "a"\nseed = 1\n', "entry 'a' of list"),
    "no name": ('[[runs]]\nconfig = "CONFIG"\n', "entry 1 of list"),
    "name with a slash": ('[[runs]]\nname = "a/b"\nconfig = "CONFIG"\n', "name is 'a/b'; it is letters"),
    "hidden name": ('[[runs]]\nname = "..a"\nconfig = "CONFIG"\n', "name is '..a'"),
    "no config": ('[[runs]]\nname = "a"\n', "config is None; it is a string"),
    "missing config": ('[[runs]]\nname = "a"\nconfig = "/nowhere.py"\n', "config file '/nowhere.py' does not exist"),
    "broken config": ('[[runs]]\nname = "a"\nconfig = "README.md"\n', "entry 'a' of list"),
    "method of no name": ('[[runs]]\nname = "a"\nmethod = ""\nconfig = "CONFIG"\n', "method is ''; it is a string"),
    "name twice": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\n' * 2, "entry 'a' of list"),
    "seed": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\nseeds = [-1]\n', "seeds is [-1]; it is a list of different"),
    "seed twice": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\nseeds = [1, 1]\n', "seeds is [1, 1]"),
    "teacher after it": (
        '[[runs]]\nname = "a"\nconfig = "CONFIG"\nteacher = "b"\n[[runs]]\nname = "b"\nconfig = "CONFIG"\n',
        "its teacher 'b_seed0' is no run of an entry before it",
    ),
    "teacher of another seed": (
        '[[runs]]\nname = "b"\nconfig = "CONFIG"\n'
        '[[runs]]\nname = "a"\nconfig = "CONFIG"\nteacher = "b"\nseeds = [1]\n',
        "its teacher 'b_seed1' is no run of an entry before it",
    ),
    "teacher of no name": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\nteacher = 1\n', "teacher is 1; it is a string"),
    "no seeds": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\nseeds = []\n', "seeds is []"),
    "true as a seed": ('[[runs]]\nname = "a"\nconfig = "CONFIG"\nseeds = [true]\n', "seeds is [True]"),
}
OVERRIDES = {
    "unknown": ("epoch = 1", "config has no key 'epoch' (did you mean 'epochs'?)"),
    "unknown nested": ("model.depth = 1", "config.model has no key 'depth' (did you mean 'width'?); it has width"),
    "below a value": ("epochs.x = 1", "config.epochs has no key 'x'"),
    "seed": ("seed = 1", "overrides has 'seed'; give seeds"),
    "float for an int": ("epochs = 1.5", "override epochs is 1.5; the config has 2 there"),
    "bool for an int": ("epochs = true", "override epochs is True; the config has 2 there"),
    "int for a bool": ("flip = 1", "override flip is 1; the config has False there"),
    "string for a tuple": ('switches = "1.0"', "override switches is '1.0'"),
    "value for a table": ("model = 1", "override model is 1; the config has a table there, of width"),
    "list that flags cannot take": ("sizes = [1, 2]", "override sizes is (1, 2); the config has [1] there"),
    "date": ("note = 2024-01-01", "it is a number, a string, true, false or a list of them"),
    "not finite": ("rate = nan", "override rate is nan"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_lists_are_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load(tmp_path, text)
    assert "list.toml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("override", "sentence"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_bad_overrides_name_the_entry(override: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load(tmp_path, f'[[runs]]\nname = "a"\nconfig = "CONFIG"\noverrides = {{{override}}}\n')
    assert "entry 'a' of list" in str(caught.value)


def test_a_teacher_is_the_run_of_the_same_seed(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "wide"\n[[runs]]\nname = "a"\nteacher = "wide"\n'
    runs = {run.name: run for run in load(tmp_path, f'[defaults]\nconfig = "CONFIG"\nseeds = [0, 4]\n{entries}')}
    assert runs["a_seed4"].teacher == "wide_seed4"
    assert runs["a_seed4"].config.method.teacher == "runs/wide_seed4"
    assert "--config.method.teacher=runs/wide_seed4" in runs["a_seed4"].train_flags()
    assert runs["wide_seed4"].teacher == runs["wide_seed4"].config.method.teacher == ""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("def get_config(): return 3", "gives int; get_config"), ("raise SystemExit(0)", "gives no configuration: 0")],
)
def test_a_config_file_that_gives_none_is_named(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text(content)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path, f'[[runs]]\nname = "a"\nconfig = "{tmp_path / "none.py"}"\n')


def test_a_list_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="list '/nowhere/list.toml' cannot be read"):
        run_list.load("/nowhere/list.toml")


@pytest.mark.parametrize("file", sorted(Path("benchmarks/runs").glob("*.toml")), ids=str)
def test_the_lists_of_the_repository_are_sound(file: Path) -> None:
    assert run_list.load(file)


def test_the_program_refuses_bad_flags(tmp_path: Path) -> None:
    load(tmp_path, '[[runs]]\nname = "a"\nconfig = "CONFIG"\n')
    for flags, sentence in (
        ([], "--list is missing"),
        ([f"--list={tmp_path / 'list.toml'}", "--only=("], "--only='(' is no regular expression"),
        ([f"--list={tmp_path / 'list.toml'}", "--only=b"], "--only='b' is found in no run of the list, which has a_s"),
        ([f"--list={tmp_path / 'list.toml'}", "--parallel=0"], "0 is not a positive integer"),
        ([f"--list={tmp_path / 'list.toml'}", f"--results={tmp_path}"], "is a folder; give a file"),
        ([f"--list={tmp_path / 'list.toml'}", f"--results={tmp_path / ('x' * 250)}", f"--runs_dir={tmp_path}"], "long"),
    ):
        done = subprocess.run([sys.executable, "-m", "benchmarks.runs", *flags], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
