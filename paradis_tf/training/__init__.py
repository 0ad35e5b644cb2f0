"""What a training step does with the gradients, and the rates it does it at."""
