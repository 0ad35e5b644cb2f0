"""Clusters of this machine."""
