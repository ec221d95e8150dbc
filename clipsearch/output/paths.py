"""File names for output: relative to the current folder, exact in pipes, without control characters on terminals."""

from __future__ import annotations

import base64
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from clipsearch.system.paths import inside, logical_folder

_OBEYED = ("Cc", "Cf", "Zl", "Zp")
"""Unicode categories of control and format characters."""
_HARMLESS = "\u200c\u200d"
"""Format characters that are kept, since Persian words and many emoji need them."""
_AS_THEY_ARE = frozenset(range(0x20, 0x7F)) - frozenset(b"'\\")
"""Bytes that need no escape between the quotes of $'...'."""


def _python_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


_starts: list[bytes] = []
"""Prefixes that are removed from paths."""


def show_from(folder: Path) -> None:
    """Make `shown` return paths below `folder` relative to it from now on, in the whole process.

    `folder` may be given by its real path or by the shell's. Without a call, `shown` returns absolute paths.
    """
    name = os.fsencode(folder)
    _starts[:] = [inside(one) for one in (name, logical_folder(name)) if one]


def shown(path: bytes) -> bytes:
    """Return an absolute path relative to the folder of `show_from` if it lies below, else unchanged."""
    return next((path[len(start) :] for start in _starts if path.startswith(start)), path)


def printable(path: bytes) -> str:
    """Return a path for a terminal, with escapes for control characters and bytes that are not UTF-8."""
    return escaped(path.decode("utf-8", "backslashreplace"))


def typed(path: bytes) -> str | None:
    r"""Return `path` as typed in a shell, with octal escapes as in $'caf\351.png'; None if it needs no escapes."""
    if printable(path).encode() == path:
        return None
    typed = "".join(chr(b) if b in _AS_THEY_ARE else f"\\{b:03o}" for b in path)
    return f"$'{typed}'"


def escaped(text: str, escape: Callable[[str], str] = _python_escape) -> str:
    """Return `text` with control and format characters as escapes."""
    if text.isprintable():
        return text
    return "".join(escape(c) if unicodedata.category(c) in _OBEYED and c not in _HARMLESS else c for c in text)


def json_fields(path: bytes, name: str = "path") -> dict[str, str]:
    """Return the JSON fields of a path; if it is not UTF-8, with replacement characters, and lossless in base64."""
    try:
        return {name: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            name: path.decode("utf-8", "replace"),
            f"{name}_bytes": base64.b64encode(path).decode("ascii"),
        }
