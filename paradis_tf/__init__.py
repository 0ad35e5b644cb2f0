"""Training side of ParaDiS-TF: one set of shared weights, cut into slices for any set of devices."""

import os

# TensorFlow turns its oneDNN kernels on by itself only where it finds 8-bit instructions. They make fused batch norm
# and convolution on a CPU about twice as fast everywhere, and the choice is made when TensorFlow is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
