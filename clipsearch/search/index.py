"""The opened index: searching it with texts and images. The model is passed in."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from clipsearch.errors import IndexDamagedError, InputError
from clipsearch.index.filters import FilterArguments, Filters
from clipsearch.index.format import Record, broken_rows
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of, rows_of_file, select
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.encoders import Encoders, vector_of_image
from clipsearch.search.hit import Hit
from clipsearch.search.query_terms import ImageTerm, Term, TextTerm, combined, in_words
from clipsearch.search.topk import Cut, Mask, Ranked, best, scores_of
from clipsearch.system.paths import absolute
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Matrix, Vectors, are_unit

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.images.box import Box
    from clipsearch.index.summary import Summary
    from clipsearch.index.updating import UpdateOptions

_log = logging.getLogger(__name__)
Query = str | Term | Iterable[str | Term]
"""A text, a term, or several of them, which are added up."""

_MORE = 4
"""Factor by which the number of candidates grows when too many of them are alike."""


class _Asked(NamedTuple):
    """The vectors of one query, for ranking and for confidence."""

    vector: Vectors
    """(D,) the vector that rows are ranked by."""
    wanted: Vectors | None
    """(D,) the positive terms alone; None for a query without positive terms or with images."""
    unwanted: tuple[str, ...]
    """The texts of the negative terms; empty where `wanted` is None."""
    away: Vectors | None
    """(U, D) the vectors of `unwanted`; None if it is empty."""


class _Rows(NamedTuple):
    """The rows that one search ranks."""

    matrix: Matrix
    mask: Mask | None
    """(rows,) whether each row takes part; None if all do."""
    broken: set[int]
    """Rows found so far that are not unit vectors."""


class Index:
    """An index opened for searching. Use it as a context manager, or call `close`."""

    def __init__(self, store: Store, encoders: Encoders, refresh: Callable[..., Summary] | None = None) -> None:
        """Search `store`; `update` calls `refresh` with paths, a model's name, progress and `UpdateOptions`."""
        self.store = store
        self._refresh = refresh
        self._encoders = encoders
        self._warned: set[str] = set()
        """Warnings about rows that are not unit vectors; each is logged once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self.store.close()

    def update(self, *, progress: Progress = SILENT, **options: Unpack[UpdateOptions]) -> Summary:
        """Bring the index up to date with the folders that it knows. Only new and changed images are embedded.

        Args:
            progress: is updated with the numbers of images found and done.
            options: `rules`, `skip_damaged`, `allow_empty`, `reread`, `max_pixels` and `wait`; as for `build_index`.

        Returns:
            The numbers of `images`, `embedded`, `unchanged`, `removed` and others, and the list of `unreadable` files.

        Raises:
            ClipsearchError: a folder is missing, the model is not available, or the index cannot be written.
        """
        if self._refresh is None:
            raise TypeError("an index that was not opened by open_index has no model to update it with")
        return self._refresh([], None, progress, **options)

    def search(
        self,
        query: Query,
        k: int | None = 10,
        *,
        min_score: float | None = None,
        min_confidence: float | None = None,
        distinct: float | None = None,
        **filters: Unpack[FilterArguments],
    ) -> list[Hit]:
        """Find the images closest to a text, an image, or several of them together.

        Args:
            query: a text, a `TextTerm`, an `ImageTerm`, or a list of these, which are added up.
            k: the largest number of hits; None for all.
            min_score: the least cosine of a hit, in [-1, 1].
            min_confidence: the least confidence of a hit (see `Hit`), in [0, 1]; for queries of texts only.
            distinct: a threshold in (0, 1]. An image is left out if a better hit has the same content or, with a
                threshold below 1, a cosine with it of at least the threshold.
            filters: `under`, `glob`, `seen_from`, `after`, `before`, `min_width`, `min_height`, `orientation` and
                `files`. Images that fulfil all given ones are searched; see `FilterArguments`.

        Returns:
            The hits by decreasing score, ties by path.

        Raises:
            InputError: the query, `k`, a threshold or a filter is invalid, or an image cannot be read.
            ModelError: the model is needed and not available.
            IndexDamagedError: the index contradicts itself.
        """
        return self.search_many(
            [query], k, min_score=min_score, min_confidence=min_confidence, distinct=distinct, **filters
        )[0]

    def search_many(
        self,
        queries: Sequence[Query],
        k: int | None = 10,
        *,
        min_score: float | None = None,
        min_confidence: float | None = None,
        distinct: float | None = None,
        **filters: Unpack[FilterArguments],
    ) -> list[list[Hit]]:
        """Find the images of several queries at once.

        The matrix is read once for all queries that have the same unwanted texts.

        Args:
            queries: each as for `search`.
            k: the largest number of hits for each query; None for all.
            min_score: the least cosine of a hit; as for `search`.
            min_confidence: the least confidence of a hit; as for `search`.
            distinct: from which cosine on images are alike; as for `search`.
            filters: which images are searched; as for `search`.

        Returns:
            The hits of each query, in the order of the queries.

        Raises:
            InputError: an argument is invalid, or an image cannot be read; as for `search`.
            ModelError: the model is needed and not available.
            IndexDamagedError: the index contradicts itself.
        """
        limits = _Limits.checked(k, min_score, min_confidence, distinct)
        return self._search([_terms(query) for query in queries], limits, filters_of(filters, self.store))

    def similar(
        self,
        image: str | os.PathLike[str] | bytes,
        k: int | None = 10,
        *,
        box: Box | None = None,
        include_self: bool = False,
        min_score: float | None = None,
        distinct: float | None = None,
        **filters: Unpack[FilterArguments],
    ) -> list[Hit]:
        """Find the images closest to an image.

        Args:
            image: its path, or the content of its file.
            k: the largest number of hits; None for all.
            box: the part of the image to compare; by default all of it.
            include_self: whether the image itself may be a hit. Otherwise all its paths in the index are left out,
                links included, but not its copies.
            min_score: the least cosine of a hit, in [-1, 1].
            distinct: from which cosine on images are alike; as for `search`.
            filters: which images are searched; as for `search`.

        Returns:
            The hits by decreasing score, ties by path.

        Raises:
            InputError: the image cannot be read, an argument is invalid, or the box is not within the image.
            ModelError: the model is needed and not available.
            IndexDamagedError: the index contradicts itself.
        """
        limits = _Limits.checked(k, min_score, None, distinct)
        term = ImageTerm(image, box=box)
        left_out = [] if include_self or isinstance(image, bytes) else rows_of_file(self.store, absolute(image))
        return self._search([[term]], limits, filters_of(filters, self.store), left_out)[0]

    # -- how -------------------------------------------------------------------------------------------------

    def _search(
        self, queries: list[list[Term]], limits: _Limits, filters: Filters, left_out: Sequence[int] = ()
    ) -> list[list[Hit]]:
        if limits.confidence is not None:
            for terms in queries:
                _check_in_words(terms)
        hits: list[list[Hit]] = [[] for _ in queries]
        if not queries or not self.store.committed_rows():
            return hits
        asked = self._asked(queries)
        with self.store.snapshot():
            # 1. Select the rows that take part.
            matrix, mask = select(self.store, filters, only_sound=False)
            if len(left_out):
                mask = np.ones(len(matrix), np.bool_) if mask is None else mask
                mask[left_out] = False
            rows = _Rows(matrix, mask, set())
            # 2. Rank, in one pass, all queries with the same unwanted texts.
            for unwanted in dict.fromkeys(one.unwanted for one in asked):
                members = [i for i, one in enumerate(asked) if one.unwanted == unwanted]
                ranking = self._ranked([asked[i] for i in members], rows, limits)
                for i, found in zip(members, ranking, strict=True):
                    hits[i] = found
        if rows.broken:
            folder = self.store.folder
            said = broken_rows(folder, len(rows.broken))
            if not any(hits) and limits.score is None and limits.confidence is None:
                raise IndexDamagedError(f"Nothing can be found: {said}", hint="broken-rows", folder=folder)
            if said not in self._warned:
                self._warned.add(said)
                _log.warning("Left out: %s", said, extra={"hint": "broken-rows", "facts": {"folder": folder}})
        return hits

    def _asked(self, queries: list[list[Term]]) -> list[_Asked]:
        """Compute the vectors of queries; each text and image is embedded once."""
        terms = list(dict.fromkeys(term for terms in queries for term in terms))
        texts = list(dict.fromkeys(term.text for term in terms if isinstance(term, TextTerm)))
        of_texts = dict(zip(texts, self._encoders.embed_texts(texts), strict=True)) if texts else {}
        parts_of_images = dict.fromkeys((term.image, term.box) for term in terms if isinstance(term, ImageTerm))
        of_images = {part: vector_of_image(self.store, self._encoders, *part) for part in parts_of_images}

        def sum_of(terms: list[Term]) -> Vectors:
            parts = [
                of_texts[one.text] if isinstance(one, TextTerm) else of_images[one.image, one.box] for one in terms
            ]
            return combined(np.stack(parts), terms)

        asked = []
        for all_of in queries:
            positive = [term for term in all_of if term.weight > 0]
            in_text = [term for term in all_of if isinstance(term, TextTerm)]
            unwanted = tuple(sorted({term.text for term in in_text if term.weight < 0}))
            compared = bool(positive) and len(in_text) == len(all_of)
            vector = sum_of(all_of)
            wanted = (vector if len(positive) == len(all_of) else sum_of(positive)) if compared else None
            unwanted = unwanted if compared else ()
            away = np.stack([of_texts[text] for text in unwanted]) if unwanted else None
            asked.append(_Asked(vector, wanted, unwanted, away))
        return asked

    def _ranked(self, asked: list[_Asked], rows: _Rows, limits: _Limits) -> list[list[Hit]]:
        """Rank queries with the same unwanted texts, and return their hits."""
        negatives = self._negatives(asked[0].away) if any(one.wanted is not None for one in asked) else None
        queries = np.stack([one.vector for one in asked])
        cut = None
        if limits.confidence is not None and negatives:
            cut = _cut(negatives, [one.wanted for one in asked if one.wanted is not None], limits.confidence)
        out = []
        for one, found in zip(asked, self._chosen(queries, rows, cut, limits), strict=True):
            scores, records = [score for score, _ in found], [record for _, record in found]
            sure: list[float | None] = [None] * len(found)
            if negatives and one.wanted is not None:
                found_rows = np.array([record.row for record in records], np.int64)
                cosines = scores_of(rows.matrix, found_rows, np.vstack([one.wanted, negatives.vectors]))
                sure = negatives.confidence(cosines[:1], cosines[1:])[0].tolist()
            alike: list[int | None] = [None] * len(found)
            if limits.distinct is not None:
                from clipsearch.search.distinct import others

                alike = [*others(self.store, rows.matrix, rows.mask, records, limits.distinct)]
            out.append([*map(Hit.of, records, range(1, len(found) + 1), scores, sure, alike)])
        return out

    def _chosen(
        self, queries: Vectors, rows: _Rows, cut: Cut | None, limits: _Limits
    ) -> list[list[tuple[float, Record]]]:
        """Return score and record of the best hits of (Q, D) queries, at most `limits.k` each, ties by path."""
        asked_for = k = len(rows.matrix) if limits.k is None else limits.k
        while True:
            ranking = self._in_order(self._best(rows, queries, asked_for, cut), limits.score, len(rows.matrix))
            if limits.distinct is None:
                return [found[:k] for found in ranking]
            from clipsearch.search.distinct import firsts

            # If many are alike, more candidates are needed to find `k` that are not.
            chosen = []
            for found in ranking:
                places = firsts(rows.matrix, [record for _, record in found], limits.distinct)
                chosen.append([found[place] for place in places[:k]])
            complete = (len(few) == k or len(found) < asked_for for few, found in zip(chosen, ranking, strict=True))
            if asked_for >= len(rows.matrix) or all(complete):
                return chosen
            asked_for = min(len(rows.matrix), _MORE * asked_for)

    def _best(self, rows: _Rows, queries: Vectors, k: int, cut: Cut | None) -> list[Ranked]:
        """Return the `k` best rows of each query, as `topk.best` does, without rows that are not unit vectors."""
        matrix, mask, broken = rows
        while True:
            ranking = best(matrix, queries, k, mask, cut, broken=broken)
            # np.unique is avoided: importing it takes as long as ranking a query.
            found = np.array(sorted({row for ranked in ranking for row in ranked.rows.tolist()}), np.int64)
            wrong = found[~are_unit(matrix[found])]
            if not len(wrong):
                return ranking
            # A row of zeros or of another length has a score that is not a cosine.
            broken.update(wrong.tolist())
            mask = np.ones(len(matrix), np.bool_) if mask is None else mask.copy()
            mask[wrong] = False

    def _in_order(self, rankings: list[Ranked], least: float | None, total: int) -> list[list[tuple[float, Record]]]:
        """Return score and record of the rows, of `total`, with at least the score `least`, ties by path."""
        floor = -np.inf if least is None else least
        found = [
            [(score, row) for row, score in zip(one.rows.tolist(), one.scores.tolist(), strict=True) if score >= floor]
            for one in rankings
        ]
        rows = list(dict.fromkeys(row for one in found for _, row in one))
        records = dict(zip(rows, self.store.images(rows, total), strict=True))
        return [
            sorted(((score, records[row]) for score, row in one), key=lambda item: (-item[0], item[1].path))
            for one in found
        ]

    def _negatives(self, away: Vectors | None) -> NegativePrompts:
        neutral = self._encoders.negatives()
        if away is None:
            return neutral
        return NegativePrompts(np.concatenate([neutral.vectors, away]), neutral.neutral, neutral.logits)


class _Limits(NamedTuple):
    """The largest number of hits, and the thresholds that hits have to reach."""

    k: int | None
    score: float | None
    confidence: float | None
    distinct: float | None

    @classmethod
    def checked(cls, k: int | None, score: float | None, confidence: float | None, distinct: float | None) -> _Limits:
        """Check that each value is in its range, or raise an InputError."""
        if k is not None and k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        if score is not None and not -1 <= score <= 1:
            raise InputError(f"A score is a cosine, from -1 to 1; no image can have {score:g}.")
        if confidence is not None and not 0 <= confidence <= 1:
            raise InputError(f"A confidence is from 0 to 1; no image can have {confidence:g}.")
        if distinct is not None and not 0 < distinct <= 1:
            raise InputError(f"Pictures are alike from a cosine above 0 and up to 1 on, as in 0.95; not {distinct:g}.")
        return cls(k, score, confidence, distinct)


def _terms(query: Query) -> list[Term]:
    given: Iterable[str | Term] = [query] if isinstance(query, str | TextTerm | ImageTerm) else query
    terms = [TextTerm(one) if isinstance(one, str) else one for one in given]
    if not terms:
        raise InputError("The query is empty.", hint="query")
    return terms


def _check_in_words(terms: list[Term]) -> None:
    if any(isinstance(term, ImageTerm) for term in terms) or all(term.weight < 0 for term in terms):
        raise InputError(
            f"There is no confidence in {in_words(terms)!r}: only words can be compared with neutral words.",
            hint="min-score",
        )


def _cut(negatives: NegativePrompts, wanted: list[Vectors], least: float) -> Cut:
    """Make a cut that excludes rows whose confidence is less than `least`."""
    prompts = len(negatives.vectors)
    stay_away = prompts > negatives.neutral
    # Without unwanted texts, queries equal `wanted`, whose scores ranking computes anyway.
    vectors = np.concatenate([negatives.vectors, *([np.stack(wanted)] if stay_away else [])])

    def takes_part(scores: Vectors, others: Vectors) -> Mask:
        judged = others[prompts:] if stay_away else scores
        return np.asarray(negatives.confidence(judged, others[:prompts]) >= least)

    return Cut(vectors, takes_part)
