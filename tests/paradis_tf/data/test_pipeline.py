"""Input pipelines: what an epoch holds, that it can be resumed, and what augmentation may do."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from fusion.base.program import UserError
from paradis_tf.data import preparation, sources
from paradis_tf.data.augmentation.augment import Augmentation
from paradis_tf.data.datasets import load
from paradis_tf.data.encoded import EncodedImages, crop
from paradis_tf.data.parts import Part
from paradis_tf.data.pipeline import evaluation_batches, reading, training_batches

COUNT, HEIGHT, WIDTH = 20, 7, 6
# The label of an image is its place, so that batches can be traced back.
PART = Part(
    np.random.default_rng(0).integers(1, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8),
    np.arange(COUNT),
)
Batches = list[tuple[np.ndarray, np.ndarray]]


@functools.cache
def run(batch_size: int = 4, seed: int = 5, first_epoch: int = 0, epochs: int = 3, **options: Any) -> Batches:
    batches = training_batches(PART, batch_size, seed=seed, first_epoch=first_epoch, epochs=epochs, **options)
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def places(batches: Batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def equal(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )


def crops(image: np.ndarray, padding: int) -> Iterator[np.ndarray]:
    padded = np.zeros((HEIGHT + 2 * padding, WIDTH + 2 * padding, 3), np.uint8)
    padded[padding : padding + HEIGHT, padding : padding + WIDTH] = image
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            yield padded[top : top + HEIGHT, left : left + WIDTH]


AUGMENTED: dict[str, Any] = {"flip": True, "crop_padding": 2}
# Images go one by one.
SINGLY: dict[str, Any] = {"inception_crop": 0.3, "flip": True, "color_jitter": 0.4}
KINDS = pytest.mark.parametrize("options", [{}, AUGMENTED, SINGLY], ids=["plain", "augmented", "singly"])


@KINDS
def test_seed_and_epoch_decide(options: dict[str, Any]) -> None:
    batches = run(**options)
    assert equal(batches, run.__wrapped__(**options))
    assert not equal(batches, run(seed=6, **options))
    epochs = [places(batches[start : start + 5]) for start in (0, 5, 10)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@KINDS
def test_a_resumed_run_sees_the_same_batches(options: dict[str, Any]) -> None:
    batches = run(**options)
    assert equal(run(first_epoch=2, **options), batches[10:])
    assert equal(run(first_epoch=1, epochs=2, **options), batches[5:10])


def test_the_largest_seed() -> None:
    batches = run(seed=2**31 - 2, **AUGMENTED)
    assert equal(batches, run.__wrapped__(seed=2**31 - 2, **AUGMENTED))
    assert not equal(batches, run(seed=2**31 - 3, **AUGMENTED))


def test_no_epoch_is_left_after_the_last() -> None:
    assert run(first_epoch=3) == []


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8, 19, 20])
def test_an_epoch_visits_each_image_once(batch_size: int) -> None:
    steps = COUNT // batch_size
    batches = run(batch_size, epochs=4)
    assert len(batches) == 4 * steps
    for epoch in range(4):
        seen = places(batches[epoch * steps : (epoch + 1) * steps])
        assert len(set(seen)) == len(seen) == steps * batch_size
    # Other images sit out in other epochs.
    assert set(places(batches)) == set(range(COUNT))


def test_images_keep_their_labels() -> None:
    batches = run(3)
    for images, labels in batches:
        assert (images.shape, images.dtype) == ((3, HEIGHT, WIDTH, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((3,), np.int64)
        np.testing.assert_array_equal(images, PART.images[labels])


def test_batches_have_a_static_shape() -> None:
    images, labels = training_batches(PART, 3, seed=0, first_epoch=0, epochs=1, **AUGMENTED).element_spec
    assert images.shape == (3, HEIGHT, WIDTH, 3)
    assert labels.shape == (3,)


def test_flips() -> None:
    flipped = []
    for images, labels in run(epochs=10, flip=True):
        for image, label in zip(images, labels, strict=True):
            original = PART.images[label]
            flipped.append(np.array_equal(image, original[:, ::-1]))
            assert flipped[-1] or np.array_equal(image, original)
    # 200 fair draws: outside of this only once in some 10**8 seeds.
    assert 60 < sum(flipped) < 140


@pytest.mark.parametrize("padding", [1, 2, 5])
def test_crops(padding: int) -> None:
    corners = set()
    for images, labels in run(epochs=25, crop_padding=padding):
        for image, label in zip(images, labels, strict=True):
            found = [index for index, crop in enumerate(crops(PART.images[label], padding)) if (crop == image).all()]
            assert len(found) == 1
            corners.add(found[0])
    side = 2 * padding + 1
    # Every row and column is drawn, the outermost too.
    assert {corner // side for corner in corners} == set(range(side))
    assert {corner % side for corner in corners} == set(range(side))


def test_flips_and_crops_together() -> None:
    kinds = set()
    for images, labels in run(epochs=10, flip=True, crop_padding=1):
        for image, label in zip(images, labels, strict=True):
            original = PART.images[label]
            pool = [*crops(original, 1), *crops(original[:, ::-1], 1)]
            found = [index for index, candidate in enumerate(pool) if (candidate == image).all()]
            assert len(found) == 1
            kinds.add(found[0])
    assert kinds == set(range(18))


def test_augmentation_changes_with_the_epoch() -> None:
    batches = run(epochs=8, **AUGMENTED)
    versions: dict[int, set[bytes]] = {}
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            versions.setdefault(int(label), set()).add(image.tobytes())
    assert all(len(seen) > 1 for seen in versions.values())


def test_augmentation_leaves_the_order() -> None:
    assert places(run()) == places(run(**AUGMENTED))


@pytest.mark.parametrize("batch_size", [0, -1, COUNT + 1])
def test_a_batch_size_that_cannot_be_filled_is_refused(batch_size: int) -> None:
    with pytest.raises(UserError, match=rf"batch_size is {batch_size};.* 1 and the {COUNT} "):
        run(batch_size)


@pytest.mark.parametrize("padding", [-1, WIDTH, 100])
def test_a_padding_as_large_as_the_image_is_refused(padding: int) -> None:
    with pytest.raises(UserError, match=rf"crop_padding is {padding};.* {WIDTH} pixels"):
        run(crop_padding=padding)


@pytest.mark.parametrize("batch_size", [1, 6, COUNT, 50])
def test_evaluation_sees_all_in_order(batch_size: int) -> None:
    batches = [(images.numpy(), labels.numpy()) for images, labels in evaluation_batches(PART, batch_size)]
    assert [len(labels) for _, labels in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), PART.images)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), PART.labels)


def joined(shards: list[Batches]) -> Batches:
    return [
        (np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts]))
        for parts in zip(*shards, strict=True)
    ]


@KINDS
def test_the_shards_together_are_the_batch(options: dict[str, Any]) -> None:
    batch_size, count = 7, 3
    whole = run(batch_size, **options)
    shards = [run(batch_size, shard_index=index, shard_count=count, **options) for index in range(count)]
    bounds = [index * batch_size // count for index in range(count + 1)]
    for start, stop, shard in zip(bounds, bounds[1:], shards, strict=False):
        assert {len(labels) for _, labels in shard} == {stop - start}
    assert equal(joined(shards), whole)


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0), (0, 5), (5, 4)])
def test_a_worker_without_images_is_refused(index: int, count: int) -> None:
    with pytest.raises(UserError, match=rf"worker {index} of {count} cannot share batches of 4"):
        run(4, shard_index=index, shard_count=count)


def test_augmentation_does_not_depend_on_the_grouping() -> None:
    for options in (AUGMENTED, SINGLY):
        images = [np.concatenate([images for images, _ in run(size, epochs=1, **options)]) for size in (2, 5, 20)]
        np.testing.assert_array_equal(images[0], images[1])
        np.testing.assert_array_equal(images[0], images[2])


def test_one_by_one_and_by_the_batch_are_the_same() -> None:
    # Jitter that is nearly none changes no pixel and makes the images go one by one.
    assert equal(run(**AUGMENTED), run(**AUGMENTED, color_jitter=1e-9))


def test_inception_crops_are_the_boxes_that_were_drawn() -> None:
    augment = Augmentation(inception_crop=0.3)
    numbers = augment.draw(5, tf.constant(0), tf.range(COUNT))["crop_box"]
    place = 0
    for images, labels in run(epochs=1, inception_crop=0.3):
        for image, label in zip(images, labels, strict=True):
            box = augment.crop_box({"crop_box": numbers[place]}, tf.constant([HEIGHT, WIDTH]), WIDTH / HEIGHT)
            np.testing.assert_array_equal(image, crop(tf.constant(PART.images[label]), box, HEIGHT, WIDTH))
            place += 1


def test_rand_augment_is_shared_out_and_resumed() -> None:
    options = {"flip": True, "rand_augment_layers": 1}
    whole = run(**options)
    shards = [run(first_epoch=1, shard_index=index, shard_count=2, **options) for index in range(2)]
    assert equal(joined(shards), whole[5:])
    plain = run(flip=True)
    changed = [(one != other).any() for one, other in zip(whole[0][0], plain[0][0], strict=True)]
    assert any(changed) and places(whole) == places(plain)


@pytest.fixture
def from_files(image_folder: Callable[..., Path]) -> Part:
    return load("folder", str(image_folder()), image_size=20, validation_fraction=0.1).train


def encoded_run(part: Part, **options: Any) -> Batches:
    batches = training_batches(part, 4, seed=1, first_epoch=0, epochs=2, **options)
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def test_images_from_files_are_batched_as_arrays_are(from_files: Part) -> None:
    in_memory = Part(from_files.images[:], from_files.labels)
    for options in ({}, AUGMENTED):
        assert equal(encoded_run(from_files, **options), encoded_run(in_memory, **options))
    ((images, labels),) = evaluation_batches(from_files, 100)
    np.testing.assert_array_equal(images, in_memory.images)
    np.testing.assert_array_equal(labels, in_memory.labels)


def test_inception_crops_of_images_from_files(from_files: Part) -> None:
    spec = training_batches(from_files, 4, seed=0, first_epoch=0, epochs=1, inception_crop=0.5).element_spec
    assert spec[0].shape == (4, 20, 20, 3)
    assert equal(encoded_run(from_files, **SINGLY), encoded_run(from_files, **SINGLY))
    shards = [encoded_run(from_files, shard_index=index, shard_count=2, **SINGLY) for index in range(2)]
    assert equal(joined(shards), encoded_run(from_files, **SINGLY))


def test_pipelines_leave_nothing_to_be_tuned(from_files: Part) -> None:
    # An iterator waits, as it goes, for the thread that tunes it, up to a minute.
    for part in (PART, from_files):
        training = training_batches(part, 4, seed=0, first_epoch=0, epochs=1, **AUGMENTED)
        for batches in (training, evaluation_batches(part, 4), training.repeat(2)):
            assert batches.options().autotune.enabled is False


def test_an_image_that_vanishes_in_the_midst_of_an_epoch_is_named(from_files: Part) -> None:
    from_files.images.files[5].write_bytes(b"nothing")
    with (
        pytest.raises(UserError, match=rf"image '{from_files.images.files[5]}' cannot be decoded") as caught,
        reading(),
    ):
        encoded_run(from_files, flip=True)
    assert len(str(caught.value).splitlines()) == 1
    from_files.images.files[5].unlink()
    with pytest.raises(UserError, match=r"cannot be read: No such file"), reading():
        list(evaluation_batches(from_files, 4))


def test_of_two_pipelines_the_one_that_failed_is_named(from_files: Part, from_records: Part) -> None:
    from_files.images.files[5].unlink()
    from_records.images.files[1].unlink()
    batches = [evaluation_batches(part, 4) for part in (from_files, from_records)]
    for part, place, failing in ((from_records, 1, batches[1]), (from_files, 5, batches[0])):
        with pytest.raises(UserError, match=f"{part.images.files[place]}' cannot be read"), reading():
            list(failing)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), reading():
        tf.reshape(tf.zeros(3), [2])


def test_inception_crops_see_the_whole_image(tmp_path: Path) -> None:
    # Black where evaluation looks, white at the ends.
    wide = np.zeros((20, 90, 3), np.uint8)
    wide[:, :30] = wide[:, 60:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    nothing = np.zeros(4, int)
    part = Part(EncodedImages([tmp_path / "wide.png"], nothing, nothing, nothing, 20), nothing)
    assert not part.images[:].any()
    images = np.concatenate([images for images, _ in encoded_run(part, inception_crop=0.05)])
    assert images.mean() > 60


@pytest.fixture
def from_records(image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """A training part of 12 images in 3 TFRecord files."""
    monkeypatch.setattr(sources, "_FEWEST", 5)
    preparation.prepare(sources.plan(str(image_folder()), None, []), tmp_path / "set", 20, False, 1)
    return load("prepared", str(tmp_path / "set"), validation_fraction=0.1).train


def test_images_from_records_are_batched_as_arrays_are(from_records: Part) -> None:
    in_memory = Part(from_records.images[:], from_records.labels)
    assert equal(encoded_run(from_records, **AUGMENTED), encoded_run(in_memory, **AUGMENTED))
    ((images, _),) = evaluation_batches(from_records, 100)
    np.testing.assert_array_equal(images, in_memory.images)


def test_a_record_that_is_damaged_later_is_refused(from_records: Part) -> None:
    file = from_records.images.files[1]
    content = bytearray(file.read_bytes())
    # In the midst of two images: a changed JPEG may still be decoded, but the records' sums tell.
    for place in (len(content) // 4, len(content) * 3 // 4):
        content[place] ^= 255
    file.write_bytes(content)
    with (
        pytest.raises(UserError, match="cannot be (read|decoded)|has changed since the set was prepared") as caught,
        reading(),
    ):
        list(evaluation_batches(from_records, 4))
    assert len(str(caught.value).splitlines()) == 1
    file.unlink()
    with pytest.raises(UserError, match=rf"in '{file}' cannot be read: No such file"), reading():
        encoded_run(from_records)


LEFT_RUNNING = """
import sys
from paradis_tf.data import datasets, pipeline
part = datasets.load("folder", sys.argv[1], image_size=200).train
batches = iter(pipeline.training_batches(part, 4, seed=0, first_epoch=0, epochs=10**6, inception_crop=0.1))
next(batches)
cycle = [batches]
cycle.append(cycle)
print("so far", flush=True)
sys.exit(2)
"""


def test_a_program_can_end_while_images_are_read(image_folder: Callable[..., Path]) -> None:
    # Python in the pipeline would wait for an interpreter that is gone.
    command = [sys.executable, "-c", LEFT_RUNNING, str(image_folder())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "so far")
