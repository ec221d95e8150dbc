"""The vocabulary of the picture book: what there is, what it can do and be, and what people call it.

Holds the record types only; the tables live beside the drawings (`animals`, `people`, `things`, `emoji`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .canvas import RGB, Pen

PAINT = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "black", "white")
"""Colours of things that people paint."""


@dataclass(frozen=True)
class Look:
    """How one figure is to look: its action, the name of its colour, and that colour as it is today."""

    action: str | None
    colour: str | None
    rgb: RGB
    """The colour's (jittered) value; mid-grey where the kind has no colours."""
    rng: Random


@dataclass(frozen=True)
class Kind:
    """One kind of thing that scenes are made of."""

    name: str
    draw: Callable[[Pen, Look], None] | None
    """Draws the figure; None for a glyph (see `emoji`)."""
    nouns: tuple[str, ...]
    """What people call it, the commonest first; `nouns[0]` is `name` unless a better word exists."""
    hypernyms: tuple[str, ...] = ()
    """More general words: a dog is an animal and a pet."""
    actions: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    zone: str = "ground"
    """Where it belongs: "ground", "sky" or "water"."""
    size: float = 1.0
    """Height of the real thing on a flattened scale where a dog is 1, a mouse 0.5 and a house 1.5."""
    glyph: str = ""
    """The emoji, for kinds that are drawn by the font."""
