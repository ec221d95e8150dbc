"""The content of one image file into a picture as a person sees it.

Owns the way from bytes to upright pixels, and what is said of a file that cannot be read. The content alone tells what
a file is, save for camera RAW in the form of a TIFF. Knows nothing of folders or of models.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from clipsearch.errors import UnreadableImageError
from clipsearch.images import bitmaps, cut_files, damage, jpegxl, layouts, raw, reasons, second_decoder
from clipsearch.images.colour import conversion
from clipsearch.images.dates import Taken, taken
from clipsearch.images.limits import (
    TooLargeError,
    check_size,
    default_max_pixels,
    enough_memory,
    in_turn,
    more_than,
    raise_pillow_limit,
)
from clipsearch.images.pixels import as_seen, in_order, mend_palette, reduced
from clipsearch.images.rare import Rare, is_lossless_jpeg, rare
from clipsearch.images.recognising import format_of, icon_sizes, is_cut
from clipsearch.images.stripping import stripped

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
_ON_ITS_SIDE, _ENDS_LEFT, _ENDS_ON_TOP = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF orientations in which, upright, lines are columns of the file, and where its right or lower end comes to lie."""

_SAYS_TRUNCATED = re.compile(
    r"truncat|end of file|not enough (image )?data|not large enough|only got|reached eof|requires a buffer",
    re.IGNORECASE,
)
_MEANS_NOTHING = re.compile(r"0x[0-9a-f]{6}|\\x|<.*>")
"""Objects and bytes as Python writes them."""
_OF_PILLOW = re.compile(r"\b(PIL|Pillow|\w+Plugin|Image\w*\.\w+|[A-Z]+_[A-Z_]+)\b")
"""Names in its code, which help nobody who has a picture."""
_LONGEST_REASON = 200

_BITS, _PLANES = 258, 284
"""Of a TIFF: how many each channel has, and whether each lies in a plane of its own (2)."""
_opening_tiff = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """One decoded image."""

    image: Image.Image
    """RGB and upright; the first frame of an animation, on white where it was transparent. Smaller than the file's
    picture if it was decoded so."""
    box: tuple[float, float, float, float]
    """The part of `image` that is the picture: left, upper, right and lower edge, in its pixels."""
    width: int
    """Pixels, upright and before any reduction."""
    height: int
    taken_at: str | None
    """ISO 8601 local time from EXIF or XMP, where the file tells."""
    date_source: str | None = None
    """Which of them, as `dates.Taken` calls it."""
    missing: float = 0.0
    """The share of the picture that is not in the file, and filled with the colours next to it; at most one half."""


