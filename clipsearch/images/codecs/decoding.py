"""Decoding of one image file into upright RGB pixels on white, as a person sees it.

The format is recognised by the content alone, except for camera RAW in a TIFF. Knows nothing of folders or models.
"""

from __future__ import annotations

import contextlib
import io
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import (
    bitmaps,
    damage,
    header_checks,
    jpegxl,
    raw,
    reasons,
    second_decoder,
    truncated_files,
)
from clipsearch.images.codecs.box import Box
from clipsearch.images.codecs.colour import conversion
from clipsearch.images.codecs.dates import Taken, taken
from clipsearch.images.codecs.limits import (
    TooLargeError,
    check_size,
    default_max_pixels,
    enough_memory,
    in_turn,
    more_than,
    raise_pillow_limit,
)
from clipsearch.images.codecs.metadata_stripping import stripped
from clipsearch.images.codecs.pixels import as_seen, in_order, mend_palette, mend_transparency, reduced
from clipsearch.images.codecs.recognising import format_of, icon_sizes, is_truncated
from clipsearch.images.codecs.second_decoder_kinds import Header, header, is_lossless_jpeg

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that turns the image upright."""
_ON_ITS_SIDE, _ENDS_LEFT, _ENDS_ON_TOP = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF orientations that swap width and height, and those whose right or lower edge ends up left or on top."""

_BITS, _PLANES = 258, 284
"""Tags of a TIFF: bits of each channel, and whether each channel is stored as a plane of its own (2)."""
_opening_tiff = threading.Lock()
AtLeast = int | Callable[[int, int], int] | None
"""The least length of both sides of a decoded image in pixels, perhaps as a function of its two sides in any order."""


@dataclass(frozen=True)
class DecodedImage:
    """One decoded image, with what its file says about it."""

    image: Image.Image
    """RGB, upright, on white where it was transparent; the first frame of an animation. It may have been decoded
    smaller than `width` and `height`."""
    box: tuple[float, float, float, float]
    """Left, upper, right and lower edge of the content of `image`, in pixels; the rest is padding of the decoder."""
    width: int
    """Pixels of the upright image at full size."""
    height: int
    """Pixels of the upright image at full size."""
    taken_at: str | None
    """ISO 8601 local time from EXIF or XMP, or None."""
    date_source: str | None = None
    """Where `taken_at` comes from: `dates.EXIF` or `dates.XMP`."""
    missing: float = 0.0
    """Share of the image that the file lacks, 0 to 0.5; it is filled with the colours next to it."""

    def part(self, box: Box) -> Image.Image:
        """Cut a box of the upright image at full size out of `image`.

        Raises:
            InputError: the box is not within the image.
        """
        return self.image.crop(box.scaled(self.width, self.height, self.box))


def decode(
    content: bytes, name: bytes = b"", *, max_pixels: int | None = None, at_least: AtLeast = None
) -> DecodedImage:
    """Decode the content of an image file. Threads may call this at the same time.

    Args:
        content: The whole file.
        name: Its name, which only tells camera RAW from other TIFF files.
        max_pixels: An image with more is refused before it takes memory; by default `default_max_pixels`.
        at_least: A JPEG, or an image whose colours must be converted, may be decoded smaller as long as neither side
            gets shorter than this; by default all are decoded in full.

    Raises:
        UnreadableImageError: the content is no supported image, is truncated or broken, or has too many pixels.
    """
    limit = default_max_pixels() if max_pixels is None else max_pixels
    if not content:
        raise UnreadableImageError("empty file")
    with enough_memory():
        preview = raw.read_preview(content) if raw.is_camera_raw(content, name) else None
        if preview is None:
            return _decode_file(content, limit, at_least)
        return _decode_camera_raw(content, preview, limit, at_least)


def _decode_camera_raw(content: bytes, preview: raw.Preview, limit: int, at_least: AtLeast) -> DecodedImage:
    if preview.jpeg is not None:
        decoded = _decode_file(preview.jpeg, limit, at_least, preview.orientation)
    else:
        check_size(preview.width, preview.height, limit)
        with in_turn(preview.width * preview.height, limit):
            developed = raw.develop(content)
            decoded = _upright(developed, developed.size, 1, None)
    at, source = _raw_taken(content, decoded) or (None, None)
    return replace(decoded, width=preview.width, height=preview.height, taken_at=at, date_source=source)


def _decode_file(content: bytes, limit: int, at_least: AtLeast, orientation: int = 1) -> DecodedImage:
    """Decode any file but camera RAW. `orientation` (EXIF) counts if the file itself has none."""
    if content.startswith(b"icns"):
        content = header_checks.icon_image(content) or content
    if (decoded := _decode_without_pillow(content, limit, orientation)) is not None:
        return decoded
    if at_least is not None and format_of(content) == "JPEG" and is_lossless_jpeg(content):
        at_least = None
    try:
        return _decode_with_pillow(content, limit, at_least, orientation)
    except TooLargeError:
        raise
    except UnreadableImageError as caught:
        error = caught
    # The traceback would keep the pixels that were decoded so far in memory.
    for failed in filter(None, (error, error.__cause__)):
        traceback.clear_frames(failed.__traceback__)
    return _decode_refused(content, limit, orientation, error)


