"""Sends the input to the workers of a switch and fuses."""
