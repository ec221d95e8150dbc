"""Tunes a model to captioned images, and measures on other images whether that made it better.

Images are divided by their content into three parts: one to train on, one to choose among what was trained, and one to
test the choice on. The control set, images and captions that the model knows already, has two parts: the texts of one
are held where they are, and the other shows what is lost. It limits the choice, too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.evaluation import KS
from clipsearch.tasks.tuning_query import STEPS, STRENGTHS, Examples, Strength, changed, learned
from clipsearch.unit import Array, Vectors

if TYPE_CHECKING:
    from clipsearch.datasets.captions import Captions
    from clipsearch.search.embedder import Embedder

LEAST_PAIRS = 10
MIXES = tuple(i / 10 for i in range(10, 0, -1))
"""Shares of the tuned weights among which one is chosen (WiSE-FT, arXiv 2109.01903); the rest is the model's own."""
METRICS = (*(f"recall@{k}" for k in KS), "mrr")
MAX_FALL = 0.01
"""How far recall@1 on the control set may fall by default."""

_TRAIN, _CHOOSE, _TEST = range(3)
_SHARES = (0.7, 0.15)
"""Shares of the images to train on and to choose on; the rest are for the test."""
_CONTROL_SHARES = (1 / 3, 0.0)
_LEAST_COSINE = 0.96
"""The least mean cosine of known texts with what they were before. On drawings, recall@1 of 1,000 known images fell by
more than .01 where it was lower, although a control set of some dozens did not show it."""
_WORDS = 1000
"""Number of words of the model's vocabulary that are held where they are. As many others show how far words move."""
_SHORTEST = 3
"""Letters of a word of the vocabulary."""
_BLOCK_SCORES = 1 << 22
"""Number of cosines in memory at a time (16 MB)."""
_DRAWS = 2000
"""Number of resamples of a bootstrap."""
_INTERVAL = (2.5, 97.5)
"""Percentiles between which a bootstrap interval lies."""


class Captioned(NamedTuple):
    """Vectors of images and of their captions."""

    images: Vectors
    """(N, D) unit vectors."""
    texts: Vectors
    """(Q, D) unit vectors."""
    pairs: npt.NDArray[np.int64]
    """(P, 2) index of a text and index of an image that it describes."""
    part: npt.NDArray[np.int64]
    """(N,) whether each image is for training (0), for choosing (1) or for the test (2)."""
    content: npt.NDArray[np.str_]
    """(N,) hash of the content of each image."""

    def of_parts(self, *parts: int) -> Captioned:
        """Return the images of some parts, with their captions."""
        images = np.flatnonzero(np.isin(self.part, parts))
        place = np.full(len(self.images), -1)
        place[images] = np.arange(len(images))
        pairs = self.pairs[place[self.pairs[:, 1]] >= 0]
        texts, rows = np.unique(pairs[:, 0], return_inverse=True)
        pairs = np.stack([rows, place[pairs[:, 1]]], axis=1)
        return Captioned(self.images[images], self.texts[texts], pairs, self.part[images], self.content[images])

    def examples(self, held: Sequence[Vectors]) -> Examples:
        """Return these pairs as examples, with sets of texts that should stay."""
        return Examples(self.texts, self.images, self.pairs, held)


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

    matrix: Array
    """(D, D) the matrix that vectors of texts are multiplied with."""
    mix: float
    """The share of the tuned weights."""
    strength: Strength
    sizes: tuple[int, int, int]
    """Numbers of images to train on, to choose on and for the test."""
    measures: list[Measure]
    verdict: str | None
    """Why the result is no better than the model was; None if it is better."""


def embedded(
    embedder: Embedder, captions: Captions, *, seed: int, control: bool = False, progress: Progress = SILENT
) -> Captioned:
    """Embed captioned images, and divide them into parts. Vectors that an index has are taken from there.

    Args:
        embedder: the model.
        captions: images and their captions.
        seed: that of the division.
        control: whether this is the control set, which has two parts only.
        progress: is updated with the number of embedded images.

    Raises:
        InputError: an image cannot be read.
        ModelError: the model is not available.
    """
    vectors: list[Vectors] = []
    digests: list[bytes] = []
    progress.start(len(captions.images))
    with closing(embedder.images(captions.images)) as found:
        for file, result, known, digest, _ in found:
            if isinstance(result, UnreadableImageError):
                raise InputError(f"Cannot read {os.fsdecode(file.path)}: {result}", hint="leave-line-out")
            vectors.append(result)
            digests.append(digest or file.path)
            progress.advance(1, known=known)
    part = parts(digests, seed, _CONTROL_SHARES if control else _SHARES)
    texts = embedder.embed_texts(captions.texts)
    pairs = np.array(captions.pairs, np.int64)
    return Captioned(np.stack(vectors), texts, pairs, part, np.array([one.hex() for one in digests]))


