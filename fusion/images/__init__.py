"""Pictures: reading, tiles."""
