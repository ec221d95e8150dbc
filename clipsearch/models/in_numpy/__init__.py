"""Image and text towers and tokenizers in NumPy, without torch and transformers."""
