"""What clipsearch asks of the operating system: names of files, removing and moving them, flushing them to the disk.

Knows nothing of images, indexes and commands.
"""
