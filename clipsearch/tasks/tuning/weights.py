"""Tunes a model's weights to captioned images: decodes these, trains, and chooses how much of it is mixed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.models.in_numpy.changed_weights import projection_changes, with_changed_weights
from clipsearch.system.progress import Progress
from clipsearch.tasks.tuning import captioned, checkpoint
from clipsearch.tasks.tuning.captioned import CHOOSE, TEST, TRAIN, Captioned, Pairs, chosen, divided
from clipsearch.tasks.tuning.checkpoint import Checkpoint
from clipsearch.tasks.tuning.measuring import MIXES, Pool, Score, Tuned, progress_of, sizes, verdict
from clipsearch.tasks.tuning.naming import HOLDS, moving, names_of
from clipsearch.tasks.tuning.options import Options, Trained
from clipsearch.tasks.tuning.pictures import Pictures, Pixels
from clipsearch.tasks.tuning.towers import Towers
from clipsearch.tasks.tuning.training import METHOD, Material, Step, Training
from clipsearch.unit import Array, Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from clipsearch.datasets.captions import Captions
    from clipsearch.search.embedder import Embedder

_MOST = 1000
"""Images, of own ones and of the control set each, that a choice is made on."""


_WORSE = 3
"""No smaller share is tried when so many in a row were no better than the best."""


class _Set(NamedTuple):
    """Captioned images that are not embedded."""

    texts: list[str]
    pairs: Pairs
    digests: list[bytes]
    """(N) hash of the content of each image."""
    part: npt.NDArray[np.int64]

    def of_part(self, part: int, most: int | None = None) -> _Set:
        """Return the first `most` images of a part, with their captions."""
        images = np.flatnonzero(self.part == part)[:most]
        texts, pairs = chosen(self.pairs, images, len(self.part))
        return _Set([self.texts[i] for i in texts], pairs, [self.digests[i] for i in images], self.part[images])

    def without(self, digests: set[bytes]) -> _Set:
        """Return what is left without some images."""
        kept = np.array([digest not in digests for digest in self.digests], np.bool_)
        return self._replace(part=np.where(kept, 0, 1)).of_part(0)


def tune_weights(
    embedder: Embedder, own: Captions, known: Captions | None, folder: Path, *, options: Options, progress: Progress
) -> Tuned:
    """Train the towers of a model.

    Args:
        embedder: the model.
        own: what to learn from.
        known: what not to forget; None if that is not known.
        folder: an existing folder for decoded images and checkpoints. With those of an earlier run, this goes on there.
        options: how to train.
        progress: is told of each decoded image and of each step.

    Raises:
        InputError: peft is not installed, an image cannot be read, or the folder has the checkpoint of another run.
        ModelError: the model is not on this disk, or has no layers that can be trained.
        OSError: the folder cannot be written.
    """
    # 1. Load the model, and decode the images.
    which = options.towers or Trained.BOTH
    towers = Towers(embedder.files, embedder.options, which, seed=options.seed)
    pictures = Pictures(folder, towers.preprocessing, towers.size, seconds=checkpoint.SECONDS)
    new = _read(pictures, own, options.seed, progress, control=False)
    old = known and _read(pictures, known, options.seed, progress, control=True)
    embedder.damaged += pictures.damaged
    vectors = _Vectors(embedder, towers, pictures)
    # 2. Train, and look now and then at images that are for choosing.
    words, _ = captioned.words(embedder, options.seed)
    material = _material(vectors, new, old, words)
    run = {
        "model": embedder.identity[2],
        "captions": _hash(new),
        "control set": old and _hash(old),
        "options": [METHOD, which, options.epochs, options.seed],
    }
    pools = [_Pool.of(vectors, new, old, part) for part in (CHOOSE, TEST)]
    training = Training(towers, material, Checkpoint(folder, run), epochs=options.epochs, seed=options.seed)
    before = pools[0].before.scored()

    def say(step: Step) -> None:
        progress.stepped(step.done, step.total, progress_of(step.loss, step.best, before))

    training.run(lambda: pools[0].now().scored(), say)

    # 3. Mix as much of it in as is best, and does not lose too much of what was known.
    def tried(mix: float) -> None:
        progress.stepped(training.total, training.total, f"trying {mix:.0%} of what was learned")

    mix, best = _chosen_mix(towers, pools[0], before, options.max_fall, tried)
    towers.mix(mix)
    # 4. Move texts of several images further.
    moved = _moved(towers, material, best, before, options.max_fall) if mix and towers.changes_texts else None
    further = {} if moved is None else projection_changes(embedder.files, moved)
    changes, tested = {**towers.changes(), **further}, pools[1].now()
    if moved is not None and further:
        tested = tested.with_texts(moved)
    # 5. Test it on images that had no part in it.
    measures = tested.measures(pools[1].before, options.seed)
    save = partial(with_changed_weights, embedder.files, changes)
    return Tuned(mix, sizes(new.part), measures, verdict(mix, measures, options.max_fall), save)


def _read(pictures: Pictures, captions: Captions, seed: int, progress: Progress, *, control: bool) -> _Set:
    """Decode captioned images, and divide them into parts."""
    digests = pictures.add(captions.images, progress)
    division = divided(digests, captions.pairs, seed=seed, control=control)
    return _Set(captions.texts, division.pairs, [digests[i] for i in division.kept], division.part)


def _hash(of: _Set) -> str:
    """Hash captions and the contents of their images."""
    content = json.dumps([of.texts, of.pairs.tolist(), [digest.hex() for digest in of.digests]])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


class _Vectors:
    """Embeds captioned images with the towers as they are at the moment."""

    def __init__(self, embedder: Embedder, towers: Towers, pictures: Pictures) -> None:
        self._embedder, self._towers, self._pictures = embedder, towers, pictures

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return self._embedder.tokenizer

    def ids(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Tokenise texts."""
        return [self._embedder.tokenize(text).ids for text in texts]

    def pixels(self, digests: Sequence[bytes]) -> Pixels:
        """Return decoded images."""
        return self._pictures.pixels(digests)

    def of(self, given: _Set, before: Captioned | None = None) -> Captioned:
        """Embed captioned images; what no adapter changes is as it was `before`."""
        images = before.images if before and not self._towers.changes_images else self._images(given)
        texts = before.texts if before and not self._towers.changes_texts else self._texts(given)
        content = np.array([digest.hex() for digest in given.digests])
        return Captioned(images, texts, given.texts, given.pairs, given.part, content)

    def _images(self, given: _Set) -> Vectors:
        return self._towers.all_images(self.pixels(given.digests))

    def _texts(self, given: _Set) -> Vectors:
        return self._towers.all_texts(self.ids(given.texts))


