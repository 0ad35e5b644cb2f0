"""Serves slices on one device."""
