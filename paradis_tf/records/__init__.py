"""What a training leaves: its run folder, metrics, events and progress."""
