"""How programs end: their output closed, full, left by its reader or without a letter, and signals at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WAIT_S = 60
RUN = "import sys\nfrom fusion.base import files, program, streams\nprogram.run(lambda argv: {})\n"
MANY_LINES = RUN.format('print("a line\\n" * 100_000)')
A_LINE = RUN.format('print("a line")')
HELP = ["-m", "fusion.selftest", "--help"]
OUTPUTS = {"help": HELP, "many lines": ["-c", MANY_LINES], "a line": ["-c", A_LINE], "unbuffered": ["-uc", A_LINE]}
NUMBERS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
FULL = "error: standard output cannot be written: No space left on device.\n"


def shell(command: Sequence[str], redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python by a shell, which closes and redirects its streams."""
    line = ["bash", "-c", f'exec "$0" "$@" {redirection}', sys.executable, *command]
    return subprocess.run(
        line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=WAIT_S, encoding="utf-8"
    )


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_a_reader_that_leaves_ends_it_without_a_word(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_a_full_disk_is_one_sentence(command: list[str]) -> None:
    done = shell(command, ">/dev/full")
    assert (done.returncode, done.stderr) == (2, FULL)


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS.keys())
@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_to_nothing(command: list[str], closed: str) -> None:
    done = shell(command, closed)
    # absl ends help by 1.
    assert (done.returncode, done.stdout, done.stderr) == (int(command == HELP), "", "")


def test_a_file_takes_no_closed_streams_place(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    code = f"""
import subprocess
def main(argv):
    with open({str(path)!r}, "w") as file:
        print("printed", flush=True)
        subprocess.run(["echo", "of a child"])
        file.write("result")
program.run(main)
"""
    done = shell(["-c", RUN.split("program.run")[0] + code], ">&-")
    assert (done.returncode, done.stderr, path.read_text()) == (0, "", "result")


@pytest.mark.parametrize("output", [">/dev/full", "| head -1", "| :", ">&-"])
def test_results_are_written_whatever_becomes_of_the_output(output: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    code = f"""
def main(argv):
    for number in range(100):
        streams.say(f"step {{number}}")
    with files.results() as write:
        write(files.write_json, {str(path)!r}, 7)
        print("seven")
program.run(main)
"""
    done = shell(["-c", RUN.split("program.run")[0] + code], output)
    assert path.read_text() == "7\n"
    assert done.stderr == (FULL if "full" in output else "")


def test_what_cannot_be_written_is_printed_and_then_told(tmp_path: Path) -> None:
    code = f"""
def main(argv):
    with files.results() as write:
        write(files.write_json, {str(tmp_path / "none" / "a.json")!r}, 7)
        write(files.write_json, {str(tmp_path / "b.json")!r}, 8)
        print("seven")
program.run(main)
"""
    done = shell(["-c", RUN.split("program.run")[0] + code], "")
    assert (done.returncode, done.stdout) == (2, "seven\n")
    assert done.stderr == f"error: file '{tmp_path}/none/a.json' cannot be written: No such file or directory.\n"
    assert (tmp_path / "b.json").read_text() == "8\n"


@pytest.mark.parametrize(("output", "status"), [("", 2), (">/dev/full", 2), ("| :", 0)])
def test_what_cannot_be_written_is_told_whatever_becomes_of_the_output(
    output: str, status: int, tmp_path: Path
) -> None:
    """Of a pipeline the shell gives the reader's status."""
    path = tmp_path / "none" / "a.json"
    code = f"""
def main(argv):
    with files.results() as write:
        write(files.write_json, {str(path)!r}, 7)
        print("a line\\n" * 100_000)
program.run(main)
"""
    done = shell(["-c", RUN.split("program.run")[0] + code], output)
    assert (done.returncode, done.stderr) == (
        status,
        f"error: file '{path}' cannot be written: No such file or directory.\n",
    )


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "\\u732b d\\xf6g"),
        ({"PYTHONIOENCODING": "latin-1"}, "\\u732b d\\xf6g"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "\\u732b d\\xf6g"),
        ({"PYTHONIOENCODING": "utf-8"}, "猫 dög"),
    ],
)
def test_letters_that_the_terminal_lacks_are_escaped(environment: dict[str, str], shown: str) -> None:
    # Of Latin-1 the test sees what is left when the letters that it has are escaped too.
    code = "print('\\u732b d\\xf6g'), print('\\u732b d\\xf6g', file=sys.stderr)"
    line = [sys.executable, "-c", RUN.format(f"({code}) and 0")]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=WAIT_S)
    encoding = "latin-1" if "latin-1" in environment.values() else "utf-8"
    for stream in (done.stdout, done.stderr):
        text = stream.decode(encoding).strip()
        assert (text.replace("ö", "\\xf6") if encoding == "latin-1" else text) == shown
    assert done.returncode == 0


