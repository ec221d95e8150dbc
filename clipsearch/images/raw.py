"""Camera RAW: telling it from other files, and the preview that the camera put into it.

What is read is the camera's own JPEG, as any viewer shows it; only a RAW without one is developed. This needs the
optional package rawpy, which is imported for a RAW only, as is Pillow: who searches folders wants `RAW_EXTENSIONS` and
nothing else. Knows nothing of other formats, nor how a JPEG is decoded.
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
from clipsearch.images.layouts import TRUNCATED

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
"""Lower-case endings of camera RAW files."""

SIGNATURES = (
    b"FUJIFILMCCD-RAW",  # RAF
    b"IIRO",  # ORF, in three spellings
    b"IIRS",
    b"MMOR",
    b"IIU\0",  # RW2
    b"FOVb",  # X3F
    b"\0MRM",  # MRW
)
"""How files of kinds begin that are neither TIFF in form nor CR3."""
_LAST_ROWS = 8
"""Of the sensor."""
_TIFF = (b"II*\0", b"MM\0*")
_NEW_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_REDUCED = 1

_EXIF_ORIENTATION = (1, 2, 4, 3, 5, 8, 6, 7)
"""EXIF's number for each `flip` of LibRaw: its bits mean 1 left to right, 2 upside down, 4 rows are columns."""
_ROWS_ARE_COLUMNS = 4


@dataclass(frozen=True)
class Preview:
    """What a RAW shows of itself."""

    picture: bytes | None
    """A JPEG; without one the RAW has to be developed."""
    orientation: int
    """In EXIF's numbers: how a picture that does not say so itself has to be turned."""
    width: int
    """Of the RAW itself in pixels, upright."""
    height: int


def is_camera_raw(content: bytes, name: bytes = b"") -> bool:
    """Whether this looks like camera RAW. Many are TIFF files in form; there the name counts, too."""
    if content.startswith(SIGNATURES) or content[4:12] == b"ftypcrx ":  # the latter is CR3
        return True
    if not content.startswith(_TIFF):
        return False
    if content[8:10] == b"CR" or os.path.splitext(os.fsdecode(name))[1].lower() in RAW_EXTENSIONS:  # CR2, or by name
        return True
    tags = _first_directory(content)
    # NEF, ARW, SRW and others begin with a small version and keep the picture itself in a directory below.
    return _DNG_VERSION in tags or (bool(tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED) and _SUB_DIRECTORIES in tags)


def _first_directory(tiff: bytes) -> dict[int, int]:
    """Tag -> value (or where the values are) in a TIFF's first directory; empty if that is broken."""
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        entries = struct.iter_unpack(f"{order}HHII", tiff[start + 2 : start + 2 + 12 * count])
        return {tag: value for tag, _, _, value in entries}
    except struct.error:
        return {}


def read_preview(content: bytes) -> Preview | None:
    """The preview in a camera RAW; None if rawpy cannot open a TIFF that only looked like one.

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
        # The last is what rawpy raises for a kind of preview that LibRaw knows and rawpy does not.
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, NotImplementedError):
            picture = None
        else:
            # Not bare pixels, which some old cameras have: rawpy takes the file's word for how many there are, and
            # reading them from a broken file leads beyond their memory.
            picture = thumbnail.data if isinstance(thumbnail.data, bytes) else None
    width, height = sizes.width, sizes.height
    if sizes.flip & _ROWS_ARE_COLUMNS:
        width, height = height, width
    return Preview(picture, _EXIF_ORIENTATION[sizes.flip & 7], width, height)


def develop(content: bytes) -> Image.Image:
    """A camera RAW without a preview, developed at half its size; upright, RGB.

    Raises:
        UnreadableImageError: the RAW is broken, or cut off.
    """
    import rawpy

    with _libraw_errors(), rawpy.imread(io.BytesIO(content)) as raw:
        if raw.raw_type == rawpy.RawType.Flat and not raw.raw_image_visible[-_LAST_ROWS:].any():
            # Some decoders of LibRaw leave black what they do not find. No sensor reads zero everywhere.
            raise UnreadableImageError(TRUNCATED)
        return _image(raw.postprocess(half_size=True, use_camera_wb=True))


def _image(samples: npt.NDArray[np.uint8]) -> Image.Image:
    """(H, W, 3), or (H, W, 1) from a camera without colours."""
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
