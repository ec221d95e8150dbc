"""The names of image files."""

from __future__ import annotations

from clipsearch.images.raw import RAW_EXTENSIONS

EXTENSIONS = RAW_EXTENSIONS | {
    *(".apng", ".avif", ".avifs", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    *(".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl"),
    *(".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif"),
    *(".tiff", ".webp"),
}
"""Extensions (in any case) of the files that count as images when a folder is searched."""
