"""Pictures that a model finds fitting for a text, made by gradient ascent on the picture itself.

`ascent` climbs, `views` are the random looks by which it judges, `pixels` and `strokes` are what a picture may consist
of. Besides `models.in_torch` only this folder imports torch. It knows nothing of files.
"""
