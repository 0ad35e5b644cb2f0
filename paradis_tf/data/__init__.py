"""Datasets as arrays in memory, and the seeded input pipelines made of them."""
