"""Texts to vectors in NumPy, without torch and transformers."""
