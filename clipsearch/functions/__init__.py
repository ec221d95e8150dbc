"""The functions of the Python API: what the commands do, each in one call of a task.

`images` is about images and texts that a caller names, `indexes` about the images of an index, `models` about models
and what they respond to, `vectors` about files of vectors. `opening` opens the model that a caller names.
"""
