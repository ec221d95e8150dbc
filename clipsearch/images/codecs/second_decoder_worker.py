"""The process of the second decoder: reads image files on stdin, writes eight-bit pixels to stdout.

Started by `second_decoder` alone, so that a crash, hang or leak of a decoder ends only this process. A request is a
line of JSON and the file's content; an answer is a line of JSON and the pixels. The process ends with its input, or
when an image exceeds its time limit. All limits come with the request.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clipsearch.images.codecs.pixels import black_and_white, levels

_Samples = npt.NDArray[Any]
"""(H, W) or (H, W, C)."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BITS_OF_BYTE = 8

TRUNCATED, TOO_LARGE, NO_MEMORY, UNSUPPORTED = "truncated", "too large", "no memory", "unsupported"
"""Values of `problem` in an answer, besides messages of decoders."""


class TruncatedError(Exception):
    """The file is truncated."""


class TooLargeError(Exception):
    """The image has more pixels than its header promised. Its arguments are width and height."""


def main() -> None:
    """Answer requests until there are no more."""
    # Ctrl-C is handled by the parent. Some decoders print to stdout, so the answers get a copy of its descriptor.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["length"])
        if len(content) < request["length"]:
            return
        _limit_memory(request["memory"])
        faulthandler.dump_traceback_later(request["seconds"], exit=True)  # works even while a decoder is in C code
        header, data = _answer(request, content)
        faulthandler.cancel_dump_traceback_later()
        _send(answers, header, data)


