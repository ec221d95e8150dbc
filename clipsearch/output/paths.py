"""File names as people and programs want them: relative where that is shorter, exact in pipes, harmless on screens."""

from __future__ import annotations

import base64
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from clipsearch.system.paths import inside, logical_folder

_OBEYED = ("Cc", "Cf", "Zl", "Zp")
"""Categories of characters that are not shown but do something."""
_HARMLESS = "\u200c\u200d"
"""Of these, what only joins or parts its neighbours: Persian words and many emoji need them."""


def _python_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


_starts: list[bytes] = []
"""What paths begin with that are shown without it."""


def show_from(folder: Path) -> None:
    """From now on show paths relative to `folder`, if they lie below what the system or the shell calls that.

    It is for the one user of a process. Where nobody says where that user is, paths are shown whole.
    """
    name = os.fsencode(folder)
    _starts[:] = [inside(one) for one in (name, logical_folder(name)) if one]


def shown(path: bytes) -> bytes:
    """`path` (absolute) as `show_from` has it."""
    return next((path[len(start) :] for start in _starts if path.startswith(start)), path)


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
