"""A cluster whose workers die, hang, slow down and lie, and whether every request is answered rightly and in time."""
