"""From a trained supernet to a bundle of small static files, and the runner that serves them."""

# First of all: it sets what TensorFlow and Keras start with, and how signals end a program that still imports.
import paradis_tf  # noqa: F401
