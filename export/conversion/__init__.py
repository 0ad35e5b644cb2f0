"""From a trained network to slice files."""
