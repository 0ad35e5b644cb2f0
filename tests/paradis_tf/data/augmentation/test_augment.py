"""Augmentation: what is refused, where inception crops fall, and that the numbers decide alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.data.augmentation.augment import Augmentation
from paradis_tf.data.augmentation.color import jitter

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "area of all": ({"inception_crop": 1.0}, "inception_crop is 1.0; it is 0 or more and below 1"),
    "negative area": ({"inception_crop": -0.1}, "inception_crop is -0.1"),
    "area nan": ({"inception_crop": float("nan")}, "inception_crop is nan"),
    "padding": ({"crop_padding": 8}, "crop_padding is 8; it is 0 or more and below the image's side of 8 pixels"),
    "jitter": ({"color_jitter": 1.5}, "color_jitter is 1.5; it is from 0 to 1"),
    "layers": ({"rand_augment_layers": -1}, "rand_augment_layers is -1; it is from 0 to 16"),
    "magnitude": ({"rand_augment_magnitude": 10.5}, "rand_augment_magnitude is 10.5; it is from 0 to 10"),
    "two crops": ({"inception_crop": 0.25, "crop_padding": 2}, "only one of them crops"),
}


@pytest.mark.parametrize(("values", "sentence"), BAD.values(), ids=BAD)
def test_values_out_of_range_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Augmentation(**values).check(8, 12)
    assert sentence in str(caught.value)


def boxes(augment: Augmentation, height: int, width: int, aspect: float = 1.0, count: int = 400) -> np.ndarray:
    numbers = augment.draw(3, tf.constant(0), tf.range(count))["crop_box"]
    shape = tf.constant([height, width])
    function = tf.function(lambda draw: augment.crop_box({"crop_box": draw}, shape, aspect))
    return np.array([function(draw).numpy() for draw in numbers])


def usual_areas(smallest: float, height: int, width: int, aspect: float) -> np.ndarray:
    """Areas of crops drawn one after another until one fits, from NumPy's own generator."""
    rng = np.random.default_rng(0)
    found: list[float] = []
    while len(found) < 4000:
        area = rng.uniform(smallest, 1) * height * width
        ratio = aspect * np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        rows, columns = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if rows <= height and columns <= width:
            found.append(rows * columns / (height * width))
    return np.array(found)


@pytest.mark.parametrize(("height", "width", "aspect"), [(300, 400, 1.0), (400, 300, 1.0), (375, 500, 4 / 3)])
@pytest.mark.parametrize("smallest", [0.08, 0.25])
def test_inception_crops(smallest: float, height: int, width: int, aspect: float) -> None:
    found = boxes(Augmentation(inception_crop=smallest), height, width, aspect)
    top, left, rows, columns = found.T
    assert (top >= 0).all() and (left >= 0).all() and (top + rows <= height).all() and (left + columns <= width).all()
    # Sides are whole numbers of pixels.
    ratio = columns / rows / aspect
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    assert ratio.min() < 0.78 and ratio.max() > 1.29
    area = rows * columns / (height * width)
    assert smallest - 0.01 < area.min() < smallest + 0.05
    assert 0.85 < area.max() <= 1
    # Corners: the free room is used evenly.
    for place, side, whole in ((top, rows, height), (left, columns, width)):
        room = whole - side
        assert abs((place[room > 20] / room[room > 20]).mean() - 0.5) < 0.06
    expected = usual_areas(smallest, height, width, aspect)
    # 400 draws of a deviation below 0.28.
    assert abs(area.mean() - expected.mean()) < 0.056
    assert abs(area.std() - expected.std()) < 0.04


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (700, 3), (8, 8)])
def test_inception_crops_of_odd_images_stay_inside(height: int, width: int) -> None:
    top, left, rows, columns = boxes(Augmentation(inception_crop=0.08), height, width, count=50).T
    assert (rows >= 1).all() and (columns >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()


def test_an_image_too_narrow_for_any_try_gives_its_largest_legal_part() -> None:
    top, left, rows, columns = boxes(Augmentation(inception_crop=0.9), 100, 1000, count=20).T
    assert (rows == 100).all() and (columns == 133).all()
    assert len(set(left)) > 10


def test_only_what_is_used_is_drawn() -> None:
    assert Augmentation().draw(0, tf.constant(0), tf.range(2)) == {}
    everything = Augmentation(0.1, True, 0, 0.4, 2).draw(0, tf.constant(0), tf.range(2))
    assert {use: draw.shape[1] for use, draw in everything.items()} == {
        "crop_box": 22,
        "batch": 3,
        "jitter": 3,
        "rand_augment": 4,
    }
    # One use more leaves the numbers of the others.
    np.testing.assert_array_equal(
        Augmentation(flip=True).draw(0, tf.constant(0), tf.range(2))["batch"], everything["batch"]
    )


def test_jitter_factors_are_within_their_range() -> None:
    image = tf.constant(np.random.default_rng(0).integers(60, 140, (8, 8, 3), dtype=np.uint8))
    augment = Augmentation(color_jitter=0.4)
    for draw, factors in (([0.0, 0.5, 1.0], [0.6, 1.0, 1.4]), ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])):
        found = augment.change_image({"jitter": tf.constant(draw)}, image)
        assert np.abs(found.numpy().astype(int) - jitter(image, factors).numpy()).max() <= 1
