"""Reads an image file as the raw input of a model."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .program import UserError


def read(path: str | Path, shape: tuple[int, int, int] | None) -> np.ndarray:
    """The image as uint8 (height, width, 3), 0..255; a grey one is repeated to RGB, as the training
    data is. `shape` None takes images of any size.

    Nothing is resized or converted otherwise: that changes the answer, and is for the caller to
    decide.

    Raises `UserError` when the file is missing or no image, when its size is not `shape`'s, and
    when its mode is neither RGB nor L (8-bit grey). Source: ours.
    """
    channels = 3 if shape is None else shape[2]
    if channels != 3:
        raise UserError(f"the model takes {channels} channels; legal for image files: 3.")
    try:
        with warnings.catch_warnings():
            # Where the model's size is given, a huge image is refused by it before any of it is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened as image:
            if image.mode not in ("RGB", "L"):
                raise UserError(f"image {str(path)!r} has mode {image.mode}; legal: RGB, or L (8-bit grey).")
            if shape is not None and image.size != (shape[1], shape[0]):
                raise UserError(
                    f"image {str(path)!r} is {image.width} x {image.height} pixels; legal: {shape[1]} x {shape[0]}, "
                    "the model's input."
                )
            return np.asarray(image.convert("RGB"), np.uint8)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"image {str(path)!r} does not exist.") from error
    except IsADirectoryError as error:
        raise UserError(f"image {str(path)!r} is a folder; legal: an image file.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"file {str(path)!r} is not an image that can be read.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"image {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
