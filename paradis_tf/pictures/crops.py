"""A picture of crops: what each switch of a super-resolution network makes of the same place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fusion.base.program import UserError
from paradis_tf.base.files import replacing
from paradis_tf.data.pairs.bicubic import enlarge
from paradis_tf.data.parts import ImagePairs
from paradis_tf.evaluation.super_resolution import Upscaler
from paradis_tf.supernet import Supernet
from paradis_tf.tasks.image_quality import luma, psnr

_INCHES = 1.7
_MOST_IMAGES = 40


def draw(model: Supernet, pairs: ImagePairs, size: int, output: Path, report: Callable[[str], None]) -> None:
    """Writes a picture with a row per image: bicubic, every switch and the truth, with PSNR-Y of the whole image.

    Args:
      model: the trained supernet.
      pairs: the images.
      size: side of a crop in high-resolution pixels; smaller images are shown whole.
      output: .png or .svg; written aside, then renamed.
      report: is told what is being done.

    Raises:
      UserError: the picture cannot be written.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = ["bicubic", *map(str, model.switches), "truth"]
    answers = [[enlarge(low, pairs.scale) for low in pairs.low]]
    for switch in model.switches:
        report(f"running switch {switch}")
        answers.append([Upscaler(model, switch)(low) for low in pairs.low])
    answers.append(list(pairs.high))
    shape = (len(pairs), len(columns))
    size_in = (_INCHES * shape[1], (_INCHES + 0.4) * shape[0])
    figure, axes = pyplot.subplots(*shape, figsize=size_in, squeeze=False, layout="constrained")
    for row, (name, high) in enumerate(zip(pairs.names, pairs.high, strict=True)):
        top, left = worst_place(high, answers[0][row], size)
        for column, title in enumerate(columns):
            image = answers[column][row]
            place = axes[row, column]
            place.imshow(image[top : top + size, left : left + size], interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
            caption = title
            if title != "truth":
                caption += f"\n{psnr(luma(high), luma(image), pairs.scale):.2f} dB"
            place.set_title(caption, fontsize=8)
        axes[row, 0].set_ylabel(name, fontsize=8)
    try:
        with replacing(output) as aside:
            figure.savefig(aside, dpi=200)
    finally:
        pyplot.close(figure)


def choose(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The places among `set/image` names of wanted sets and images.

    Raises:
      UserError: there is no such set or image, or there are too many.
    """
    places: list[int] = []
    for text in wanted:
        matching = [place for place, name in enumerate(names) if text in (name, name.rpartition("/")[0])]
        if not matching:
            raise UserError(f"--images: {text!r} is no set or image of the test part; it has {', '.join(names)}.")
        places += [place for place in matching if place not in places]
    if not 0 < len(places) <= _MOST_IMAGES:
        raise UserError(f"--images names {len(places)} images; a picture has 1 to {_MOST_IMAGES}.")
    return places


def worst_place(truth: np.ndarray, image: np.ndarray, size: int) -> tuple[int, int]:
    """Top row and left column of the square of `size` pixels in which two images differ most, by squared error."""
    error = ((luma(truth) - luma(image)) ** 2).cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(error, ((1, 0), (1, 0)))
    rows, columns = (min(size, side) for side in truth.shape[:2])
    total = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = np.unravel_index(total.argmax(), total.shape)
    return int(top), int(left)
