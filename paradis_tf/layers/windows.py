"""Windows of convolutions: strides, padding and output sizes, as in the stock Keras layers."""

from __future__ import annotations

PADDINGS = ("same", "valid")


def check_window(layer: str, kernel_size: int, strides: int, padding: str) -> None:
    """Raises ValueError, naming the layer, for a window that no convolution has."""
    for name, value in (("kernel_size", kernel_size), ("strides", strides)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"layer {layer!r}: {name} is {value!r}; it takes an int of at least 1.")
    if padding not in PADDINGS:
        raise ValueError(f"layer {layer!r}: padding is {padding!r}; it is one of {', '.join(PADDINGS)}.")


def output_size(size: int | None, kernel_size: int, strides: int, padding: str) -> int | None:
    """Positions of a window along an axis of `size` pixels (`None` stays `None`)."""
    if size is None:
        return None
    covered = size if padding == "same" else size - kernel_size + 1
    return -(-covered // strides)


def check_positions(layer: str, shape: tuple, kernel_size: int, strides: int, padding: str) -> tuple[int | None, ...]:
    """(batch, positions down, positions across) of a window on inputs of this shape.

    Raises ValueError, naming the layer, where the window does not fit the image.
    """
    sizes = [output_size(size, kernel_size, strides, padding) for size in shape[1:3]]
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(
            f"layer {layer!r}: a window of {kernel_size} with padding {padding!r} does not fit an image of "
            f"{shape[1]}x{shape[2]}."
        )
    return (shape[0], *sizes)
