"""The ground: how programs end, files written aside, tables for the terminal, the walk that finds pictures."""
