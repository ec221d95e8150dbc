"""A local page and an HTTP API for searching indexes: a caller of `api`, like the command line.

Knows nothing of parsing a command line or of the current folder; whoever starts a server names the folders.
"""
