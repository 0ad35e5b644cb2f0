"""What is measured, how (METHODOLOGY.md), and the results."""
