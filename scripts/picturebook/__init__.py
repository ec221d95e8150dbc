"""Picturebook: a small CLIP trained from scratch on drawn scenes. See the README beside this file."""
