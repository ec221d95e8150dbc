"""Camera RAW: recognising it, and reading the preview that the camera embedded.

The camera's own JPEG is used, as any viewer shows it; only a RAW without one is developed. This needs the optional
package rawpy, which is imported only for a RAW, as is Pillow, since searching folders needs `RAW_EXTENSIONS` alone.
Knows nothing of other formats, nor how a JPEG is decoded.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.header_checks import TRUNCATED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

RAW_EXTENSIONS = frozenset(
    {
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".dcr",
        ".dng",
        ".erf",
        ".iiq",
        ".kdc",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".raf",
        ".rw2",
        ".rwl",
        ".sr2",
        ".srw",
        ".x3f",
    }
)
"""Extensions of camera RAW files, in lower case."""

SIGNATURES = (
    b"FUJIFILMCCD-RAW",  # RAF
    b"IIRO",  # ORF, in three spellings
    b"IIRS",
    b"MMOR",
    b"IIU\0",  # RW2
    b"FOVb",  # X3F
    b"\0MRM",  # MRW
)
"""First bytes of RAW files that have neither the form of a TIFF nor are CR3."""
_LAST_ROWS = 8
"""Rows at the end of the sensor that are checked for missing data."""
_TIFF = (b"II*\0", b"MM\0*")
_NEW_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_REDUCED = 1

_EXIF_ORIENTATION = (1, 2, 4, 3, 5, 8, 6, 7)
"""EXIF orientation for each `flip` of LibRaw, whose bits are 1 mirrored, 2 upside down, 4 rows and columns swapped."""
_ROWS_ARE_COLUMNS = 4


@dataclass(frozen=True)
class Preview:
    """Embedded preview of a RAW, with the size of the RAW itself."""

    jpeg: bytes | None
    """The preview, a JPEG file; None if the RAW must be developed."""
    orientation: int
    """EXIF orientation of a preview that has none of its own."""
    width: int
    """Pixels of the upright RAW."""
    height: int
    """Pixels of the upright RAW."""


def is_camera_raw(content: bytes, name: bytes = b"") -> bool:
    """Whether this looks like camera RAW. For files in the form of a TIFF, the extension counts, too."""
    if content.startswith(SIGNATURES) or content[4:12] == b"ftypcrx ":  # the latter is CR3
        return True
    if not content.startswith(_TIFF):
        return False
    if content[8:10] == b"CR" or os.path.splitext(os.fsdecode(name))[1].lower() in RAW_EXTENSIONS:  # CR2, or by name
        return True
    tags = _first_directory(content)
    # The first directory of NEF, ARW, SRW and others holds a thumbnail, and the image is in a subdirectory.
    return _DNG_VERSION in tags or (bool(tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED) and _SUB_DIRECTORIES in tags)


def _first_directory(tiff: bytes) -> dict[int, int]:
    """Tag -> value (or offset of the values) in the first directory of a TIFF; empty if that is broken."""
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        entries = struct.iter_unpack(f"{order}HHII", tiff[start + 2 : start + 2 + 12 * count])
        return {tag: value for tag, _, _, value in entries}
    except struct.error:
        return {}


def read_preview(content: bytes) -> Preview | None:
    """Read the preview of a camera RAW; None if it is a TIFF that only looked like one.

    Raises:
        UnreadableImageError: rawpy is not installed, or the RAW is broken.
    """
    try:
        import rawpy
    except ImportError as error:
        raise UnreadableImageError(
            "camera RAW: its preview is read once you install the extra: pip install 'clipsearch[raw]'"
        ) from error
    with _libraw_errors():
        try:
            raw = rawpy.imread(io.BytesIO(content))
        except rawpy.LibRawError:
            if content.startswith(_TIFF):
                return None
            raise
    with raw, _libraw_errors():
        sizes = raw.sizes
        try:
            thumbnail = raw.extract_thumb()
        # rawpy raises NotImplementedError for a kind of preview that only LibRaw supports.
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, NotImplementedError):
            jpeg = None
        else:
            # Bare pixels of old cameras are not used: rawpy trusts the file about their number, and reading them from
            # a broken file reads beyond the buffer.
            jpeg = thumbnail.data if isinstance(thumbnail.data, bytes) else None
    width, height = sizes.width, sizes.height
    if sizes.flip & _ROWS_ARE_COLUMNS:
        width, height = height, width
    return Preview(jpeg, _EXIF_ORIENTATION[sizes.flip & 7], width, height)


def develop(content: bytes) -> Image.Image:
    """Develop a camera RAW at half its size, upright, in RGB.

    Raises:
        UnreadableImageError: the RAW is broken or truncated.
    """
    import rawpy

    with _libraw_errors(), rawpy.imread(io.BytesIO(content)) as raw:
        if raw.raw_type == rawpy.RawType.Flat and not raw.raw_image_visible[-_LAST_ROWS:].any():
            # Some decoders of LibRaw leave missing rows black. No sensor reads zero everywhere.
            raise UnreadableImageError(TRUNCATED)
        return _image(raw.postprocess(half_size=True, use_camera_wb=True))


def _image(samples: npt.NDArray[np.uint8]) -> Image.Image:
    """Convert (H, W, 3) samples, or (H, W, 1) from a monochrome camera, to an RGB image."""
    from PIL import Image

    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).convert("RGB")


@contextmanager
def _libraw_errors() -> Iterator[None]:
    import rawpy

    try:
        yield
    except (rawpy.LibRawError, OSError, RuntimeError) as error:
        message = error.args[0] if error.args else error
        text = message.decode("ascii", "replace") if isinstance(message, bytes) else str(message)
        raise UnreadableImageError(f"broken camera RAW: {text}") from error
