"""Images that stay in their files, as JPEG, PNG and the like, and are decoded when they are looked at."""

from __future__ import annotations

import itertools
import os
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fusion.base.metadata import UPRIGHT
from fusion.base.pictures import Picture, seven_eighths, turned
from fusion.base.program import UserError
from paradis_tf.base.threads import in_threads

# ImageNet practice: the input is the centre of an image whose short side is larger by this.
MARGIN = 256 / 224
# What JPEG files begin with.
JPEG = b"\xff\xd8\xff"
# How a part of a GIF begins.
_GIF_IMAGE, _GIF_EXTENSION = b"\x2c", b"\x21"
# By it an error of TensorFlow is known to be of reading images, and of whose.
_SCOPE = "encoded_image_{}_"
# What is read of a file at a time, in bytes: most images at once, and little beyond.
_BUFFER = 65536
# Images that a thread checks at a time.
_CHUNK = 32
# Grey levels by which two versions of a JPEG decoder may differ.
_ROOM = 4
# By the numbers of their readers.
_in_pipelines: weakref.WeakValueDictionary[int, EncodedImages] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class EncodedImages:
    """An array of images, uint8 (n, size, size, 3), of which only the places in files are in memory.

    Indexing decodes, and gives each image as evaluation takes it: see `central`.

    Args:
      files: paths of files that hold encoded images.
      file_of: integer (n,), each image's file.
      offsets: integer (n,), where in the file its first byte is.
      lengths: integer (n,), its bytes; 0 if the file is the image.
      size: the side of the square input in pixels.
      records: of TFRecord files, integer (n,): where the record starts that holds the image.
      orientations: integer (n,), the EXIF orientation by which each is to be turned; None if all are upright.
      originals: of each file what it is a copy of, or the file itself; None if none is a copy.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        files: Sequence[Path],
        file_of: np.ndarray,
        offsets: np.ndarray,
        lengths: np.ndarray,
        size: int,
        records: np.ndarray | None = None,
        orientations: np.ndarray | None = None,
        originals: Sequence[Path] | None = None,
    ) -> None:
        self.files, self.size, self._records = files, size, records
        self._originals = files if originals is None else originals
        self._orientations = np.full(len(file_of), UPRIGHT) if orientations is None else orientations
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
        records = None if self._records is None else self._records[places]
        return EncodedImages(
            self.files,
            self._file_of[places],
            self._offsets[places],
            self._lengths[places],
            self.size,
            records,
            self._orientations[places],
            self._originals,
        )

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function for pipelines that gives the whole image at a place, uint8 (height, width, 3).

        It runs without Python: an interpreter that ends while a pipeline waits for it would never end. So its errors
        do not name the file; see `fault_behind`.
        """
        number = next(_numbers)
        _in_pipelines[number] = self
        files, file_of = tf.constant([os.fsencode(file) for file in self.files]), tf.constant(self._file_of)
        records = None if self._records is None else tf.constant(self._records, tf.int64)
        orientations = None if (self._orientations == UPRIGHT).all() else tf.constant(self._orientations, tf.int32)

        def read(place: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(_SCOPE.format(number)):
                file = tf.gather(files, tf.gather(file_of, place))
                content = tf.io.read_file(file) if records is None else _of_record(file, tf.gather(records, place))
                image = _decoded(content)
                return image if orientations is None else _turned(image, tf.gather(orientations, place))

        return read

    def first_fault(self) -> UserError | None:
        """Decodes all images, several at once, until one cannot be; its error."""
        faults = in_threads(self._fault_from, range(0, len(self), _CHUNK), len(os.sched_getaffinity(0)))
        return next((fault for _, fault in faults if fault), None)

    def _fault_from(self, start: int) -> UserError | None:
        for place in range(start, min(start + _CHUNK, len(self))):
            try:
                self.decode(place)
                if self._records is not None:
                    _of_record(tf.constant(os.fsencode(self._file(place))), tf.constant(self._records[place], tf.int64))
            except UserError as error:
                return error
            except tf.errors.OpError as error:
                # Also of an image that can still be decoded: a record's sum shows every change.
                return UserError(
                    f"image {place} in {str(self._file(place))!r} has changed since the set was prepared "
                    f"({_reason(error)}); prepare the set again."
                )
        return None

    def _file(self, place: int) -> Path:
        return self.files[self._file_of[place]]

    def decode(self, place: int) -> tf.Tensor:
        """One whole image, uint8 (height, width, 3).

        Raises:
          UserError: it cannot be read or decoded.
        """
        path, length = self._file(place), int(self._lengths[place])
        original = self._originals[self._file_of[place]]
        name = f"image {str(original)!r}" if length == 0 else f"image {place} in {str(path)!r}"
        whole, anew = "; it was whole when the set was checked", ""
        if original != path:
            name, whole = f"the copy {str(path)!r} of {name}", ""
            anew = "; start again: copies that are not whole are made anew"
        try:
            with open(path, "rb") as file:
                file.seek(self._offsets[place])
                content = file.read(length or -1)
            return _turned(decode(content), tf.constant(self._orientations[place], tf.int32))
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}{anew}.") from None
        except ValueError as error:
            raise UserError(f"{name} cannot be decoded ({error}){whole}{anew}.") from None


