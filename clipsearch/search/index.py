"""The opened index, or several: searching it with texts and images. The model is passed in."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from clipsearch.errors import IndexDamagedError, InputError
from clipsearch.index.filters import FilterArguments, Filters
from clipsearch.index.format import broken_rows
from clipsearch.index.reading import Store
from clipsearch.index.selection import Selection, filters_of, rows_of_file, select
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.encoders import Encoders, vector_of_content, vector_of_image
from clipsearch.search.hit import Hit
from clipsearch.search.joint_ranking import JointRanking
from clipsearch.search.query_terms import ContentTerm, ImageTerm, Term, TextTerm, combined, in_words
from clipsearch.search.ranking import Asked, Limits, Ranking
from clipsearch.system.paths import absolute
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Matrix, Vectors

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Unpack

    from clipsearch.images.codecs.box import Box
    from clipsearch.index.regions import Regions
    from clipsearch.index.summary import Summary
    from clipsearch.index.updating import UpdateOptions
    from clipsearch.search.approximate import Approximate
    from clipsearch.search.kept_scores import KeptScores

_log = logging.getLogger(__name__)
Query = str | Term | Iterable[str | Term]
"""A text, a term, or several of them, which are added up."""


class Searcher:
    """One or several indexes of the same model, opened for searching. Use it as a context manager, or call `close`."""

    def __init__(self, stores: Sequence[Store], encoders: Encoders, kept: KeptScores | None = None) -> None:
        """Search all images of `stores`, at least one; a path that several of them have is found once.

        `kept` is for a single one that is searched many times.
        """
        self.stores = stores
        self._encoders = encoders
        self._kept = kept
        self._warned: set[str] = set()
        """Warnings about rows that are not unit vectors; each is logged once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def encoders(self) -> Encoders:
        """The model that embeds queries."""
        return self._encoders

    def close(self) -> None:
        """Close the files."""
        for store in self.stores:
            store.close()

    def search(
        self,
        query: Query,
        k: int | None = 10,
        *,
        min_score: float | None = None,
        min_confidence: float | None = None,
        distinct: float | None = None,
        whole: bool = False,
        approximate: bool = False,
        **filters: Unpack[FilterArguments],
    ) -> list[Hit]:
        """Find the images closest to a text, an image, or several of them together.

        Args:
            query: a text, a `TextTerm`, an `ImageTerm`, a `ContentTerm`, or a list of these, which are added up.
            k: the largest number of hits; None for all.
            min_score: the least cosine of a hit, in [-1, 1].
            min_confidence: the least confidence of a hit (see `Hit`), in [0, 1]; for queries of texts only.
            distinct: a threshold in (0, 1]. An image is left out if a better hit has the same content or, with a
                threshold below 1, a cosine with it of at least the threshold.
            whole: whether to compare whole images only, in an index with regions.
            approximate: whether to compare only the images that may be among the best by their codes, in an index
                made with `codes`.
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
            [query],
            k,
            min_score=min_score,
            min_confidence=min_confidence,
            distinct=distinct,
            whole=whole,
            approximate=approximate,
            **filters,
        )[0]

    def search_many(
        self,
        queries: Sequence[Query],
        k: int | None = 10,
        *,
        min_score: float | None = None,
        min_confidence: float | None = None,
        distinct: float | None = None,
        whole: bool = False,
        approximate: bool = False,
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
            whole: whether to compare whole images only; as for `search`.
            approximate: whether to compare by codes first; as for `search`.
            filters: which images are searched; as for `search`.

        Returns:
            The hits of each query, in the order of the queries.

        Raises:
            InputError: an argument is invalid, or an image cannot be read; as for `search`.
            ModelError: the model is needed and not available.
            IndexDamagedError: the index contradicts itself.
        """
        limits = Limits.checked(k, min_score, min_confidence, distinct, whole=whole, approximate=approximate)
        return self._search([_terms(query) for query in queries], limits, filters_of(filters, *self.stores))

    def similar(
        self,
        image: str | os.PathLike[str] | bytes,
        k: int | None = 10,
        *,
        box: Box | None = None,
        include_self: bool = False,
        min_score: float | None = None,
        distinct: float | None = None,
        whole: bool = False,
        approximate: bool = False,
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
            whole: whether to compare whole images only; as for `search`.
            approximate: whether to compare by codes first; as for `search`.
            filters: which images are searched; as for `search`.

        Returns:
            The hits by decreasing score, ties by path.

        Raises:
            InputError: the image cannot be read, an argument is invalid, or the box is not within the image.
            ModelError: the model is needed and not available.
            IndexDamagedError: the index contradicts itself.
        """
        limits = Limits.checked(k, min_score, None, distinct, whole=whole, approximate=approximate)
        term = ImageTerm(image, box=box)
        path = None if include_self or isinstance(image, bytes) else absolute(image)
        return self._search([[term]], limits, filters_of(filters, *self.stores), path)[0]

    # -- how -------------------------------------------------------------------------------------------------

    def _search(
        self, queries: list[list[Term]], limits: Limits, filters: Filters, left_out: bytes | None = None
    ) -> list[list[Hit]]:
        if limits.confidence is not None:
            for terms in queries:
                _check_in_words(terms)
        hits: list[list[Hit]] = [[] for _ in queries]
        filled = [store for store in self.stores if store.committed_rows()]
        if not queries or not filled:
            return hits
        asked = self._asked(queries)
        with ExitStack() as snapshots:
            # 1. Select the rows that take part.
            for store in filled:
                snapshots.enter_context(store.snapshot())
            rankings = [_ranking(store, limits, filters, left_out, self._kept) for store in filled]
            ranking = JointRanking(rankings)
            # 2. Rank, in one pass, all queries with the same unwanted texts.
            for unwanted in dict.fromkeys(one.unwanted for one in asked):
                members = [i for i, one in enumerate(asked) if one.unwanted == unwanted]
                same = [asked[i] for i in members]
                compared = any(one.wanted is not None for one in same)
                negatives = self._negatives(same[0].away) if compared else None
                ranked = ranking.hits(same, negatives, limits, self._encoders.neutral)
                for i, found in zip(members, ranked, strict=True):
                    hits[i] = found
        nothing = not any(hits) and limits.score is None and limits.confidence is None
        for store, one in zip(filled, rankings, strict=True):
            if one.broken:
                self._report_broken(store.folder, one.broken, nothing=nothing)
        return hits

    def _report_broken(self, folder: Path, count: int, *, nothing: bool) -> None:
        """Warn of rows that are not unit vectors, or raise an error if they are why `nothing` is found."""
        said = broken_rows(folder, count)
        if nothing:
            raise IndexDamagedError(f"Nothing can be found: {said}", hint="broken-rows", folder=folder)
        if said not in self._warned:
            self._warned.add(said)
            _log.warning("Left out: %s", said, extra={"hint": "broken-rows", "facts": {"folder": folder}})

    def _asked(self, queries: list[list[Term]]) -> list[Asked]:
        """Compute the vectors of queries; each text and image is embedded once."""
        terms = list(dict.fromkeys(term for terms in queries for term in terms))
        texts = list(dict.fromkeys(term.text for term in terms if isinstance(term, TextTerm)))
        of_texts: dict[str, Vectors] = {}
        if texts:
            of_texts = dict(zip(texts, self._encoders.embed_texts(texts), strict=True))
        parts_of_images = dict.fromkeys((term.image, term.box) for term in terms if isinstance(term, ImageTerm))
        of_images = {part: vector_of_image(self.stores, self._encoders, *part) for part in parts_of_images}

        def vector_of(term: Term) -> Vectors:
            if isinstance(term, TextTerm):
                return of_texts[term.text]
            if isinstance(term, ContentTerm):
                return vector_of_content(self.stores, term.content)
            return of_images[term.image, term.box]

        def sum_of(terms: list[Term]) -> Vectors:
            return combined(np.stack([vector_of(term) for term in terms]), terms)

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
            asked.append(Asked(vector, wanted, unwanted, away))
        return asked

    def _negatives(self, away: Vectors | None) -> NegativePrompts:
        neutral = self._encoders.negatives()
        if away is None:
            return neutral
        return NegativePrompts(np.concatenate([neutral.vectors, away]), neutral.neutral, neutral.logits)


class Index(Searcher):
    """An index opened for searching. Use it as a context manager, or call `close`."""

    def __init__(
        self,
        store: Store,
        encoders: Encoders,
        refresh: Callable[..., Summary] | None = None,
        kept: KeptScores | None = None,
    ) -> None:
        """Search `store`; `update` calls `refresh` with paths, a model's name, progress and `UpdateOptions`.

        `kept` has memory for scores, so that the same words are found sooner when they are searched again.
        """
        super().__init__([store], encoders, kept)
        self.store = store
        self._refresh = refresh

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


def _ranking(
    store: Store, limits: Limits, filters: Filters, left_out: bytes | None, kept: KeptScores | None
) -> Ranking:
    """Select the images that take part, without the file `left_out` (absolute), under all its names."""
    matrix, mask = select(store, filters, only_sound=False)
    if left_out is not None and (rows := rows_of_file(store, left_out)):
        mask = np.ones(len(matrix), np.bool_) if mask is None else mask
        mask[rows] = False
    regions = None if limits.whole else store.regions()
    approximate = _approximate(store, matrix, regions) if limits.approximate else None
    return Ranking(store, Selection(matrix, mask), regions, approximate, kept)


def _approximate(store: Store, matrix: Matrix, regions: Regions | None) -> Approximate:
    from clipsearch.search.approximate import Approximate

    if regions is not None:
        raise InputError("Regions have no codes; an approximate search compares whole images.", hint="whole")
    return Approximate(store, matrix)


def _terms(query: Query) -> list[Term]:
    given: Iterable[str | Term] = [query] if isinstance(query, str | Term) else query
    terms = [TextTerm(one) if isinstance(one, str) else one for one in given]
    if not terms:
        raise InputError("The query is empty.", hint="query")
    return terms


def _check_in_words(terms: list[Term]) -> None:
    if not all(isinstance(term, TextTerm) for term in terms) or all(term.weight < 0 for term in terms):
        raise InputError(
            f"There is no confidence in {in_words(terms)!r}: only words can be compared with neutral words.",
            hint="min-score",
        )
