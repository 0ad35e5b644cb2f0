"""What decides the bytes of a slice file, as a digest, and the files of an older bundle that are made by it already."""

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
from export.conversion.job import Job
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_ROOT = Path(__file__).parents[2]
# The code that the bytes of a file depend on.
_SOURCES = (
    "export/compression",
    "export/conversion/slices.py",
    "export/tflite/graph.py",
    "export/tflite/halves.py",
    "paradis_tf/builders",
    "paradis_tf/layers",
    "paradis_tf/models",
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

    def of(self, job: Job, compression: Compression | None) -> str:
        """SHA-256, in hex, of what decides a file's bytes: weights, network, images, settings, code and packages."""
        described = {
            "architecture": self._model.architecture_config(),
            "size": self._size,
            "switch": str(job.switch),
            "device": job.device,
            "precision": job.precision,
            "float_output": job.float_output,
            "weights": self._weights(job.switch, job.device),
            "images": self._images if job.precision == "int8" else None,
            "compression": None if compression is None else self._compression(job.switch, compression),
            **_tools(),
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def _compression(self, switch: Switch, compression: Compression) -> list[Any]:
        # The slices of a switch are compressed together.
        weights = [self._weights(switch, device) for device in range(switch.devices)]
        return [compression.as_json(), weights, self._training_images]

    @functools.cache  # noqa: B019  one instance lives as long as a conversion
    def _weights(self, switch: Switch, device: int) -> str:
        digest = hashlib.sha256()
        for layer in self._model.shared_layers:
            for value in layer.static_weights(switch, device):
                digest.update(f"{layer.name} {_digest_of(keras.ops.convert_to_numpy(value))}".encode())
        return digest.hexdigest()


class OlderFiles:
    """The slice files of a bundle that are as they were made. An older or damaged bundle, or none, has no such files.

    Args:
      bundle: its folder.
    """

    def __init__(self, bundle: Path) -> None:
        self._found: list[tuple[Any, str, bytes]] = []
        for entry in _file_entries(bundle / "manifest.json"):
            try:
                data = (bundle / entry["path"]).read_bytes()
                self._found.append((entry["recipe"], hashlib.sha256(data).hexdigest(), data))
            except (OSError, KeyError, TypeError, ValueError):
                continue

    def find(self, recipe: str) -> bytes | None:
        """The file that was made by a recipe, or None."""
        return next((data for sealed, digest, data in self._found if sealed == _sealed(recipe, digest)), None)


def seal(recipe: str, data: bytes) -> str:
    """What a manifest holds of a recipe: SHA-256, in hex, of it and of the bytes that it made.

    A manifest that was pointed to another file by hand so says nothing of how that one was made.
    """
    return _sealed(recipe, hashlib.sha256(data).hexdigest())


def _sealed(recipe: str, digest: str) -> str:
    return hashlib.sha256(f"{recipe} {digest}".encode()).hexdigest()


def _file_entries(manifest: Path) -> list[dict[str, Any]]:
    try:
        written = json.loads(manifest.read_text(encoding="utf-8"))
        slices = [part for entry in written["switches"] for part in entry["slices"]]
        return [file for part in slices for file in part["files"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


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
