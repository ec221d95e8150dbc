"""Models: which there are and where they lie (`catalog`), what turns pictures and words into vectors.

`encoder` is the only room that imports torch and transformers; `text_tower` answers queries without them.
"""
