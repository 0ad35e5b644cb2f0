"""What a bundle holds, and its manifest."""
