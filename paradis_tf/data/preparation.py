"""Turns a source of images into a set that training reads without surprises; see `paradis_tf.data.prepared`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from fusion.base import pictures
from fusion.base.files import write_json
from fusion.base.metadata import UPRIGHT
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base.files import file_sha256, locked, read_json, replacing
from paradis_tf.base.progress import Progress
from paradis_tf.base.threads import in_threads
from paradis_tf.data import encoded, prepared
from paradis_tf.data.parts import broken_text, require_all_classes, some
from paradis_tf.data.sources import Chunk, PreparationPlan

_WORK = "work"
_QUALITY = 95


@dataclass(frozen=True)
class Shard:
    """A file of a set, what it is made of, and the file beside the set that says what it holds."""

    chunk: Chunk
    path: Path
    entry_file: Path
    classes: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Entry:
    """What a shard holds: the places of its images, their labels, and why others, by their names, cannot be used."""

    bytes: int
    sha256: str
    records: list[int]
    offsets: list[int]
    lengths: list[int]
    labels: list[int]
    broken: dict[str, str]


def prepare(plan: PreparationPlan, target: Path, size: int, skip_broken: bool, threads: int) -> dict[str, Any]:
    """Writes a prepared set; started again after it was stopped it goes on, and a finished one is checked.

    Args:
      plan: the images.
      target: the set's folder; made if it is not there.
      size: side in pixels of the input that the set is for. Images whose short side is more than 256/224 of it are
        reduced to that (antialiased, aspect ratio kept) and stored as JPEG of quality 95; a JPEG image that is no
        larger, and upright, stays byte for byte.
      skip_broken: images that cannot be used are left out instead of refused.
      threads: how many work at once, at least 1.

    Returns:
      the manifest.

    Raises:
      UserError: images that cannot be used, a target that is something else or cannot be written, or a finished set
        that is damaged.
    """
    options = {"schema_version": prepared.SCHEMA_VERSION, "size": size, "quality": _QUALITY, "source": plan.fingerprint}
    if os.path.exists(target / prepared.MANIFEST):
        return _checked_again(target, options, plan, threads)
    with _work_folder(target, options) as work:
        shards = {part: _shards(part, chunks, target, plan, size) for part, chunks in plan.chunks.items()}
        _write_missing([shard for ordered in shards.values() for shard in ordered], threads)
        entries = {part: [_entry(shard) for shard in ordered] for part, ordered in shards.items()}
        found = [entry for ordered in entries.values() for entry in ordered]
        broken = {name: reason for entry in found for name, reason in entry.broken.items()}
        report_broken(plan, broken, skip_broken)
        parts = {part: _write_index(target, part, shards[part], entries[part], plan) for part in shards}
        manifest = {
            **options,
            "name": plan.name,
            "classes": list(plan.classes),
            "parts": parts,
            "left_out": list(broken),
        }
        write_json(target / prepared.MANIFEST, manifest)
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _shards(part: str, chunks: list[Chunk], target: Path, plan: PreparationPlan, size: int) -> list[Shard]:
    names = [f"{part}-{number:05}-of-{len(chunks):05}.tfrecord" for number in range(len(chunks))]
    return [
        Shard(chunk, target / name, target / _WORK / f"{name}.json", plan.classes, size)
        for chunk, name in zip(chunks, names, strict=True)
    ]


def report_broken(plan: PreparationPlan, broken: Mapping[str, str], skip_broken: bool) -> None:
    """Names the images that cannot be used, and why the first of them cannot.

    Raises:
      UserError: there are some, and they are not to be skipped.
    """
    if not broken:
        return
    sentence = f"{plan.name}: {broken_text(broken, plan.images)}"
    if not skip_broken:
        raise UserError(f"{sentence}; mend or remove them, or give --skip_broken to leave them out.")
    say(f"{sentence}; they are left out")


@contextlib.contextmanager
def _work_folder(target: Path, options: dict[str, Any]) -> Iterator[Path]:
    """The folder of what is needed until the set is finished, for this preparation alone."""
    work = target / _WORK
    plan_file = work / "plan.json"
    try:
        if target.exists() and not work.exists() and any(target.iterdir()):
            raise UserError(f"--target={target} is not empty and holds no prepared set; give a new folder.")
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--target={target} cannot be made: {error.strerror}.") from None
    with locked(work / "lock", f"--target={target} is being prepared by another process; wait or stop it."):
        try:
            begun = read_json(plan_file) if plan_file.exists() else options
        except UserError:
            raise UserError(f"{plan_file} is damaged; delete {target} and prepare the set again.") from None
        if begun != options:
            raise UserError(
                f"--target={target} holds a part of a set of another source or size, or the source has changed since; "
                "delete the folder or give another."
            )
        write_json(plan_file, options)
        yield work


def _write_missing(shards: list[Shard], threads: int) -> None:
    missing = [shard for shard in shards if not _is_written(shard)]
    total = sum(shard.chunk.images for shard in shards)
    before = done = total - sum(shard.chunk.images for shard in missing)
    if before:
        say(f"going on after {before:,} of {total:,} images")
    progress = Progress("prepared", total)
    stopping = threading.Event()
    try:
        for shard, _ in in_threads(partial(write_shard, stopping), missing, threads):
            done += shard.chunk.images
            progress.update(done, before)
    finally:
        stopping.set()


def _is_written(shard: Shard) -> bool:
    try:
        return shard.path.stat().st_size == _entry(shard).bytes
    except (OSError, UserError):
        return False


def _entry(shard: Shard) -> Entry:
    try:
        return Entry(**read_json(shard.entry_file))
    except TypeError:
        raise UserError(f"{shard.entry_file} is damaged; delete it and prepare the set again.") from None


def write_shard(stopping: threading.Event, shard: Shard) -> None:
    """Writes one file of a set and then its entry, unless it is told to stop on the way."""
    records, offsets, lengths, labels = [], [], [], []
    broken: dict[str, str] = {}
    place = 0
    aside = shard.entry_file.with_suffix(".part")
    try:
        with tf.io.TFRecordWriter(str(aside)) as writer:
            for name, content, label in shard.chunk.read():
                if stopping.is_set():
                    return
                try:
                    jpeg = reduced(content, repr(name), shard.size)
                except UserError as error:
                    broken[name] = str(error)
                    continue
                record = _example(name, jpeg, label, shard.classes[label])
                writer.write(record)
                # Before a record are its length and a checksum, after it another.
                records.append(place)
                offsets.append(place + 12 + record.index(jpeg))
                lengths.append(len(jpeg))
                labels.append(label)
                place += 12 + len(record) + 4
        with aside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        aside.replace(shard.path)
    except (OSError, tf.errors.OpError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise UserError(f"file {str(shard.path)!r} cannot be written: {reason}.") from None
    write_json(shard.entry_file, asdict(Entry(place, digest, records, offsets, lengths, labels, broken)))


def reduced(content: bytes, name: str, size: int) -> bytes:
    """A picture as JPEG, its short side at most 256/224 of `size`.

    Args:
      content: an image file; a JPEG that is no larger, and that shows the picture as it lies there, stays as it is.
      name: what an error calls it.
      size: side in pixels of the input that it is for.

    Raises:
      UserError: it is no picture, see `fusion.base.pictures.decode`, or a side is too long for JPEG.
    """
    picture = pictures.decode(content, name)
    height, width = picture.pixels.shape[:2]
    short = round(size * encoded.MARGIN)
    plain = content.startswith(encoded.JPEG) and picture.orientation == UPRIGHT
    if min(height, width) <= short and plain and encoded.shows(content, picture):
        return content
    image = Image.fromarray(picture.pixels)
    if min(height, width) > short:
        scale = short / min(height, width)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    try:
        image.save(stream, "JPEG", quality=_QUALITY)
    except OSError as error:  # a side beyond 65,535 pixels
        raise UserError(f"image {name} cannot be stored as JPEG: {error}.") from None
    return stream.getvalue()


def _example(name: str, jpeg: bytes, label: int, text: str) -> bytes:
    def of_bytes(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image/encoded": of_bytes(jpeg),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/class/text": of_bytes(text.encode()),
        "image/filename": of_bytes(name.encode(errors="surrogateescape")),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _write_index(
    target: Path, part: str, shards: list[Shard], entries: list[Entry], plan: PreparationPlan
) -> dict[str, Any]:
    """Writes where the images of a part are; gives the part's entry in the manifest."""
    rows = np.concatenate([np.zeros(0, prepared.ROW), *(_rows(*numbered) for numbered in enumerate(entries))])
    if part == "train":
        require_all_classes(rows["label"], plan.classes, f"{plan.name}, part {part}")
    file = prepared.index_file(target, part)
    with replacing(file) as aside:
        np.save(aside, rows)
    return {
        "images": len(rows),
        "index_sha256": file_sha256(file),
        "shards": [
            {"file": shard.path.name, "images": len(entry.labels), "bytes": entry.bytes, "sha256": entry.sha256}
            for shard, entry in zip(shards, entries, strict=True)
        ],
    }


