"""Asks a running coordinator what some images show, or to enlarge them.

  python -m fusion.predict --url=http://127.0.0.1:8000 image.png folder ...
  find pictures -name "*.jpg" | python -m fusion.predict --resize=crop -
  python -m fusion.predict --watch=inbox                       # images as they appear in a folder
  python -m fusion.predict --loop --every_s=5 snapshot.jpg     # a file that a camera writes again and again

Folders are searched to the bottom; hidden names and files of other kinds are left out and counted. Of a classifier: one
line per image, file, label, confidence, milliseconds and switch, and what a degraded answer lacks; an image must have
the model's size, or be made so by --resize. Of super-resolution: images of any size, cut in tiles of the model's; each
answer is written to --target as NAME_x2.png (of scale 2). If an image cannot be used, or the coordinator refuses it,
the others are still done, and the exit status is 2. A coordinator that is not there yet, or has no time or no devices,
is asked again for --timeout_s; an image that waits in vain is the last one, except with --watch and --loop. The totals
of several images, also after Ctrl-C, are on standard error.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from ..asking.client import BusyError, FusionClient, NotThereError, RefusedError, UnreachableError
from ..base.columns import utc_now
from ..base.files import check_json_target, results, write_json
from ..base.paths import define_path
from ..base.program import LONGEST_S, UserError, define_float, run
from ..base.streams import warn
from ..images import reading as images
from ..rules.sum import softmax
from ..security.credentials import Credentials
from . import sources
from .enlarging import Enlarging
from .parallel import in_order
from .results import STDOUT, json_lines, lacking, printable, served_by, texts
from .sources import STDIN, ImageSource, Selection, WatchedFolder
from .tally import Tally

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "The coordinator's address.")
_STDIN = flags.DEFINE_enum(
    "stdin", "paths", ("paths", "image"), "What standard input holds, given as -: a file name per line, or one image."
)
_WATCH = define_path("watch", None, "After the other images, those that appear or change in this folder.")
_LOOP = flags.DEFINE_bool("loop", False, "Asks about the images again and again, reading their files each time.")
_EVERY_S = define_float("every_s", 1, "With --loop: seconds from the start of one round to the next.", 0, LONGEST_S)
_RESIZE = flags.DEFINE_enum(
    "resize",
    images.REFUSE,
    images.RESIZES,
    "What is done with pictures of another size than a classifier's: refused; or stretched to it, cropped to their "
    "centre as in evaluation, or padded with black.",
)
_PARALLEL = flags.DEFINE_integer("parallel", 1, "Images asked about at once.", 1, 64)
_DEADLINE_MS = define_float(
    "deadline_ms", None, "By when each answer is due, in place of the coordinator's own.", 0.001, LONGEST_S * 1e3
)
_JSON = define_path("json", None, "Also writes the answers to this file, at the end.")
_JSONL = define_path(
    "jsonl", None, "Also writes a line of JSON for each image to this file, at once; - is standard output, alone."
)
_TARGET = define_path("target", ".", "Folder that enlarged images are written to.")
_OVERLAP = flags.DEFINE_integer("overlap", 8, "Pixels by which the tiles of an image to enlarge overlap, each side.", 0)
_TIMEOUT_S = define_float(
    "timeout_s", 30, "Seconds to wait for the coordinator, and to ask it again while it is busy.", 0.001, LONGEST_S
)
_TOKEN_FILE = define_path("token_file", None, "File with the coordinator's bearer token.")
_TLS_CA = define_path("tls_ca", None, "PEM certificates that the coordinator's must come from.")
_TLS_CERT = define_path("tls_cert", None, "PEM certificate to show to the coordinator.")
_TLS_KEY = define_path("tls_key", None, "Unencrypted PEM private key of --tls_cert.")


# Between two tries to connect to a coordinator that is not there yet.
_AGAIN_S = 0.25


class _UnfitImageError(UserError):
    """An image that cannot be used; the others can."""


def main(arguments: list[str]) -> int:
    """Predicts each image named in `arguments`; returns the exit status."""
    _check_flags(arguments)
    # What appears while the other images are done is not to be missed.
    watched = None if _WATCH.value is None else WatchedFolder(_WATCH.value)
    every_s = _EVERY_S.value if _LOOP.value else None
    selection = sources.select(arguments, _STDIN.value == "image", watched, every_s)
    for sentence in selection.unreadable:
        warn(f"error: {sentence}")
    credentials = Credentials(_TOKEN_FILE.value, _TLS_CA.value, _TLS_CERT.value, _TLS_KEY.value)
    timeout_s = _TIMEOUT_S.value or 0.0
    tally = Tally(selection.total)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_connected(credentials, timeout_s, tally)) for _ in range(_PARALLEL.value)]
        ask = _ask_about(clients[0], selection)
        if watched is not None:
            warn(f"watching {_WATCH.value}")
        rows: list[dict[str, Any]] = []
        try:
            _ask_all(selection, [functools.partial(ask, client) for client in clients], tally, rows)
            if not tally.done:
                raise UserError("standard input names no image; legal: the name of a file on each line.")
        finally:
            with results() as keep:
                if tally.done and _JSON.value:
                    model = {"name": clients[0].name, **clients[0].model_parameters}
                    keep(write_json, _JSON.value, {"url": _URL.value, "model": model, "images": rows})
                if tally.done and (selection.total != 1 or selection.left_out):
                    tally.finish(selection.left_out)
    return 2 if tally.unfit or tally.failed or selection.unreadable else 0


def _connected(credentials: Credentials, timeout_s: float, tally: Tally) -> FusionClient:
    """A client of the coordinator, which may still be starting."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return FusionClient(_URL.value, credentials, timeout_s, lambda error: tally.wait(error.reason, timeout_s))
        except (BusyError, NotThereError) as error:
            after_s = error.after_s if isinstance(error, BusyError) else _AGAIN_S
            if time.monotonic() + after_s >= until:
                raise
            busy = error.reason if isinstance(error, BusyError) else f"nothing listens at {_URL.value} yet"
            tally.wait(busy, timeout_s)
            time.sleep(after_s)


