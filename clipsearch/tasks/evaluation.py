"""How well a model finds pictures by captions, and captions by pictures: recall@k, median rank, mean reciprocal rank.

Knows nothing of files; the vectors come from whatever is handed in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
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

Pairs = npt.NDArray[np.int64]

KS = (1, 5, 10)
"""Of recall@k."""
DIRECTIONS = {"t2i": "text->image", "i2t": "image->text"}
"""Short names and what they are shown as: which side asks, and which is ranked."""
GATED = (*(f"recall@{k}" for k in KS), "mrr")
"""Metrics that a gate can ask for: the higher, the better."""

_BLOCK_SCORES = 1 << 22
"""Number of cosines held at a time (16 MB)."""
_GATE = re.compile(r"(?:(?P<direction>[^.=]*)\.)?(?P<metric>[^=]*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Retrieval:
    """How well one side finds the other."""

    direction: str
    """One of `DIRECTIONS`."""
    queries: int
    candidates: int
    metrics: dict[str, float]
    """recall@1, recall@5, recall@10: the share of queries with a right candidate among the first k; mrr: the mean of
    1 / rank; median_rank. The rank of a query is that of its best right candidate, from 1 on."""


class Evaluation(NamedTuple):
    """What one model makes of captioned pictures."""

    model: str
    directions: tuple[Retrieval, Retrieval]
    """text->image, image->text."""
    unreadable: list[tuple[bytes, str]]
    """Path and reason of the pictures that took no part."""


class Gate(NamedTuple):
    """A metric that has to reach a value."""

    direction: str | None
    """A key of `DIRECTIONS`, or None for both."""
    metric: str
    """One of `GATED`."""
    value: float


def evaluate(encoders: Encoders, captions: Captions, *, progress: Progress = SILENT) -> Evaluation:
    """Let a model find captioned pictures by their captions, and captions by their pictures.

    A picture that cannot be read takes no part, nor do texts that stand beside no other.

    Raises:
        InputError: no picture can be read.
        ClipsearchError: the model cannot be had, or computes nonsense.
    """
    # 1. Pictures, and which pairs of text and picture are left.
    vectors: list[Vectors] = []
    unreadable: list[tuple[bytes, str]] = []
    row: dict[int, int] = {}
    with closing(readable_images(encoders, captions.images, unreadable, progress)) as found:
        for place, vector in found:
            row[place] = len(vectors)
            vectors.append(vector)
    if not vectors:
        path, reason = unreadable[0]
        raise InputError(f"None of {len(unreadable)} images can be read, {os.fsdecode(path)} for one: {reason}.")
    kept = [(text, row[image]) for text, image in captions.pairs if image in row]
    # 2. Texts.
    line = {text: number for number, text in enumerate(sorted({text for text, _ in kept}))}
    texts = encoders.embed_texts([captions.texts[text] for text in line])
    # 3. Both directions.
    pairs = np.array([(line[text], image) for text, image in kept], np.int64)
    images = np.stack(vectors)
    return Evaluation(
        encoders.name,
        (
            measured(DIRECTIONS["t2i"], ranks(texts, images, pairs), len(images)),
            measured(DIRECTIONS["i2t"], ranks(images, texts, pairs[:, ::-1]), len(texts)),
        ),
        unreadable,
    )


def ranks(queries: Vectors, candidates: Vectors, pairs: Pairs) -> Ranks:
    """(Q,) the rank, from 1 on, that the best right candidate of each query has by cosine among the wrong ones.

    `queries` (Q, D) and `candidates` (N, D) are unit vectors; `pairs` (P, 2) of query and candidate say what is right:
    one or several candidates for every query. Right candidates do not compete with each other. A wrong one that ties
    with the best right one comes before it: a model that cannot tell them apart has not found it. Memory does not
    grow with Q x N.

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
    step = max(1, _BLOCK_SCORES // max(1, len(candidates)))
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        scores = queries[start:stop] @ candidates.T
        asked, right = pairs[firsts[start] : firsts[stop]].T
        asked = asked - start
        best = np.maximum.reduceat(scores[asked, right], firsts[start:stop] - firsts[start])
        scores[asked, right] = -np.inf
        out[start:stop] = 1 + np.count_nonzero(scores >= best[:, np.newaxis], axis=1)
    return out


def measured(direction: str, found: Ranks, candidates: int) -> Retrieval:
    """The metrics of (Q,) ranks among `candidates`. The median of an even number lies between the middle two."""
    metrics = {f"recall@{k}": float(np.mean(found <= k)) for k in KS}
    metrics |= {"median_rank": float(np.median(found)), "mrr": float(np.mean(1 / found))}
    return Retrieval(direction, len(found), candidates, metrics)


# -- gates -------------------------------------------------------------------------------------------------------


def parse_gate(given: str) -> Gate:
    """A gate as people write it: `recall@5=0.8` for both directions, `t2i.mrr=0.5` for one.

    Raises:
        InputError: there is no such metric, or the value is no number from 0 to 1.
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
    """A sentence for each gate that is not met, in each direction."""
    found: Sequence[tuple[str, Retrieval]] = list(zip(DIRECTIONS, evaluation.directions, strict=True))
    return [
        f"{result.direction} {gate.metric} of {evaluation.model} is {result.metrics[gate.metric]:.6g}, "
        f"less than {gate.value:g}."
        for gate in gates
        for short, result in found
        if gate.direction in (None, short) and result.metrics[gate.metric] < gate.value
    ]
