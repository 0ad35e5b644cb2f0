"""What decides the bytes of a slice file, as a digest."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from export.compression.settings import Compression
from export.conversion.job import SliceFile
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_ROOT = Path(__file__).parents[2]
# The code that the bytes of a file depend on.
_SOURCES = (
    "export/compression",
    "export/conversion/converter.py",
    "export/conversion/ranges.py",
    "export/conversion/slices.py",
    "export/conversion/steps.py",
    "export/tflite/graph.py",
    "export/tflite/halves.py",
    "export/tflite/multipliers.py",
    "export/tflite/quantized_ends.py",
    "paradis_tf/builders",
    "paradis_tf/cuts.py",
    "paradis_tf/layers",
    "paradis_tf/levels.py",
    "paradis_tf/models",
    "paradis_tf/operations",
    "paradis_tf/switches.py",
    "paradis_tf/tasks",
)
_PACKAGES = ("tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy")


class Recipes:
    """Digests of files of one supernet.

    Args:
      model: the supernet.
      images: the representative images.
      training_images: what compression trains on.
    """

    def __init__(self, model: Supernet, images: np.ndarray, training_images: np.ndarray) -> None:
        self._model = model
        self._images, self._training_images = _digest_of(images), _digest_of(training_images)
        self._size = list(images.shape[1:])

    def digest(self, file: SliceFile, compression: Compression | None) -> str:
        """SHA-256, in hex, of what decides a file's bytes: weights, network, images, settings, code and packages."""
        description = {
            "architecture": self._model.architecture_config(),
            "size": self._size,
            "switch": str(file.switch),
            "device": file.device,
            "precision": file.precision,
            "float_output": file.float_output,
            "weights": self._weights(file.switch, file.device),
            "images": self._images if file.precision == "int8" else None,
            "compression": None if compression is None else self._compression(file.switch, compression),
            **_tools(),
        }
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

    def _compression(self, switch: Switch, compression: Compression) -> list[Any]:
        # The slices of a switch are compressed together.
        weights = [self._weights(switch, device) for device in range(switch.devices)]
        return [compression.as_json(), weights, self._training_images]

    @functools.cache  # noqa: B019  one instance lives as long as a conversion
    def _weights(self, switch: Switch, device: int) -> str:
        digest = hashlib.sha256()
        for layer in self._model.shared_layers:
            for value in layer.static_weights(switch.cut(device)):
                digest.update(f"{layer.name} {_digest_of(keras.ops.convert_to_numpy(value))}".encode())
        return digest.hexdigest()


def _digest_of(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@functools.cache
def _tools() -> Mapping[str, Any]:
    code = hashlib.sha256()
    for source in _SOURCES:
        path = _ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            code.update(file.read_bytes())
    return {"code": code.hexdigest(), "packages": {name: metadata.version(name) for name in _PACKAGES}}
