"""The process in which the second decoder works: pictures of rare kinds come in, bytes of eight bits go out.

Started by `second`, and only there, so that a crash, a hang or a leak of a decoder ends nothing but this process. A
request is a line of JSON and the file's content; so is the answer, with the pixels. It ends when its input does, or by
itself when one picture takes too long. Knows nothing of limits but those that it is given.
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

from clipsearch.images.pixels import black_and_white, levels

_Samples = npt.NDArray[Any]
"""(H, W) or (H, W, C)."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BITS_OF_BYTE = 8

TRUNCATED, TOO_LARGE, NO_MEMORY, UNSUPPORTED = "truncated", "too large", "no memory", "unsupported"
"""What an answer may say under `problem`, besides the words of a decoder."""


class TruncatedError(Exception):
    """The file ends before the picture does."""


class TooLargeError(Exception):
    """The picture has more pixels than the header that was looked at before says: width and height."""


def main() -> None:
    """Answer requests until there are no more."""
    # Ctrl-C is for the one that started this; some decoders print to standard output.
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
        faulthandler.dump_traceback_later(request["seconds"], exit=True)  # works whatever a decoder is doing
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
    except NotImplementedError:  # what imagecodecs and tifffile raise for a kind that they lack
        return {"problem": UNSUPPORTED}, b""
    except Exception as error:  # noqa: BLE001  (of broken data, decoders raise whatever they stumble over)
        # libjxl asks for more in place of saying that the file is cut off.
        return {"problem": TRUNCATED if "NEED_MORE_INPUT" in str(error) else str(error)[:500]}, b""
    height, width = seen.shape[:2]
    return {"mode": mode, "size": (width, height), "length": seen.nbytes}, np.ascontiguousarray(seen).data.cast("B")


def _send(answers: BinaryIO, header: dict[str, Any], data: bytes | memoryview) -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    answers.write(data)
    answers.flush()


def _limit_memory(size: int) -> None:
    """This process, from now on, to so many bytes more than it had at first (where the system can do that)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _decode(request: dict[str, Any], content: bytes) -> tuple[str, npt.NDArray[np.uint8]]:
    """Pillow's name of the mode, and (H, W) or (H, W, C)."""
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
    """As the header says what they are."""
    if channels == "CMYK" and mode == "RGBA":
        return "CMYK", seen
    if channels == "without alpha" and mode in ("LA", "RGBA"):
        return mode[:-1], seen[..., 0] if mode == "LA" else seen[..., :3]
    return (mode.replace("A", "a") if channels == "premultiplied" else mode), seen


def _check_end(jpeg: bytes) -> None:
    """Without an end mark behind the last scan, decoders fill up what is missing, or search for it for seconds."""
    if jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda"):
        raise TruncatedError


def _in_eight_bits(samples: _Samples, white: float) -> tuple[str, npt.NDArray[np.uint8]]:
    """By the rules of `pixels`: `white` counts for unsigned integers, the values themselves decide for others."""
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
        # Alpha has its own scale: 1 of a real number, or the largest that there is.
        largest = 1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
        seen[..., colours:] = levels(samples[..., colours:], 0, largest)
    return _MODES[channels], seen[..., 0] if channels == 1 else seen


# --- TIFF ---

_GREY, _RGB, _CMYK, _CIELAB, _ICC_LAB = (0, 1), 2, 5, 8, 9
_PREMULTIPLIED, _ALPHA = 1, (1, 2)
"""Kinds of extra sample that are alpha."""


def _tiff(content: bytes, most_pixels: int) -> tuple[str, npt.NDArray[np.uint8]]:
    """The first page of a TIFF."""
    import imagecodecs
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages[0]  # its types say that it may be without tags, which only later ones are
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
    """The same file with the usual orientation: libtiff would turn the picture, by halves only."""
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
    """CIELAB as Pillow takes it: L* from 0 to 255, and a* and b* as signed bytes."""
    if samples.dtype.kind == "f":
        limits = np.array([0, -128, -128]), np.array([255, 127, 127])
        scaled = np.rint(np.clip(np.nan_to_num(samples) * [255 / 100, 1, 1], *limits))
        return np.asarray(scaled.astype(np.int16), np.uint8)
    bits = samples.dtype.itemsize * _BITS_OF_BYTE
    upper: npt.NDArray[np.uint8] = (samples.astype(np.int64) >> (bits - _BITS_OF_BYTE)).astype(np.uint8)
    if not signed:
        upper[..., 1:] ^= 0x80
    return upper
