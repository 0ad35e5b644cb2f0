"""What the Keras layers of the operations share: full-size kernels that are cut, private weights, windows."""
