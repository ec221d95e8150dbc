"""File names as people and programs want them: relative where that is shorter, exact in pipes, harmless on screens."""

from __future__ import annotations

import base64
import os
import unicodedata


def shown(path: bytes) -> bytes:
    """`path` (absolute) relative to the current folder if it lies below it."""
    here = os.getcwdb()
    prefix = here if here.endswith(os.fsencode(os.sep)) else here + os.fsencode(os.sep)
    return path.removeprefix(prefix)


def printable(path: bytes) -> str:
    """`path` for a terminal: undecodable bytes and control characters become escapes."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def json_fields(path: bytes) -> dict[str, str]:
    """`path` for JSON: with replacement characters, and then also lossless in base64, where it is not UTF-8."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            "path": path.decode("utf-8", "replace"),
            "path_bytes": base64.b64encode(path).decode("ascii"),
        }
