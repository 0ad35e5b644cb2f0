"""Trains and evaluates a list of runs, a results table from one command; the lists are the TOML files beside this."""
