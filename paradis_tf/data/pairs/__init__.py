"""Pairs of images for super-resolution: their folders, their patches, bicubic shrinking."""
