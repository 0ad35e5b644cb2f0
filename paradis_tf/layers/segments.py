"""Weights that are private to each cut: one vector, a segment of it for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paradis_tf.cuts import Cut


class Segments:
    """Where the values of each cut stand in a vector, in the order of the cuts.

    One variable per cut would make tracing and saving several times slower.

    Args:
      layer: the layer's name, for errors.
      cuts: the cuts, of different keys.
      size: how many values a cut has.

    Attributes:
      total: values of the whole vector.

    Raises:
      ValueError: there are no cuts, or two of one key.
    """

    def __init__(self, layer: str, cuts: Sequence[Cut], size: Callable[[Cut], int]) -> None:
        self.layer = layer
        self.cuts = tuple(cuts)
        self.total = 0
        self._bounds: dict[str, tuple[int, int]] = {}
        if not self.cuts:
            raise ValueError(f"layer {layer!r} gets no cuts; it keeps weights for at least one.")
        for cut in self.cuts:
            if cut.key in self._bounds:
                raise ValueError(f"layer {layer!r} gets the cut {cut.key} twice; list each once.")
            first, self.total = self.total, self.total + size(cut)
            self._bounds[cut.key] = first, self.total

    def bounds(self, cut: Cut) -> tuple[int, int]:
        """The first place of a segment and the one after its last.

        Raises:
          ValueError: there is none for that cut; those that there are are named.
        """
        bounds = self._bounds.get(cut.key)
        if bounds is None:
            known = ", ".join(self._bounds)
            raise ValueError(f"layer {self.layer!r} has no weights for {cut}; it has those of {known}.")
        return bounds
