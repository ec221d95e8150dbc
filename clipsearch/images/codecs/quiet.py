"""Suppression of what image decoders write to stderr, by warnings, logging or C code."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from clipsearch.system.streams import for_talk


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Suppress Pillow's warnings and log, and what C libraries write to stderr.

    For a process of our own that reports on broken files itself, as the command line does; not for a library, whose
    caller may write to stderr by any way it likes. Enter it before there are threads. libtiff and LibRaw write to
    file descriptor 2, so that leads nowhere meanwhile, and `sys.stderr` and the fault handler to where it led before.
    """
    log = logging.getLogger("PIL")
    level = log.level
    with warnings.catch_warnings(), _descriptor_2_leads_nowhere():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)


@contextlib.contextmanager
def _descriptor_2_leads_nowhere() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # it is closed, so nothing can be written to it
        yield
        return
    stream, had_faulthandler = sys.stderr, faulthandler.is_enabled()
    with open(os.devnull, "wb") as nowhere:
        if _writes_to_2(stream):
            stream.flush()
            sys.stderr = for_talk(io.FileIO(kept, "w", closefd=False), stream.encoding)
        faulthandler.enable(kept)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        sys.stderr = stream
        if had_faulthandler:
            faulthandler.enable(2)
        else:
            faulthandler.disable()
        os.close(kept)


def _writes_to_2(stream: TextIO | None) -> bool:
    """Whether a stream writes to descriptor 2; False if there is no stderr, or it was replaced."""
    try:
        return stream is not None and stream.fileno() == 2  # noqa: PLR2004
    except (AttributeError, OSError, ValueError):
        return False
