"""Which kinds of picture need an optional package, whether it is there, and the command that brings it.

Imports none of them, nor Pillow: who only searches folders asks here, too.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec

_EXTRA_OF = {".jxl": "jxl"}
"""Ending, in lower case -> the extra of clipsearch that reads such files."""
_PACKAGES = {"jxl": ("imagecodecs",), "formats": ("imagecodecs", "tifffile")}
"""Extra -> the packages that it is there for."""


def needed_extra(suffix: str) -> str | None:
    """The extra that has to be installed before files with this ending (".jxl", in any case) can be read.

    None if nothing is missing.
    """
    extra = _EXTRA_OF.get(suffix.lower())
    return None if extra is None or is_installed(extra) else extra


@functools.cache
def is_installed(extra: str) -> bool:
    """Whether the packages are there that an extra brings."""
    return all(find_spec(package) is not None for package in _PACKAGES[extra])


def install_command(extra: str) -> str:
    """What to type, in the form in which every message has it."""
    return f"pip install 'clipsearch[{extra}]'"


def readers() -> str:
    """The packages that decide which files can be read, with their versions: "pillow 13.0.0, ..., no rawpy"."""
    from importlib import metadata  # takes as long to import as all of Pillow

    def describe(package: str) -> str:
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            return f"no {package}"

    return ", ".join(describe(package) for package in ("pillow", "pillow-heif", "rawpy", "imagecodecs", "tifffile"))
