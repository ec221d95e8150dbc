"""Evaluates how well a model retrieves images by captions and captions by images.

The metrics are recall@k, median rank and mean reciprocal rank. The module reads no files: encoders are passed in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, ModelError
from clipsearch.search.encoders import Encoders, readable_images
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.similarity import Ranks
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from clipsearch.datasets.captions import Captions
    from clipsearch.search.region_ranking import BestRegions

Pairs = npt.NDArray[np.int64]

KS = (1, 5, 10)
"""The values of k in recall@k."""
DIRECTIONS = {"t2i": "text->image", "i2t": "image->text"}
"""The two directions by their short names: which side is the query, and which is ranked."""
GATED = (*(f"recall@{k}" for k in KS), "mrr")
"""Metrics that a gate can be set for; higher is better in all of them."""

_BLOCK_SCORES = 1 << 22
"""Number of cosines in memory at a time (16 MB)."""
_GATE = re.compile(r"(?:(?P<direction>[^.=]*)\.)?(?P<metric>[^=]*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Retrieval:
    """The metrics of one direction."""

    direction: str
    """One of `DIRECTIONS`."""
    queries: int
    candidates: int
    metrics: dict[str, float]
    """recall@1, recall@5, recall@10: the share of queries with a right candidate among the first k; mrr: the mean of
    1 / rank; median_rank. The rank of a query is that of its best right candidate, from 1 on."""


class Evaluation(NamedTuple):
    """The metrics of one model on captioned images."""

    model: str
    directions: tuple[Retrieval, Retrieval]
    """The metrics of text->image and of image->text."""
    unreadable: list[tuple[bytes, str]]
    """Path of each image that could not be read, and the reason."""


class Gate(NamedTuple):
    """The least value that a metric must reach."""

    direction: str | None
    """A key of `DIRECTIONS`, or None for both."""
    metric: str
    """One of `GATED`."""
    value: float


def evaluate(
    encoders: Encoders,
    captions: Captions,
    *,
    progress: Progress = SILENT,
    regions_of: Callable[[Sequence[bytes | None]], BestRegions | None] | None = None,
) -> Evaluation:
    """Evaluate retrieval of images by their captions, and of captions by their images.

    An image that cannot be read is left out, and so are captions that belong to no other image. Images are found by the
    best of their whole and their regions, as a query finds them; captions are found by whole images.

    Args:
        encoders: the model.
        captions: images, texts, and which texts describe which images.
        progress: is updated with the number of embedded images.
        regions_of: returns the regions of images that an index knows, given the hashes of their contents; see
            `Embedder.regions_of`. None compares whole images only.

    Raises:
        InputError: no image can be read.
        ModelError: the model is not available, or its vectors are not finite.
    """
    # 1. Embed the images, and keep the pairs whose image can be read.
    vectors: list[Vectors] = []
    unreadable: list[tuple[bytes, str]] = []
    row: dict[int, int] = {}
    contents: dict[int, bytes] = {}
    reading = readable_images(encoders, captions.images, unreadable, progress, known_contents=contents)
    with closing(reading) as found:
        for place, vector in found:
            row[place] = len(vectors)
            vectors.append(vector)
    if not vectors:
        path, reason = unreadable[0]
        raise InputError(f"None of {len(unreadable)} images can be read. The first is {os.fsdecode(path)}: {reason}.")
    kept = [(text, row[image]) for text, image in captions.pairs if image in row]
    # 2. Embed the texts of these pairs.
    line = {text: number for number, text in enumerate(sorted({text for text, _ in kept}))}
    texts = encoders.embed_texts([captions.texts[text] for text in line])
    # 3. Compute the metrics in both directions.
    pairs = np.array([(line[text], image) for text, image in kept], np.int64)
    images = np.stack(vectors)
    regions = regions_of([contents.get(place) for place in row]) if regions_of else None
    return Evaluation(
        encoders.name,
        (
            measured(DIRECTIONS["t2i"], ranks(texts, images, pairs, regions), len(images)),
            measured(DIRECTIONS["i2t"], ranks(images, texts, pairs[:, ::-1]), len(texts)),
        ),
        unreadable,
    )


def ranks(queries: Vectors, candidates: Vectors, pairs: Pairs, regions: BestRegions | None = None) -> Ranks:
    """Rank, by cosine, the best right candidate of each query among the wrong ones.

    The right candidates of a query do not compete with each other. A wrong candidate that ties with the best right one
    is ranked before it, because a model that gives both the same score has not found the right one. Memory does not
    grow with Q x N.

    Args:
        queries: (Q, D) unit vectors.
        candidates: (N, D) unit vectors.
        pairs: (P, 2) index of a query and index of a right candidate; one or more for each query.
        regions: those of the candidates. Where a region has a higher score than the whole, it is that of the candidate.

    Returns:
        (Q,) int64 ranks, from 1 on.

    Raises:
        ModelError: a vector is not finite.
        ValueError: a query has no right candidate.
    """
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise ModelError("The model computed vectors that are not finite.", hint="precision")
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    firsts = np.searchsorted(pairs[:, 0], np.arange(len(queries) + 1))
    if (np.diff(firsts) == 0).any():
        raise ValueError("each query needs a right candidate")
    out = np.empty(len(queries), np.int64)
    step = max(1, _BLOCK_SCORES // max(1, len(candidates) + (len(regions) if regions else 0)))
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        scores = queries[start:stop] @ candidates.T
        if regions:
            np.maximum(scores, regions.scores(queries[start:stop]), out=scores)
        asked, right = pairs[firsts[start] : firsts[stop]].T
        asked = asked - start
        best = np.maximum.reduceat(scores[asked, right], firsts[start:stop] - firsts[start])
        scores[asked, right] = -np.inf
        out[start:stop] = 1 + np.count_nonzero(scores >= best[:, np.newaxis], axis=1)
    return out


def measured(direction: str, found: Ranks, candidates: int) -> Retrieval:
    """Compute the metrics of (Q,) ranks among `candidates`. An even number's median is the mean of the middle two."""
    metrics = {f"recall@{k}": float(np.mean(found <= k)) for k in KS}
    metrics |= {"median_rank": float(np.median(found)), "mrr": float(np.mean(1 / found))}
    return Retrieval(direction, len(found), candidates, metrics)


