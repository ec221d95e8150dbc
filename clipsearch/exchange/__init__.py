"""Vectors as files that other programs read and write, and the way between these and an index."""