def decode(content: bytes) -> tf.Tensor:
    """What TensorFlow sees in an image file, as it lies there, uint8 (height, width, 3).

    Raises:
      ValueError: it sees nothing.
    """
    try:
        return _decoded(content)
    except tf.errors.OpError as error:
        raise ValueError(_reason(error)) from None


def shows(content: bytes, picture: Picture) -> bool:
    """Whether TensorFlow sees this picture in an image file, at most turned, and decodes no more than that."""
    if _has_several(content):
        return False
    try:
        seen = turned(decode(content).numpy(), picture.orientation)
    except ValueError:
        return False
    if seen.shape != picture.pixels.shape:
        return False
    larger, smaller = np.maximum(seen, picture.pixels), np.minimum(seen, picture.pixels)
    return int((larger - smaller).max()) <= (_ROOM if content.startswith(JPEG) else 0)


def _has_several(content: bytes) -> bool:
    """Whether a file is a GIF of more than one image. TensorFlow decodes all of them, whatever it is asked for."""
    if not content.startswith(b"GIF8"):
        return False
    images, place = 0, 13 + _palette(content[10:11])
    while (kind := content[place : place + 1]) in (_GIF_IMAGE, _GIF_EXTENSION):
        if kind == _GIF_IMAGE:
            images += 1
            if images > 1:
                return True
            place += 11 + _palette(content[place + 9 : place + 10])
        else:
            place += 2
        # Blocks, each after its length; an empty one is the last.
        while length := int.from_bytes(content[place : place + 1], "big"):
            place += 1 + length
        place += 1
    return False


def _palette(flags: bytes) -> int:
    """The bytes of a GIF's palette, by the byte that says whether there is one."""
    bits = int.from_bytes(flags, "big")
    return 3 << (bits & 7) + 1 if bits & 128 else 0


def fault_behind(error: tf.errors.OpError) -> UserError | None:
    """What to say of an error of TensorFlow's that came of reading images in a pipeline; None for any other error.

    The file is found by decoding the pipeline's images until one cannot be.
    """
    scope = re.search(_SCOPE.format(r"(\d+)"), error.message)
    if scope is None:
        return None
    images = _in_pipelines.get(int(scope[1]))
    fault = None if images is None else images.first_fault()
    return fault or UserError(f"an image of the dataset cannot be read ({_reason(error)}); prepare the set again.")


def _reason(error: tf.errors.OpError) -> str:
    text = re.sub(r"{{.*?}}+|\[Op:.*|\[\[.*", "", error.message)
    return " ".join(text.split()).rstrip(".")[-200:] or type(error).__name__


def _decoded(content: tf.Tensor | bytes) -> tf.Tensor:
    # The faster way to decode JPEG, TensorFlow's own choice, is up to 255 grey levels off where quality is high.
    image = tf.cond(
        tf.strings.substr(content, 0, len(JPEG)) == JPEG,
        lambda: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`fusion.base.pictures.turned` without Python."""

    def turn() -> tf.Tensor:
        lying = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
        above, left = (tf.reduce_any(orientation == places) for places in ([3, 4, 7, 8], [2, 3, 6, 7]))
        return tf.raw_ops.Reverse(tensor=lying, dims=tf.stack([above, left, False]))

    return tf.cond(orientation == UPRIGHT, lambda: image, turn)


def _of_record(file: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The feature image/encoded of the tf.train.Example that starts at a place of a TFRecord file."""
    kind: dict[str, Any] = {"output_types": [tf.string], "output_shapes": [tf.TensorShape([])]}
    # What `tf.data.TFRecordDataset` is made of; it can start at any byte, and checks the record's sum.
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=file[None], compression_type="", buffer_size=tf.constant(_BUFFER, tf.int64), byte_offsets=start[None]
    )
    first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **kind)
    (record,) = tf.raw_ops.DatasetToSingleElement(dataset=first, **kind)
    feature = "image/encoded"
    return tf.io.parse_single_example(record, {feature: tf.io.FixedLenFeature([], tf.string)})[feature]


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
    side = tf.maximum(seven_eighths(short), tf.minimum(short, size))
    corner = (shape - side) // 2
    return crop(image, tf.stack([corner[0], corner[1], side, side]), size, size)


def crop(image: tf.Tensor, box: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The box (top, left, height, width) of an image, resized (bilinear, antialiased) to uint8 (height, width, 3)."""
    cut = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], 3])
    resized = tf.image.resize(cut, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