def started(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended_by(program: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """(exit status, standard error) of a program that gets this signal now."""
    program.send_signal(number)
    errors = program.communicate(timeout=WAIT_S)[1]
    return program.returncode, errors


IMPORTING = """
import signal
print("importing", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("program", ["fusion.worker", "fusion.plan", "paradis_tf.report", "export.verify"])
@pytest.mark.parametrize("number", NUMBERS, ids=NUMBERS.values())
def test_a_signal_while_a_program_imports_ends_it_at_once(program: str, number: int, tmp_path: Path) -> None:
    # Stands before the real one, and takes its time.
    (tmp_path / "absl").mkdir()
    (tmp_path / "absl" / "__init__.py").write_text(IMPORTING)
    with started(["-m", program], PYTHONPATH=str(tmp_path)) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        assert ended_by(process, number) == (128 + number, f"{NUMBERS[signal.Signals(number)]}\n")


@pytest.mark.parametrize("number", NUMBERS, ids=NUMBERS.values())
def test_a_signal_while_tensorflow_is_imported_ends_it_at_once(number: int, tmp_path: Path) -> None:
    # As libraries do, it swallows what is raised meanwhile.
    swallows = IMPORTING.replace(
        "    signal.pause()", "    try:\n        signal.pause()\n    except BaseException: pass"
    )
    (tmp_path / "keras.py").write_text(swallows)
    command = ["-m", "paradis_tf.train", "--config=paradis_tf/configs/digits_mobilenet_v1.py", f"--workdir={tmp_path}"]
    with started(command, PYTHONPATH=str(tmp_path)) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        assert ended_by(process, number) == (128 + number, f"{NUMBERS[signal.Signals(number)]}\n")


UNDOING = """
import signal
def main(argv):
    try:
        print("at work", flush=True)
        while True:
            signal.pause()
    finally:
        print("undone", file=sys.stderr)
program.run(main)
"""


@pytest.mark.parametrize("number", NUMBERS, ids=NUMBERS.values())
def test_a_signal_ends_work_by_undoing_it(number: int) -> None:
    with started(["-c", RUN.split("program.run")[0] + UNDOING]) as process:
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        assert ended_by(process, number) == (128 + number, f"undone\n{NUMBERS[signal.Signals(number)]}\n")


@pytest.mark.parametrize("number", NUMBERS, ids=NUMBERS.values())
def test_a_signal_to_a_process_that_has_just_begun_ends_it(number: int) -> None:
    with started(["-m", "fusion.plan", "--help"]) as process:
        # Python itself may not be there yet, which then ends in its own way; the shell shows the same status.
        assert ended_by(process, number)[0] in (-number, 128 + number, 1)


@pytest.mark.parametrize("number", NUMBERS, ids=NUMBERS.values())
def test_a_signal_after_the_work_ends_it_too(number: int) -> None:
    code = f"""
import atexit, os
def main(argv):
    atexit.register(os.kill, os.getpid(), {int(number)})
program.run(main)
"""
    done = shell(["-c", RUN.split("program.run")[0] + code], "")
    assert (done.returncode, done.stderr) == (128 + number, f"{NUMBERS[signal.Signals(number)]}\n")


def test_ignored_signals_stay_ignored() -> None:
    code = RUN.split("program.run")[0] + (
        "import os, signal\ndef main(argv):\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('alive')\n"
        "program.run(main)\n"
    )
    done = shell(["-c", code], "")
    assert done.returncode == 129
    line = ["bash", "-c", 'trap "" HUP; exec "$0" "$@"', sys.executable, "-c", code]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
