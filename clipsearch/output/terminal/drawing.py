"""Drawing of an image by Kitty's or iTerm2's protocol, Sixel, or half blocks. Knows nothing of files and hits.

Sources: Kitty's "Terminal graphics protocol", iTerm2's "Inline images protocol", DEC's "VT330/VT340 Programmer
Reference Manual" (Sixel), tmux's FAQ (passthrough).
"""

from __future__ import annotations

import base64
import io
import random
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.color import Color, ColorSystem

from clipsearch.output.terminal.detection import Terminal

HALF_BLOCK = "\N{UPPER HALF BLOCK}"
_RESET = "\x1b[0m"

_KITTY_CHUNK = 4096
_PLACEHOLDER = "\U0010eeee"
NUMBERS = "".join(
    map(
        chr,
        chain(
            (0x305, 0x30D, 0x30E, 0x310, 0x312, 0x33D, 0x33E, 0x33F, 0x346, 0x34A, 0x34B, 0x34C),
            (0x350, 0x351, 0x352, 0x357, 0x35B, *range(0x363, 0x370), *range(0x483, 0x488), *range(0x592, 0x596)),
            (*range(0x597, 0x59A), *range(0x59C, 0x5A2), 0x5A8, 0x5A9, 0x5AB, 0x5AC, 0x5AF, 0x5C4),
            range(0x610, 0x618),
        ),
    )
)
"""Kitty's diacritics for numbers on placeholders, from 0 on: those that rows and columns need, of about 300."""

_SHARPER = 2
"""Number of pixels of a Retina screen for a point of iTerm2, in each direction."""
_JPEG_QUALITY = 90

_BAND = 6
"""Number of rows of pixels in one row of Sixel characters."""
_SIXEL_ZERO = 63
_RUN = re.compile(rb"(.)\1{3,}")


class Drawing(NamedTuple):
    """An image in a box of whole characters."""

    columns: int
    lines: list[str]
    """Lines of text, `columns` wide each: the image itself, or the space for `overlay`."""
    overlay: str = ""
    """Sequence to send with the cursor in the upper left corner of the box; it may leave the cursor anywhere."""


def side(terminal: Terminal, columns: int, rows: int) -> int:
    """Return the number of pixels that `draw` can use along the longer side of an image in a box of this size."""
    if terminal.protocol == "blocks":
        return 2 * max(columns, 2 * rows)
    width, height = terminal.cell
    sharper = _SHARPER if terminal.protocol == "iterm2" else 1
    return sharper * max(columns * width, rows * height)


