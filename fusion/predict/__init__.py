"""Asks a coordinator about images."""