def _decode_refused(content: bytes, limit: int, orientation: int, error: UnreadableImageError) -> DecodedImage:
    """Try other ways to decode a file that its decoder refused with `error`."""
    name = format_of(content)
    if name is None:
        raise error
    # 1. The whole image: at full size, and without metadata, which the decoder may fail on.
    less = list(stripped(content, name))
    for other in [content, *less] if name == "JPEG" else less:
        with contextlib.suppress(UnreadableImageError):
            return _decode_with_pillow(other, limit, None, orientation)
    # 2. The part of it that is there.
    for other in (content, *less):
        try:
            decoded = _decode_damaged(other, name, limit, orientation)
        except damage.TooLittleError as little:
            raise UnreadableImageError(f"{error}; {little}") from error
        if decoded is not None:
            return decoded
    raise UnreadableImageError(reasons.reason(content, name, str(error.__cause__ or ""), str(error))) from error


def _decode_damaged(content: bytes, name: str, limit: int, orientation: int) -> DecodedImage | None:
    """Decode the part of an image that is there; None if nothing can be decoded.

    Raises:
        TooLittleError: less than `damage.LEAST_SHARE` is there.
    """

    def decodes(file: bytes) -> bool:
        try:
            _decode_with_pillow(file, limit, None, orientation)
        except UnreadableImageError:
            return False
        return True

    for ends in truncated_files.ends(content, name, decodes):

        def load(image: ImageFile.ImageFile, ends: truncated_files.Ends = ends) -> damage.Loss:
            with _open(ends.other, limit) as other:
                return damage.load_both(image, other, ends)

        try:
            return _decode_with_pillow(ends.shown, limit, None, orientation, load)
        except damage.TooLittleError:
            raise
        except UnreadableImageError:
            continue
    return None


def _load_whole(image: ImageFile.ImageFile) -> damage.Loss:
    image.load()
    return damage.NOTHING


def _decode_with_pillow(
    content: bytes,
    limit: int,
    at_least: AtLeast,
    orientation: int,
    load: Callable[[ImageFile.ImageFile], damage.Loss] = _load_whole,
) -> DecodedImage:
    """Decode with Pillow and its plugins. `load` reads the pixels of the opened image."""
    with _decoder_errors(limit):
        image = _open(content, limit)
    with image:
        check_size(image.width, image.height, limit)
        size = image.size
        least = at_least(*size) if callable(at_least) else at_least
        with in_turn(image.width * image.height, limit):
            with _decoder_errors(limit):
                if least and isinstance(image, JpegImageFile):
                    image.draft(None, (least, least))  # libjpeg skips the high frequencies of each block
                mend_palette(image)
                loss = load(image)
            if not isinstance(image, JpegImageFile):
                size = image.size  # some decoders know the size only now
            if image.mode == "P" and image.palette is None:
                raise UnreadableImageError("broken image: it has no palette")
            if image.format == "PNG":
                mend_transparency(image, depth=content[24])
            exif, xmp = _metadata(image)
            if image.format != "HEIF":  # libheif has applied the container's orientation; EXIF's does not count
                orientation = _orientation(exif) or orientation
            stored, to_srgb = in_order(image, content), conversion(image, content, image.format)
            if least and to_srgb is not None:
                stored = reduced(stored, least)
            seen = loss.painted(as_seen(stored, to_srgb))
            decoded = _upright(seen, size, orientation, taken(exif, xmp))
            if decoded.image is image:  # it would keep the file and the decoder in memory
                decoded = replace(decoded, image=image.copy())
            return replace(decoded, missing=loss.share) if loss.share else decoded


def _decode_without_pillow(content: bytes, limit: int, orientation: int) -> DecodedImage | None:
    """Decode an image that Pillow does not support or shows wrongly; None if it is no such image."""
    name = format_of(content)
    found = bitmaps.layout(content) if name in ("BMP", "DDS", "DIB") else header(content, name)
    if found is None:
        return None
    if name is not None and is_truncated(content, name):
        raise UnreadableImageError(header_checks.TRUNCATED)
    check_size(found.width, found.height, limit)
    with in_turn(found.width * found.height, limit):
        if isinstance(found, bitmaps.Layout):
            image = bitmaps.decode(content, found)
            seen = as_seen(image, conversion(image, content, name))
            return _upright(seen, seen.size, orientation, None)
        image = second_decoder.decode(content, found, limit)
        exif = _exif(content, found)
        if found.codec == "tiff":
            image.info["icc_profile"] = exif.get(ExifTags.Base.InterColorProfile)
        seen = as_seen(image, conversion(image, content, name))
    if found.codec in ("jpeg", "tiff"):
        orientation = _orientation(exif) or orientation
    return _upright(seen, seen.size, max(orientation, found.orientation), taken(exif))


