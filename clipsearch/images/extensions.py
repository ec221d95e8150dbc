"""The names of image files."""

from __future__ import annotations

import os

from clipsearch.images.codecs.optional_packages import needed_extra
from clipsearch.images.codecs.raw import RAW_EXTENSIONS

EXTENSIONS = RAW_EXTENSIONS | {
    *(".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    *(".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl"),
    *(".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif"),
    *(".tiff", ".webp"),
}
"""Extensions (in any case) of the files that count as images when a folder is searched."""


class ImageNames:
    """Whether names are those of images that can be read here."""

    def __init__(self) -> None:
        self.suffixes = {os.fsencode(suffix) for suffix in EXTENSIONS if not needed_extra(suffix)}
        """Their extensions, in lower case."""

    def fits(self, name: bytes) -> bool:
        """Return whether a file name has the extension of an image."""
        # By the rules of os.path.splitext, in a third of its time: this is asked of every file.
        return name[name.rfind(b".") :].lower() in self.suffixes and b"." in name.lstrip(b".")
