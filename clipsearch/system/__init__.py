"""Access to the operating system: names of files, removing, moving and flushing them, standard streams.

Knows nothing of images, indexes and commands.
"""
