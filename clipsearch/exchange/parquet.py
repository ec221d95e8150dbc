"""Imports the optional package pyarrow for reading and writing Parquet files."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from clipsearch.errors import InputError


def arrow() -> ModuleType:
    """Import pyarrow with its module for Parquet.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise InputError("Parquet files need pyarrow: pip install 'clipsearch[parquet]'") from error
