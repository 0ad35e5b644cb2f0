"""When slices answer without the others."""
