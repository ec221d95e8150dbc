"""Files of `imagine`: the picture as PNG, its strokes as SVG, and pictures of how it came to be.

Each file appears complete or not at all, and replaces only an earlier one of the same kind.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import InputError
from clipsearch.output.atomic import Kind, check_replaceable, replacing
from clipsearch.output.paths import escaped, json_fields, printable, shown
from clipsearch.output.rows import json_bytes

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.search.hit import Hit

_MADE_BY = "clipsearch, imagined"
PICTURE = Kind("imagined picture", _MADE_BY.encode())
STROKES = Kind("SVG of the strokes", f"<!-- {_MADE_BY} -->".encode())


def check_picture(path: Path, *, with_svg: bool) -> Path | None:
    """Check, before any work, that the picture can be written, and return the path of the SVG beside it, if any.

    Raises:
        InputError: `path` is not that of a PNG, or a file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"The picture is written as PNG, so name it FILE.png, not {path.name}.")
    check_replaceable(path, PICTURE)
    if not with_svg:
        return None
    svg = path.with_suffix(".svg")
    check_replaceable(svg, STROKES)
    return svg


def make_frames_folder(folder: Path) -> None:
    """Make the folder for frames, which may exist if it is empty.

    Raises:
        InputError: it holds something, or cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
        if os.listdir(folder):
            raise InputError(f"The folder {folder} for the frames is not empty. Name one that is, or a new one.")
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder} for the frames: {error.strerror}.") from error


def write_picture(path: Path, picture: Image.Image, text: str) -> None:
    """Write a picture as PNG, with the text that it was made for.

    Raises:
        InputError: the file cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Software", _MADE_BY)
    notes.add_itxt("Title", text)
    with replacing(path, PICTURE) as file:
        picture.save(file, "PNG", pnginfo=notes)


def write_svg(path: Path, svg: str) -> None:
    """Write the strokes of a picture as SVG.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path, STROKES) as file:
        file.write(STROKES.mark + b"\n" + svg.encode())


@dataclass(frozen=True)
class Report:
    """What came of a text."""

    picture: Path
    svg: Path | None
    steps: int
    """Number of steps done."""
    seconds: float
    scores: Sequence[tuple[str, float]]
    """The text, and texts that were not wanted, each with its cosine with the picture."""
    closest: Sequence[Hit]
    """The images of an index that are closest to the picture."""

    def as_json(self) -> bytes:
        """Return the report as a JSON object."""
        (text, score), *unwanted = self.scores
        fields = {
            **json_fields(shown(os.fsencode(self.picture)), "picture"),
            **(json_fields(shown(os.fsencode(self.svg)), "svg") if self.svg else {"svg": None}),
            "text": text,
            "score": round(score, 6),
            "unwanted": [{"text": one, "score": round(cosine, 6)} for one, cosine in unwanted],
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "closest": [
                {"rank": hit.rank, "score": round(hit.score, 6), **json_fields(shown(hit.path_bytes))}
                for hit in self.closest
            ],
        }
        return json_bytes(fields, indent=2)

    def as_text(self) -> str:
        """Return the report in words."""
        files = " and ".join(printable(shown(os.fsencode(path))) for path in (self.picture, self.svg) if path)
        (text, score), *unwanted = self.scores
        lines = [f"Wrote {files} after {self.steps} steps, {self.seconds:.0f} s."]
        lines.append(f"{score:.4f}  {escaped(text)}")
        lines += [f"{cosine:.4f}  {escaped(one)} (not wanted)" for one, cosine in unwanted]
        if self.closest:
            lines.append("Closest in the index:")
            lines += [f"{hit.score:.4f}  {printable(shown(hit.path_bytes))}" for hit in self.closest]
        return "\n".join(lines)
