"""Training side of ParaDiS-TF: one set of shared weights, cut into slices for any set of devices."""

import os

# TensorFlow turns its oneDNN kernels on by itself only where it finds 8-bit instructions, but they make fused batch
# norm and convolution faster on other CPUs too (benchmarks/METHODOLOGY.md). The choice is made when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
