"""Turns a source of images into a set that training reads without surprises; see `paradis_tf.data.prepared`."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from fusion.base.files import write_json
from fusion.base.program import UserError
from paradis_tf.base.processes import load_quietly, run_all
from paradis_tf.base.progress import Progress
from paradis_tf.data import encoded, prepared
from paradis_tf.data.parts import require_all_classes, some
from paradis_tf.data.sources import Chunk, Plan

_WORK = "work"
_QUALITY = 95


@dataclass(frozen=True)
class Shard:
    """What one process makes of a chunk: a file in `target`, and beside it in the folder of work its entry."""

    chunk: Chunk
    target: Path
    file: str
    size: int

    @property
    def entry_file(self) -> Path:
        return self.target / _WORK / f"{self.file}.json"


@dataclass(frozen=True)
class Entry:
    """What a file of a set holds: the places of its images, their labels, and what could not be decoded."""

    bytes: int
    sha256: str
    records: list[int]
    offsets: list[int]
    lengths: list[int]
    labels: list[int]
    broken: list[str]


def prepare(plan: Plan, target: Path, size: int, skip_broken: bool, processes: int) -> dict[str, Any]:
    """Writes a prepared set; started again after it was stopped it goes on, and a finished one is checked.

    Args:
      plan: the images.
      target: the set's folder; made if it is not there.
      size: side in pixels of the input that the set is for. Images whose short side is more than 256/224 of it are
        reduced to that (antialiased, aspect ratio kept) and stored as JPEG of quality 95; a JPEG image that is no
        larger stays byte for byte.
      skip_broken: images that cannot be decoded are left out instead of refused.
      processes: how many work at once, at least 1.

    Returns:
      the manifest.

    Raises:
      UserError: images that cannot be decoded, a target that is something else or cannot be written, or a finished set
        that is damaged.
    """
    asked = {"schema_version": prepared.SCHEMA_VERSION, "size": size, "quality": _QUALITY, "source": plan.fingerprint}
    if os.path.exists(target / prepared.MANIFEST):
        return _recheck(target, asked, plan, processes)
    with _work_folder(target, {**asked, "state": plan.state}) as work:
        shards = {
            part: [
                Shard(chunk, target, f"{part}-{number:05}-of-{len(chunks):05}.tfrecord", size)
                for number, chunk in enumerate(chunks)
            ]
            for part, chunks in plan.chunks.items()
        }
        everything = [shard for one in shards.values() for shard in one]
        _write_missing(everything, processes)
        entries = {shard.file: _read_entry(shard) for shard in everything}
        broken = [name for entry in entries.values() if entry for name in entry.broken]
        report_broken(plan, broken, skip_broken)
        manifest: dict[str, Any] = {
            **asked,
            "name": plan.name,
            "classes": list(plan.classes),
            "parts": {},
            "left_out": broken,
        }
        for part, made in shards.items():
            found = [entry for shard in made if (entry := entries[shard.file])]
            manifest["parts"][part] = _write_index(target, part, made, found, plan)
        write_json(target / prepared.MANIFEST, manifest)
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def report_broken(plan: Plan, broken: list[str], skip_broken: bool) -> None:
    """Names the images that cannot be decoded.

    Raises:
      UserError: there are some, and they are not to be skipped.
    """
    if not broken:
        return
    sentence = f"{plan.name}: {len(broken):,} of {plan.images:,} images cannot be decoded: {some(broken)}"
    if not skip_broken:
        raise UserError(f"{sentence}; mend or remove them, or give --skip_broken to leave them out.")
    print(f"{sentence}; they are left out", flush=True)


@contextlib.contextmanager
def _work_folder(target: Path, asked: dict[str, Any]) -> Iterator[Path]:
    """The folder of what is needed until the set is finished, for this preparation alone."""
    work = target / _WORK
    plan_file = work / "plan.json"
    try:
        if target.exists() and not work.exists() and any(target.iterdir()):
            raise UserError(f"--target={target} is not empty and holds no prepared set; give a new folder.")
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise UserError(f"--target={target} cannot be made: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--target={target} is being prepared by another process; wait or stop it.") from None
        try:
            begun = json.loads(plan_file.read_text(encoding="utf-8")) if plan_file.exists() else asked
        except (OSError, ValueError, RecursionError):
            raise UserError(f"{plan_file} is damaged; delete {target} and prepare the set again.") from None
        if begun != asked:
            raise UserError(
                f"--target={target} holds a part of a set of another source or size, or the source has changed since; "
                "delete the folder or give another."
            )
        write_json(plan_file, asked)
        yield work


def _write_missing(shards: list[Shard], processes: int) -> None:
    missing = [shard for shard in shards if _read_entry(shard) is None]
    total = sum(shard.chunk.images for shard in shards)
    before = done = total - sum(shard.chunk.images for shard in missing)
    if before:
        print(f"going on after {before:,} of {total:,} images", flush=True)
    progress = Progress("prepared", total)

    def finished(shard: Shard, result: None) -> None:
        nonlocal done
        done += shard.chunk.images
        progress.update(done, before)

    if missing:
        run_all(write_shard, missing, processes, finished, load_quietly, (__name__,), lambda shard: shard.file)


def _read_entry(shard: Shard) -> Entry | None:
    """The entry of a shard that is whole, else None."""
    try:
        entry = Entry(**json.loads(shard.entry_file.read_text(encoding="utf-8")))
        whole = (shard.target / shard.file).stat().st_size == entry.bytes
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return entry if whole else None


def write_shard(shard: Shard) -> None:
    """Writes one file of a set and then its entry."""
    path = shard.target / shard.file
    aside = shard.target / _WORK / f"{shard.file}.part"
    records, offsets, lengths, labels, broken = [], [], [], [], []
    place = 0
    try:
        with tf.io.TFRecordWriter(str(aside)) as writer:
            for name, content, label in shard.chunk.read():
                try:
                    jpeg = reduced(content, shard.size)
                except ValueError:
                    broken.append(name)
                    continue
                record = _example(name, jpeg, label, shard.chunk.classes[label])
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
        aside.replace(path)
    except (OSError, tf.errors.OpError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise UserError(f"file {str(path)!r} cannot be written: {reason}.") from None
    entry = Entry(place, digest, records, offsets, lengths, labels, broken)
    write_json(shard.entry_file, asdict(entry))


def reduced(content: bytes, size: int) -> bytes:
    """An image as JPEG, its short side at most 256/224 of `size`.

    Raises:
      ValueError: it cannot be decoded.
    """
    pixels = encoded.decode(content).numpy()
    height, width = pixels.shape[:2]
    short = round(size * encoded.MARGIN)
    if min(height, width) <= short and content.startswith(b"\xff\xd8\xff"):
        return content
    image = Image.fromarray(pixels)
    if min(height, width) > short:
        scale = short / min(height, width)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    try:
        image.save(stream, "JPEG", quality=_QUALITY)
    except OSError as error:  # a side beyond 65,535 pixels
        raise ValueError(str(error)) from None
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


def _write_index(target: Path, part: str, shards: list[Shard], entries: list[Entry], plan: Plan) -> dict[str, Any]:
    rows = np.zeros(sum(len(entry.labels) for entry in entries), prepared.ROW)
    start = 0
    for number, entry in enumerate(entries):
        here = rows[start : start + len(entry.labels)]
        here["shard"], here["record"] = number, entry.records
        here["offset"], here["length"], here["label"] = entry.offsets, entry.lengths, entry.labels
        start += len(here)
    if part == "train":
        require_all_classes(rows["label"], plan.classes, f"{plan.name}, part {part}")
    file = prepared.index_file(target, part)
    aside = target / _WORK / f"{file.name}.part"
    try:
        with aside.open("wb") as stream:
            np.save(stream, rows)
        digest = hashlib.sha256(aside.read_bytes()).hexdigest()
        aside.replace(file)
    except OSError as error:
        raise UserError(f"file {str(file)!r} cannot be written: {error.strerror}.") from None
    return {
        "images": len(rows),
        "index_sha256": digest,
        "shards": [
            {"file": shard.file, "images": len(entry.labels), "bytes": entry.bytes, "sha256": entry.sha256}
            for shard, entry in zip(shards, entries, strict=True)
        ],
    }


def _recheck(target: Path, asked: dict[str, Any], plan: Plan, processes: int) -> dict[str, Any]:
    manifest = prepared.read_manifest(target)
    other = next((key for key, value in asked.items() if manifest.get(key) != value), None)
    if other:
        raise UserError(
            f"--target={target} holds a finished set with {other} {manifest.get(other)!r}, and {asked[other]!r} was "
            "asked for; delete the folder or give another."
        )
    if manifest["classes"] != list(plan.classes) or manifest["parts"].keys() != plan.chunks.keys():
        raise UserError(f"{target / prepared.MANIFEST} is damaged; delete {target} and prepare the set again.")
    files = [
        (str(target / entry["file"]), entry["sha256"])
        for part in manifest["parts"].values()
        for entry in part["shards"]
    ]
    files += [
        (str(prepared.index_file(target, name)), part["index_sha256"]) for name, part in manifest["parts"].items()
    ]
    print(f"{target} is finished; checking its {len(files)} files", flush=True)
    damaged: list[str] = []
    run_all(
        _is_damaged,
        files,
        processes,
        lambda file, found: damaged.append(file[0]) if found else None,
        load_quietly,
        (__name__,),
        lambda file: file[0],
    )
    if damaged:
        raise UserError(f"{some(sorted(damaged))} of the finished set changed; delete {target} and prepare it again.")
    return manifest


def _is_damaged(file: tuple[str, str]) -> bool:
    try:
        with open(file[0], "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() != file[1]
    except OSError:
        return True
