"""Units that start a program with the machine."""
