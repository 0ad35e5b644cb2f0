"""From what the slices give to the answer."""
