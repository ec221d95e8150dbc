"""Numbers of things, in words."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """Count things: 1 image, 2 images."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
