"""Experiments, one per file; each file's docstring states its command, its time and what to expect."""
