"""What every program here needs."""
