"""Data sets as others publish them: captions of images, and known labels. Knows nothing of models and indexes."""
