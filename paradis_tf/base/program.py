"""What the training programs share: the --config flag, and loading TensorFlow without its start-up noise."""

from __future__ import annotations

import difflib
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fusion.base import program, stopping, streams
from fusion.base.paths import NO_HOME, expand, in_home
from fusion.base.program import UserError
from paradis_tf.base.files import remove_temporary_folders

flags.disclaim_key_flags()


def define_config(help_text: str) -> flags.FlagHolder[Any]:
    """Defines `--config=FILE.py`, whose values `--config.key=value` overrides; unknown keys are refused.

    `--config=FILE.py:METHOD` asks the file for its experiment with another training method.
    """
    return config_flags.DEFINE_config_file("config", None, help_text, lock_config=True)


def config_of(holder: flags.FlagHolder[Any]) -> ConfigDict:
    """The configuration that was asked for.

    Raises:
      UserError: no --config, or a file that gives none.
    """
    if not flags.FLAGS["config"].present:
        raise UserError("--config is missing; give a file such as paradis_tf/configs/digits_mobilenet_v1.py.")
    config = holder.value
    if not isinstance(config, ConfigDict):
        config = load_config(flags.FLAGS["config"].config_filename)
    config.lock()
    return config


def run(main: Callable[[list[str]], int | None]) -> None:
    """As `fusion.base.program.run`, with a clear error for an override of a key that does not exist, and temporary
    folders removed."""

    def tidy(argv: list[str]) -> int | None:
        try:
            return main(argv)
        finally:
            # Before a signal ends the program, which is not in Python's way.
            remove_temporary_folders()

    program.run(tidy, parse_flags=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    _check_repeated(argv)
    argv = [_expanded(argument) for argument in argv]
    try:
        return program.parse_command_line(argv)
    except Exception as error:  # a config file is a Python program, and may raise anything
        if isinstance(error, OSError) and streams.failure(error):
            raise  # --help that could not be written
        _check_overrides(argv)
        if isinstance(error, UserError):
            raise
        raise UserError(f"the command line is not understood: {error}") from None


def _expanded(argument: str) -> str:
    """An argument in whose --config=FILE the home is filled in; the flag is none of ours."""
    flag, equals, file = argument.partition("=")
    return f"{flag}={expand(file)}" if equals and flag.lstrip("-") == "config" else argument


def _check_repeated(argv: list[str]) -> None:
    """Raises UserError if a key is given twice: ml_collections would put the two values of a tuple end to end."""
    keys = [
        argument.lstrip("-").split("=")[0] for argument in argv[1:] if argument.startswith(("--config.", "-config."))
    ]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"--{key} is given {keys.count(key)} times; give it once.")


def _check_overrides(argv: list[str]) -> None:
    """Raises UserError if the config file of a command line cannot be used, or an override names a key it lacks."""
    file = None
    for place, argument in enumerate(argv):
        if argument.startswith(("--config=", "-config=")):
            file = argument.split("=", 1)[1]
        elif argument in ("--config", "-config") and place + 1 < len(argv):
            file = argv[place + 1]
    if file is None:
        return
    config = load_config(file)
    for argument in argv[1:]:
        if argument.startswith("--config."):
            check_key(argument[len("--config.") :].split("=")[0], config)


def load_config(file: str) -> ConfigDict:
    """The configuration of `FILE.py` or `FILE.py:METHOD`, without the --config flag, which may have failed to parse.

    Raises:
      UserError: the file gives none.
    """
    try:
        path, _, method = file.partition(":")
        config = runpy.run_path(path)["get_config"](*([method] if method else []))
    except (Exception, SystemExit) as error:  # whatever a user's Python file raises
        reason = "it defines no get_config()" if isinstance(error, KeyError) else str(error)
        raise UserError(f"--config={file} gives no configuration: {reason}") from None
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file} gives {type(config).__name__}; get_config() returns a ConfigDict.")
    return config


def check_key(dotted: str, config: ConfigDict) -> None:
    """Raises UserError, with what is legal, unless a configuration has the key `a.b.c`."""
    node: Any = config
    path = ["config"]
    for key in dotted.split("."):
        if not isinstance(node, ConfigDict) or key not in node:
            known = sorted(node) if isinstance(node, ConfigDict) else []
            near = difflib.get_close_matches(key, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"{'.'.join(path)} has no key {key!r}{hint}; it has {', '.join(known) or 'none'}.")
        node = node[key]
        path.append(key)


@contextmanager
def loading() -> Iterator[None]:
    """For the imports of TensorFlow and of what wants it: quiet, and a signal ends the program at once."""
    if in_home("") is None:
        # Of a user without a home libraries would make a folder that is called `~`.
        os.environ["HOME"] = NO_HOME
    with stopping.ending_at_once(), quiet():
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what native code writes to the terminal's error stream; if the block fails it is shown.

    TensorFlow's libraries report drivers that a machine without a GPU lacks before any log level applies, and its
    converter remarks on every file, so the stream itself is turned aside.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
