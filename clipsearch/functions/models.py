"""Models: how well one finds images, one that reads texts better, and what one responds to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipsearch.errors import InputError
from clipsearch.functions.opening import opened
from clipsearch.search.embedder import AnyImage, Embedder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.tasks.evaluation import Evaluation
    from clipsearch.tasks.tuning.result import Report


def evaluate(
    captions: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    skip_missing: bool = False,
    encoding: str | None = None,
    model: str | Embedder | None = None,
    whole: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluate how well a model finds images by captions, and captions by images.

    Args:
        captions: a file with captions: a table, or JSON in the format of COCO or of Karpathy; or a folder or archive
            with a .txt or .json file beside each image.
        images: the folder that paths in the file start from; by default the folder of the file.
        split: the part of Karpathy's JSON to take, such as "test".
        skip_missing: leave out images that are missing; otherwise they are an error.
        encoding: that of a file which is neither UTF-8 nor has a byte order mark.
        model: a name or an opened model; by default as for `load_model`.
        whole: whether to compare whole images only, without the regions that the index may have of them.
        progress: is updated with the number of images done.

    Returns:
        The results of both `directions`, each with `metrics` such as "recall@1".

    Raises:
        InputError: the file has none of these formats, or no image can be read.
        ModelError: the model is not available.
    """
    from clipsearch.datasets.captions import read_captions
    from clipsearch.tasks.evaluation import evaluate as evaluated

    read = read_captions(captions, images=images, split=split, skip_missing=skip_missing, encoding=encoding)
    with opened(model) as embedder:
        return evaluated(embedder, read, progress=progress, regions_of=None if whole else embedder.regions_of)


def tune(
    captions: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    method: str = "auto",
    towers: str | None = None,
    epochs: int | None = None,
    control: str | os.PathLike[str] | None = None,
    max_fall: float = 0.01,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    skip_missing: bool = False,
    encoding: str | None = None,
    seed: int = 0,
    model: str | Embedder | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Fit a model to captioned images. What is no better on held-out images is not written.

    Args:
        captions: a file with captions; it and its options are as for `evaluate`.
        out: the folder to make for the new model. If images keep their vectors, `open_index(model=out)` takes it for an
            index of the old one.
        method: "query" changes how texts are read, and images keep their vectors; "lora" trains the model itself, and
            needs the extra `tune`. "auto" is "query", but "lora" for many pairs if there is a GPU.
        towers: with "lora", the towers to train: "text" (images keep their vectors), "image", or by default "both".
        epochs: with "lora", how often each image is seen at most; by default 20 times, or fewer if there are many.
        control: captions of images that the model knows already.
        max_fall: how far recall@1 on `control` may fall.
        images: the folder that paths in `captions` start from.
        split: the part of Karpathy's JSON to take, such as "train".
        skip_missing: leave out images that are missing; otherwise they are an error.
        encoding: that of a file which is neither UTF-8 nor has a byte order mark.
        seed: that of the random numbers; the same seed gives the same weights on the same machine.
        model: a name or an opened model; by default as for `load_model`.
        progress: is updated with the numbers of images and of steps done.

    Returns:
        The report: `folder` (None if nothing was written), and `tuned` with its `verdict` and `measures`.

    Raises:
        InputError: there is too little to learn from, an image cannot be read, or `out` exists or cannot be written.
        ModelError: the model is not available, or cannot be tuned so.
    """
    from clipsearch.datasets.captions import read_captions
    from clipsearch.tasks.tuning.captioned import check
    from clipsearch.tasks.tuning.options import Options
    from clipsearch.tasks.tuning.result import check_folder, check_method, tune_and_write

    folder, options = Path(out), Options(method, towers, epochs, seed, max_fall)
    check_method(options)
    check_folder(folder)
    own = read_captions(captions, images=images, split=split, skip_missing=skip_missing, encoding=encoding)
    check(own)
    known = None if control is None else read_captions(control)
    with opened(model) as embedder:
        return tune_and_write(embedder, own, known, folder, options=options, progress=progress)


class Imagined(NamedTuple):
    """A picture that a model finds fitting for a text."""

    picture: Image.Image
    """RGB."""
    scores: dict[str, float]
    """The text, then the unwanted ones, each with its cosine with the picture."""
    svg: str | None
    """The strokes as the text of an SVG file; None for the style of pixels."""
    frames: list[Image.Image]
    """The picture as it came to be."""


def imagine(
    text: str,
    *,
    style: str = "pixels",
    unwanted: Sequence[str] = (),
    steps: int = 500,
    seed: int = 0,
    size: int = 512,
    init: AnyImage | None = None,
    every: int | None = None,
    model: str | Embedder | None = None,
    progress: Progress = SILENT,
) -> Imagined:
    """Show what a model responds to: change a picture, with torch, until the model finds it close to a text.

    Args:
        text: what the picture should show.
        style: pixels, or strokes of a brush.
        unwanted: texts that the picture should not fit.
        steps: the number of steps.
        seed: that of the random numbers; the same seed gives the same picture on the same machine.
        size: width and height of the picture.
        init: a path or a Pillow image whose middle square the picture begins with; by default with next to nothing.
        every: the number of steps from one frame to the next; by default there are no frames.
        model: a name or an opened model; by default as for `load_model`.
        progress: is updated with the number of steps done, and with the cosine.

    Returns:
        The `picture` (a Pillow image), its `scores`, its strokes as `svg`, and the `frames`.

    Raises:
        InputError: an argument is invalid, `init` cannot be read, or the model takes images of any proportions.
        ModelError: the model is not available.
    """
    for name, number in (("steps", steps), ("size", size), ("every", every)):
        if number is not None and number < 1:
            raise InputError(f"`{name}` is at least 1, not {number}.")
    from clipsearch.images.opening import open_image

    start = None if init is None else open_image(init)
    with opened(model) as embedder:
        words = [text, *unwanted]
        vectors = embedder.embed_texts(words)
        encoder = embedder.images_in_torch()
        from clipsearch.tasks.imagining.ascent import Ascent

        ascent = Ascent(encoder, vectors[0], list(vectors[1:]), style=style, seed=seed, start=start)
        frames = [ascent.picture(size)] if every else []
        for step in ascent.climb(steps):
            progress.stepped(step.number, steps, f"cosine {step.score:.3f}")
            if every and (step.number % every == 0 or step.number == steps):
                frames.append(ascent.picture(size))
        picture = ascent.picture(size)
        cosines = (vectors @ embedder.embed_images([picture])[0]).tolist()
    return Imagined(picture, dict(zip(words, cosines, strict=True)), ascent.svg(size), frames)