def decode(content: bytes, name: bytes = b"", *, max_pixels: int | None = None, at_least: int | None = None) -> Picture:
    """Decode an image file's content. Threads may call this at the same time.

    A JPEG is decoded smaller as long as neither side gets shorter than `at_least` pixels, and so is a picture whose
    colours have to be changed; without a number, all are in full.

    `name` is looked at for camera RAW only, since many kinds of it are TIFF files to all appearance. A picture of more
    than `max_pixels` is refused before it takes memory; without a number, `default_max_pixels` counts.

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


def _decode_camera_raw(content: bytes, preview: raw.Preview, limit: int, at_least: int | None) -> Picture:
    if preview.picture is not None:
        picture = _decode_file(preview.picture, limit, at_least, preview.orientation)
    else:
        check_size(preview.width, preview.height, limit)
        with in_turn(preview.width * preview.height, limit):
            developed = raw.develop(content)
            picture = _picture(developed, developed.size, 1, None)
    at, source = _raw_taken(content, picture) or (None, None)
    return replace(picture, width=preview.width, height=preview.height, taken_at=at, date_source=source)


def _decode_file(content: bytes, limit: int, at_least: int | None, orientation: int = 1) -> Picture:
    """`orientation` counts where the file itself does not tell."""
    if content.startswith(b"icns"):
        content = layouts.icon_picture(content) or content
    if (picture := _rare_picture(content, limit, orientation)) is not None:
        return picture
    if at_least is not None and format_of(content) == "JPEG" and is_lossless_jpeg(content):
        at_least = None
    try:
        return _decoded(content, limit, at_least, orientation)
    except TooLargeError:
        raise
    except UnreadableImageError as caught:
        error = caught
    # The pixels that the decoder has so far would stay in memory with the traceback.
    for failed in filter(None, (error, error.__cause__)):
        traceback.clear_frames(failed.__traceback__)
    return _decode_refused(content, limit, orientation, error)


def _decode_refused(content: bytes, limit: int, orientation: int, error: UnreadableImageError) -> Picture:
    """A file that its decoder refused with `error`, by other ways; only such files pay for them."""
    name = format_of(content)
    if name is None:
        raise error
    # 1. Whole: in full, and without metadata, which the decoder may stumble over.
    less = list(stripped(content, name))
    for other in [content, *less] if name == "JPEG" else less:
        with contextlib.suppress(UnreadableImageError):
            return _decoded(other, limit, None, orientation)
    # 2. What is there of it.
    for other in (content, *less):
        try:
            picture = _decode_damaged(other, name, limit, orientation)
        except damage.TooLittleError as little:
            raise UnreadableImageError(f"{error}; {little}") from error
        if picture is not None:
            return picture
    why = reasons.reason(content, name, str(error.__cause__ or ""), str(error))
    raise UnreadableImageError(why[:_LONGEST_REASON]) from error


def _decode_damaged(content: bytes, name: str, limit: int, orientation: int) -> Picture | None:
    """What is there of a picture; None if nothing is.

    Raises:
        TooLittleError: less than the least share is.
    """

    def decodes(file: bytes) -> bool:
        try:
            _decoded(file, limit, None, orientation)
        except UnreadableImageError:
            return False
        return True

    for ends in cut_files.ends(content, name, decodes):

        def load(image: ImageFile.ImageFile, ends: cut_files.Ends = ends) -> damage.Loss:
            with _open(ends.other, limit) as other:
                return damage.load_both(image, other, ends)

        try:
            return _decoded(ends.shown, limit, None, orientation, load)
        except damage.TooLittleError:
            raise
        except UnreadableImageError:
            continue
    return None


def _load_whole(image: ImageFile.ImageFile) -> damage.Loss:
    image.load()
    return damage.NOTHING


def _decoded(
    content: bytes,
    limit: int,
    at_least: int | None,
    orientation: int,
    load: Callable[[ImageFile.ImageFile], damage.Loss] = _load_whole,
) -> Picture:
    with _decoder_errors(limit):
        image = _open(content, limit)
    with image:
        check_size(image.width, image.height, limit)
        size = image.size
        with in_turn(image.width * image.height, limit):
            with _decoder_errors(limit):
                if at_least and isinstance(image, JpegImageFile):
                    image.draft(None, (at_least, at_least))  # libjpeg leaves out each block's high frequencies
                mend_palette(image)
                loss = load(image)
            if not isinstance(image, JpegImageFile):
                size = image.size  # some know it only now
            if image.mode == "P" and image.palette is None:
                raise UnreadableImageError("broken image: it has no palette")
            if image.format == "PNG":
                _mend_transparency(image, depth=content[24])
            exif, xmp = _metadata(image)
            if image.format != "HEIF":  # libheif has turned it, as the container says; EXIF does not count there
                orientation = _orientation(exif) or orientation
            stored, to_srgb = in_order(image, content), conversion(image, content, image.format)
            if at_least and to_srgb is not None:
                stored = reduced(stored, at_least)
            seen = loss.painted(as_seen(stored, to_srgb))
            picture = _picture(seen, size, orientation, taken(exif, xmp))
            if picture.image is image:  # which keeps the file and the decoder
                picture = replace(picture, image=image.copy())
            return replace(picture, missing=loss.share) if loss.share else picture


def _rare_picture(content: bytes, limit: int, orientation: int) -> Picture | None:
    """A picture of a kind that Pillow lacks or shows wrongly; None if it is no such."""
    name = format_of(content)
    found = bitmaps.layout(content) if name in ("BMP", "DDS", "DIB") else rare(content, name)
    if found is None:
        return None
    if name is not None and is_cut(content, name):
        raise UnreadableImageError(layouts.TRUNCATED)
    check_size(found.width, found.height, limit)
    with in_turn(found.width * found.height, limit):
        if isinstance(found, bitmaps.Layout):
            image = bitmaps.decode(content, found)
            seen = as_seen(image, conversion(image, content, name))
            return _picture(seen, seen.size, orientation, None)
        image = second_decoder.decode(content, found, limit)
        exif = _rare_exif(content, found)
        if found.codec == "tiff":
            image.info["icc_profile"] = exif.get(ExifTags.Base.InterColorProfile)
        seen = as_seen(image, conversion(image, content, name))
    if found.codec in ("jpeg", "tiff"):
        orientation = _orientation(exif) or orientation
    return _picture(seen, seen.size, max(orientation, found.orientation), taken(exif))


def _rare_exif(content: bytes, found: Rare) -> Image.Exif:
    """EXIF where the second decoder does not tell it; empty if it is broken."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # Pillow lets through whatever its parser runs into
        if found.codec == "tiff":
            exif.load(content)
        elif found.codec == "jpegxl":
            exif.load(jpegxl.exif(content))
        elif (start := content.find(b"Exif\0\0")) >= 0:
            exif.load(content[start:])
    return exif


