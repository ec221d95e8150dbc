"""Pictures that were sent to a server: checked, and kept in memory for further searches, the recent ones only."""

from __future__ import annotations

import io
from typing import NamedTuple

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.decoding import decode
from clipsearch.images.reading import digest
from clipsearch.output.thumbnails import reduced
from clipsearch.server.indexes import Recent

MOST_BYTES = 32 << 20
"""Bytes of the largest picture that is taken."""
MOST_PIXELS = 64_000_000
"""Pixels of the largest picture that is taken."""
_KEPT_BYTES = 64 << 20
"""Sum of the bytes of all pictures that are kept."""
_SIDE = 640
"""Longest side of the reduced picture, in pixels."""


class Upload(NamedTuple):
    """One picture that was sent."""

    content: bytes
    thumbnail: bytes
    """The picture, upright and reduced, as WebP."""
    width: int
    """Pixels of the upright picture."""
    height: int


class Uploads:
    """The recent pictures, by the hash of their content. Threads may share it."""

    def __init__(self) -> None:
        self._recent: Recent[bytes, Upload] = Recent(
            _KEPT_BYTES, lambda upload: len(upload.content) + len(upload.thumbnail)
        )

    def add(self, content: bytes) -> bytes:
        """Check and keep a picture; return the hash of its content.

        Raises:
            UnreadableImageError: it is no picture, broken, or has too many pixels.
        """
        name = digest(content)
        if self._recent.get(name) is None:
            self._recent.put(name, _decoded(content))
        return name

    def get(self, name: bytes) -> Upload | None:
        """Return a picture by the hash of its content; None if it was not sent, or forgotten since."""
        return self._recent.get(name)


def _decoded(content: bytes) -> Upload:
    if len(content) > MOST_BYTES:
        raise UnreadableImageError(f"more than {MOST_BYTES >> 20} MB")
    decoded = decode(content, max_pixels=MOST_PIXELS, at_least=_SIDE)
    out = io.BytesIO()
    reduced(decoded, _SIDE).save(out, "WEBP", quality=80, method=2)
    return Upload(content, out.getvalue(), decoded.width, decoded.height)
