"""The readings of an architecture: shared layers, one cut of them, one cut as a static model, and its cost."""
