"""The proof of a bundle."""
