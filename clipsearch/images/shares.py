"""How it is said that a part of a picture is missing. Light: what only talks about pictures loads no decoder."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share for people: 0.2 is 20%; whole is only what is whole, and nothing what is nothing."""
    if 0 < share < 0.01:  # noqa: PLR2004
        return "less than 1%"
    return f"{min(share * 100, 99):.0f}%" if share < 1 else "100%"


def missing(share: float) -> str:
    """What is said of a picture that lacks a `share` of it."""
    return f"{percent(share)} of it is missing"
