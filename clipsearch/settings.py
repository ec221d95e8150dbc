"""Reads `clipsearch.toml`, the file of settings in a folder of images. Knows nothing of the effect of settings.

Arguments override the environment (`CLIPSEARCH_MODEL`, `CLIPSEARCH_INDEX`), which overrides the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from clipsearch.errors import InputError
from clipsearch.system.places import is_there

FILE_NAME = "clipsearch.toml"


@dataclass(frozen=True)
class Settings:
    """The content of one `clipsearch.toml`."""

    model: str | None = None
    """The name of a model; a path that begins with ./ or ../ is relative to the folder of the file."""


def find_settings(start: Path) -> Path | None:
    """Find the nearest `clipsearch.toml` in `start` (a folder or a file) or above it.

    Raises:
        InputError: the file system does not allow to find out.
    """
    start = start.absolute()
    return next((path for folder in (start, *start.parents) if is_there(path := folder / FILE_NAME)), None)


def read_settings(path: Path) -> Settings:
    """Read and check one settings file.

    Raises:
        InputError: the file is not TOML, or has an unknown key or a value of the wrong type.
    """
    try:
        if not path.is_file():  # opening a FIFO would block
            raise InputError(f"{path} is no file of settings.", hint="no-settings")
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    known = {field.name for field in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{path}: unknown setting {key!r}; known are: {', '.join(sorted(known))}")
        if not isinstance(value, str) or not value:
            raise InputError(f"{path}: {key} must be a text in quotes, not {value!r}")
    model = values.get("model")
    if model and model.startswith(("./", "../")):
        model = os.path.normpath(path.parent / model)
    return Settings(model=model)


def wanted_model(name: str | None, roots: Iterable[Path]) -> tuple[str, str] | None:
    """Return the model that is asked for, and the reason in words; None if there is none.

    Raises:
        InputError: the settings files of two roots name different models.
    """
    if name:
        return name, "as asked for"
    if name := os.environ.get("CLIPSEARCH_MODEL"):
        return name, "from CLIPSEARCH_MODEL"
    found: tuple[str, Path] | None = None
    for root in roots:
        path = find_settings(root)
        model = read_settings(path).model if path else None
        if path is None or model is None:
            continue
        if found and found[0] != model:
            raise InputError(f"{found[1]} asks for model {found[0]!r} and {path} for {model!r}.", hint="one-model")
        found = found or (model, path)
    return (found[0], f"from {found[1]}") if found else None