# -- gates -------------------------------------------------------------------------------------------------------


def parse_gate(given: str) -> Gate:
    """Parse a gate: `recall@5=0.8` for both directions, `t2i.mrr=0.5` for one.

    Raises:
        InputError: there is no such metric, or the value is not a number from 0 to 1.
    """
    match = _GATE.fullmatch(given)
    if match is None:
        raise InputError(f"{given!r} is no gate. Write METRIC=VALUE: recall@5=0.8")
    direction, metric = match["direction"], match["metric"]
    if (direction is not None and direction not in DIRECTIONS) or metric not in GATED:
        name = given.partition("=")[0]
        sides = " or ".join(f"{side}." for side in DIRECTIONS)
        raise InputError(
            f"A gate cannot ask for {name!r}. It can for {', '.join(GATED)}, each with {sides} before it for one "
            "direction only."
        )
    try:
        value = float(match["value"])
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise InputError(f"{given!r}: {metric} lies between 0 and 1, so a gate does too: {metric}=0.8")
    return Gate(direction, metric, value)


def unmet(evaluation: Evaluation, gates: Collection[Gate]) -> list[str]:
    """Return a sentence for each gate and direction in which the gate is not met."""
    found: Sequence[tuple[str, Retrieval]] = list(zip(DIRECTIONS, evaluation.directions, strict=True))
    return [
        f"{result.direction} {gate.metric} of {evaluation.model} is {result.metrics[gate.metric]:.6g}, "
        f"less than {gate.value:g}."
        for gate in gates
        for short, result in found
        if gate.direction in (None, short) and result.metrics[gate.metric] < gate.value
    ]
