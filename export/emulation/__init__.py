"""Boards of other processors, emulated on this machine."""
