"""Which operators a slice file may have: those that tflite-runtime 2.14.0 runs by itself, in the versions it knows."""

from __future__ import annotations

from export.tflite.graph import Graph

# Operator -> the newest version that tflite-runtime 2.14.0 registers; a test finds them out by loading files.
NEWEST_VERSIONS = {
    "ADD": 5,
    "AVERAGE_POOL_2D": 3,
    "CAST": 5,
    "CONCATENATION": 4,
    "CONV_2D": 7,
    "DEPTHWISE_CONV_2D": 7,
    "DEPTH_TO_SPACE": 2,
    "DEQUANTIZE": 5,
    "FULLY_CONNECTED": 10,
    "HARD_SWISH": 1,
    "LOGISTIC": 3,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MUL": 7,
    "PAD": 4,
    "QUANTIZE": 3,
    "RELU": 3,
    "RELU6": 3,
    # What the converter makes of a mean over one pixel.
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "SOFTMAX": 3,
    "SPLIT": 4,
    "STRIDED_SLICE": 8,
    "SUB": 5,
}


def faults(graph: Graph) -> list[str]:
    """What stands in the way of running a file on tflite-runtime 2.14.0, a sentence each; none if it runs."""
    found = []
    for name, version in sorted(graph.operators):
        newest = NEWEST_VERSIONS.get(name)
        if newest is None:
            found.append(f"The file has the operator {name}; legal are {', '.join(NEWEST_VERSIONS)}.")
        elif version > newest:
            found.append(f"The file has {name} version {version}; tflite-runtime 2.14.0 knows up to version {newest}.")
    if graph.largest_multiplier >= 1:
        found.append(
            f"The file has a channel with the multiplier {graph.largest_multiplier:.3g}; kernels of aarch64 take less "
            "than 1: convert again."
        )
    return found