def parts(digests: Sequence[bytes], seed: int, shares: tuple[float, float] = _SHARES) -> npt.NDArray[np.int64]:
    """Divide images into parts by their content; equal contents are in the same part.

    Args:
        digests: a hash of the content of each of N images.
        seed: another seed gives another division.
        shares: those of the first two parts.

    Returns:
        (N,) int64 numbers of parts, 0 to 2.
    """
    order = sorted({hashlib.blake2b(digest, key=str(seed).encode()).digest(): digest for digest in digests}.items())
    first, second = (round(share * len(order)) for share in (shares[0], sum(shares)))
    part = {digest: int(i >= first) + int(i >= second) for i, (_, digest) in enumerate(order)}
    return np.array([part[digest] for digest in digests], np.int64)


def check(captions: Captions) -> None:
    """Check that there is something to learn from captions.

    Raises:
        InputError: there are fewer than `LEAST_PAIRS` pairs, or all captions are the same.
    """
    if len(captions.pairs) < LEAST_PAIRS:
        raise InputError(
            f"{len(captions.pairs)} captions are too few to learn from and to test on: {LEAST_PAIRS} are the least, "
            "and some hundreds are good."
        )
    if len(captions.texts) == 1:
        raise InputError(f"All captions are {captions.texts[0]!r}: there is nothing to tell images apart by.")
    if len(captions.images) < LEAST_PAIRS:
        raise InputError(f"{len(captions.images)} images are too few to be divided into three parts.")


def tune_queries(
    embedder: Embedder,
    own: Captioned,
    control: Captioned | None,
    *,
    seed: int = 0,
    max_fall: float = MAX_FALL,
    progress: Progress = SILENT,
) -> Tuned:
    """Learn a matrix for the vectors of texts, with which they find their images better.

    Args:
        embedder: the model.
        own: what to learn, as `embedded` returns it.
        control: what not to forget; None if that is not known.
        seed: that of the random numbers; the same input and seed give the same matrix on the same machine.
        max_fall: how far recall@1 on the control set may fall.
        progress: is told each step, with the loss and the recall on the images to choose on.
    """
    # 1. Learn with several strengths, and mix each with the identity; keep what is best on the images to choose on.
    words = embedder.embed_texts(_words(embedder, seed))
    held, kept = [words[::2]], words[1::2]
    if control is not None:
        held.append(control.of_parts(_TRAIN).texts)
        kept = control.of_parts(_TEST).texts
    held = [texts for texts in held if len(texts)]
    scale, pool = embedder.logits.scale, _Pool.of(own, control, _CHOOSE)
    same = np.eye(own.texts.shape[1], dtype=np.float32)
    before = pool.scored(same)
    steps = _Steps(progress, before.mrr)

    def mixed(matrix: Array, mix: float) -> tuple[Array, float]:
        """Return a matrix mixed with the identity and its MRR; -1 if too much of what was known is lost."""
        result = mix * matrix + (1 - mix) * same
        score = pool.scored(result)
        lost = before.control - score.control > max_fall or _cosine(result, kept) < _LEAST_COSINE
        return result, -1.0 if lost else score.mrr

    best, choice = before.mrr, (same, 0.0, STRENGTHS[0])
    train = own.of_parts(_TRAIN).examples(held)
    for strength in STRENGTHS:
        matrix = learned(train, strength, scale, seed=seed, on_step=steps.of(best))
        for mix in MIXES:
            result, mrr = mixed(matrix, mix)
            if mrr > best:
                best, choice = mrr, (result, mix, strength)
    # 2. Learn once more, with the images that the choice was made on, and mix with no more of it.
    final, mix, strength = choice
    if mix:
        train = own.of_parts(_TRAIN, _CHOOSE).examples(held)
        matrix = learned(train, strength, scale, seed=seed, on_step=steps.of(best))
        again = ((mixed(matrix, share), share) for share in MIXES if share <= mix)
        final, mix = next(((result, share) for (result, mrr), share in again if mrr >= 0), (final, mix))
    # 3. Test it on images that had no part in it.
    measures = _Pool.of(own, control, _TEST).measures(final, seed)
    sizes = tuple(int(np.count_nonzero(own.part == part)) for part in range(3))
    return Tuned(final, mix, strength, (sizes[0], sizes[1], sizes[2]), measures, _verdict(mix, measures, max_fall))


