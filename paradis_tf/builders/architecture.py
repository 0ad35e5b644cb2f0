"""What an architecture is, and how it is read: whole, or in pieces between its boundaries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from paradis_tf.operations.operation import Operation

Tensor = TypeVar("Tensor")

# The boundary that every architecture has: what each device makes ends here, and their predictions are summed.
FUSION = "fusion"


@dataclass(frozen=True)
class Outputs(Generic[Tensor]):
    """What an architecture gives: of one cut at the boundary `FUSION`, or at its end.

    Attributes:
      prediction: at the boundary what is summed over the devices: of a classifier the logits (batch, classes), of
        super-resolution the residual maps (batch, height, width, 3 * scale * scale). At the end the answer: of a
        classifier still the logits, of super-resolution the image (batch, height * scale, width * scale, 3).
      features: (batch, channels), the pooled features of a classifier, or (batch, height, width, channels), those
        before the last convolution; of one device, in channel order after fusion.
    """

    prediction: Tensor
    features: Tensor


class Reading(ABC, Generic[Tensor]):
    """One reading of an architecture. `Tensor` is whatever it hands from operation to operation.

    It knows no operation by name: what is done with one is said in the operation's own class.
    """

    @abstractmethod
    def __call__(self, operation: Operation, *tensors: Tensor, name: str) -> Tensor:
        """What an operation makes of its inputs. Names are unique within an architecture."""

    def boundary(self, name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Where an architecture may be ended and begun again; hands on exactly these tensors."""
        return tensors


class Architecture(Protocol):
    """An architecture written once: its options as attributes, its operations as a call on a `Reading`.

    Attributes:
      name: its name in configs.
      task: the name of the task it is made for, in `paradis_tf.tasks`.
      one_device: true, if given, where every layer needs what all devices of a path make, so that each path has one.
    """

    name: ClassVar[str]
    task: ClassVar[str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of the raw RGB image."""

    def __call__(self, net: Reading[Tensor], image: Tensor) -> Outputs[Tensor]:
        """Reads the operations, from a raw image; hands prediction and features on at the boundary `FUSION`."""

    def get_config(self) -> dict[str, Any]:
        """The options that make it again."""


def read(
    architecture: Architecture,
    reading: Reading[Tensor],
    image: Tensor,
    *,
    begin: str | None = None,
    handed: Sequence[Tensor] = (),
    end: str | None = None,
) -> tuple[Tensor, ...]:
    """Reads a piece of an architecture.

    Args:
      architecture: what is read.
      reading: what is done with its operations.
      image: the raw image.
      begin: the boundary to begin at; nothing before it is read.
      handed: the tensors that the boundary hands on.
      end: the boundary to end at.

    Returns:
      the tensors that `end` hands on; without it the prediction and the features.

    Raises:
      ValueError: the architecture has no such boundary, or hands on another number of tensors there.
    """
    piece = _Piece(reading, begin, tuple(handed), end)
    try:
        outputs = architecture(piece, image)
    except _Ended as ended:
        return ended.tensors
    missing = end if end is not None else begin if piece.skips else None
    if missing is not None:
        raise ValueError(f"architecture {architecture.name!r} has no boundary {missing!r}.")
    return outputs.prediction, outputs.features


def has_tail(architecture: Architecture) -> bool:
    """Whether something is done with the summed prediction, once, where the devices' parts of it are added."""
    names = _Names()
    read(architecture, names, None, begin=FUSION, handed=(None, None))
    return bool(names.found)


class _Ended(Exception):
    def __init__(self, tensors: tuple[Any, ...]) -> None:
        super().__init__()
        self.tensors = tensors


class _Piece(Reading[Any]):
    """Passes on what stands between two boundaries. Before the first one, tensors are None."""

    def __init__(self, reading: Reading[Any], begin: str | None, handed: tuple[Any, ...], end: str | None) -> None:
        self._reading, self._begin, self._handed, self._end = reading, begin, handed, end
        self.skips = begin is not None

    def __call__(self, operation: Operation, *tensors: Any, name: str) -> Any:
        return None if self.skips else self._reading(operation, *tensors, name=name)

    def boundary(self, name: str, *tensors: Any) -> tuple[Any, ...]:
        if name == self._begin:
            if len(self._handed) != len(tensors):
                raise ValueError(f"boundary {name!r} hands on {len(tensors)} tensors, and gets {len(self._handed)}.")
            self.skips = False
            return self._handed
        if name == self._end and not self.skips:
            raise _Ended(tensors)
        return tensors


class _Names(Reading[None]):
    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, operation: Operation, *tensors: None, name: str) -> None:
        self.found.append(name)
