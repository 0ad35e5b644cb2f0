"""Random patches: aligned, turned together, and functions of seed, epoch and place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf.data.pairs import patches
from paradis_tf.data.parts import ImagePairs, Patches

SIDES = [(12, 20), (9, 10), (30, 8)]


@pytest.fixture(scope="module")
def part() -> Patches:
    """Images whose low-resolution pixels say where they are; each high-resolution pixel repeats its low one."""
    low = []
    for index, (height, width) in enumerate(SIDES):
        rows, columns = np.mgrid[:height, :width]
        low.append(np.stack([rows, columns, np.full_like(rows, index)], axis=-1).astype(np.uint8))
    high = [image.repeat(2, axis=0).repeat(2, axis=1) for image in low]
    return Patches(ImagePairs(tuple("abc"), tuple(low), tuple(high), 2), size=8, count=50)


def batches(part: Patches, batch_size: int = 8, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    table = {"seed": 1, "first_epoch": 0, "epochs": 2, **options}
    found = patches.training_batches(part, batch_size, **table)
    return [(low.numpy(), high.numpy()) for low, high in found]


def test_pairs_are_aligned_and_cover_all_places_and_turns(part: Patches) -> None:
    found = batches(part, epochs=12)
    assert len(found) == 12 * 6
    corners, turns = set(), set()
    for low, high in found:
        assert low.shape == (8, 8, 8, 3) and high.shape == (8, 16, 16, 3)
        np.testing.assert_array_equal(high, low.repeat(2, axis=1).repeat(2, axis=2))
        for one in low.astype(int):
            rows, columns, index = one[..., 0], one[..., 1], one[0, 0, 2]
            assert (one[..., 2] == index).all() and np.ptp(rows) == np.ptp(columns) == 7
            corners.add((index, rows.min(), columns.min()))
            turns.add((rows[1, 0] - rows[0, 0], columns[0, 1] - columns[0, 0], columns[1, 0] - columns[0, 0]))
    assert {corner[0] for corner in corners} == {0, 1, 2}
    # Image b has 2 x 3 places, and its last ones come up too.
    assert {corner[1:] for corner in corners if corner[0] == 1} == {(r, c) for r in range(2) for c in range(3)}
    # Four mirrorings without transposition, where a step down changes the row; with it, the column.
    assert len({turn for turn in turns if turn[0]}) == 4 and {turn[2] for turn in turns if not turn[0]} == {1, -1}


def test_pipelines_leave_nothing_to_be_tuned(part: Patches) -> None:
    # An iterator waits, as it goes, for the thread that tunes it, up to a minute.
    training = patches.training_batches(part, 8, seed=1, first_epoch=0, epochs=2)
    for found in (training, patches.evaluation_batches(part.pairs, 2)):
        assert found.options().autotune.enabled is False


def test_without_turns_patches_are_upright(part: Patches) -> None:
    for low, _ in batches(part, flip=False, transpose=False):
        assert (np.diff(low[..., 0].astype(int), axis=1) == 1).all()
        assert (np.diff(low[..., 1].astype(int), axis=2) == 1).all()


def test_an_epoch_is_a_function_of_seed_and_epoch(part: Patches) -> None:
    whole = batches(part, epochs=3)
    resumed = batches(part, first_epoch=1, epochs=3)
    for (low, high), (again, high_again) in zip(whole[6:], resumed, strict=True):
        np.testing.assert_array_equal(low, again)
        np.testing.assert_array_equal(high, high_again)
    assert (whole[0][0] != whole[6][0]).any()
    assert (whole[0][0] != batches(part, seed=2)[0][0]).any()


def test_workers_share_the_rows_of_each_batch(part: Patches) -> None:
    whole = batches(part)
    shards = [batches(part, shard_index=index, shard_count=3) for index in range(3)]
    assert [len(shard[0][0]) for shard in shards] == [2, 3, 3]
    for place, (low, high) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([shard[place][0] for shard in shards]), low)
        np.testing.assert_array_equal(np.concatenate([shard[place][1] for shard in shards]), high)


def test_validation_is_the_middle_of_each_image(part: Patches) -> None:
    ((low, high),) = list(patches.evaluation_batches(part.pairs, 256))
    np.testing.assert_array_equal(low.numpy()[0], part.pairs.low[0][2:10, 6:14])
    np.testing.assert_array_equal(high.numpy()[2], part.pairs.high[2][22:38, 0:16])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 51}, "batch_size is 51; it lies between 1 and the 50 patches"),
        ({"shard_index": 2, "shard_count": 2}, "worker 2 of 2 cannot share batches of 8"),
    ],
)
def test_options_are_checked(part: Patches, options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        batches(part, **options)