def _rows(number: int, entry: Entry) -> np.ndarray:
    rows = np.zeros(len(entry.labels), prepared.ROW)
    rows["shard"], rows["record"], rows["label"] = number, entry.records, entry.labels
    rows["offset"], rows["length"] = entry.offsets, entry.lengths
    return rows


def _checked_again(target: Path, options: dict[str, Any], plan: PreparationPlan, threads: int) -> dict[str, Any]:
    """The manifest of a finished set whose files are as they were written."""
    manifest = prepared.read_manifest(target)
    for key, value in options.items():
        if manifest.get(key) != value:
            raise UserError(
                f"--target={target} holds a finished set with {key} {manifest.get(key)!r}, and {value!r} was asked "
                "for; delete the folder or give another."
            )
    parts = manifest["parts"]
    if manifest["classes"] != list(plan.classes) or parts.keys() != plan.chunks.keys():
        raise UserError(f"{target / prepared.MANIFEST} is damaged; delete {target} and prepare the set again.")
    digests = {target / shard["file"]: shard["sha256"] for part in parts.values() for shard in part["shards"]}
    digests |= {prepared.index_file(target, name): part["index_sha256"] for name, part in parts.items()}
    say(f"{target} is finished; checking its {len(digests)} files")
    damaged = [str(file) for file, digest in in_threads(_digest, list(digests), threads) if digest != digests[file]]
    if damaged:
        raise UserError(f"{some(sorted(damaged))} of the finished set changed; delete {target} and prepare it again.")
    return manifest


def _digest(file: Path) -> str:
    try:
        return file_sha256(file)
    except UserError:
        return ""
