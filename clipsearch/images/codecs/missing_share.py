"""Wording for the share of a damaged image that is missing. Imports no decoder."""

from __future__ import annotations


def percent(share: float) -> str:
    """Format a share as whole percent: 0.2 is "20%"; "100%" only if it is 1, and "0%" only if it is 0."""
    if 0 < share < 0.01:  # noqa: PLR2004
        return "less than 1%"
    return f"{min(share * 100, 99):.0f}%" if share < 1 else "100%"


def missing(share: float) -> str:
    """Describe an image of which this share is missing."""
    return f"{percent(share)} of it is missing"
