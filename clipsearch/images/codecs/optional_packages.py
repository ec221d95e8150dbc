"""Optional packages for some image formats: which are needed, whether they are installed, how to install them.

Imports none of them, nor Pillow, since searching folders needs this, too.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec

_EXTRA_OF = {".jxl": "jxl"}
"""File name extension in lower case -> extra of clipsearch that reads such files."""
_PACKAGES = {"jxl": ("imagecodecs",), "formats": ("imagecodecs", "tifffile")}
"""Extra of clipsearch -> packages that it installs."""


def needed_extra(suffix: str) -> str | None:
    """Return the extra that must be installed to read files with this extension (".jxl", in any case), or None."""
    extra = _EXTRA_OF.get(suffix.lower())
    return None if extra is None or is_installed(extra) else extra


@functools.cache
def is_installed(extra: str) -> bool:
    """Whether the packages of an extra are installed."""
    return all(find_spec(package) is not None for package in _PACKAGES[extra])


def install_command(extra: str) -> str:
    """Command that installs an extra."""
    return f"pip install 'clipsearch[{extra}]'"


@functools.cache
def readers() -> str:
    """Versions of the packages that read images: "pillow 13.0.0, ..., no rawpy"."""
    from importlib import metadata  # takes as long to import as all of Pillow

    def describe(package: str) -> str:
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            return f"no {package}"

    return ", ".join(describe(package) for package in ("pillow", "pillow-heif", "rawpy", "imagecodecs", "tifffile"))
