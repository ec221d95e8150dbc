"""`clipsearch score`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.inputs import check_inputs, named_images, say_damaged
from clipsearch.cli.option_groups import grouped
from clipsearch.cli.options import FormatOptions, ModelOptions, say, screen_width, writing_output
from clipsearch.cli.progress import ProgressBar
from clipsearch.cli.text_options import TextOptions, distinct
from clipsearch.errors import InputError

if TYPE_CHECKING:
    from clipsearch.images.finding import ImageFile
    from clipsearch.search.embedder import Embedder
    from clipsearch.unit import Vectors

EXIT_STRICT = 2


class Over(StrEnum):
    """The values of `--over`."""

    TEXTS = "texts"
    IMAGES = "images"


@grouped
def score(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Pictures or folders of pictures (- for a picture on standard input).",
            show_default=False,
        ),
    ],
    *,
    texts: TextOptions,
    probs: Annotated[
        bool, typer.Option("--probs", help="Print probabilities: the softmax of cosines times the model's logit scale.")
    ] = False,
    over: Annotated[
        Over, typer.Option("--over", help="Rank the texts for each image, or the images for each text.")
    ] = Over.TEXTS,
    heatmap: Annotated[
        Path | None,
        typer.Option(
            "--heatmap",
            metavar="FILE",
            help="Write the matrix with the pictures as a page, FILE.html, which a browser shows and prints.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if a picture could not be read.")] = False,
    output: FormatOptions,
    model: ModelOptions,
) -> int:
    """Compare all images with all texts: cosines, and probabilities.

    Needs no index; images that the nearest one knows are not embedded again. Exits with 0, and with 2 after an error.
    """
    from clipsearch.output.matrix import write_matrix
    from clipsearch.tasks.similarity import IMAGES, TEXTS, compare

    form = output.form()
    check_inputs(*images, texts.texts_from)
    sentences = distinct(texts.read())
    with named_images(images) as (files, typed):
        if heatmap:
            from clipsearch.output.heatmap import check_heatmap

            check_heatmap(heatmap, len(files), len(sentences))
        # 1. Embed texts and images.
        with model.open() as embedder:
            text_vectors = embedder.embed_texts(sentences)
            read, vectors = _vectors(embedder, files, typed)
            logits = embedder.logits
        # 2. Compare them.
        names, axis = [typed.get(file.path, file.path) for file in read], TEXTS if over is Over.TEXTS else IMAGES
        found = compare(names, vectors, sentences, text_vectors, logits=logits, axis=axis)
        # 3. Write the results.
        with writing_output():
            write_matrix(found, form, sys.stdout.buffer, screen=screen_width(), probabilities=probs)
        if heatmap:
            from clipsearch.output.heatmap import write_heatmap

            say(write_heatmap(heatmap, found, [file.path for file in read], probabilities=probs))
    return EXIT_STRICT if strict and len(read) < len(files) else 0


def _vectors(embedder: Embedder, files: list[ImageFile], typed: Mapping[bytes, str]) -> tuple[list[ImageFile], Vectors]:
    """Embed the images that can be read, as (N, D) unit vectors, and report the others.

    Raises:
        InputError: no image can be read.
    """
    import numpy as np

    from clipsearch.output.matrix import name_of
    from clipsearch.search.encoders import readable_images

    unreadable: list[tuple[bytes, str]] = []
    with ProgressBar(doing="Embedding") as bar, closing(readable_images(embedder, files, unreadable, bar)) as results:
        found = list(results)
    for path, reason in unreadable:
        say(f"Cannot read {typed.get(path) or name_of(path)}: {reason}")
    say_damaged(embedder.damaged, lambda path: typed.get(path, path))
    if not found:
        raise InputError("None of the pictures can be read.")
    return [files[place] for place, _ in found], np.stack([vector for _, vector in found])