def _answer(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    try:
        mode, seen = _decode(request, content)
    except TruncatedError:
        return {"problem": TRUNCATED}, b""
    except TooLargeError as error:
        return {"problem": TOO_LARGE, "size": error.args}, b""
    except MemoryError:
        return {"problem": NO_MEMORY}, b""
    except NotImplementedError:  # raised by imagecodecs and tifffile for an unsupported kind
        return {"problem": UNSUPPORTED}, b""
    except Exception as error:  # noqa: BLE001  (on broken data, decoders raise anything)
        # libjxl asks for more input if the file is truncated.
        return {"problem": TRUNCATED if "NEED_MORE_INPUT" in str(error) else str(error)[:500]}, b""
    height, width = seen.shape[:2]
    return {"mode": mode, "size": (width, height), "length": seen.nbytes}, np.ascontiguousarray(seen).data.cast("B")


def _send(answers: BinaryIO, header: dict[str, Any], data: bytes | memoryview) -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    answers.write(data)
    answers.flush()


def _limit_memory(size: int) -> None:
    """Limit the address space of this process to `size` bytes, if the system supports that."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _decode(request: dict[str, Any], content: bytes) -> tuple[str, npt.NDArray[np.uint8]]:
    """Decode to Pillow's mode and (H, W) or (H, W, C) pixels."""
    import imagecodecs

    codec, bits, threads = request["codec"], request["bits"], request["threads"]
    if codec in ("jpeg", "jpegls"):
        _check_end(content)
    if codec == "tiff":
        return _tiff(content, request["pixels"])
    if codec == "jpegxl":
        samples = imagecodecs.jpegxl_decode(content, index=0, numthreads=threads)
    elif codec == "avif":
        samples = imagecodecs.avif_decode(content, index=0, numthreads=threads)
    elif codec == "jpeg2000":
        samples = imagecodecs.jpeg2k_decode(content, numthreads=threads)
    elif codec == "qoi":
        samples = imagecodecs.qoi_decode(content)
    elif codec == "jpegls":
        samples = imagecodecs.jpegls_decode(content)
    else:
        samples = imagecodecs.jpeg8_decode(content)
    return _with_channels(*_in_eight_bits(samples, 2**bits - 1), request["channels"])


def _with_channels(mode: str, seen: npt.NDArray[np.uint8], channels: str) -> tuple[str, npt.NDArray[np.uint8]]:
    """Correct mode and channels by what the header says about them."""
    if channels == "CMYK" and mode == "RGBA":
        return "CMYK", seen
    if channels == "without alpha" and mode in ("LA", "RGBA"):
        return mode[:-1], seen[..., 0] if mode == "LA" else seen[..., :3]
    return (mode.replace("A", "a") if channels == "premultiplied" else mode), seen


def _check_end(jpeg: bytes) -> None:
    """Refuse a JPEG without an end marker after its last scan: decoders make up the rest, or search for seconds."""
    if jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda"):
        raise TruncatedError


def _in_eight_bits(samples: _Samples, white: float) -> tuple[str, npt.NDArray[np.uint8]]:
    """Scale to mode and uint8 pixels: unsigned integers by `white`, others by `pixels.black_and_white`."""
    if samples.ndim == 2:  # noqa: PLR2004
        samples = samples[..., None]
    samples = samples[..., : max(_MODES)]
    channels = samples.shape[2]
    colours = channels - (channels in (2, 4))
    if samples.dtype == np.uint8 and white == 255:  # noqa: PLR2004
        seen: npt.NDArray[np.uint8] = samples
    elif samples.dtype.kind == "u":
        seen = levels(samples, 0, white)
    else:
        seen = np.empty(samples.shape, np.uint8)
        seen[..., :colours] = levels(samples[..., :colours], *black_and_white(samples[..., :colours]))
        # Alpha has its own scale: opaque is 1.0, or the largest integer of its type.
        largest = 1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
        seen[..., colours:] = levels(samples[..., colours:], 0, largest)
    return _MODES[channels], seen[..., 0] if channels == 1 else seen


# --- TIFF ---

_GREY, _RGB, _CMYK, _CIELAB, _ICC_LAB = (0, 1), 2, 5, 8, 9
_PREMULTIPLIED, _ALPHA = 1, (1, 2)
"""Values of the tag ExtraSamples: premultiplied alpha, and any alpha."""


def _tiff(content: bytes, most_pixels: int) -> tuple[str, npt.NDArray[np.uint8]]:
    """Decode the first page of a TIFF to mode and pixels."""
    import imagecodecs
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages[0]  # its type allows pages without tags, which only later ones are
        width, height = page.imagewidth, page.imagelength
        if width * height * page.imagedepth > most_pixels:
            raise TooLargeError(width, height)
        if any(start + size > len(content) for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise TruncatedError
        if page.photometric not in (*_GREY, _RGB, _CMYK, _CIELAB, _ICC_LAB):  # YCbCr, LogLuv: libtiff knows them
            return "RGBA", imagecodecs.tiff_decode(_upright(content, page), asrgb=True)
        samples = page.asarray()
        while samples.ndim > 2 and page.axes[-samples.ndim] not in "YXS":  # noqa: PLR2004  (layers of a volume)
            samples = samples[0]
        if page.axes.endswith("SYX"):
            samples = np.moveaxis(samples, 0, -1)
        return _tiff_seen(samples.reshape(height, width, -1), page)


def _upright(content: bytes, page: Any) -> bytes:  # noqa: ANN401  (no types)
    """Set the orientation of a TIFF to 1: libtiff would apply it, but only in part."""
    tag = page.tags.get(274)
    if tag is None:
        return content
    upright = bytearray(content)
    struct.pack_into(page.parent.byteorder + "H", upright, tag.valueoffset, 1)
    return bytes(upright)


def _tiff_seen(samples: _Samples, page: Any) -> tuple[str, npt.NDArray[np.uint8]]:  # noqa: ANN401  (no types)
    kind, extra = page.photometric, tuple(page.extrasamples)
    colours = {_RGB: 3, _CMYK: 4, _CIELAB: 3, _ICC_LAB: 3}.get(kind, 1)
    if samples.shape[2] < colours:
        raise ValueError(f"{samples.shape[2]} channels for {colours} colours")
    has_alpha = samples.shape[2] > colours and bool(extra) and extra[0] in _ALPHA
    white = 2**page.bitspersample - 1
    if kind in (_CIELAB, _ICC_LAB):
        return "LAB", _lab(samples[..., :3], signed=kind == _CIELAB)
    if kind == _CMYK:
        return "CMYK", _in_eight_bits(samples[..., :4], white)[1]
    mode, seen = _in_eight_bits(samples[..., : colours + has_alpha], white)
    if kind == 0:  # white is zero
        seen = seen.copy()
        parts = seen if colours == seen.ndim - 1 or seen.ndim == 2 else seen[..., :colours]  # noqa: PLR2004
        np.subtract(255, parts, out=parts)
    return _with_channels(mode, seen, "premultiplied" if has_alpha and extra[0] == _PREMULTIPLIED else "usual")


def _lab(samples: _Samples, *, signed: bool) -> npt.NDArray[np.uint8]:
    """Convert to CIELAB as in Pillow: L* from 0 to 255, a* and b* as signed bytes."""
    if samples.dtype.kind == "f":
        limits = np.array([0, -128, -128]), np.array([255, 127, 127])
        scaled = np.rint(np.clip(np.nan_to_num(samples) * [255 / 100, 1, 1], *limits))
        return np.asarray(scaled.astype(np.int16), np.uint8)
    bits = samples.dtype.itemsize * _BITS_OF_BYTE
    upper: npt.NDArray[np.uint8] = (samples.astype(np.int64) >> (bits - _BITS_OF_BYTE)).astype(np.uint8)
    if not signed:
        upper[..., 1:] ^= 0x80
    return upper
