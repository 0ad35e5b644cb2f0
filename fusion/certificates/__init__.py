"""A private authority, certificates and tokens for a cluster."""
