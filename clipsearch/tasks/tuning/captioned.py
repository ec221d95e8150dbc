"""Captioned images and their vectors, divided by the content of the images into parts to train, choose and test on.

The control set, images and captions that the model knows already, has two parts: one to learn with, so that it is not
forgotten, and the other to show what is lost.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from clipsearch.datasets.captions import Captions
    from clipsearch.search.embedder import Embedder

LEAST_PAIRS = 10
TRAIN, CHOOSE, TEST = range(3)
"""The parts. A control set has no part to choose on."""
Pairs = npt.NDArray[np.int64]
"""(P, 2) index of a text and index of an image that it describes."""

_SHARES = (0.7, 0.15)
"""Shares of the images to train on and to choose on; the rest are for the test."""
_CONTROL_SHARES = (1 / 3, 0.0)
_WORDS = 1000
"""Number of words of the model's vocabulary to learn with. As many others show how far words move."""
_WORD = re.compile(r"[^\W\d_]{3,}")
"""A word that may be a name: three letters or more."""
_ENDINGS = ("", "s", "es")
"""What a word may end in and mean the same, as far as images show it."""
_SHORTEST = 3
"""Letters of a word of the vocabulary."""


class Captioned(NamedTuple):
    """Vectors of images and of their captions."""

    images: Vectors
    """(N, D) unit vectors."""
    texts: Vectors
    """(Q, D) unit vectors."""
    captions: Sequence[str]
    """(Q,) the texts themselves."""
    pairs: Pairs
    part: npt.NDArray[np.int64]
    """(N,) whether each image is for training (0), for choosing (1) or for the test (2)."""
    content: npt.NDArray[np.str_]
    """(N,) hash of the content of each image; no two are equal."""

    def of_parts(self, *parts: int) -> Captioned:
        """Return the images of some parts, with their captions."""
        images = np.flatnonzero(np.isin(self.part, parts))
        texts, pairs = chosen(self.pairs, images, len(self.images))
        captions = [self.captions[i] for i in texts]
        return Captioned(
            self.images[images], self.texts[texts], captions, pairs, self.part[images], self.content[images]
        )


class Division(NamedTuple):
    """Captioned images in parts, each content once."""

    kept: list[int]
    """(N,) index of each image among the given ones; of equal contents the first is kept."""
    pairs: Pairs
    """Pairs of texts and kept images."""
    part: npt.NDArray[np.int64]
    """(N,) part of each."""
    content: npt.NDArray[np.str_]
    """(N,) hash of the content of each, in hexadecimal."""


def divided(digests: Sequence[bytes], pairs: Iterable[tuple[int, int]], *, seed: int, control: bool) -> Division:
    """Divide captioned images into parts.

    Args:
        digests: a hash of the content of each image.
        pairs: index of a text and index of an image that it describes.
        seed: that of the division.
        control: whether this is a control set.

    Raises:
        InputError: there are too few different images.
    """
    first: dict[bytes, int] = {}
    for i, digest in enumerate(digests):
        first.setdefault(digest, i)
    if len(first) < LEAST_PAIRS and not control:
        raise _too_few(len(first))
    place = {digest: row for row, digest in enumerate(first)}
    merged = sorted({(text, place[digests[image]]) for text, image in pairs})
    part = parts([*first], seed, _CONTROL_SHARES if control else _SHARES)
    return Division([*first.values()], np.array(merged, np.int64), part, np.array([digest.hex() for digest in first]))


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


def chosen(pairs: Pairs, images: npt.NDArray[np.int64], count: int) -> tuple[npt.NDArray[np.int64], Pairs]:
    """Return the texts of some of `count` images, and the pairs of both with their places among these."""
    place = np.full(count, -1)
    place[images] = np.arange(len(images))
    found = pairs[place[pairs[:, 1]] >= 0]
    texts, rows = np.unique(found[:, 0], return_inverse=True)
    return texts, np.stack([rows, place[found[:, 1]]], axis=1)


