"""Pixels from the bytes of a file: formats are recognised, checked, decoded, and shown as a viewer shows them."""
