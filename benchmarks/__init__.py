"""What is measured, how (METHODOLOGY.md), and the results."""

# First of all: it sets what TensorFlow and Keras start with, and how signals end a program that still imports.
import paradis_tf  # noqa: F401
