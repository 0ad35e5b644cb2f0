"""Reports of evaluated runs: what was measured, how methods compare, and the page that shows it."""
