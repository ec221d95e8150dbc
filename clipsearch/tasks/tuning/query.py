"""Tunes how vectors of texts are read, on vectors that images have already; the model's towers stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from clipsearch.models.in_numpy.changed_weights import with_changed_projection
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.tuning import captioned
from clipsearch.tasks.tuning.captioned import CHOOSE, TEST, TRAIN, Captioned
from clipsearch.tasks.tuning.matrix import STEPS, STRENGTHS, Examples, changed, learned
from clipsearch.tasks.tuning.measuring import MIXES, Pool, Score, Tuned, progress_of, sizes, verdict
from clipsearch.tasks.tuning.naming import HOLDS, moving, names_of
from clipsearch.tasks.tuning.options import MAX_FALL
from clipsearch.unit import Array, Vectors

if TYPE_CHECKING:
    from clipsearch.search.embedder import Embedder

_LEAST_COSINE = 0.96
"""The least mean cosine of known texts with what they were before. On drawings, recall@1 of 1,000 known images fell by
more than .01 where it was lower, although a control set of some dozens did not show it."""


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
    held, kept = (embedder.embed_texts(texts) for texts in captioned.words(embedder, seed))
    stays = [held]
    if control is not None:
        stays.append(control.of_parts(TRAIN).texts)
        kept = control.of_parts(TEST).texts
    stays = [texts for texts in stays if len(texts)]
    scale, pool = embedder.logits.scale, Pool.of(own, control, CHOOSE)
    same = np.eye(own.texts.shape[1], dtype=np.float32)
    before = pool.scored()
    steps = _Steps(progress, before)

    def permitted(matrix: Array) -> Score | None:
        """Return the score of a matrix; None if too much of what was known is lost."""
        score = pool.with_texts(matrix).scored()
        lost = before.control - score.control > max_fall or _cosine(matrix, kept) < _LEAST_COSINE
        return None if lost else score

    best, choice = before, (same, 0.0, STRENGTHS[0])
    train = _examples(embedder, own.of_parts(TRAIN), stays)
    for strength in STRENGTHS:
        matrix = learned(train, strength, scale, seed=seed, on_step=steps.of(best))
        for mix in MIXES:
            result = mix * matrix + (1 - mix) * same
            score = permitted(result)
            if score and score.mrr > best.mrr:
                best, choice = score, (result, mix, strength)
    # 2. Learn once more, with the images that the choice was made on, and mix with no more of it. Then texts of several
    # images are moved further, as far as that does not lose too much.
    final, mix, strength = choice
    if mix:
        known = None if control is None else control.of_parts(TRAIN).images
        train = _examples(embedder, own.of_parts(TRAIN, CHOOSE), stays)
        matrix = learned(train, strength, scale, seed=seed, on_step=steps.of(best))
        most = 0.0
        for share in MIXES[MIXES.index(mix) :]:
            mixed = share * matrix + (1 - share) * same
            first = _first(_moved(mixed, train, known), permitted)
            if first and first[1].mrr > most:
                final, mix, most = first[0], share, first[1].mrr
    # 3. Test it on images that had no part in it.
    pool = Pool.of(own, control, TEST)
    measures = pool.with_texts(final).measures(pool, seed)
    save = partial(with_changed_projection, embedder.files, final)
    return Tuned(mix, sizes(own.part), measures, verdict(mix, measures, max_fall), save)


class _Steps:
    """Reports the steps of all trainings of one tuning."""

    def __init__(self, progress: Progress, before: Score) -> None:
        self._progress, self._before, self._done = progress, before, 0

    def of(self, best: Score) -> Callable[[int, float], None]:
        """Return what reports the steps of one training; `best` is the best score so far."""

        def say(_step: int, loss: float) -> None:
            self._done += 1
            said = progress_of(loss, best, self._before)
            self._progress.stepped(self._done, STEPS * (len(STRENGTHS) + 1), said)

        return say


def _examples(embedder: Embedder, own: Captioned, held: list[Vectors]) -> Examples:
    """Return captions and new words as examples, with texts that should stay."""
    texts, pairs = captioned.new_words(own.captions, own.pairs, embedder.tokenizer)
    new = texts[len(own.captions) :]
    vectors = np.concatenate([own.texts, embedder.embed_texts(new)]) if new else own.texts
    return Examples(vectors, own.images, pairs, held)


def _moved(matrix: Array, train: Examples, known: Vectors | None) -> Iterator[Array]:
    """Yield matrices that move texts of several images further than one does, the furthest first, and that one.

    `known` are images of other texts.
    """
    images = train.images if known is None else np.concatenate([train.images, known])
    if names := names_of(changed(matrix, train.texts), images, train.pairs):
        stays = [changed(matrix, texts) for texts in train.held]
        for hold in HOLDS:
            yield moving(names, stays, hold) @ matrix
    yield matrix


def _first(matrices: Iterator[Array], permitted: Callable[[Array], Score | None]) -> tuple[Array, Score] | None:
    """Return the first matrix that is permitted, with its score; None if none is."""
    return next(((matrix, score) for matrix in matrices if (score := permitted(matrix))), None)


def _cosine(matrix: Array, texts: Vectors) -> float:
    """Return the mean cosine of vectors of texts with what a matrix makes of them; 1 if there are none."""
    return float((changed(matrix, texts) * texts).sum(axis=1).mean()) if len(texts) else 1.0