class _Steps:
    """Reports the steps of all trainings of one tuning."""

    def __init__(self, progress: Progress, before: float) -> None:
        self._progress, self._before, self._done = progress, before, 0

    def of(self, best: float) -> Callable[[int, float], None]:
        """Return what reports the steps of one training; `best` is the best MRR so far."""

        def say(_step: int, loss: float) -> None:
            self._done += 1
            said = f"loss {loss:.3f}, held-out MRR {best:.3f} (was {self._before:.3f})"
            self._progress.stepped(self._done, STEPS * (len(STRENGTHS) + 1), said)

        return say


def _words(embedder: Embedder, seed: int) -> list[str]:
    """Draw words from the model's vocabulary: texts that it knows, whatever it was trained on."""
    vocabulary = embedder.tokenizer.get_vocab()
    words = {piece.removesuffix("</w>").lstrip("▁") for piece in vocabulary if piece.endswith("</w>") or "▁" in piece}
    known = sorted(word for word in words if word.isalpha() and len(word) >= _SHORTEST)
    drawn = np.random.default_rng(seed).permutation(len(known))[: 2 * _WORDS]
    return [f"a {known[i]}" for i in drawn]


def _cosine(matrix: Array, texts: Vectors) -> float:
    """Return the mean cosine of vectors of texts with what a matrix makes of them; 1 if there are none."""
    return float((changed(matrix, texts) * texts).sum(axis=1).mean()) if len(texts) else 1.0


# -- measuring ---------------------------------------------------------------------------------------------------


class _Score(NamedTuple):
    """MRR of own captions, and recall@1 of those of the control set (0 if there is none)."""

    mrr: float
    control: float


class _Pool(NamedTuple):
    """The images of one part, those of the control set among them: each caption has to find its own among all."""

    own: Captioned
    control: Captioned | None

    @classmethod
    def of(cls, own: Captioned, control: Captioned | None, part: int) -> _Pool:
        """Return the pool of one part, with all of the control set that was not trained with."""
        return cls(own.of_parts(part), control and control.of_parts(_TEST))

    def ranks(self, matrix: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the ranks of the right images for own captions, and for those of the control set."""
        if self.control is None:
            return _ranks(self.own, None, matrix), np.empty(0, np.int64)
        return _ranks(self.own, self.control, matrix), _ranks(self.control, self.own, matrix)

    def scored(self, matrix: Array) -> _Score:
        """Return what the choice is made by."""
        own, control = self.ranks(matrix)
        return _Score(float(np.mean(1 / own)), float(np.mean(control <= 1)) if len(control) else 0.0)

    def measures(self, matrix: Array, seed: int) -> list[Measure]:
        """Measure all metrics before and after a change by `matrix`."""
        same = np.eye(len(matrix), dtype=np.float32)
        measured = []
        before, after = self.ranks(same), self.ranks(matrix)
        for name, asked, old, new in zip(("test", "control"), self, before, after, strict=True):
            if asked is not None and len(old):
                measured += [_measure(name, metric, (old, new), asked.pairs[:, 1], seed) for metric in METRICS]
        return measured


def _ranks(asked: Captioned, others: Captioned | None, matrix: Array) -> npt.NDArray[np.int64]:
    """Return the rank of the image of each pair for its caption, among all images that the caption does not describe.

    These are the images of `asked`, and those that `others` have besides.
    """
    images = asked.images
    if others is not None:
        images = np.concatenate([images, others.images[~np.isin(others.content, asked.content)]])
    texts = changed(matrix, asked.texts)
    order = np.argsort(asked.pairs[:, 0], kind="stable")
    pairs = asked.pairs[order]
    found = np.empty(len(pairs), np.int64)
    step = max(1, _BLOCK_SCORES // len(images))
    for start in range(0, len(pairs), step):
        rows, columns = pairs[start : start + step].T
        first, last = rows[0], rows[-1]
        scores = texts[first : last + 1] @ images.T
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


def _verdict(mix: float, measures: Sequence[Measure], max_fall: float) -> str | None:
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
