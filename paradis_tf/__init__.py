"""Training side of ParaDiS-TF: one set of shared weights, cut into slices for any set of devices."""

import os
import sys

# First of all: from here on a signal ends a program tidily, whatever else it still imports.
import fusion  # noqa: F401

# TensorFlow turns its oneDNN kernels on by itself only where it finds 8-bit instructions, but they make fused batch
# norm and convolution faster on other CPUs too (benchmarks/METHODOLOGY.md). The choice is made when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Keras takes its backend from here rather than from its own keras.json, and keeps the one that it was imported with.
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"
elif sys.modules["keras"].config.backend() != "tensorflow":
    raise ImportError(
        f"paradis_tf needs Keras on TensorFlow, and Keras was imported on {sys.modules['keras'].config.backend()!r} "
        "before it; import paradis_tf first, or set KERAS_BACKEND=tensorflow."
    )