def _ask_all(
    selection: Selection,
    asks: Sequence[Callable[[ImageSource], dict[str, Any]]],
    tally: Tally,
    rows: list[dict[str, Any]],
) -> None:
    """Prints and writes what becomes of each image; `rows` is where those of --json are kept."""
    width = max((len(printable(source.name)) for source in selection.known), default=0)
    with json_lines(_JSONL.value) as write_line:

        def write(row: dict[str, Any]) -> None:
            write_line({key: value for key, value in row.items() if key != "logits"})
            if _JSON.value and "error" not in row:
                rows.append(row)

        for source, future in in_order(selection.all, asks):
            _tell(source, future, tally, width, write)


def _check_flags(arguments: Sequence[str]) -> None:
    check_json_target(_JSON.value)
    if not arguments and _WATCH.value is None:
        raise UserError("no image is given; legal: image files, folders, - for standard input, or --watch=FOLDER.")
    endless = "--watch" if _WATCH.value is not None else "--loop" if _LOOP.value else None
    if endless and _JSON.value:
        raise UserError(f"--json is written at the end, and {endless} has none; legal: --jsonl.")
    if _LOOP.value and (_WATCH.value is not None or STDIN in arguments):
        raise UserError("--loop reads files again; legal: files and folders, without --watch and -.")
    if arguments.count(STDIN) > 1:
        raise UserError("- stands twice among the arguments; legal: once, as there is one standard input.")


def _ask_about(client: FusionClient, selection: Selection) -> Callable[[FusionClient, ImageSource], dict[str, Any]]:
    """The function that asks about an image, by the model's task, and returns what is written of the answer."""
    if client.task.has_classes:
        return _classify
    if _WATCH.value is not None and Path(_TARGET.value).resolve().is_relative_to(Path(_WATCH.value).resolve()):
        raise UserError(
            f"--target={_TARGET.value} is in the folder {_WATCH.value!r} that is watched, so that answers would be "
            "enlarged again; legal: another folder."
        )
    enlarging = Enlarging(_TARGET.value, _OVERLAP.value, client.scale)
    enlarging.check(selection.known)
    return functools.partial(_enlarge, enlarging)


def _tell(
    source: ImageSource,
    future: Future[dict[str, Any]],
    tally: Tally,
    width: int,
    write: Callable[[dict[str, Any]], None],
) -> None:
    """Writes what became of an image, then prints it, its name in a column of so many letters."""
    about = {"time": utc_now(), "file": source.name}
    try:
        row = future.result()
    except (_UnfitImageError, RefusedError, UnreachableError) as error:
        text = f"error: {error}"
        if isinstance(error, _UnfitImageError):
            tally.unfit += 1
        else:
            tally.failed += 1
            text = f"error: {source.name!r}: {error}"
            # A camera goes on when its coordinator is back; other images would only all wait and fail.
            if isinstance(error, (BusyError, UnreachableError)) and _WATCH.value is None and not _LOOP.value:
                raise
        with results() as keep:
            keep(write, about | {"error": str(error)})
            warn(text)
        return
    degraded = lacking(row)
    tally.add(row["ms"], bool(degraded))
    with results() as keep:
        keep(write, about | row)
        if _JSONL.value != STDOUT:
            columns = printable(source.name).ljust(width), *texts(row), f"{row['ms']:.1f} ms"
            print("  ".join(filter(None, (*columns, printable(str(row.get("switch", ""))), degraded))), flush=True)


def _read(source: ImageSource, shape: tuple[int, int, int] | None) -> np.ndarray:
    try:
        return images.read(source.name if source.content is None else source.content, shape, _RESIZE.value)
    except UserError as error:
        raise _UnfitImageError(str(error)) from error


def _classify(client: FusionClient, source: ImageSource) -> dict[str, Any]:
    image = _read(source, client.shape)
    started = time.perf_counter()
    answer = client.infer(image, deadline_ms=_DEADLINE_MS.value)
    ms = (time.perf_counter() - started) * 1e3
    logits = answer.outputs["logits"]
    row = {"class": answer.index, "label": answer.label, "confidence": float(softmax(logits)[answer.index]), "ms": ms}
    return row | {"logits": logits.tolist()} | served_by(answer.parameters)


def _enlarge(enlarging: Enlarging, client: FusionClient, source: ImageSource) -> dict[str, Any]:
    image = _read(source, None)
    try:
        target = enlarging.take(source)
    except UserError as error:
        raise _UnfitImageError(str(error)) from error
    return enlarging.enlarge(client, image, target, _DEADLINE_MS.value)


if __name__ == "__main__":
    run(main, takes_arguments=True)
