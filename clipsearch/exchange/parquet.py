"""pyarrow, which is an extra, and what of it the two other modules that touch files need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from clipsearch.errors import InputError


def arrow() -> ModuleType:
    """The package pyarrow, with its part for Parquet.

    Raises:
        InputError: it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise InputError("Parquet files need pyarrow: pip install 'clipsearch[parquet]'") from error
