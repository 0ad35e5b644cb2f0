"""Weights that are private to each cut: one vector, a segment of it for each key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paradis_tf.cuts import Cut


class Segments:
    """Where the values of each cut stand in a vector, in the order of the cuts.

    Cuts of one key share a segment; each has its own channels of it. One variable per cut would make tracing and saving
    several times slower.

    Args:
      layer: the layer's name, for errors.
      cuts: the cuts, each once.
      channels: the channels [first, last) of the layer that a cut has values for.
      key: whose segment it is, `Cut.key` if left out.

    Attributes:
      keys: of the segments, in their order.
      sizes: values of each segment.
      total: values of the whole vector.

    Raises:
      ValueError: there are no cuts, or one comes twice.
    """

    def __init__(
        self,
        layer: str,
        cuts: Sequence[Cut],
        channels: Callable[[Cut], tuple[int, int]],
        key: Callable[[Cut], str] = lambda cut: cut.key,
    ) -> None:
        self.layer = layer
        self._channels = channels
        self._key = key
        if not cuts:
            raise ValueError(f"layer {layer!r} gets no cuts; it keeps weights for at least one.")
        # By key, the channels that its cuts have together.
        self._covered: dict[str, tuple[int, int]] = {}
        for index, cut in enumerate(cuts):
            if cut in cuts[:index]:
                raise ValueError(f"layer {layer!r} gets the cut {cut.key} twice; list each once.")
            first, last = channels(cut)
            low, high = self._covered.get(key(cut), (first, last))
            self._covered[key(cut)] = min(low, first), max(high, last)
        self.keys = tuple(self._covered)
        self.sizes = tuple(high - low for low, high in self._covered.values())
        self.total = sum(self.sizes)
        self._first = {each: sum(self.sizes[:index]) for index, each in enumerate(self.keys)}

    def bounds(self, cut: Cut) -> tuple[int, int]:
        """The first place of a cut's values and the one after its last.

        Raises:
          ValueError: there are none for that cut; the keys that there are are named.
        """
        key = self._key(cut)
        if key in self._covered:
            low, high = self._covered[key]
            first, last = self._channels(cut)
            if low <= first and last <= high:
                return self._first[key] + first - low, self._first[key] + last - low
        raise ValueError(f"layer {self.layer!r} has no weights for {cut}; it has those of {', '.join(self.keys)}.")
