"""Asks a running coordinator what some images show, or to enlarge them.

  python -m export.fusion.predict --url=http://127.0.0.1:8000 image.png ...

Of a classifier: one line per image, file, label, confidence and milliseconds; an image must have the model's size. Of
super-resolution: images of any size, cut in tiles of the model's; each answer is written to --target as NAME_x2.png (of
scale 2). Images are RGB or 8-bit grey. If one cannot be used the others are still done, and the exit status is 2.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from . import images
from .bundle import CLASSIFICATION
from .client import FusionClient
from .files import check_json_target, write_bytes, write_json
from .fuse import softmax
from .program import LONGEST_S, UserError, define_float, run
from .security import Credentials
from .tiles import Tiles

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "The coordinator's address.")
_JSON = flags.DEFINE_string("json", None, "Also writes the answers to this file.")
_TARGET = flags.DEFINE_string("target", ".", "Folder that enlarged images are written to.")
_OVERLAP = flags.DEFINE_integer("overlap", 8, "Pixels by which the tiles of an image to enlarge overlap, each side.", 0)
_TIMEOUT_S = define_float("timeout_s", 30, "Seconds to wait for the coordinator.", 0.001, LONGEST_S)
_TOKEN_FILE = flags.DEFINE_string("token_file", None, "File with the coordinator's bearer token.")
_TLS_CA = flags.DEFINE_string("tls_ca", None, "PEM certificates that the coordinator's must come from.")
_TLS_CERT = flags.DEFINE_string("tls_cert", None, "PEM certificate to show to the coordinator.")
_TLS_KEY = flags.DEFINE_string("tls_key", None, "Unencrypted PEM private key of --tls_cert.")


def main(arguments: list[str]) -> int:
    """Predicts each image named in `arguments`; returns the exit status."""
    if not arguments:
        raise UserError("no image is given; legal: one or more image files.")
    check_json_target(_JSON.value)
    credentials = Credentials(_TOKEN_FILE.value, _TLS_CA.value, _TLS_CERT.value, _TLS_KEY.value)
    rows: list[dict[str, Any]] = []
    status = 0
    width = max(len(path) for path in arguments)
    with FusionClient(_URL.value, credentials, _TIMEOUT_S.value) as client:
        one = _classify if client.task == CLASSIFICATION else _enlarge
        if one is _enlarge:
            _check_targets(arguments, client.scale)
        for path in arguments:
            try:
                said, row = one(client, path)
            except _Unfit as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                status = 2
                continue
            print(f"{path:{width}}  {said}  {row['ms']:.1f} ms", flush=True)
            rows.append({"file": path, **row})
        if _JSON.value:
            model = {"name": client.name, **client.model_parameters}
            write_json(_JSON.value, {"url": _URL.value, "model": model, "images": rows})
    return status


class _Unfit(UserError):
    """An image that cannot be used; the others can."""


def _read(path: str, shape: tuple[int, int, int] | None) -> np.ndarray:
    try:
        return images.read(path, shape)
    except UserError as error:
        raise _Unfit(str(error)) from error


def _classify(client: FusionClient, path: str) -> tuple[str, dict[str, Any]]:
    """What is printed of an image, and what is written."""
    image = _read(path, client.shape)
    started = time.perf_counter()
    answer = client.infer(image)
    ms = (time.perf_counter() - started) * 1e3
    logits = answer.outputs["logits"]
    confidence = float(softmax(logits)[answer.index])
    row = {"class": answer.index, "label": answer.label, "confidence": confidence, "ms": ms, "logits": logits.tolist()}
    return f"{answer.label}  {confidence:6.1%}", row


def _enlarge(client: FusionClient, path: str) -> tuple[str, dict[str, Any]]:
    """As `_classify`; also writes the answer."""
    image = _read(path, None)
    tiles = Tiles(client.shape[:2], _OVERLAP.value, client.scale)
    started = time.perf_counter()
    pixels = tiles.join([client.infer(tile).outputs["pixels"] for tile in tiles.cut(image)], image.shape[:2])
    ms = (time.perf_counter() - started) * 1e3
    target = _target_of(path, client.scale)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    write_bytes(target, encoded.getvalue())
    height, width, _ = pixels.shape
    return f"{target}  {width}x{height}", {"target": str(target), "shape": list(pixels.shape), "ms": ms}


def _target_of(path: str, scale: int) -> Path:
    return Path(_TARGET.value) / f"{Path(path).stem}_x{scale}.png"


def _check_targets(paths: Sequence[str], scale: int) -> None:
    """Raises `UserError` where an answer could not be written, or would replace another or one of the images."""
    if not Path(_TARGET.value).is_dir() or not os.access(_TARGET.value, os.W_OK | os.X_OK):
        raise UserError(f"--target={_TARGET.value} is no folder that can be written to; legal: one that is there.")
    images_ = {Path(path).resolve() for path in paths}
    taken: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        target = _target_of(path, scale)
        if target.resolve() in images_:
            raise UserError(f"the answer of {path!r} would replace the image {str(target)!r}; give another --target.")
        if target in taken:
            raise UserError(
                f"{taken[target]!r} and {path!r} would both be written to {str(target)!r}; give them one by one, each "
                "with a --target of its own."
            )
        taken[target] = path


if __name__ == "__main__":
    run(main, takes_arguments=True)
