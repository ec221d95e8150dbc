"""The functions of the Python API: what the commands do, each in one call of a task.

`images` compares images with texts, `indexes` is about those of an index, `models` measures and makes models and lets
them draw, `vectors` takes vectors out and in. `opening` opens the model that a caller names.
"""