def _exif(content: bytes, found: Header) -> Image.Exif:
    """EXIF of a file for the second decoder, which does not read it; empty if it is broken."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # Pillow passes on whatever its parser raises
        if found.codec == "tiff":
            exif.load(content)
        elif found.codec == "jpegxl":
            exif.load(jpegxl.exif(content))
        elif (start := content.find(b"Exif\0\0")) >= 0:
            exif.load(content[start:])
    return exif


def _upright(image: Image.Image, size: tuple[int, int], orientation: int, when: Taken | None) -> DecodedImage:
    """Turn `image`, which may be smaller than its `size` in the file, upright, and describe it."""
    scale = -(-size[0] // image.width)
    # A side that is no multiple of the scale was rounded up; before turning, the padding is at its end.
    width, height = size[0] / scale, size[1] / scale
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if orientation in _ON_ITS_SIDE:
        size, width, height = size[::-1], height, width
    left = image.width - width if orientation in _ENDS_LEFT else 0.0
    top = image.height - height if orientation in _ENDS_ON_TOP else 0.0
    return DecodedImage(image, (left, top, left + width, top + height), *size, *(when or (None, None)))


# --- opening ---


def _open(content: bytes, limit: int) -> ImageFile.ImageFile:
    """Open an image and read only its header, except for Windows icons, which Pillow decodes at once.

    `Image.open` is not used, since it refuses large images without naming their size, and reports a broken header as an
    unknown format.
    """
    name = format_of(content)
    if name is None:
        raise UnreadableImageError("not an image of a known format")
    if is_truncated(content, name):
        raise UnreadableImageError(header_checks.TRUNCATED)
    if name == "ICO":
        for width, height in icon_sizes(content):
            check_size(width, height, limit)
    if name == "TGA":
        content = header_checks.targa_as_pillow_has_it(content)
    header_checks.check(content, name)
    raise_pillow_limit(limit)
    open_image, _ = Image.OPEN[name]
    if name == "TIFF":
        return _open_tiff(content)
    try:
        return open_image(io.BytesIO(content), "")
    except ValueError as error:
        if name != "AVIF" or "Exif" not in str(error):
            raise
        # libavif refuses an image with broken EXIF. It ignores a block with another name.
        return open_image(io.BytesIO(content.replace(b"Exif", b"none")), "")


def _open_tiff(content: bytes) -> TiffImagePlugin.TiffImageFile:
    """Open a TIFF with the decoder that reads it correctly.

    Pillow's own decoder reads planes of 16 bits as if they had 8. libtiff, which Pillow uses for compressed files,
    reads them, but no signed numbers in another byte order, and it does not report a truncated file.
    """
    with _opening_tiff:  # READ_LIBTIFF is a setting of the whole process
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(content), "")
        is_planar = image.tag_v2.get(_PLANES, 1) != 1
        if not is_planar or max(image.tag_v2.get(_BITS, (1,))) <= 8:  # noqa: PLR2004
            return image
        TiffImagePlugin.READ_LIBTIFF = True
        try:
            return TiffImagePlugin.TiffImageFile(io.BytesIO(content), "")
        finally:
            TiffImagePlugin.READ_LIBTIFF = False


# --- metadata ---


def _metadata(image: Image.Image) -> tuple[Image.Exif, bytes]:
    """EXIF and XMP of an image; empty if they are broken, which must not make the image unreadable.

    XMP is taken out of `info`: Pillow would use an orientation in it, which no browser does.
    """
    xmp = b""
    for name in ("xmp", "XML:com.adobe.xmp"):  # the latter is PNG's
        found = image.info.pop(name, b"")
        xmp = found.encode("utf-8", "replace") if isinstance(found, str) else found or xmp
    try:
        return image.getexif(), xmp
    except Exception:  # noqa: BLE001  (Pillow passes on whatever its parser raises)
        return Image.Exif(), xmp


def _orientation(exif: Image.Exif) -> int | None:
    with contextlib.suppress(Exception):
        value = exif.get(ExifTags.Base.Orientation)
        return value if value in range(1, 9) else None
    return None


def _raw_taken(content: bytes, preview: DecodedImage) -> Taken | None:
    """Date of a camera RAW: from its own EXIF if it has the form of a TIFF, else from its preview."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        exif.load(content)
    when = taken(exif)
    if when is None and preview.taken_at and preview.date_source:
        when = Taken(preview.taken_at, preview.date_source)
    # LibRaw adds EXIF to previews that have none, with the start of 1970 (in some time zone) for an unknown time.
    return None if when is None or when.at < "1970-01-02" else when


# --- errors ---


@contextlib.contextmanager
def _decoder_errors(limit: int) -> Iterator[None]:
    """Turn any error of a decoder into an `UnreadableImageError`; on broken data, they raise anything."""
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(f"too large: {more_than(limit)}") from error
    except Exception as error:
        raise UnreadableImageError(reasons.first_reason(error)) from error
