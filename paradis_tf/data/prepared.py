"""Sets that `paradis_tf.prepare` has made: JPEG images in TFRecord files, with an index for reading in any order.

FOLDER/manifest.json                      what is in it: classes, counts, hashes; written last
FOLDER/train-00000-of-00012.tfrecord      a tf.train.Example for each image, with the features image/encoded,
                                          image/class/label, image/class/text and image/filename
FOLDER/train.index.npy                    where each image's record and JPEG lie in these files, its label
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fusion.base.program import UserError
from paradis_tf.data import datasets
from paradis_tf.data.encoded import EncodedImages

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
ROLES = ("train", "validation", "test")
# Of an index: one row for each image.
ROW = np.dtype([("shard", "<i4"), ("record", "<i8"), ("offset", "<i8"), ("length", "<i8"), ("label", "<i4")])


def index_file(folder: Path, role: str) -> Path:
    """Where the index of a part is."""
    return folder / f"{role}.index.npy"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared set.

    Raises:
      UserError: there is none, or one of another form.
    """
    file = folder / MANIFEST
    if not os.path.exists(file):
        raise UserError(
            f"{str(folder)!r} holds no prepared set, there is no {MANIFEST}; python -m paradis_tf.prepare makes one, "
            "and started again it goes on where it was stopped."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({error}).") from None
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{file} is no manifest of a prepared set of version {SCHEMA_VERSION}; prepare the set again.")
    if not _is_whole(manifest):
        raise UserError(f"{file} is damaged; prepare the set again.")
    return manifest


def _is_whole(manifest: dict[str, Any]) -> bool:
    """Whether everything is there and of its type; a file of the set lies in its folder."""

    def typed(entry: Any, **types: type) -> bool:
        return isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in types.items())

    return (
        typed(manifest, size=int, classes=list, parts=dict)
        and manifest["size"] > 0
        and all(isinstance(name, str) for name in manifest["classes"])
        and all(typed(part, images=int, index_sha256=str, shards=list) for part in manifest["parts"].values())
        and all(
            typed(shard, file=str, images=int, bytes=int, sha256=str)
            and Path(shard["file"]).name == shard["file"]
            and "\0" not in shard["file"]
            for part in manifest["parts"].values()
            for shard in part["shards"]
        )
    )


def load(folder: Path, image_size: int) -> tuple[dict[str, datasets.Part], list[str]]:
    """The parts of a prepared set, and its classes' names; the images stay in their files.

    Args:
      folder: as written by `paradis_tf.prepare`.
      image_size: side of the square input in pixels; 0 takes the size that the set was prepared for.

    Raises:
      UserError: the set is not complete, or its files are not as the manifest says.
    """
    manifest = read_manifest(folder)
    names: list[str] = manifest["classes"]
    parts = {
        role: _part(folder, role, manifest["parts"][role], len(names), image_size or manifest["size"])
        for role in ROLES
        if role in manifest["parts"]
    }
    if not {"train", "test"} <= parts.keys():
        raise UserError(f"{folder / MANIFEST} has the parts {', '.join(parts)}; it needs train and test.")
    return parts, names


def _part(folder: Path, role: str, entry: dict[str, Any], classes: int, size: int) -> datasets.Part:
    files = [folder / shard["file"] for shard in entry["shards"]]
    sizes = np.array([shard["bytes"] for shard in entry["shards"]])
    for file, wanted in zip(files, sizes, strict=True):
        try:
            found = file.stat().st_size
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}; prepare the set again.") from None
        if found != wanted:
            raise UserError(f"{file} has {found:,} bytes; the manifest says {wanted:,}. Prepare the set again.")
    file = index_file(folder, role)
    try:
        content = file.read_bytes()
        index = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read ({error}); prepare the set again.") from None
    good = index.dtype == ROW and index.ndim == 1 and len(index) == entry["images"] > 0
    if good:
        shard, ends = index["shard"], index["offset"] + index["length"]
        good = (shard >= 0).all() and (shard < len(files)).all() and (ends <= sizes[shard]).all()
        good = (
            good
            and (index["record"] >= 0).all()
            and (index["offset"] > index["record"]).all()
            and (index["length"] > 0).all()
        )
        good = good and (index["label"] >= 0).all() and (index["label"] < classes).all()
    if not good:
        raise UserError(f"{file} does not fit the files beside it; prepare the set again.")
    # Other labels or an exchange of images would fit. The files themselves have a sum for each record.
    if hashlib.sha256(content).hexdigest() != entry["index_sha256"]:
        raise UserError(f"{file} changed since the set was prepared; prepare the set again.")
    images = EncodedImages(files, index["shard"], index["offset"], index["length"], size, index["record"])
    return datasets.Part(images, index["label"].astype(np.int64))
