"""File names as people and programs want them: relative where that is shorter, exact in pipes, harmless on screens."""

from __future__ import annotations

import base64
import os
import unicodedata
from collections.abc import Callable

from clipsearch.system.paths import inside, logical_folder

_OBEYED = ("Cc", "Cf", "Zl", "Zp")
"""Categories of characters that are not shown but do something."""
_HARMLESS = "\u200c\u200d"
"""Of these, what only joins or parts its neighbours: Persian words and many emoji need them."""


def _python_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shown(path: bytes) -> bytes:
    """`path` (absolute) relative to the current folder, if it lies below what the system or the shell calls that."""
    try:
        current = os.getcwdb()
    except OSError:  # it was deleted, and nothing lies below it
        return path
    inner = path.removeprefix(inside(current))
    if inner == path and (shell := logical_folder(current)):
        return path.removeprefix(inside(shell))
    return inner


def printable(path: bytes) -> str:
    """`path` for a terminal: undecodable bytes and control characters become escapes."""
    return escaped(path.decode("utf-8", "backslashreplace"))


def escaped(text: str, escape: Callable[[str], str] = _python_escape) -> str:
    """`text` with characters that a terminal would obey instead of showing them as escapes."""
    if text.isprintable():
        return text
    return "".join(escape(c) if unicodedata.category(c) in _OBEYED and c not in _HARMLESS else c for c in text)


def json_fields(path: bytes, name: str = "path") -> dict[str, str]:
    """`path` for JSON: with replacement characters, and then also lossless in base64, where it is not UTF-8."""
    try:
        return {name: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            name: path.decode("utf-8", "replace"),
            f"{name}_bytes": base64.b64encode(path).decode("ascii"),
        }