def _picture(image: Image.Image, size: tuple[int, int], orientation: int, when: Taken | None) -> Picture:
    """`image` upright; it may have been decoded smaller than the `size` it has in the file."""
    scale = -(-size[0] // image.width)
    # A side that is no multiple of the scale was rounded up. What was added is at its end, until the picture is turned.
    width, height = size[0] / scale, size[1] / scale
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if orientation in _ON_ITS_SIDE:
        size, width, height = size[::-1], height, width
    left = image.width - width if orientation in _ENDS_LEFT else 0.0
    top = image.height - height if orientation in _ENDS_ON_TOP else 0.0
    return Picture(image, (left, top, left + width, top + height), *size, *(when or (None, None)))


# --- which decoder ---


def _open(content: bytes, limit: int) -> ImageFile.ImageFile:
    """The image with nothing but its header read, except for Windows icons: Pillow decodes them at once.

    Pillow's own `open` is passed over: it refuses large pictures without telling their size, and takes a broken header
    for an unknown format.
    """
    name = format_of(content)
    if name is None:
        raise UnreadableImageError("not an image of a known format")
    if is_cut(content, name):
        raise UnreadableImageError(layouts.TRUNCATED)
    if name == "ICO":
        for width, height in icon_sizes(content):
            check_size(width, height, limit)
    if name == "TGA":
        content = layouts.targa_as_pillow_has_it(content)
    layouts.check(content, name)
    raise_pillow_limit(limit)
    open_image, _ = Image.OPEN[name]
    if name == "TIFF":
        return _open_tiff(content)
    try:
        return open_image(io.BytesIO(content), "")
    except ValueError as error:
        if name != "AVIF" or "Exif" not in str(error):
            raise
        # libavif refuses a whole picture for its broken EXIF. Under another name it passes that over.
        return open_image(io.BytesIO(content.replace(b"Exif", b"none")), "")


def _open_tiff(content: bytes) -> TiffImagePlugin.TiffImageFile:
    """A TIFF with nothing but its header read, by the decoder that reads it right.

    Pillow's own takes planes of 16 bits for planes of 8. libtiff, which Pillow has for what is compressed, reads them,
    but no signed numbers in another byte order, and of a file that is cut off it does not say so.
    """
    with _opening_tiff:  # what chooses the decoder is a setting of the whole process
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(content), "")
        is_planar = image.tag_v2.get(_PLANES, 1) != 1
        if not is_planar or max(image.tag_v2.get(_BITS, (1,))) <= 8:  # noqa: PLR2004
            return image
        TiffImagePlugin.READ_LIBTIFF = True
        try:
            return TiffImagePlugin.TiffImageFile(io.BytesIO(content), "")
        finally:
            TiffImagePlugin.READ_LIBTIFF = False


def _mend_transparency(png: Image.Image, depth: int) -> None:
    """Scale the transparent colour to eight bits as the pixels are; Pillow leaves it in the depth of the file."""
    transparent = png.info.get("transparency")
    if png.mode == "L" and isinstance(transparent, int):
        white = 2**depth - 1
        png.info["transparency"] = (transparent & white) * 255 // white
    elif png.mode == "RGB" and depth == 16 and isinstance(transparent, tuple):  # noqa: PLR2004
        png.info["transparency"] = tuple(level >> 8 for level in transparent)


# --- what EXIF says ---


def _metadata(image: Image.Image) -> tuple[Image.Exif, bytes]:
    """EXIF and XMP; empty if they are broken, for that must not cost the picture.

    Pillow takes an orientation that only XMP has for EXIF's; no browser turns a picture for it.
    """
    xmp = b""
    for name in ("xmp", "XML:com.adobe.xmp"):  # the latter is PNG's
        found = image.info.pop(name, b"")
        xmp = found.encode("utf-8", "replace") if isinstance(found, str) else found or xmp
    try:
        return image.getexif(), xmp
    except Exception:  # noqa: BLE001  (Pillow lets through whatever its parser runs into)
        return Image.Exif(), xmp


def _orientation(exif: Image.Exif) -> int | None:
    with contextlib.suppress(Exception):
        value = exif.get(ExifTags.Base.Orientation)
        return value if value in range(1, 9) else None
    return None


def _raw_taken(content: bytes, preview: Picture) -> Taken | None:
    """From a RAW in the form of a TIFF itself, or else from its preview."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        exif.load(content)
    when = taken(exif)
    if when is None and preview.taken_at and preview.date_source:
        when = Taken(preview.taken_at, preview.date_source)
    # LibRaw gives previews an EXIF if they have none, with the start of 1970 (in some time zone) for an unknown time.
    return None if when is None or when.at < "1970-01-02" else when


# --- what went wrong ---


@contextlib.contextmanager
def _decoder_errors(limit: int) -> Iterator[None]:
    """Around calls of decoders only: of broken data they raise whatever they stumble over."""
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(f"too large: {more_than(limit)}") from error
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """One line for people."""
    text = "".join(character for character in " ".join(str(error).split()) if character.isprintable())
    text = re.sub(r"\bb(?=['\"])", "", text)  # the mark of bytes: b'IHDR'
    if _SAYS_TRUNCATED.search(text):
        return layouts.TRUNCATED
    if "MAX_TEXT" in text:
        return "broken image: a text or a profile in it is too large"
    if _OF_PILLOW.search(text):
        return "broken image"
    cause = error.__cause__ or error
    if not text or _MEANS_NOTHING.search(text) or isinstance(cause, (LookupError, TypeError, ArithmeticError)):
        return "broken image"
    return f"broken image: {text}"[:_LONGEST_REASON]
