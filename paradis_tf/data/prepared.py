"""Sets that `paradis_tf.prepare` has made: JPEG images in TFRecord files, with an index for reading in any order.

FOLDER/manifest.json                      what is in it: classes, counts, hashes; written last
FOLDER/train-00000-of-00012.tfrecord      a tf.train.Example for each image, with the features image/encoded,
                                          image/class/label, image/class/text and image/filename
FOLDER/train.index.npy                    where each image's record and JPEG lie in these files, its label
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base.files import file_sha256, read_json
from paradis_tf.data.encoded import EncodedImages
from paradis_tf.data.parts import Part

SCHEMA_VERSION = 2
# Sets of version 1 are alike, but made of images as they lie in their files.
_LYING = 1
MANIFEST = "manifest.json"
PARTS = ("train", "validation", "test")
# Of an index: one row for each image.
ROW = np.dtype([("shard", "<i4"), ("record", "<i8"), ("offset", "<i8"), ("length", "<i8"), ("label", "<i4")])


def index_file(folder: Path, part: str) -> Path:
    """Where the index of a part is."""
    return folder / f"{part}.index.npy"


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
    manifest = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("schema_version") not in (_LYING, SCHEMA_VERSION):
        raise UserError(f"{file} is no manifest of a prepared set of version {SCHEMA_VERSION}; prepare the set again.")
    if not _is_whole(manifest):
        raise UserError(f"{file} is damaged; prepare the set again.")
    return manifest


def _is_whole(manifest: dict[str, Any]) -> bool:
    """Whether everything is there and of its type; a file of the set lies in its folder."""
    if not _has(manifest, size=int, classes=list, parts=dict) or manifest["size"] <= 0:
        return False
    parts = manifest["parts"].values()
    return (
        all(isinstance(name, str) for name in manifest["classes"])
        and all(_has(part, images=int, index_sha256=str, shards=list) for part in parts)
        and all(_is_shard(shard) for part in parts for shard in part["shards"])
    )


def _is_shard(shard: Any) -> bool:
    if not _has(shard, file=str, images=int, bytes=int, sha256=str):
        return False
    name = shard["file"]
    return Path(name).name == name and "\0" not in name


def _has(entry: Any, **types: type) -> bool:
    return isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in types.items())


def load(folder: Path, image_size: int) -> tuple[dict[str, Part], list[str]]:
    """The parts of a prepared set, and its classes' names; the images stay in their files.

    Args:
      folder: as written by `paradis_tf.prepare`.
      image_size: side of the square input in pixels; 0 takes the size that the set was prepared for.

    Raises:
      UserError: the set is not complete, or its files are not as the manifest says.
    """
    manifest = read_manifest(folder)
    if manifest["schema_version"] == _LYING:
        say(
            f"{str(folder)!r} was prepared by a version that took no notice of EXIF orientation and transparent parts; "
            "if its source has such images, prepare it again"
        )
    size = image_size or manifest["size"]
    parts = {name: _part(folder, name, manifest["parts"][name], size) for name in PARTS if name in manifest["parts"]}
    if not {"train", "test"} <= parts.keys():
        raise UserError(f"{folder / MANIFEST} has the parts {', '.join(parts)}; it needs train and test.")
    return parts, manifest["classes"]


def _part(folder: Path, name: str, entry: dict[str, Any], size: int) -> Part:
    files = [folder / shard["file"] for shard in entry["shards"]]
    for file, shard in zip(files, entry["shards"], strict=True):
        try:
            size_now = file.stat().st_size
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}; prepare the set again.") from None
        if size_now != shard["bytes"]:
            raise UserError(
                f"{file} has {size_now:,} bytes; the manifest says {shard['bytes']:,}. Prepare the set again."
            )
    file = index_file(folder, name)
    # The files beside it have a sum for each record, which is checked when that is read.
    if file_sha256(file) != entry["index_sha256"]:
        raise UserError(f"{file} changed since the set was prepared; prepare the set again.")
    index = np.load(file, allow_pickle=False)
    if index.dtype != ROW or len(index) != entry["images"] or not len(index):
        raise UserError(f"{file} does not fit the manifest beside it; prepare the set again.")
    images = EncodedImages(files, index["shard"], index["offset"], index["length"], size, index["record"])
    return Part(images, index["label"].astype(np.int64))
