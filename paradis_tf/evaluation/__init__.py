"""What a trained network is worth: each switch, each set of living devices; and batch norm recomputed."""
