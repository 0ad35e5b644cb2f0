"""The ground: how programs end, files written aside, tables, the walk that finds pictures, what an image file means."""
