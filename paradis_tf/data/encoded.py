"""Images that stay in their files, as JPEG, PNG and the like, and are decoded when they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export.fusion.program import UserError

# ImageNet practice: the input is the centre of an image whose short side is larger by this.
MARGIN = 256 / 224


class EncodedImages:
    """An array of images, uint8 (n, size, size, 3), of which only the places in files are in memory.

    Indexing decodes, and gives each image as evaluation takes it: see `central`. Source: ours.

    Args:
      files: paths of files that hold encoded images.
      file_of: integer (n,), each image's file.
      offsets: integer (n,), where in the file its first byte is.
      lengths: integer (n,), its bytes.
      size: the side of the square input in pixels.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, files: Sequence[Path], file_of: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, size: int
    ) -> None:
        self.files, self.size = files, size
        self._file_of, self._offsets, self._lengths = file_of, offsets, lengths

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.size, self.size, 3

    def __len__(self) -> int:
        return len(self._file_of)

    def __getitem__(self, index: Any) -> np.ndarray:
        places = np.arange(len(self))[index]
        if places.ndim == 0:
            return central(self.decode(int(places)), self.size).numpy()
        out = np.empty((len(places), *self.shape[1:]), np.uint8)
        for row, place in enumerate(places):
            out[row] = central(self.decode(int(place)), self.size).numpy()
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def select(self, places: np.ndarray) -> EncodedImages:
        """The images at these places, still in their files."""
        return EncodedImages(self.files, self._file_of[places], self._offsets[places], self._lengths[places], self.size)

    def decode(self, place: int) -> tf.Tensor:
        """One whole image, uint8 (height, width, 3).

        Raises:
          UserError: it cannot be read or decoded.
        """
        path, length = self.files[self._file_of[place]], int(self._lengths[place])
        name = f"image {str(path)!r}" if length == 0 else f"image {place} in {str(path)!r}"
        try:
            with open(path, "rb") as file:
                file.seek(self._offsets[place])
                return decode(file.read(length or -1))
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise UserError(f"{name} cannot be decoded ({error}); it was whole when the set was checked.") from None


def decode(content: bytes) -> tf.Tensor:
    """An image file's pixels, uint8 (height, width, 3); grey is repeated, transparency and rotation tags are ignored.

    Raises:
      ValueError: no whole JPEG, PNG, GIF or BMP image.
    """
    try:
        return tf.io.decode_image(content, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        raise ValueError(" ".join(error.message.split("[Op:")[0].split())[:120] or type(error).__name__) from None


def central(image: tf.Tensor, size: int) -> tf.Tensor:
    """An image as evaluation takes it: its centre square, resized to uint8 (size, size, 3).

    The square is what is left when the short side is resized to 256/224 of `size` and the centre is cut out; a smaller
    image gives more of itself before it is enlarged.

    Args:
      image: uint8 (height, width, 3).
      size: side in pixels.
    """
    shape = tf.shape(image)[:2]
    short = tf.reduce_min(shape)
    side = tf.cast(tf.round(tf.cast(short, tf.float32) / MARGIN), tf.int32)
    side = tf.maximum(side, tf.minimum(short, size))
    corner = (shape - side) // 2
    return crop(image, tf.stack([corner[0], corner[1], side, side]), size, size)


def crop(image: tf.Tensor, box: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The box (top, left, height, width) of an image, resized (bilinear, antialiased) to uint8 (height, width, 3)."""
    part = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], 3])
    resized = tf.image.resize(part, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
