"""Image and text towers in PyTorch. The only folder that imports torch and transformers."""
