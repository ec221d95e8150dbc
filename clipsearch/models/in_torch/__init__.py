"""Texts and pictures to vectors in PyTorch. The only folder that imports torch and transformers."""
