"""The terms of a query: texts and images with weights, and their sum as one vector.

The module knows nothing of models; vectors are passed in.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from clipsearch.errors import InputError
from clipsearch.images.codecs.box import Box, check_box
from clipsearch.system.unicode import check_utf8
from clipsearch.unit import Vectors

_WEIGHT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)):(.*)", re.DOTALL)
_CANCELLED = 1e-4
"""A sum of weighted unit vectors that is shorter than this, relative to the weights, is rounding error."""


@dataclass(frozen=True)
class TextTerm:
    """A text of a query.

    Raises:
        InputError: the text is blank or not UTF-8, or the weight is zero or not finite.
    """

    text: str
    weight: float = 1.0
    """Factor of the vector; negative for what hits should not be like."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.text.strip():
            raise InputError("The query is empty.", hint="query")
        check_utf8(self.text, "The query")
        _check_weight(self.weight)


@dataclass(frozen=True)
class ImageTerm:
    """An image of a query, which similar images are searched for.

    Raises:
        InputError: the path is empty or contains a null character, the weight is zero or not finite, or the box is
            empty.
    """

    image: str | os.PathLike[str] | bytes
    """The path of the image, or the content of its file."""
    weight: float = 1.0
    """Factor of the vector; negative for what hits should not be like."""
    box: Box | None = None
    """The part of the image to compare; None for the whole image."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.image:
            raise InputError("The name of the image is empty.", hint="image")
        if not isinstance(self.image, bytes) and "\0" in os.fspath(self.image):
            raise InputError(f"No file can be named {os.fspath(self.image)!r}.")
        if self.box is not None:
            check_box(self.box)
        _check_weight(self.weight)


@dataclass(frozen=True)
class ContentTerm:
    """An image of the index, named by its content, which similar images are searched for. Its file is not read.

    Raises:
        InputError: the weight is zero or not finite.
    """

    content: bytes
    """The hash of the content, as in `Hit.content`."""
    weight: float = 1.0
    """Factor of the vector; negative for what hits should not be like."""

    def __post_init__(self) -> None:
        """Check the weight."""
        _check_weight(self.weight)


Term = TextTerm | ImageTerm | ContentTerm
_AnyTerm = TypeVar("_AnyTerm", bound=Term)


def parse_text(given: str) -> TextTerm:
    """Parse `TEXT` or `WEIGHT:TEXT`. After a backslash, a text that begins like a weight is taken as it is.

    Raises:
        InputError: the text is empty, or the weight is zero or not finite.
    """
    weight, text = _split(given)
    if text.startswith("\\") and _WEIGHT.fullmatch(text[1:]):
        text = text[1:]
    return TextTerm(text, weight)


def parse_image(given: str) -> ImageTerm:
    """Parse `FILE` or `WEIGHT:FILE`. A file whose name begins like a weight can be written with `./` before it.

    Raises:
        InputError: the name is empty, or the weight is zero or not finite.
    """
    weight, name = _split(given)
    return ImageTerm(name, weight)


def negated(term: _AnyTerm) -> _AnyTerm:
    """Return the term with its weight negated."""
    return replace(term, weight=-term.weight)


def _check_weight(weight: float) -> None:
    if not math.isfinite(weight) or weight == 0:
        raise InputError(f"A weight of {weight:g} means nothing. Use one like 0.5 or 2.")


def in_words(terms: Sequence[Term]) -> str:
    """Write a query in one line for people: `a dog + 0.5 snow - people`."""
    out = ""
    for term in terms:
        sign = "- " if term.weight < 0 else "+ " if out else ""
        weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g} "
        out += f"{' ' if out else ''}{sign}{weight}{_name(term)}"
    return out


def combined(vectors: Vectors, terms: Sequence[Term]) -> Vectors:
    """Return the (D,) unit vector of a query, from (T, D) unit vectors of its terms.

    It is the normalised weighted sum, so that scores are cosines.

    Raises:
        InputError: the terms cancel each other out.
    """
    weights = np.array([term.weight for term in terms])
    total = weights @ vectors.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length <= _CANCELLED * float(np.abs(weights).sum()):
        raise InputError(f"Nothing is left to look for: the terms of {in_words(terms)!r} cancel each other out.")
    return np.asarray(total / length, np.float32)


def _split(given: str) -> tuple[float, str]:
    found = _WEIGHT.fullmatch(given)
    return (float(found[1]), found[2]) if found else (1.0, given)


def _name(term: Term) -> str:
    if isinstance(term, TextTerm):
        return term.text
    if isinstance(term, ContentTerm):
        return "(an image of the index)"
    name = "an image" if isinstance(term.image, bytes) else os.fspath(term.image)
    return f"({name} at {term.box})" if term.box else f"({name})"
