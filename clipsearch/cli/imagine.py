"""`clipsearch imagine`."""

from __future__ import annotations

import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import JsonOption, ModelOptions, writing_output
from clipsearch.cli.text_options import checked
from clipsearch.errors import InputError
from clipsearch.models.encoder_options import Engine

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.search.embedder import Embedder
    from clipsearch.search.hit import Hit
    from clipsearch.tasks.imagining.ascent import Ascent
    from clipsearch.unit import Vectors

_CLOSEST = 3
"""Number of images of the index to name."""
_LEAST_SIZE, _MOST_SIZE = 64, 2048


class Style(StrEnum):
    """The values of `--style`."""

    PIXELS = "pixels"
    STROKES = "strokes"


class _Frames(NamedTuple):
    """Where pictures of the way go, and how often."""

    folder: Path | None
    every: int
    size: int


@grouped
def imagine(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the picture should show.", show_default=False)],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.png",
            help="The picture; strokes are also written to FILE.svg.",
            show_default=False,
        ),
    ],
    style: Annotated[
        Style, typer.Option("--style", help="Free pixels, or strokes of a brush on an even ground.")
    ] = Style.PIXELS,
    unwanted: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="TEXT", help="What it should not show. May be repeated.", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="The number of steps.")] = 500,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="Equal seeds give equal pictures.")
    ] = 0,
    size: Annotated[
        int,
        typer.Option("--size", metavar="PIXELS", min=_LEAST_SIZE, max=_MOST_SIZE, help="Width and height."),
    ] = 512,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init", metavar="IMAGE", help="Begin with the middle square of this picture.", show_default=False
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames",
            metavar="DIR",
            help="Write the picture as it comes to be into this new or empty folder.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[int, typer.Option("--every", metavar="N", min=1, help="Steps from one frame to the next.")] = 50,
    as_json: JsonOption = False,
    model: ModelOptions,
) -> int:
    """Show what the model responds to: a picture is changed until the model finds it close to a text.

    It is no image generator. The model only judges, so expect colours, places and parts of things rather than a scene;
    with picturebook, those of its drawings. Ends with the cosine of picture and text, and the closest pictures of the
    index, if there is one of this model. Ctrl-C writes what there is. Exits with 0, and with 2 after an error.
    """
    from clipsearch.images.opening import open_image
    from clipsearch.output.imagined import Report, check_picture, make_frames_folder, write_picture, write_svg

    # 1. Check the options.
    words = [checked(text, "TEXT"), *(checked(one, "--not") for one in unwanted or ())]
    if model.engine is Engine.NUMPY:
        raise InputError("Pictures are made with torch, not with NumPy. Leave --engine out.")
    svg = check_picture(out, with_svg=style is Style.STROKES)
    start = open_image(init) if init else None
    began = time.monotonic()
    with model.open() as embedder:
        vectors = embedder.embed_texts(words)
        ascent = _begun(embedder, vectors, style, seed, start)
        if frames:
            make_frames_folder(frames)
        # 2. Make the picture and write it.
        done, stopped = _climb(ascent, words[0], steps, _Frames(frames, every, size))
        write_picture(out, ascent.picture(size), words[0])
        if svg and (drawn := ascent.svg(size)):
            write_svg(svg, drawn)
        # 3. Judge it as it was written, and report.
        cosines, closest = _judged(embedder, out, vectors)
    scores = list(zip(words, cosines, strict=True))
    report = Report(out, svg, done, time.monotonic() - began, scores, closest)
    with writing_output():
        sys.stdout.buffer.write(report.as_json() if as_json else f"{report.as_text()}\n".encode())
    if stopped:
        raise stopped
    return 0


def _begun(embedder: Embedder, vectors: Vectors, style: Style, seed: int, start: Image.Image | None) -> Ascent:
    """Begin a picture for the first of the vectors and against the others."""
    encoder = embedder.images_in_torch()
    from clipsearch.tasks.imagining.ascent import Ascent

    return Ascent(encoder, vectors[0], list(vectors[1:]), style=style.value, seed=seed, start=start)


def _climb(ascent: Ascent, text: str, steps: int, frames: _Frames) -> tuple[int, KeyboardInterrupt | None]:
    """Make the picture, and return the number of steps done and what ended it early, if anything did."""
    from clipsearch.cli.progress import ProgressBar
    from clipsearch.output.imagined import write_picture

    done = 0

    def frame() -> None:
        if frames.folder and (done % frames.every == 0 or done == steps):
            name = f"{done:0{len(str(steps))}d}.png"
            write_picture(frames.folder / name, ascent.picture(frames.size), text)

    try:
        with ProgressBar(doing="Imagining", unit="steps") as bar:
            bar.start(steps)
            frame()
            for step in ascent.climb(steps):
                done = step.number
                bar.step(f"cosine {step.score:.3f}")
                frame()
    except KeyboardInterrupt as end:
        return done, end
    return done, None


def _judged(embedder: Embedder, picture: Path, vectors: Vectors) -> tuple[list[float], list[Hit]]:
    """Return the cosines of a picture's file with vectors of texts, and the images of the index closest to it."""
    from clipsearch.api import index_of

    content = picture.read_bytes()
    cosines = (vectors @ embedder.image(content, os.fsencode(picture.name))).tolist()
    index = index_of(embedder)
    return cosines, index.similar(content, k=_CLOSEST) if index else []
