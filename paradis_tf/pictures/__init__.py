"""Pictures: their style, and crops of enlarged images."""
