"""Interpreters of an architecture: the shared supernet, one slice as a static model, and its cost."""