def draw(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> Drawing:
    """Draw an RGB image as large as a box of `columns` x `rows` characters allows, without enlarging it.

    The box must not be more than `len(NUMBERS)` wide or high.
    """
    if terminal.protocol == "blocks":
        return _blocks(image, terminal, columns, rows)
    if terminal.protocol == "sixel":
        return _sixel(image, terminal, columns, rows)
    if terminal.protocol == "iterm2":
        return _iterm2(image, terminal, columns, rows)
    return _kitty(image, terminal, columns, rows)


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """Reduce an image, if necessary, to a box in pixels."""
    scale = min(1, width / image.width, height / image.height)
    return _resized(image, round(image.width * scale), round(image.height * scale))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    size = max(1, width), max(1, height)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _place(columns: int, rows: int) -> list[str]:
    return [" " * columns] * rows


def _through(sequence: str, terminal: Terminal) -> str:
    """Wrap a sequence so that tmux passes it on to the terminal behind it."""
    if not terminal.tmux:
        return sequence
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def _blocks(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> Drawing:
    """Draw two pixels in a character: the upper one as its half block, the lower one as its background."""
    cell_width, cell_height = terminal.cell
    # Pixels of the screen for a pixel of the image; at most a half block, which is seldom square.
    scale = min(columns * cell_width / image.width, rows * cell_height / image.height, cell_width, cell_height / 2)
    width = round(image.width * scale / cell_width)
    height = 2 * max(1, round(image.height * scale / cell_height))
    small = _resized(image, min(width, columns), min(height, 2 * rows))
    pixels: npt.NDArray[np.uint8] = np.asarray(small)
    lines = [
        "".join(_painted(upper, lower, terminal.colours) for upper, lower in zip(above, below, strict=True)) + _RESET
        for above, below in zip(pixels[0::2].tolist(), pixels[1::2].tolist(), strict=True)
    ]
    return Drawing(small.width, lines)


def _painted(upper: list[int], lower: list[int], colours: ColorSystem) -> str:
    # The nearest colour without dithering: at this size, dithered images look like noise.
    above = _codes(upper[0], upper[1], upper[2], colours, foreground=True)
    below = _codes(lower[0], lower[1], lower[2], colours, foreground=False)
    return f"\x1b[{above};{below}m{HALF_BLOCK}"


@lru_cache(maxsize=65536)
def _codes(red: int, green: int, blue: int, colours: ColorSystem, *, foreground: bool) -> str:
    return ";".join(Color.from_rgb(red, green, blue).downgrade(colours).get_ansi_codes(foreground))


def _kitty(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> Drawing:
    cell_width, cell_height = terminal.cell
    image = _fitted(image, columns * cell_width, rows * cell_height)
    columns, rows = ceil(image.width / cell_width), ceil(image.height / cell_height)
    # Kitty stretches images to whole characters; this one has a transparent margin instead.
    canvas = Image.new("RGBA", (columns * cell_width, rows * cell_height))
    canvas.paste(image, (0, canvas.height - image.height))
    size = f"f=100,c={columns},r={rows},q=2"  # PNG, and no answers
    if not terminal.tmux:
        return Drawing(columns, _place(columns, rows), "".join(_kitty_parts(canvas, f"a=T,C=1,{size}")))
    # tmux moves characters, not images: the image is sent first, and each character names a part of it. The image's
    # number is written as a diacritic and one of the 256 colours that tmux changes for no terminal.
    mark, colour = random.randrange(1, len(NUMBERS)), random.randrange(16, 256)  # noqa: S311  (no secret)
    parts = _kitty_parts(canvas, f"a=T,U=1,i={mark << 24 | colour},{size}")
    lines = [
        f"\x1b[38;5;{colour}m"
        + "".join(_PLACEHOLDER + NUMBERS[row] + NUMBERS[column] + NUMBERS[mark] for column in range(columns))
        + _RESET
        for row in range(rows)
    ]
    return Drawing(columns, lines, "".join(_through(part, terminal) for part in parts))


def _kitty_parts(image: Image.Image, control: str) -> Iterator[str]:
    data = base64.b64encode(_file(image, "PNG")).decode("ascii")
    starts = range(0, len(data), _KITTY_CHUNK)
    for start in starts:
        more = int(start != starts[-1])
        yield f"\x1b_G{control + ',' if start == 0 else ''}m={more};{data[start : start + _KITTY_CHUNK]}\x1b\\"


def _iterm2(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> Drawing:
    cell_width, cell_height = terminal.cell
    most_width, most_height = columns * cell_width, rows * cell_height
    fitted = _fitted(image, most_width, most_height)
    # Only one side is given, because terminals differ in how they treat two.
    if fitted.size == image.size:
        size = "width=auto;height=auto"
    elif most_width * image.height < most_height * image.width:
        size = f"width={columns};height=auto"
    else:
        size = f"width=auto;height={rows}"
    data = _file(image, "JPEG", quality=_JPEG_QUALITY)
    control = f"inline=1;size={len(data)};{size};preserveAspectRatio=1"
    sequence = f"\x1b]1337;File={control}:{base64.b64encode(data).decode('ascii')}\x07"
    columns, rows = ceil(fitted.width / cell_width), ceil(fitted.height / cell_height)
    return Drawing(columns, _place(columns, rows), _through(sequence, terminal))


def _file(image: Image.Image, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _sixel(image: Image.Image, terminal: Terminal, columns: int, rows: int) -> Drawing:
    cell_width, cell_height = terminal.cell
    # Whole bands, so that the last one does not reach into the line below.
    image = _fitted(image, columns * cell_width, max(_BAND, rows * cell_height // _BAND * _BAND))
    columns, rows = ceil(image.width / cell_width), ceil(ceil(image.height / _BAND) * _BAND / cell_height)
    return Drawing(columns, _place(columns, rows), _sixels(image))


def _sixels(image: Image.Image) -> str:
    """Encode an image as bands, with a line for each colour in a band; a character is a column of six pixels."""
    indexed = image.quantize(256)
    palette = (np.asarray(indexed.getpalette(), dtype=np.float32) / 255 * 100).round().astype(int).reshape(-1, 3)
    pixels: npt.NDArray[np.uint8] = np.asarray(indexed)
    parts = [f'\x1bP0;1q"1;1;{image.width};{image.height}'.encode()]  # square pixels, no background
    parts += [b"#%d;2;%d;%d;%d" % (colour, *palette[colour]) for colour in np.unique(pixels).tolist()]
    bands = [_band(pixels[top : top + _BAND]) for top in range(0, image.height, _BAND)]
    return b"".join([*parts, b"-".join(bands), b"\x1b\\"]).decode("ascii")


def _band(pixels: npt.NDArray[np.uint8]) -> bytes:
    colours, numbers = np.unique(pixels, return_inverse=True)
    sixels = np.full((len(colours), pixels.shape[1]), _SIXEL_ZERO, dtype=np.uint8)
    for bit, row in enumerate(numbers.reshape(pixels.shape)):
        sixels[row, np.arange(len(row))] += np.uint8(1 << bit)
    nothing = bytes([_SIXEL_ZERO])
    lines = (
        b"#%d" % colour + _RUN.sub(lambda run: b"!%d" % len(run[0]) + run[1], row.tobytes().rstrip(nothing))
        for colour, row in zip(colours.tolist(), sixels, strict=True)
    )
    return b"$".join(lines)
