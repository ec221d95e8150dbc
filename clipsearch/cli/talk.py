"""What commands say to the user, on stderr; stdout is for data. The package's log ends here."""

from __future__ import annotations

import logging
import sys


def say(message: str) -> None:
    """Talk to the user. What is quoted does nothing to a terminal."""
    try:
        from clipsearch.output.paths import escaped
    except (ImportError, MemoryError):  # too little memory is left even for that, and just this is to be said
        message = "\n".join(ascii(line)[1:-1] for line in message.split("\n"))
    else:
        message = "\n".join(map(escaped, message.split("\n")))
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def show_log(*, verbose: bool = False, quiet: bool = False) -> None:
    """Say what the package logs: warnings; with `verbose` also what is used and why, with `quiet` only errors."""
    log = logging.getLogger("clipsearch")
    log.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
    log.handlers = [_Said()]
    log.propagate = False


class _Said(logging.Handler):
    """Says each message, and what to type where the record has a hint, as errors have.

    What goes wrong on the way is an error of the command, as for all it says.
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if hint := getattr(record, "hint", None):
            from clipsearch.output.hints import in_words

            message = " ".join([message, *in_words([hint], getattr(record, "facts", {}))])
        say(message)
