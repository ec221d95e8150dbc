"""`clipsearch score`."""

from __future__ import annotations

import os
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
    from clipsearch.images.files import ImageFile
    from clipsearch.search.embedder import Embedder
    from clipsearch.search.text_maps import TextMap
    from clipsearch.tasks.similarity import Comparison
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
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="Write a page, FILE.html, that shows where in each picture each text fits. A browser shows it.",
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
        _check_pages(heatmap, map_file, len(files), len(sentences))
        # 1. Embed texts and images.
        with model.open() as embedder:
            if map_file:
                _ = embedder.image_tower  # refused now where there is none
            text_vectors = embedder.embed_texts(sentences)
            read, vectors = _vectors(embedder, files, typed)
            maps = _maps(embedder, read, typed, text_vectors) if map_file else {}
            logits = embedder.logits
        # 2. Compare them.
        names, axis = [typed.get(file.path, file.path) for file in read], TEXTS if over is Over.TEXTS else IMAGES
        found = compare(names, vectors, sentences, text_vectors, logits=logits, axis=axis)
        # 3. Write the results.
        with writing_output():
            write_matrix(found, form, sys.stdout.buffer, screen=screen_width(), probabilities=probs)
        _write_pages(heatmap, map_file, found, [file.path for file in read], maps, probabilities=probs)
    return EXIT_STRICT if strict and len(read) < len(files) else 0


def _check_pages(heatmap: Path | None, map_file: Path | None, images: int, texts: int) -> None:
    """Check, before any work, that the pages may be written.

    Raises:
        InputError: one may not, or both have the same name.
    """
    if heatmap:
        from clipsearch.output.heatmap import check_heatmap

        check_heatmap(heatmap, images, texts)
    if map_file:
        from clipsearch.output.text_maps import check_map

        check_map(map_file, images, texts)
    if heatmap and map_file and os.path.realpath(heatmap) == os.path.realpath(map_file):
        raise InputError(f"--heatmap and --map both name {map_file}. Give each a name of its own.")


def _write_pages(
    heatmap: Path | None,
    map_file: Path | None,
    found: Comparison,
    paths: list[bytes],
    maps: dict[int, TextMap],
    *,
    probabilities: bool,
) -> None:
    if heatmap:
        from clipsearch.output.heatmap import write_heatmap

        say(write_heatmap(heatmap, found, paths, probabilities=probabilities))
    if map_file:
        from clipsearch.output.text_maps import write_maps

        say(write_maps(map_file, found, paths, maps))


def _vectors(embedder: Embedder, files: list[ImageFile], typed: Mapping[bytes, str]) -> tuple[list[ImageFile], Vectors]:
    """Embed the images that can be read, as (N, D) unit vectors, and report the others.

    Raises:
        InputError: no image can be read.
    """
    import numpy as np

    from clipsearch.search.encoders import readable_images

    unreadable: list[tuple[bytes, str]] = []
    with ProgressBar(doing="Embedding") as bar, closing(readable_images(embedder, files, unreadable, bar)) as results:
        found = list(results)
    _say_unreadable(unreadable, typed)
    say_damaged(embedder.damaged, lambda path: typed.get(path, path))
    if not found:
        raise InputError("None of the pictures can be read.")
    return [files[place] for place, _ in found], np.stack([vector for _, vector in found])


def _maps(embedder: Embedder, files: list[ImageFile], typed: Mapping[bytes, str], texts: Vectors) -> dict[int, TextMap]:
    """Compute where in each image the texts fit, by the index of the image, and report images that vanished."""
    from clipsearch.search.text_maps import text_maps

    unreadable: list[tuple[bytes, str]] = []
    tower, name = embedder.image_tower, embedder.name
    with (
        ProgressBar(doing="Mapping") as bar,
        closing(text_maps(tower, files, texts, name=name, unreadable=unreadable, progress=bar)) as found,
    ):
        maps = dict(found)
    _say_unreadable(unreadable, typed)
    return maps


def _say_unreadable(unreadable: list[tuple[bytes, str]], typed: Mapping[bytes, str]) -> None:
    from clipsearch.output.matrix import name_of

    for path, reason in unreadable:
        say(f"Cannot read {typed.get(path) or name_of(path)}: {reason}")