class Batch(NamedTuple):
    """Some pairs, with each text and each image once."""

    texts: npt.NDArray[np.int64]
    """(Q,) indices of the texts."""
    images: npt.NDArray[np.int64]
    """(N,) indices of the images."""
    rows: npt.NDArray[np.int64]
    """(P,) place of the text of each pair among `texts`."""
    columns: npt.NDArray[np.int64]
    """(P,) place of the image of each pair among `images`."""
    wrong: npt.NDArray[np.bool_]
    """(Q, N) whether a text and an image are not a pair."""


def together(drawn: Pairs, pairs: Pairs) -> Batch:
    """Put some of all `pairs` together. Where captions or images repeat, all pairs among what was drawn are right."""
    texts, images = np.unique(drawn[:, 0]), np.unique(drawn[:, 1])
    at_text = np.full(pairs[:, 0].max() + 1, -1)
    at_image = np.full(pairs[:, 1].max() + 1, -1)
    at_text[texts], at_image[images] = np.arange(len(texts)), np.arange(len(images))
    rows, columns = at_text[pairs[:, 0]], at_image[pairs[:, 1]]
    both = (rows >= 0) & (columns >= 0)
    wrong = np.ones((len(texts), len(images)), np.bool_)
    wrong[rows[both], columns[both]] = False
    return Batch(texts, images, rows[both], columns[both], wrong)


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
        raise _too_few(len(captions.images))


def _too_few(images: int) -> InputError:
    return InputError(f"{images} different images are too few to be divided into three parts.")


def unreadable(path: bytes, error: object) -> InputError:
    """Return the error for an image with captions that cannot be read."""
    return InputError(f"Cannot read {os.fsdecode(path)}: {error}", hint="leave-line-out")


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
                raise unreadable(file.path, result)
            vectors.append(result)
            digests.append(digest or file.path)
            progress.advance(1, known=known)
    division = divided(digests, captions.pairs, seed=seed, control=control)
    images = np.stack([vectors[i] for i in division.kept])
    texts = embedder.embed_texts(captions.texts)
    return Captioned(images, texts, captions.texts, division.pairs, division.part, division.content)


def new_words(captions: Sequence[str], pairs: Pairs, tokenizer: Tokenizer) -> tuple[list[str], Pairs]:
    """Find words that a model's vocabulary lacks, as names and terms that somebody may look for.

    Captions name such a word together with much else, so it is learned faster by itself. What the vocabulary has is
    left out: a picture may well show snow if its caption does not say so. Where a word occurs with a plural -s or -es
    too, the images of that are among those of the word: two of a kind are of that kind.

    Returns:
        `captions` and a text for each such word that at least two images have in their captions, and `pairs` with those
        of these texts and images.
    """
    found: dict[str, set[int]] = {}
    unknown: dict[str, bool] = {}
    for text, image in pairs.tolist():
        for word in set(_WORD.findall(captions[text].lower())):
            if word not in unknown:
                unknown[word] = len(tokenizer.encode(word, add_special_tokens=False).ids) > 1
            if unknown[word]:
                found.setdefault(word, set()).add(image)
    rows = {text: row for row, text in enumerate(captions)}
    both = set(map(tuple, pairs.tolist()))
    for word in found:
        images = set().union(*(found.get(word + ending, ()) for ending in _ENDINGS))
        if len(images) > 1:
            row = rows.setdefault(f"{'an' if word[0] in 'aeiou' else 'a'} {word}", len(rows))
            both |= {(row, image) for image in images}
    return [*rows], np.array(sorted(both), np.int64)


def words(embedder: Embedder, seed: int) -> tuple[list[str], list[str]]:
    """Draw words from the model's vocabulary, texts that it knows, whatever it was trained on.

    Returns:
        Those to learn with, and those that show how far words move.
    """
    vocabulary = embedder.tokenizer.get_vocab()
    found = {piece.removesuffix("</w>").lstrip("▁") for piece in vocabulary if piece.endswith("</w>") or "▁" in piece}
    known = sorted(word for word in found if word.isalpha() and len(word) >= _SHORTEST)
    drawn = np.random.default_rng(seed).permutation(len(known))[: 2 * _WORDS]
    texts = [f"a {known[i]}" for i in drawn]
    return texts[::2], texts[1::2]
