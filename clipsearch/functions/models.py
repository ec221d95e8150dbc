"""Models: how well one finds images, and one that reads texts better."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.functions.opening import opened
from clipsearch.search.embedder import Embedder
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from clipsearch.tasks.evaluation import Evaluation
    from clipsearch.tasks.tuning_result import Report


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
        captions: a file with captions: a table, or JSON in the format of COCO or of Karpathy.
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
    """Fit how a model reads texts to captioned images. What is no better on held-out images is not written.

    Args:
        captions: a file with captions; it and its options are as for `evaluate`.
        out: the folder to make for the new model. `open_index(model=out)` takes it for an index of the old one.
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
    from clipsearch.tasks.tuning import check
    from clipsearch.tasks.tuning_result import check_folder, tune_and_write

    folder = Path(out)
    check_folder(folder)
    own = read_captions(captions, images=images, split=split, skip_missing=skip_missing, encoding=encoding)
    check(own)
    known = None if control is None else read_captions(control)
    with opened(model) as embedder:
        return tune_and_write(embedder, own, known, folder, seed=seed, max_fall=max_fall, progress=progress)