class _Pool(NamedTuple):
    """Images of one part and of the control set, as they were before, and as they are now."""

    vectors: _Vectors
    own: _Set
    known: _Set | None
    before: Pool

    @classmethod
    def of(cls, vectors: _Vectors, own: _Set, known: _Set | None, part: int) -> _Pool:
        """Embed the images of a part as the model has them before it is trained."""
        most = None if part == TEST else _MOST
        own, known = own.of_part(part, most), known and known.of_part(TEST, most)
        return cls(vectors, own, known, Pool(vectors.of(own), known and vectors.of(known)))

    def now(self) -> Pool:
        """Embed the images as the model is now."""
        known = self.known and self.vectors.of(self.known, self.before.control)
        return Pool(self.vectors.of(self.own, self.before.own), known)


def _material(vectors: _Vectors, new: _Set, old: _Set | None, words: list[str]) -> Material:
    """Put together what is learned from: both sets have a part for it, and may have texts and images in common."""
    own = new.of_part(TRAIN)
    texts, pairs = captioned.new_words(own.texts, own.pairs, vectors.tokenizer)
    is_caption = pairs[:, 0] < len(own.texts)
    sets = [own._replace(pairs=pairs[is_caption]), own._replace(texts=texts, pairs=pairs[~is_caption])]
    if old is not None:
        # What is chosen and tested on is not learned, though it may be in the control set too.
        unseen = {digest for part in (CHOOSE, TEST) for digest in new.of_part(part).digests}
        sets.append(old.of_part(TRAIN).without(unseen))
    rows = {text: i for i, text in enumerate(dict.fromkeys(text for one in sets for text in one.texts))}
    images = {digest: i for i, digest in enumerate(dict.fromkeys(digest for one in sets for digest in one.digests))}
    found = [
        np.array([(rows[one.texts[text]], images[one.digests[image]]) for text, image in one.pairs], np.int64)
        for one in sets
    ]
    learned, named, known = [*(one.reshape(-1, 2) for one in found), np.empty((0, 2), np.int64)][:3]
    return Material(vectors.ids([*rows]), vectors.pixels([*images]), learned, named, known, vectors.ids(words))


def _chosen_mix(
    towers: Towers, pool: _Pool, before: Score, max_fall: float, tried: Callable[[float], None]
) -> tuple[float, Pool]:
    """Return the best share of what was learned, on the images to choose on, with these; 0 if none is better."""
    best, chosen_mix, chosen_pool, worse = before.mrr, 0.0, pool.before, 0
    for mix in MIXES:
        tried(mix)
        towers.mix(mix)
        now = pool.now()
        score = now.scored()
        if before.control - score.control > max_fall:
            continue
        worse = 0 if score.mrr > best else worse + 1
        if score.mrr > best:
            best, chosen_mix, chosen_pool = score.mrr, mix, now
        elif chosen_mix and worse >= _WORSE:
            break
    return chosen_mix, chosen_pool


def _moved(towers: Towers, material: Material, pool: Pool, before: Score, max_fall: float) -> Array | None:
    """Return the matrix that moves texts of several images to where they tell these apart; see `naming`.

    Args:
        towers: the model as it is to be.
        material: what it learned from.
        pool: the images to choose on, as the model has them.
        before: the score of the model that was not trained.
        max_fall: how far recall@1 on the control set may fall.

    Returns:
        (D, D) matrix; None if it would lose more than `max_fall` of the MRR of these images, or of the control set.
        Captions say much besides names, and these images are few: a little less is within chance.
    """
    texts = towers.all_texts(material.texts)
    names = names_of(texts, towers.all_images(material.images), np.concatenate([material.own, material.new]))
    if names is None:
        return None
    stays = [towers.all_texts(material.words), texts[np.unique(material.known[:, 0])]]
    least = pool.scored().mrr
    for hold in HOLDS:
        matrix = moving(names, [vectors for vectors in stays if len(vectors)], hold)
        score = pool.with_texts(matrix).scored()
        if least - score.mrr <= max_fall and before.control - score.control <= max_fall:
            return matrix
    return None
