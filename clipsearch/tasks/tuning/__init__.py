"""Fitting a model to captioned images, and measuring on other images whether that made it better.

`captioned` divides images by their content into three parts, `measuring` says what a change is worth, `result` writes
what is better. There are two methods. `query` changes how vectors of texts are read, by the matrix that `matrix`
learns. `weights` trains the model itself by LoRA (arXiv 2106.09685), low-rank changes of its layers that are merged at
the end: `pictures` decodes images once, `towers` are the model with its adapters, `training` trains these, and
`checkpoint` keeps what was done for another run. These import torch, and peft where it is installed.
"""
