"""What a change of a model is worth: text->image retrieval before and after, bootstrap intervals, and a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.tasks.evaluation import KS
from clipsearch.tasks.tuning.captioned import TEST, Captioned
from clipsearch.tasks.tuning.matrix import changed
from clipsearch.unit import Array

MIXES = tuple(i / 10 for i in range(10, 0, -1))
"""Shares of the tuned weights among which one is chosen (WiSE-FT, arXiv 2109.01903); the rest is the model's own."""
METRICS = (*(f"recall@{k}" for k in KS), "mrr")
_BLOCK_SCORES = 1 << 22
"""Number of cosines in memory at a time (16 MB)."""
_DRAWS = 2000
"""Number of resamples of a bootstrap."""
_INTERVAL = (2.5, 97.5)
"""Percentiles between which a bootstrap interval lies."""


class Measure(NamedTuple):
    """A metric of text->image retrieval before and after tuning, with 95 % bootstrap intervals."""

    images: str
    """Which images: "test" or "control"."""
    metric: str
    """One of `METRICS`. A query is a pair: its rank is that of the image among those its caption does not describe."""
    queries: int
    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    change_interval: tuple[float, float]
    """That of `after` - `before`, with the same images drawn for both."""


@dataclass(frozen=True)
class Tuned:
    """The result of tuning."""

    mix: float
    """The share of the tuned weights; 0 if no share is better than the model as it is."""
    sizes: tuple[int, int, int]
    """Numbers of images to train on, to choose on and for the test."""
    measures: list[Measure]
    verdict: str | None
    """Why the result is no better than the model was; None if it is better."""
    save: Callable[[Path], None] = field(repr=False)
    """Writes the files of the new model into an existing folder."""


class Score(NamedTuple):
    """What a choice is made by."""

    mrr: float
    """That of own captions."""
    recall: float
    """recall@5 of own captions, for people."""
    control: float
    """recall@1 of the captions of the control set; 0 if there is none."""


class Pool(NamedTuple):
    """The images of one part, those of the control set among them: each caption has to find its own among all."""

    own: Captioned
    control: Captioned | None

    @classmethod
    def of(cls, own: Captioned, control: Captioned | None, part: int) -> Pool:
        """Return the pool of one part, with all of the control set that was not trained with."""
        return cls(own.of_parts(part), control and control.of_parts(TEST))

    def with_texts(self, matrix: Array) -> Pool:
        """Return the pool with its texts read with a matrix."""
        own, control = self
        changed_control = control and control._replace(texts=changed(matrix, control.texts))
        return Pool(own._replace(texts=changed(matrix, own.texts)), changed_control)

    def ranks(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the ranks of the right images for own captions, and for those of the control set."""
        if self.control is None:
            return _ranks(self.own, None), np.empty(0, np.int64)
        return _ranks(self.own, self.control), _ranks(self.control, self.own)

    def scored(self) -> Score:
        """Return what the choice is made by."""
        own, control = self.ranks()
        mrr, recall = (float(_values(metric, own).mean()) for metric in ("mrr", "recall@5"))
        return Score(mrr, recall, float(np.mean(control <= 1)) if len(control) else 0.0)

    def measures(self, before: Pool, seed: int) -> list[Measure]:
        """Measure all metrics, `before` a change and after it."""
        measured = []
        for name, asked, old, new in zip(("test", "control"), self, before.ranks(), self.ranks(), strict=True):
            if asked is not None and len(old):
                measured += [_measure(name, metric, (old, new), asked.pairs[:, 1], seed) for metric in METRICS]
        return measured


def progress_of(loss: float, best: Score, before: Score) -> str:
    """Say how well a training goes."""
    return f"loss {loss:.3f}, held-out recall@5 {best.recall:.3f} (was {before.recall:.3f})"


def sizes(part: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Return the numbers of images of the three parts."""
    first, second, third = np.bincount(part, minlength=3).tolist()
    return first, second, third


def verdict(mix: float, measures: Sequence[Measure], max_fall: float) -> str | None:
    """Return why the result is not better; None if it is, by the test images and those of the control set."""
    of = {(one.images, one.metric): one for one in measures}
    if mix == 0:
        return "Nothing that was learned is better on the images to choose on than the model as it is."
    mrr = of["test", "mrr"]
    if mrr.change_interval[0] <= 0:
        low, high = mrr.change_interval
        return (
            f"On the test images, MRR is {mrr.after:.3f} and was {mrr.before:.3f}: with so few images that may be "
            f"chance (the change lies between {low:+.3f} and {high:+.3f})."
        )
    control = of.get(("control", "recall@1"))
    if control and control.before - control.after > max_fall:
        return (
            f"On the control set, recall@1 falls from {control.before:.3f} to {control.after:.3f}, by more than the "
            f"permitted {max_fall:g}."
        )
    return None


def _ranks(asked: Captioned, others: Captioned | None) -> npt.NDArray[np.int64]:
    """Return the rank of the image of each pair for its caption, among all images that the caption does not describe.

    These are the images of `asked`, and those that `others` have besides.
    """
    images = asked.images
    if others is not None:
        images = np.concatenate([images, others.images[~np.isin(others.content, asked.content)]])
    order = np.argsort(asked.pairs[:, 0], kind="stable")
    pairs = asked.pairs[order]
    found = np.empty(len(pairs), np.int64)
    step = max(1, _BLOCK_SCORES // len(images))
    for start in range(0, len(pairs), step):
        rows, columns = pairs[start : start + step].T
        first, last = rows[0], rows[-1]
        scores = asked.texts[first : last + 1] @ images.T
        own = scores[rows - first, columns]
        left, right = np.searchsorted(pairs[:, 0], (first, last + 1))
        scores[pairs[left:right, 0] - first, pairs[left:right, 1]] = -np.inf
        found[order[start : start + step]] = 1 + np.count_nonzero(scores[rows - first] >= own[:, np.newaxis], axis=1)
    return found


def _measure(
    images: str, metric: str, found: Sequence[npt.NDArray[np.int64]], owner: npt.NDArray[np.int64], seed: int
) -> Measure:
    """Compute a metric of (P,) ranks before and after. A bootstrap draws images (`owner`), each with all captions."""
    values = np.stack([_values(metric, ranked) for ranked in found])
    groups, group = np.unique(owner, return_inverse=True)
    sums = np.stack([np.bincount(group, one, len(groups)) for one in values])
    counts = np.bincount(group, minlength=len(groups))
    draws = np.random.default_rng(seed).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), _DRAWS)
    before, after = (draws @ sums.T / (draws @ counts)[:, np.newaxis]).T
    intervals = [_interval(one) for one in (before, after, after - before)]
    return Measure(images, metric, len(owner), float(values[0].mean()), float(values[1].mean()), *intervals)


def _values(metric: str, found: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return 1 / found if metric == "mrr" else (found <= int(metric.removeprefix("recall@"))).astype(np.float64)


def _interval(draws: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(draws, _INTERVAL)
    return float(low), float(high)
