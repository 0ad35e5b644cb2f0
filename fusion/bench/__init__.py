"""What a cluster's time goes into."""
