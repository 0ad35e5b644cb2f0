"""From parts to an answer."""
