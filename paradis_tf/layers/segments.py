"""Weights that are private to each device of each switch: one vector, a segment of it for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paradis_tf.switches import Slice, Switch, SwitchError, parse_switches


def layer_switches(layer: str, switches: Sequence[Switch | str], grid: int) -> tuple[Switch, ...]:
    """The switches of a layer, from `Switch` or text form as multiples of 1/`grid`.

    Raises:
      SwitchError: an illegal one; the layer is named.
    """
    try:
        return parse_switches([str(switch) for switch in switches], grid)
    except SwitchError as error:
        raise SwitchError(f"layer {layer!r}: {error}") from None


class Segments:
    """Where the values of each (switch, device) stand in a vector, in the order of the switches.

    One variable per segment would make tracing and saving several times slower.

    Args:
      layer: the layer's name, for errors.
      switches: the switches.
      size: how many values a slice has.

    Attributes:
      total: values of the whole vector.
    """

    def __init__(self, layer: str, switches: Sequence[Switch], size: Callable[[Slice], int]) -> None:
        self.layer = layer
        self.switches = tuple(switches)
        self.total = 0
        self._found: dict[tuple[str, int], tuple[int, int]] = {}
        for switch in self.switches:
            for device, own in enumerate(switch.slices):
                first, self.total = self.total, self.total + size(own)
                self._found[str(switch), device] = first, self.total

    def bounds(self, switch: Switch, device: int) -> tuple[int, int]:
        """The first place of a segment and the one after its last.

        Raises:
          ValueError: there is none for that switch or device; those that there are are named.
        """
        found = self._found.get((str(switch), device))
        if found is None:
            known = ", ".join(f"'{s}' ({s.devices} devices)" for s in self.switches)
            raise ValueError(f"layer {self.layer!r} has no device {device} of switch '{switch}'; it has {known}.")
        return found
