"""Training a switch's slices for int8, few distinct weights and zeros, before they are converted."""
